// proxy-protocol: HAProxy, NGINX and stunnel before the gateway, which announce their clients.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { promisify } from "node:util";

import { freePort, startGateway } from "../stack/gateway.js";
import { end, hasEnded, start } from "../stack/process.js";
import { check, eventually } from "./support.js";

const RUN = promisify(execFile);
const FOLDER = join(process.env.INTEROP_FOLDER, "proxy-protocol");
// The loopback's other addresses are clients; the balancers are this one.
const [BALANCER, CLIENT] = ["127.0.0.1", "127.0.0.5"];
const VERSIONS = { "HTTP/1.1": "--http1.1", "HTTP/2": "--http2-prior-knowledge" };

const started = [];
let service;
let gateway;
let tlsPort;

before(async () => {
  rmSync(FOLDER, { recursive: true, force: true });
  mkdirSync(FOLDER, { recursive: true });
  service = createServer((request, response) => {
    const { "x-forwarded-for": client, "x-forwarded-proto": proto } = request.headers;
    response.end(JSON.stringify({ client, proto }));
  });
  const port = await freePort();
  await new Promise((resolve) => service.listen(port, "127.0.0.1", resolve));
  const [certificate, key] = [file("gateway.pem"), file("gateway.key")];
  const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"];
  const options = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", ...subject];
  await RUN("openssl", ["req", ...options, "-keyout", key, "-out", certificate]);
  writeFileSync(file("both.pem"), readFileSync(certificate) + readFileSync(key));
  tlsPort = await freePort();
  const from = `proxy_protocol: {from: [${BALANCER}]}`;
  const tls = `tls: {certificates: [{certificate: ${certificate}, key: ${key}}]}`;
  const config = write(
    "gateway.yaml",
    `listeners:
  plain: {address: "127.0.0.1:\${PORT}", ${from}}
  secure: {address: "127.0.0.1:${tlsPort}", ${from}, ${tls}}
admin: {address: "\${ADMIN_ADDRESS}"}
upstreams: {service: {endpoints: ["http://127.0.0.1:${port}"]}}
routes: {all: {match: {path: "/*"}, upstream: service}}
`,
  );
  const binary = process.env.INTEROP_GATEWAY;
  gateway = await startGateway("proxy-protocol-gateway", { binary, config, folder: FOLDER });
  started.push(gateway.child);
});

after(async () => {
  for (const child of started.reverse()) await end(child);
  service.closeAllConnections();
  service.close();
});

function file(name) {
  return join(FOLDER, name);
}

function write(name, text) {
  writeFileSync(file(name), text);
  return file(name);
}

/** Servers are out of the path of users in some distributions. */
function server(name) {
  const at = ["/usr/sbin", "/usr/local/sbin", "/usr/bin"].map((folder) => join(folder, name));
  return at.find(existsSync) ?? name;
}

/** Starts a balancer and waits until it listens on each of `ports`. */
async function balancer(name, command, args, ports) {
  const log = file(`${name}.log`);
  const child = start(server(command), args, { log });
  started.push(child);
  for (const port of ports) {
    const until = Date.now() + 20_000;
    while (!(await listens(port))) {
      const last = readFileSync(log, "utf8").slice(-500);
      assert.ok(Date.now() < until && !hasEnded(child), `${name} does not listen: ${last}`);
      await pause(50);
    }
  }
}

function listens(port) {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => (socket.destroy(), resolve(true)));
    socket.on("error", () => resolve(false));
  });
}

/** What the service is told of a call that comes from CLIENT. */
async function seen(url, ...options) {
  const common = ["--silent", "--show-error", "--fail", "--insecure", "--max-time", "20"];
  const from = ["--noproxy", "*", "--interface", CLIENT];
  const { stdout } = await RUN("curl", [...common, ...from, ...options, url]);
  return JSON.parse(stdout);
}

async function metric(name) {
  const response = await fetch(`${gateway.admin}/metrics`);
  const lines = (await response.text()).split("\n").filter((line) => line.startsWith(`${name}{`));
  return lines.reduce((sum, line) => sum + Number(line.split(" ").pop()), 0);
}

/** Nothing that a balancer has sent so far was refused. */
async function refusedNothing() {
  assert.equal(await metric("portcullis_proxy_headers_refused_total"), 0);
}

