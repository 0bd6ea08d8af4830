// The gateway under test: the real binary on free ports, its log and its data kept in a folder.

import { mkdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { end, hasEnded, start } from "./process.js";

const READY_WITHIN_MS = 60_000;
const TRIES = 3;

/** Starts a gateway; tries again where somebody else was faster with one of its ports. */
export async function startGateway(name, { binary, config, env, folder }) {
  const data = join(folder, name);
  const log = join(folder, `${name}.log`);
  for (let attempt = 1; ; attempt += 1) {
    rmSync(data, { recursive: true, force: true });
    mkdirSync(data, { recursive: true });
    const [port, admin] = [await freePort(), await freePort()];
    const child = start(binary, ["run", "-c", config], {
      log,
      env: {
        ...env,
        PORT: String(port),
        ADMIN_ADDRESS: `127.0.0.1:${admin}`,
        PORTCULLIS_DATA: data,
      },
    });
    const gateway = {
      child,
      config,
      data,
      url: `http://127.0.0.1:${port}`,
      admin: `http://127.0.0.1:${admin}`,
      pid: child.pid,
    };
    if (await becomesReady(gateway)) return gateway;
    await end(child);
    if (attempt === TRIES) throw new Error(`the gateway ${name} did not start; see ${log}`);
  }
}

async function becomesReady({ child, admin }) {
  const until = Date.now() + READY_WITHIN_MS;
  while (Date.now() < until && !hasEnded(child)) {
    const ready = await fetch(`${admin}/readyz`).catch(() => undefined);
    if (ready?.status === 200) return true;
    await pause(50);
  }
  return false;
}

/** A port that was free a moment ago. */
export async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}
