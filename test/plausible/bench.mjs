// The load, the receivers and the measurements of bench.sh.
//   node bench.mjs receive PORT_FILE COUNT    COUNT receivers that answer 200 at once
//   node bench.mjs measure CONFIG.json        sends the requests in turns, prints a table
//   node bench.mjs load CONFIG.json KIND      sends the requests of one kind
// CPU time is what the kernel accounts to the threads of each process, in nanoseconds.
import { readFileSync, readdirSync, renameSync, writeFileSync } from "node:fs";
import { Agent, createServer, request } from "node:http";

async function receive(portFile, count) {
  let posts = 0;
  const ports = [];
  for (let n = 0; n < Number(count); n++) {
    const server = createServer((incoming, answer) => {
      if (incoming.method === "GET") return answer.end(String(posts));
      incoming.resume().on("end", () => (posts++, answer.end()));
    });
    server.keepAliveTimeout = 60_000;
    await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
    ports.push(server.address().port);
  }
  writeFileSync(`${portFile}.new`, ports.join(" "));
  renameSync(`${portFile}.new`, portFile);
}

const lines = (file) => {
  try {
    return readFileSync(file, "utf8").split("\n").filter(Boolean);
  } catch {
    return [];
  }
};
const threads = (pid) => {
  try {
    return readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
};
const nanoseconds = (pid, thread) => Number(lines(`/proc/${pid}/task/${thread}/schedstat`)[0]?.split(" ")[0] ?? 0);
const cpu = (pid) => threads(pid).reduce((sum, thread) => sum + nanoseconds(pid, thread), 0);
const children = (pid) => lines(`/proc/${pid}/task/${pid}/children`).join(" ").split(" ").filter(Boolean);

// The VM's schedulers run Elixir; its dirty IO threads run the engine of webhooks, and files.
function vm(pid) {
  const sums = { "Elixir code": 0, "dirty IO (engine)": 0, "rest of the VM": 0 };
  for (const thread of threads(pid)) {
    const name = lines(`/proc/${pid}/task/${thread}/comm`)[0] ?? "";
    const group = /^erts_sched/.test(name) ? "Elixir code" : /^erts_dio/.test(name) ? "dirty IO (engine)" : "rest of the VM";
    sums[group] += nanoseconds(pid, thread);
  }
  return sums;
}

function post(agent, port, site) {
  const body = JSON.stringify({ n: "Signup", d: site, u: `https://${site}/register`, p: { plan: "growth", author: "Eva" } });
  const headers = {
    "content-type": "text/plain",
    "content-length": Buffer.byteLength(body),
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
    "x-forwarded-for": `82.34.${Math.floor(Math.random() * 250)}.${Math.floor(Math.random() * 250)}`,
  };
  return new Promise((resolve, reject) => {
    const sent = request({ agent, host: "127.0.0.1", port, path: "/api/event", method: "POST", headers }, (answer) => {
      const dropped = answer.headers["x-plausible-dropped"];
      answer.resume().on("end", () => (answer.statusCode === 202 && !dropped ? resolve() : reject(new Error(`${site}: ${answer.statusCode}, dropped: ${dropped}`))));
    });
    sent.on("error", reject).end(body);
  });
}

async function load(config, kind, count) {
  const agent = new Agent({ keepAlive: true, maxSockets: config.concurrency });
  let next = 0;
  const client = async () => {
    while (next < count) await post(agent, kind.port, `${kind.site}${next++ % config.sites}.example.com`);
  };
  await Promise.all(Array.from({ length: config.concurrency }, client));
  agent.destroy();
}

const posts = async (config) => Number(await (await fetch(`http://127.0.0.1:${config.receiver_port}/`)).text());
const pause = (ms) => new Promise((over) => setTimeout(over, ms));

// What the VM does without requests, in nanoseconds per second.
async function idle(config) {
  const before = config.kinds.map((kind) => vm(kind.pid));
  await pause(10_000);
  config.kinds.forEach((kind, k) => {
    kind.idle = vm(kind.pid);
    for (const name of Object.keys(kind.idle)) kind.idle[name] = (kind.idle[name] - before[k][name]) / 10;
  });
}

async function turn(config, kind) {
  const pids = { PostgreSQL: [config.pids.postgres, ...children(config.pids.postgres)], ClickHouse: [config.pids.clickhouse], receivers: [config.pids.receiver], "load generator": [process.pid] };
  const sample = () => ({
    ...vm(kind.pid),
    ...Object.fromEntries(Object.entries(pids).map(([name, all]) => [name, all.reduce((sum, pid) => sum + cpu(pid), 0)])),
  });
  const arrived = (await posts(config)) + (kind.deliveries ? config.count : 0);
  const before = sample();
  const start = performance.now();
  await load(config, kind, config.count);
  const seconds = (performance.now() - start) / 1000;
  // The deliveries of these requests belong to their cost.
  for (let n = 0; (await posts(config)) < arrived; n++) {
    if (n > 600) throw new Error(`${arrived - (await posts(config))} deliveries did not arrive`);
    await pause(100);
  }
  await pause(1500);
  const after = sample();
  const elapsed = (performance.now() - start) / 1000;
  const costs = {};
  for (const [name, value] of Object.entries(after)) costs[name] = (value - before[name] - (kind.idle[name] ?? 0) * elapsed) / 1000 / config.count;
  return { rate: config.count / seconds, costs };
}

async function single(file, kind) {
  const config = JSON.parse(readFileSync(file, "utf8"));
  await load(config, config.kinds[Number(kind)], config.count);
}

const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];

async function measure(file) {
  const config = JSON.parse(readFileSync(file, "utf8"));
  const turns = config.kinds.map(() => []);
  // Before the first request: later ones may still have work to leave.
  await idle(config);
  for (const kind of config.kinds) await load(config, kind, config.warm_up);
  await pause(5000);
  for (let round = 0; round < config.rounds; round++) {
    for (let n = 0; n < config.kinds.length; n++) {
      const k = (n + round) % config.kinds.length;
      turns[k].push(await turn(config, config.kinds[k]));
    }
  }
  const names = Object.keys(turns[0][0].costs);
  const total = (t) => names.filter((name) => name !== "load generator").reduce((sum, name) => sum + t.costs[name], 0);
  const row = (label, cells) => console.log(`| ${[label, ...cells].join(" | ")} |`);
  row("", config.kinds.map((kind) => kind.name));
  row("---", config.kinds.map(() => "---:"));
  const own = (k, value) => median(turns[k].map(value));
  // Each turn is compared with the same round's turn of the first kind.
  const change = (k, value) => {
    const percent = (median(turns[k].map((t, round) => value(t) / value(turns[0][round]))) - 1) * 100;
    return k === 0 ? "" : ` (${percent < 0 ? "−" : "+"}${Math.abs(percent).toFixed(1)} %)`;
  };
  row("VM without requests, CPU ms per second", config.kinds.map((kind) => (Object.values(kind.idle).reduce((sum, value) => sum + value) / 1e6).toFixed(1)));
  row("requests per second", turns.map((_, k) => `${own(k, (t) => t.rate).toFixed(0)}${change(k, (t) => t.rate)}`));
  for (const name of names) row(`${name}, CPU µs`, turns.map((_, k) => own(k, (t) => t.costs[name]).toFixed(0)));
  row("all but the load generator, CPU µs", turns.map((_, k) => `${own(k, total).toFixed(0)}${change(k, total)}`));
}

// Below what it uses: a constant does not exist before its line.
const [command, ...rest] = process.argv.slice(2);
await { receive, measure, load: single }[command](...rest);
