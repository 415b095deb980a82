const id = {{id}};
const timestamp = {{timestamp}};
const signatures = {{signature}};
const body = {{body}}; // raw, before it is parsed
const genuine = verified(process.env.WEBHOOK_SECRET, id, timestamp, signatures, body);
const age = Math.abs(Date.now() / 1000 - timestamp); // refuse more than 300
console.log(genuine ? "verified" : "NOT verified", `${Math.round(age)} s old`);
