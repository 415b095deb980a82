// What verify.mjs and sign.mjs share: a message per line of standard input.
import readline from "node:readline";

export async function* messages() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    if (line.trim() === "") continue;
    const message = JSON.parse(line);
    message.body = Buffer.from(message.body_base64, "base64");
    yield message;
  }
}
