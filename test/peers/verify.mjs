// Verifies deliveries with the npm package standardwebhooks.
// stdin:  a line of JSON for each: id, timestamp (Unix seconds), signature (the
//         whole header), body_base64 (UTF-8: the package reads text), secret
//         (whsec_...); optional now (Unix seconds) to replay an old delivery.
// stdout: "N passed, N failed"; stderr: one line for each that failed.
// status: 0 when all passed and there was at least one.
import { Webhook, WebhookVerificationError } from "standardwebhooks";

import { messages } from "./messages.mjs";

const realNow = Date.now;

function verify(message) {
  Date.now = message.now === undefined ? realNow : () => message.now * 1000;
  try {
    new Webhook(message.secret).verify(message.body, {
      "webhook-id": message.id,
      "webhook-timestamp": String(message.timestamp),
      "webhook-signature": message.signature,
    });
  } catch (error) {
    // The package parses the body after it has verified the signature. A body
    // that is not JSON is verified too.
    if (error instanceof WebhookVerificationError || !(error instanceof SyntaxError)) throw error;
  } finally {
    Date.now = realNow;
  }
}

let passed = 0;
let failed = 0;
for await (const message of messages()) {
  try {
    verify(message);
    passed += 1;
  } catch (error) {
    failed += 1;
    console.error(`${message.id}: ${error.message}`);
  }
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
