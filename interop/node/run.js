// Starts the services and the gateways, runs every client's suite against them, and says what
// passed. `node run.js [SUITE…]` runs these alone. Logs stay in the folder INTEROP_FOLDER.

import { mkdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";

import { freePort, startGateway } from "./stack/gateway.js";
import { end, startAnnounced } from "./stack/process.js";
import { runSuite } from "./stack/suite.js";
import { startTraefik } from "./stack/traefik.js";

const HERE = import.meta.dirname ?? new URL(".", import.meta.url).pathname;
const ROOT = resolve(HERE, "../..");
const FOLDER = process.env.INTEROP_FOLDER;
const BINARY = process.env.INTEROP_GATEWAY;
const PYTHON = process.env.INTEROP_PYTHON;
const PYTHON_ENV = { PYTHONPATH: join(FOLDER, "python"), PYTHONDONTWRITEBYTECODE: "1" };
const SUITE_WITHIN_MS = 300_000;
const ALL_WITHIN_MS = 600_000;

const SUITES = [
  { ...python("silence-grpcio", "test_silence"), beside: true },
  node("connect-node", "connect_node"),
  node("connect-web", "connect_web"),
  python("grpcio", "test_grpcio"),
  python("grpcio-health", "test_health_checks"),
  python("certificates", "test_certificates"),
  node("curl", "curl"),
  node("slow-clients", "slow_clients"),
  node("ws", "websocket"),
  node("node-server", "node_server"),
  node("proxy-protocol", "proxy_protocol"),
  node("gateway-service", "gateway_service"),
  node("gateway-service-gzip", "gateway_service_gzip"),
  python("gateway-service-grpcio", "test_gateway_service"),
  python("gateway-service-connectrpc", "test_gateway_connectrpc"),
  node("traefik", "traefik"),
  python("traefik-python", "test_traefik"),
  node("microservices", "microservices"),
  python("microservices-python", "test_microservices"),
  node("chromium", "chromium"),
  node("memory", "memory"),
  python("memory-grpcio", "test_memory"),
];

function node(name, file) {
  return {
    name,
    command: process.execPath,
    args: (results) => [
      `--test-reporter=${join(HERE, "stack/report.js")}`,
      `--test-reporter-destination=${results}`,
      `test/${file}.test.js`,
    ],
    cwd: HERE,
  };
}

function python(name, module) {
  const cwd = join(ROOT, "interop/python");
  return { name, command: PYTHON, args: () => ["report.py", module], cwd, env: PYTHON_ENV };
}

const started = [];

async function startAll() {
  const services = await startAnnounced(process.execPath, ["stack/services.js"], {
    cwd: HERE,
    log: join(FOLDER, "services.log"),
  });
  started.push(services.child);
  const grpcio = await startAnnounced(PYTHON, ["service.py"], {
    cwd: join(ROOT, "interop/python"),
    env: PYTHON_ENV,
    log: join(FOLDER, "grpcio-service.log"),
  });
  started.push(grpcio.child);
  const addresses = { ...services.announced, ...grpcio.announced };

  const gateway = async (name, config, env) => {
    const { child, ...about } = await startGateway(name, {
      binary: BINARY,
      folder: FOLDER,
      config: join(ROOT, config),
      env: { JWKS_URL: addresses.jwks, ...env },
    });
    started.push(child);
    return about;
  };
  const passthrough = await gateway("passthrough", "interop/conf/passthrough.yaml", {
    CONNECT_NODE_URL: addresses.echo,
    GRPCIO_URL: addresses.grpcio,
    PLAIN_URL: addresses.plain,
    WEBSOCKET_URL: addresses.websocket,
    NOBODY_URL: `http://127.0.0.1:${await freePort()}`,
  });
  const gatewayService = await gateway("gateway-service", "conf/gateway-service.yaml", {
    CUSTOM_LANG_BASE_URL: addresses.plain,
    CORS_ORIGIN: addresses.page,
  });
  return { ...addresses, passthrough, gatewayService, ...(await behindTraefik(addresses, gateway)) };
}

/** The same systems as they are deployed: Traefik in front, and behind it two gateways in a row. */
async function behindTraefik(addresses, gateway) {
  // The loopback's other addresses are clients.
  const env = { JWKS_URL: `${addresses.auth}/.well-known/jwks.json`, TRUSTED_PROXIES: "127.0.0.1/32" };
  const gatewayService = await gateway("traefik-gateway-service", "conf/gateway-service.yaml", {
    ...env,
    CUSTOM_LANG_BASE_URL: addresses.plain,
    CORS_ORIGIN: addresses.page,
  });
  const microservices = await gateway("traefik-microservices", "conf/microservices.yaml", {
    ...env,
    GREETER_URL: addresses.greeter,
    GATEWAY_URL: gatewayService.url,
    AUTH_URL: addresses.auth,
    CORS_ORIGIN: addresses.page,
  });
  const h2c = (url) => url.replace("http:", "h2c:");
  const { child, ...entryPoints } = await startTraefik({
    binary: join(dirname(PYTHON), "traefik"),
    config: join(ROOT, "interop/conf/traefik.yaml"),
    log: join(FOLDER, "traefik.log"),
    env: {
      AUTH_URL: addresses.auth,
      GATEWAY_SERVICE_URL: h2c(gatewayService.url),
      MICROSERVICES_URL: h2c(microservices.url),
    },
  });
  started.push(child);
  return { traefik: { ...entryPoints, gatewayService, microservices } };
}

async function endAll() {
  // The last first: a gateway before what is behind it.
  for (const child of started.reverse()) await end(child);
}

function print(name, tests) {
  console.log(`\n${name}`);
  let last = "";
  for (const { group, test, failure } of tests) {
    if (group && group !== last) console.log(`  ${group}`);
    last = group;
    console.log(`    ${failure ? "FAILED" : "ok    "}  ${test}`);
    if (failure) console.log(failure.replace(/^/gm, "              "));
  }
}

function summarize(results) {
  const width = Math.max(...results.map(({ name }) => name.length));
  console.log(`\n${"suite".padEnd(width)}  passed  failed`);
  const sums = { passed: 0, failed: 0 };
  for (const { name, tests } of results) {
    const failed = tests.filter(({ failure }) => failure).length;
    const passed = tests.length - failed;
    sums.passed += passed;
    sums.failed += failed;
    console.log(`${name.padEnd(width)}  ${String(passed).padStart(6)}  ${String(failed).padStart(6)}`);
  }
  const seconds = Math.round(performance.now() / 1000);
  console.log(`\n${sums.passed} passed, ${sums.failed} failed, in ${seconds} s`);
  return sums.failed === 0;
}

async function main(wanted) {
  const unknown = wanted.filter((name) => !SUITES.some((suite) => suite.name === name));
  if (unknown.length > 0) {
    console.error(`no suite ${unknown.join(", ")}; there are ${SUITES.map((s) => s.name).join(", ")}`);
    return 2;
  }
  mkdirSync(FOLDER, { recursive: true });
  const stack = await startAll();
  const run = async (suite) => {
    suite.env = { ...suite.env, INTEROP_STACK: JSON.stringify(stack) };
    const tests = await runSuite(suite, {
      folder: FOLDER,
      boundMs: SUITE_WITHIN_MS,
      onStart: (child) => started.push(child),
    });
    return { name: suite.name, tests };
  };
  const chosen = SUITES.filter(({ name }) => wanted.length === 0 || wanted.includes(name));
  const alone = chosen.filter(({ beside }) => !beside);
  // Those that mostly wait run beside all others.
  const beside = chosen.filter(({ beside }) => beside).map(run);
  const results = [];
  const keep = ({ name, tests }) => {
    print(name, tests);
    results.push({ name, tests });
  };
  for (const suite of alone) keep(await run(suite));
  for (const result of beside) keep(await result);
  return summarize(results) ? 0 : 1;
}

async function leave(why) {
  console.error(`interop: ${why}; logs are in ${FOLDER}`);
  await endAll();
  process.exit(1);
}

setTimeout(() => leave(`not over after ${ALL_WITHIN_MS / 1000} s`), ALL_WITHIN_MS).unref();
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => leave(signal));

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  console.error(`interop: ${error.stack ?? error}`);
  process.exitCode = 1;
}
await endAll();
process.exit();
