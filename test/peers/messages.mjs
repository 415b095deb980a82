// What verify.mjs and sign.mjs share: NDJSON in, and Ed25519 by Node's crypto,
// since the standardwebhooks package knows v1 only.
import crypto from "node:crypto";
import readline from "node:readline";

const SPKI = Buffer.from("302a300506032b6570032100", "hex");
const PKCS8 = Buffer.from("302e020100300506032b657004220420", "hex");

export async function* messages() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    if (line.trim() === "") continue;
    const message = JSON.parse(line);
    message.body = Buffer.from(message.body_base64, "base64");
    yield message;
  }
}

function signed(message) {
  return Buffer.concat([Buffer.from(`${message.id}.${message.timestamp}.`), message.body]);
}

export function verifyEd25519(message) {
  const raw = Buffer.from(message.secret.slice("whpk_".length), "base64");
  const key = crypto.createPublicKey({
    key: Buffer.concat([SPKI, raw]),
    format: "der",
    type: "spki",
  });
  return message.signature
    .split(" ")
    .filter((entry) => entry.startsWith("v1a,"))
    .some((entry) =>
      crypto.verify(null, signed(message), key, Buffer.from(entry.slice(4), "base64")),
    );
}

export function signEd25519(message) {
  const raw = Buffer.from(message.secret.slice("whsk_".length), "base64");
  const key = crypto.createPrivateKey({
    key: Buffer.concat([PKCS8, raw.subarray(0, 32)]),
    format: "der",
    type: "pkcs8",
  });
  return "v1a," + crypto.sign(null, signed(message), key).toString("base64");
}
