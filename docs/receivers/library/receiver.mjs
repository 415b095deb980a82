// npm install standardwebhooks
// WEBHOOK_SECRET=whsec_... PORT=3000 node receiver.mjs
import http from "node:http";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.WEBHOOK_SECRET);
const port = process.env.PORT ?? 3000;

http
  .createServer(async (request, response) => {
    const parts = [];
    for await (const part of request) parts.push(part);
    const id = request.headers["webhook-id"];
    try {
      const event = webhook.verify(Buffer.concat(parts), request.headers);
      console.log("accepted", id, event.type);
      response.writeHead(204).end();
    } catch (error) {
      console.log("refused", id, error.message);
      response.writeHead(401).end();
    }
  })
  .listen(port, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${port}`));
