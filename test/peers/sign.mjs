// Signs messages with the npm package standardwebhooks, for us to verify.
// stdin:  a line of JSON for each: id, timestamp (Unix seconds), body_base64
//         (UTF-8 for v1: the package signs text), secret (whsec_..., or whsk_...
//         for Node's crypto).
// stdout: the same lines with the signature added.
import { Webhook } from "standardwebhooks";

import { messages, signEd25519 } from "./messages.mjs";

for await (const { body, ...message } of messages()) {
  const signature = message.secret.startsWith("whsk_")
    ? signEd25519({ ...message, body })
    : new Webhook(message.secret).sign(message.id, new Date(message.timestamp * 1000), body);
  console.log(JSON.stringify({ ...message, signature }));
}
