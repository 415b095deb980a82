// A receiver on loopback that verifies each POST with the npm package standardwebhooks.
//   node receiver.mjs PORT_FILE LOG_FILE
// LOG_FILE gets a line of JSON per POST: path, id, status, verified, body. PUT /PATH with
// {"secret": "whsec_...", "status": 200} sets the secret and the answer of that path.
import { appendFileSync, renameSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const [portFile, log] = process.argv.slice(2);
const paths = new Map();

async function text(request) {
  let body = "";
  request.setEncoding("utf8");
  for await (const chunk of request) body += chunk;
  return body;
}

function verified(secret, body, headers) {
  try {
    new Webhook(secret).verify(body, headers);
    return true;
  } catch {
    return false;
  }
}

const server = createServer(async (request, response) => {
  const body = await text(request);
  const known = paths.get(request.url) ?? {};
  if (request.method === "PUT") {
    paths.set(request.url, { ...known, ...JSON.parse(body) });
    return response.writeHead(204).end();
  }
  const line = {
    path: request.url,
    id: request.headers["webhook-id"],
    status: known.status ?? 200,
    verified: verified(known.secret, body, request.headers),
    body: JSON.parse(body),
  };
  appendFileSync(log, `${JSON.stringify(line)}\n`);
  response.writeHead(line.status).end();
});
server.listen(0, "127.0.0.1", () => {
  writeFileSync(`${portFile}.new`, String(server.address().port));
  renameSync(`${portFile}.new`, portFile);
});
