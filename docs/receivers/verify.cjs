const { createHmac, timingSafeEqual } = require("node:crypto");

// Whether one of the signatures was made with the secret. `body` is a Buffer: the raw body.
function verified(secret, id, timestamp, signatures, body) {
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const mac = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest();
  return signatures.split(" ").some((signature) => {
    const [version, value] = signature.split(",");
    const given = Buffer.from(value ?? "", "base64");
    return version === "v1" && given.length === mac.length && timingSafeEqual(given, mac);
  });
}

module.exports = { verified };
