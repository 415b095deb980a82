const { createHmac, timingSafeEqual } = require("node:crypto");

const id = {{id}};
const timestamp = {{timestamp}};
const signatures = {{signature}};
const body = {{body}}; // raw, before it is parsed

const key = Buffer.from(process.env.WEBHOOK_SECRET.replace(/^whsec_/, ""), "base64");
const mac = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest();
const verified = signatures.split(" ").some((signature) => {
  const given = Buffer.from(signature.replace(/^v1,/, ""), "base64");
  return signature.startsWith("v1,") && given.length === mac.length && timingSafeEqual(given, mac);
});
const age = Math.abs(Date.now() / 1000 - Number(timestamp)); // refuse more than 300
console.log(verified ? "verified" : "NOT verified", `${Math.round(age)} s old`);