function announces(plain, secure) {
  for (const [version, option] of Object.entries(VERSIONS)) {
    check(`announces the client over ${version}`, async () => {
      const expected = { client: CLIENT, proto: "http" };
      assert.deepEqual(await seen(`http://127.0.0.1:${plain()}/`, option), expected);
      await refusedNothing();
    });
  }
  for (const option of secure ? ["--http1.1", "--http2"] : []) {
    check(`announces the client before TLS, with ${option}`, async () => {
      const expected = { client: CLIENT, proto: "https" };
      assert.deepEqual(await seen(`https://127.0.0.1:${secure()}/`, option), expected);
      await refusedNothing();
    });
  }
}

for (const option of ["send-proxy", "send-proxy-v2"]) {
  describe(`HAProxy with ${option}`, () => {
    let ports;
    let stats;
    before(async () => {
      ports = [await freePort(), await freePort()];
      stats = await freePort();
      const { port } = new URL(gateway.url);
      const targets = [port, tlsPort];
      const proxies = targets.map(
        (target, i) => `listen to-${i}
  bind 127.0.0.1:${ports[i]}
  server gateway 127.0.0.1:${target} ${option} check check-send-proxy inter 200ms rise 1 fall 1
`,
      );
      const config = write(
        `haproxy-${option}.cfg`,
        `global
  maxconn 100
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
${proxies.join("")}listen stats
  mode http
  bind 127.0.0.1:${stats}
  stats enable
  stats uri /
`,
      );
      await balancer(`haproxy-${option}`, "haproxy", ["-db", "-f", config], [...ports, stats]);
    });
    announces(() => ports[0], () => ports[1]);

    check("finds the gateway healthy by its own checks", async () => {
      const status = async () => {
        const csv = await (await fetch(`http://127.0.0.1:${stats}/;csv`)).text();
        const rows = csv.split("\n").map((line) => line.split(","));
        const servers = rows.filter(([, name]) => name === "gateway");
        // The status, and that of the last check: L4OK once there was one.
        return servers.map((row) => [row[17], row[36]].join(" "));
      };
      const healthy = async () => (await status()).every((each) => each === "UP L4OK");
      await eventually("two healthy servers", healthy);
      await pause(1000);
      assert.deepEqual(await status(), ["UP L4OK", "UP L4OK"]);
      await refusedNothing();
    });
  });
}

describe("NGINX with proxy_protocol on", () => {
  let ports;
  before(async () => {
    ports = [await freePort(), await freePort()];
    const { port } = new URL(gateway.url);
    const servers = [port, tlsPort].map(
      (target, i) =>
        `server { listen 127.0.0.1:${ports[i]}; proxy_pass 127.0.0.1:${target}; proxy_protocol on; }`,
    );
    const module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    const config = write(
      "nginx.conf",
      `${existsSync(module) ? `load_module ${module};` : ""}
daemon off;
pid ${file("nginx.pid")};
error_log stderr;
events {}
stream { ${servers.join("\n")} }
`,
    );
    await balancer("nginx", "nginx", ["-c", config, "-p", FOLDER], ports);
  });
  announces(() => ports[0], () => ports[1]);
});

describe("stunnel with protocol = proxy", () => {
  let port;
  before(async () => {
    port = await freePort();
    const { port: target } = new URL(gateway.url);
    const config = write(
      "stunnel.conf",
      `foreground = yes
pid =
[gateway]
accept = 127.0.0.1:${port}
connect = 127.0.0.1:${target}
cert = ${file("both.pem")}
protocol = proxy
`,
    );
    await balancer("stunnel", existsSync("/usr/bin/stunnel4") ? "stunnel4" : "stunnel", [config], [port]);
  });

  check("announces the client whose TLS it ends", async () => {
    const expected = { client: CLIENT, proto: "http" };
    assert.deepEqual(await seen(`https://127.0.0.1:${port}/`, "--http1.1"), expected);
    await refusedNothing();
  });
});

describe("a client that is no balancer", () => {
  check("needs no header, and cannot announce anyone", async () => {
    assert.equal((await seen(gateway.url, "--http1.1")).client, CLIENT);
    const call = seen(gateway.url, "--http1.1", "--haproxy-protocol");
    await assert.rejects(call, /400/);
  });
});
