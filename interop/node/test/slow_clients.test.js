// slow-clients: slowhttptest's four profiles at once, some hundred connections each, against a gateway with its default
// limits; and an ordinary client that must not notice.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { openSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";

import { freePort, startGateway } from "../stack/gateway.js";
import { end } from "../stack/process.js";

const FOLDER = process.env.INTEROP_FOLDER;
const CONNECTIONS = 200;
const LASTS_S = 16;
// For nineteen of twenty answers, and for every one: a machine may be busy with other things.
const ANSWERED_WITHIN_MS = 1000;
const ALL_WITHIN_MS = 10_000;
// More than the kernel takes of it for a client that does not read.
const LARGE = Buffer.alloc(1 << 20, "x");
// What slow connections may cost: a descriptor on either side of the gateway, and buffers, which are larger for a
// response that is not read than for a request that does not come.
const MAY_OPEN = 2 * 4 * CONNECTIONS + 64;
const MAY_GROW = CONNECTIONS * (1 << 20) + 3 * CONNECTIONS * (64 << 10);

// Each profile, and what is asked of it: a path, and how slow it is.
const PROFILES = {
  headers: ["-H", "/"],
  body: ["-B", "/", "-s", "100000", "-x", "8"],
  read: ["-X", "/large", "-w", "512", "-y", "1024", "-n", "1", "-z", "32"],
  range: ["-R", "/", "-t", "GET", "-a", "5", "-b", "2000"],
};

/** Runs a profile to its end; resolves to the lines of its figures, one for each second. */
async function run(name, url) {
  const [mode, path, ...more] = PROFILES[name];
  const figures = join(FOLDER, `slow-${name}`);
  const output = openSync(`${figures}.log`, "w");
  const load = ["-c", CONNECTIONS, "-r", CONNECTIONS, "-l", LASTS_S, "-i", 1, "-p", ALL_WITHIN_MS / 1000].map(String);
  const reports = ["-v", "1", "-g", "-o", figures];
  const args = [mode, ...load, ...reports, "-u", `${url}${path}`, ...more];
  const child = spawn("slowhttptest", args, { stdio: ["ignore", output, output] });
  await new Promise((resolve, reject) => {
    child.once("exit", resolve);
    child.once("error", reject);
  });
  const [, ...seconds] = readFileSync(`${figures}.csv`, "utf8").trim().split("\n");
  return seconds.map((line) => {
    const [second, closed, pending, connected, available] = line.split(",").map(Number);
    return { second, closed, pending, connected, available };
  });
}

/** One request on a connection of its own: its status, and how long it took. */
async function ordinary(url) {
  const begun = performance.now();
  const status = await new Promise((resolve) => {
    const call = request(`${url}/`, { agent: false, timeout: ALL_WITHIN_MS }, (response) => {
      response.resume();
      response.once("end", () => resolve(response.statusCode));
    });
    call.once("error", ({ code }) => resolve(code));
    call.once("timeout", () => call.destroy());
    call.end();
  });
  return { status, ms: performance.now() - begun };
}

