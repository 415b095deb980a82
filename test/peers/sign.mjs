// Signs messages with the npm package standardwebhooks, for us to verify.
// stdin:  a line of JSON for each: id, timestamp (Unix seconds), body_base64
//         (UTF-8: the package signs text), secret (whsec_...).
// stdout: the same lines with the signature added.
import { Webhook } from "standardwebhooks";

import { messages } from "./messages.mjs";

for await (const { body, ...message } of messages()) {
  const signature = new Webhook(message.secret).sign(
    message.id,
    new Date(message.timestamp * 1000),
    body,
  );
  console.log(JSON.stringify({ ...message, signature }));
}
