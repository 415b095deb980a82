// A ClickHouse server for the tests in a real Plausible. It offers ClickHouse's HTTP
// interface on top of the engine that the npm package chdb ships as a library.
//
//   node server.mjs DATA_DIR PORT_FILE
//
// It listens on a free port of 127.0.0.1 and writes the port to PORT_FILE. One
// connection runs one query at a time. SIGTERM closes the engine and ends the process.
// Users, roles, sessions, clusters, native compression and async inserts do not exist.
import { randomUUID } from "node:crypto";
import { mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { gunzipSync } from "node:zlib";

const require = createRequire(import.meta.url);
const { loadNative } = require(join(dirname(require.resolve("chdb")), "dist", "loader.js"));

const data = resolve(process.argv[2]);
const portFile = process.argv[3];
const uploads = join(data, "uploads");
mkdirSync(uploads, { recursive: true });

const engine = loadNative();
const connection = engine.CreateConnection(data);
const execute = (sql, format, parameters) =>
  Object.keys(parameters ?? {}).length > 0
    ? engine.QueryAsyncConnection(connection, sql, format, parameters)
    : engine.QueryAsyncConnection(connection, sql, format);
const text = async (sql) => Buffer.from((await execute(sql, "TSVRaw")).bytes).toString().trim();

const escaped = (value, quote) => quote + value.replace(/[\\'`]/g, "\\$&") + quote;

// The library starts with the conveniences of clickhouse-local, which change what a
// query without FROM or FORMAT means. A server has none of them.
const conveniences = "SELECT name FROM system.settings WHERE changed AND startsWith(name, 'implicit')";
const defaults = new Map((await text(conveniences)).split("\n").filter(Boolean).map((name) => [name, "0"]));
const version = await text("SELECT version()");
const timezone = await text("SELECT timezone()");

// --- Settings and database of a request

// The settings that the connection has now. A request changes only those that differ.
const current = new Map();

async function apply(settings, database) {
  const wanted = new Map([...defaults, ...settings]);
  for (const name of current.keys()) {
    if (wanted.has(name)) continue;
    await execute(`SET ${name} = DEFAULT`, "Null");
    current.delete(name);
  }
  for (const [name, value] of wanted) {
    if (current.get(name) === value) continue;
    await execute(`SET ${name} = ${escaped(value, "'")}`, "Null");
    current.set(name, value);
  }
  await execute(`USE ${escaped(database, "`")}`, "Null");
}

// Parameters of the HTTP interface that are not settings, or that one connection
// without users cannot honour.
const notSettings =
  /^(query|database|default_format|user|password|quota_key|query_id|session_.*|role|compress|decompress|buffer_size|wait_end_of_query|stacktrace|enable_http_compression|http_.*|send_progress_in_http_headers|readonly|async_insert|wait_for_async_insert|client_protocol_version)$/;

// --- Requests

async function read(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  return request.headers["content-encoding"] === "gzip" ? gunzipSync(body) : body;
}

// Drivers send long parameters as fields of a form.
function fields(body, contentType) {
  const boundary = /boundary="?([^";]+)/.exec(contentType)[1];
  return body
    .toString("latin1")
    .split(`--${boundary}`)
    .slice(1, -1)
    .map((part) => {
      const [head, ...rest] = part.split("\r\n\r\n");
      const value = rest.join("\r\n\r\n").replace(/\r\n$/, "");
      return [/name="([^"]*)"/.exec(head)[1], Buffer.from(value, "latin1").toString()];
    });
}

async function parse(request) {
  let body = await read(request);
  const type = request.headers["content-type"] ?? "";
  const given = [...new URL(request.url, "http://localhost").searchParams];
  if (type.startsWith("multipart/form-data")) {
    given.push(...fields(body, type));
    body = Buffer.alloc(0);
  }
  const parsed = { parameters: {}, settings: new Map(), query: "", body };
  parsed.database = request.headers["x-clickhouse-database"] ?? "default";
  parsed.format = request.headers["x-clickhouse-format"] ?? "TabSeparated";
  for (const [name, value] of given) {
    if (name.startsWith("param_")) parsed.parameters[name.slice("param_".length)] = value;
    else if (name === "query") parsed.query = value;
    else if (name === "database") parsed.database = value;
    else if (name === "default_format") parsed.format = value;
    else if (!notSettings.test(name)) parsed.settings.set(name, value);
  }
  return parsed;
}

// The statement of an INSERT ends with its format; the bytes after that are data.
const insertion = /^\s*(INSERT\s+INTO\s[^]*?)\sFORMAT\s+(\w+)[ \t]*;?[ \t]*(?:\r?\n|$)/i;

async function insert(statement, format, bytes, parameters) {
  const file = join(uploads, randomUUID());
  writeFileSync(file, bytes);
  try {
    const [, target, settings = ""] = /^([^]*?)(\sSETTINGS\s[^]*)?$/i.exec(statement);
    const source = `FROM INFILE ${escaped(file, "'")} COMPRESSION 'none'`;
    // The engine reads input('columns') from standard input; file() reads the upload.
    const sql = /\binput\s*\(/i.test(target)
      ? target.replace(/\binput\s*\(/i, () => `file(${escaped(file, "'")}, '${format}', `) + settings
      : `${target} ${source}${settings} FORMAT ${format}`;
    const { rowsRead } = await execute(sql, "Null", parameters);
    return { bytes: Buffer.alloc(0), written: rowsRead };
  } finally {
    rmSync(file, { force: true });
  }
}

async function answer({ query, body, format, parameters, settings, database }) {
  await apply(settings, database);
  const head = query || body.subarray(0, 65_536).toString("latin1");
  const match = insertion.exec(head);
  if (match && !/^values$/i.test(match[2])) {
    const statement = query ? match[1] : Buffer.from(match[1], "latin1").toString();
    const bytes = query ? body : body.subarray(match[0].length);
    return insert(statement, match[2], bytes, parameters);
  }
  const sql = query + body.toString();
  const named = /\bFORMAT\s+(\w+)\s*(?:SETTINGS\s[^]*)?;?\s*$/i.exec(sql)?.[1];
  const result = await execute(sql, format, parameters);
  const bytes = Buffer.from(result.bytes);
  // Drivers read an answer with a format as rows; a statement without rows has none.
  const rows = bytes.length > 0 || /^[\s(]*(SELECT|WITH|SHOW|DESC|DESCRIBE|EXPLAIN|EXISTS)\b/i.test(sql);
  return { bytes, format: rows ? (named ?? format) : undefined, written: 0 };
}

// --- Errors

// The HTTP statuses of ClickHouse's error codes that drivers tell apart.
const statuses = new Map([[516, 403], [497, 403], [164, 403], [60, 404], [81, 404], [16, 404], [47, 400], [62, 400], [46, 400], [27, 400], [48, 501]]);

function failure(error) {
  const message = String(error.message)
    .replace(/^(Code: \d+\. DB::Exception: )+/, "$1")
    .replace(/ \(version [^)]*\)/g, "")
    .trimEnd();
  const code = Number(/^Code: (\d+)/.exec(message)?.[1] ?? 1001);
  return { code, message, status: statuses.get(code) ?? 500 };
}

// --- The server

let previous = Promise.resolve();
const inTurn = (work) => (previous = previous.then(work, work));

async function handle(request, response) {
  const reply = (status, headers, body) =>
    response.writeHead(status, { ...headers, "Content-Length": body.length }).end(body);
  try {
    const parsed = await parse(request);
    if (parsed.query === "" && parsed.body.length === 0) return reply(200, {}, Buffer.from("Ok.\n"));
    const { bytes, format, written } = await inTurn(() => answer(parsed));
    const summary = { read_rows: "0", read_bytes: "0", written_rows: `${written}`, written_bytes: "0", result_rows: "0", result_bytes: `${bytes.length}` };
    reply(200, {
      "X-ClickHouse-Timezone": parsed.settings.get("session_timezone") ?? timezone,
      "X-ClickHouse-Summary": JSON.stringify(summary),
      ...(format && { "X-ClickHouse-Format": format }),
    }, bytes);
  } catch (error) {
    const { code, message, status } = failure(error);
    reply(status, { "X-ClickHouse-Exception-Code": code }, Buffer.from(`${message} (version ${version})\n`));
  }
}

const server = createServer({ keepAliveTimeout: 60_000, requestTimeout: 0, maxHeaderSize: 1 << 24 }, handle);
server.listen(0, "127.0.0.1", () => {
  writeFileSync(`${portFile}.new`, `${server.address().port}\n`);
  renameSync(`${portFile}.new`, portFile);
});

process.once("SIGTERM", () => {
  server.close();
  server.closeAllConnections();
  inTurn(() => {
    engine.CloseConnection(connection);
    process.exit(0);
  });
});