describe("slowhttptest", () => {
  const log = join(FOLDER, "slow-clients.log");
  const answers = [];
  const peak = { descriptors: 0, resident: 0, connections: 0 };
  let ranged = 0;
  const server = createServer((request, response) => {
    ranged += request.headers.range ? 1 : 0;
    request.on("error", () => {});
    request.resume();
    request.on("end", () => response.end(request.url === "/large" ? LARGE : "ok"));
  });
  let gateway, figures, atRest;

  const held = () => {
    const status = readFileSync(`/proc/${gateway.pid}/status`, "utf8");
    const resident = Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)[1]) * 1024;
    return { descriptors: readdirSync(`/proc/${gateway.pid}/fd`).length, resident };
  };
  const metric = async (name, labels = "") => {
    const text = await (await fetch(`${gateway.admin}/metrics`)).text();
    const line = text.split("\n").find((sample) => sample.startsWith(`portcullis_${name}${labels} `));
    return Number(line?.split(" ").at(-1) ?? 0);
  };

  before(async () => {
    const port = await freePort();
    await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
    const config = join(FOLDER, "slow-clients.yaml");
    writeFileSync(
      config,
      `listeners: {public: {address: "127.0.0.1:\${PORT}"}}
admin: {address: "\${ADMIN_ADDRESS}"}
upstreams: {service: {endpoints: ["http://127.0.0.1:${port}"]}}
routes:
  # By default a slow reader has a minute, over which its rate is averaged.
  large: {match: {path: /large}, upstream: service, timeout: {idle: 5s}}
  all: {match: {path: "/*"}, upstream: service}
`,
    );
    const options = { binary: process.env.INTEROP_GATEWAY, config, folder: FOLDER };
    gateway = await startGateway("slow-clients", options);
    answers.push(await ordinary(gateway.url));
    atRest = held();

    let over = false;
    const watching = (async () => {
      while (!over) {
        const now = { ...held(), connections: await metric("connections") };
        for (const name of Object.keys(peak)) peak[name] = Math.max(peak[name], now[name]);
        await pause(100);
      }
    })();
    const calling = (async () => {
      while (!over) {
        answers.push(await ordinary(gateway.url));
        await pause(50);
      }
    })();
    try {
      const names = Object.keys(PROFILES);
      const each = await Promise.all(names.map((name) => run(name, gateway.url)));
      figures = Object.fromEntries(names.map((name, n) => [name, each[n]]));
    } finally {
      over = true;
      await Promise.all([watching, calling]);
    }
  }, { timeout: 60_000 });

  after(async () => {
    if (gateway) await end(gateway.child);
    server.closeAllConnections();
    server.close();
  });

  test(`hundreds are connected, and an ordinary client gets 200 within ${ANSWERED_WITHIN_MS} ms`, () => {
    assert.ok(peak.connections >= 2 * CONNECTIONS, `at most ${peak.connections} connections`);
    assert.ok(answers.length >= LASTS_S, `${answers.length} answers`);
    assert.deepEqual(answers.filter(({ status }) => status !== 200), [], `of ${answers.length}`);
    const times = answers.map(({ ms }) => ms).sort((a, b) => a - b);
    const [most, slowest] = [times[Math.floor(times.length * 0.95)], times.at(-1)];
    const told = `of ${times.length} answers 95 % within ${most.toFixed(0)} ms, all within ${slowest.toFixed(0)} ms`;
    console.log(told);
    assert.ok(most <= ANSWERED_WITHIN_MS && slowest <= ALL_WITHIN_MS, told);
  });

  test("slow headers are closed by the listener's header_timeout", async () => {
    const closed = await metric("incomplete_requests_total", '{cause="header_timeout"}');
    assert.equal(closed, CONNECTIONS);
    assert.ok(figures.headers.at(-1).second < LASTS_S, "before the client ends by itself");
  });

  test("slow bodies are refused by min_upload_rate with 408", async () => {
    const labels = '{class="4xx",protocol="http",route="all"}';
    assert.equal(await metric("requests_total", labels), CONNECTIONS);
    const lines = readFileSync(log, "utf8").split("\n");
    const refused = lines.filter((line) => line.includes('"http.response.status_code":408'));
    assert.ok(refused.length > 0);
    for (const line of refused) assert.ok(line.includes('"timeout.min_upload_rate"'), line);
    assert.ok(figures.body.at(-1).second < LASTS_S, "before the client ends by itself");
  });

  test("slow readers are cut off by min_download_rate", () => {
    const lines = readFileSync(log, "utf8").split("\n");
    const cut = lines.filter((line) => line.includes('"timeout.min_download_rate"'));
    console.log(`${cut.length} of ${CONNECTIONS} slow readers cut off`);
    // The others have had less than that time when the client ends.
    assert.ok(cut.length >= CONNECTIONS / 2, `${cut.length} of ${CONNECTIONS}`);
  });

  test("requests for many ranges are answered as others are", async () => {
    assert.equal(ranged, CONNECTIONS);
    const answered = await metric("requests_total", '{class="2xx",protocol="http",route="all"}');
    assert.ok(answered >= CONNECTIONS + answers.length, `${answered} answered`);
  });

  test("its own probe finds the service available in each second", () => {
    for (const [name, seconds] of Object.entries(figures)) {
      const away = seconds.filter(({ available }) => !available);
      assert.deepEqual(away, [], name);
    }
  });

  test("descriptors and memory stay bounded", () => {
    const opened = peak.descriptors - atRest.descriptors;
    const grown = peak.resident - atRest.resident;
    console.log(`${opened} descriptors, ${(grown / (1 << 20)).toFixed(0)} MiB more than at rest`);
    assert.ok(opened <= MAY_OPEN, `${opened} more descriptors`);
    assert.ok(grown <= MAY_GROW, `${grown >> 20} MiB more`);
  });

  test("afterwards the gateway is idle", async () => {
    const until = Date.now() + 10_000;
    let left;
    while ((left = await metric("connections")) > 0 && Date.now() < until) await pause(50);
    assert.equal(left, 0);
    assert.equal((await ordinary(gateway.url)).status, 200);
  });
});
