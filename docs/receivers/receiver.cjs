// WEBHOOK_SECRET=whsec_... PORT=3000 node receiver.cjs
const http = require("node:http");
const { verified } = require("./verify.cjs");

const secret = process.env.WEBHOOK_SECRET;
const port = process.env.PORT ?? 3000;

http
  .createServer(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    const body = Buffer.concat(parts); // raw: with Express, use express.raw({ type: "*/*" })
    const id = request.headers["webhook-id"] ?? "";
    const timestamp = request.headers["webhook-timestamp"] ?? "";
    const signatures = request.headers["webhook-signature"] ?? "";
    const fresh = Math.abs(Date.now() / 1000 - timestamp) <= 300;
    if (fresh && verified(secret, id, timestamp, signatures, body)) {
      // Store the event under its id, and do the work after the answer.
      console.log("accepted", id, JSON.parse(body).type);
      response.writeHead(204).end();
    } else {
      console.log("refused", id);
      response.writeHead(401).end();
    }
  })
  .listen(port, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${port}`));
