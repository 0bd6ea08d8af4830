// Traefik, the real one, before the gateways: conf/traefik.yaml on free ports.

import { setTimeout as pause } from "node:timers/promises";

import { freePort } from "./gateway.js";
import { end, hasEnded, start } from "./process.js";

const ENTRY_POINTS = ["front", "open", "tight", "services"];
const READY_WITHIN_MS = 60_000;
const TRIES = 3;

/** Starts Traefik; tries again where another process was faster with one of its ports. */
export async function startTraefik({ binary, config, env, log }) {
  for (let attempt = 1; ; attempt += 1) {
    const ports = await Promise.all(ENTRY_POINTS.map(freePort));
    const child = start(binary, options(config, ports), { log, env });
    const urls = ports.map((port) => `http://127.0.0.1:${port}`);
    if (await becomesReady(child, urls)) {
      return { child, ...Object.fromEntries(ENTRY_POINTS.map((name, i) => [name, urls[i]])) };
    }
    await end(child);
    if (attempt === TRIES) throw new Error(`Traefik did not start; see ${log}`);
  }
}

function options(config, ports) {
  const points = ENTRY_POINTS.flatMap((name, i) => [
    `--entryPoints.${name}.address=127.0.0.1:${ports[i]}`,
    `--entryPoints.${name}.forwardedHeaders.trustedIPs=127.0.0.1/32`,
  ]);
  return [
    `--providers.file.filename=${config}`,
    "--providers.file.watch=false",
    "--global.checkNewVersion=false",
    "--global.sendAnonymousUsage=false",
    "--log.level=INFO",
    "--accessLog=true",
    ...points,
  ];
}

/** Once its routers are there: before, every path is 404. */
async function becomesReady(child, urls) {
  const until = Date.now() + READY_WITHIN_MS;
  for (const url of urls) {
    for (;;) {
      const path = "/gateway.v1.GatewayService/InvokeCustom";
      const answer = await fetch(`${url}${path}`).catch(() => undefined);
      if (answer && answer.status !== 404) break;
      if (Date.now() > until || hasEnded(child)) return false;
      await pause(50);
    }
  }
  return true;
}
