// node-server: a real Node server behind the gateway, which closes idle connections after 5 s.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";

import { freePort, startGateway } from "../stack/gateway.js";
import { end } from "../stack/process.js";

const FOLDER = process.env.INTEROP_FOLDER;
const CALLERS = 8;

/** A gateway with nothing but defaults in front of a Node server. */
async function behindGateway(name, server) {
  const port = await freePort();
  await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
  const config = join(FOLDER, `${name}.yaml`);
  writeFileSync(
    config,
    `listeners: {public: {address: "127.0.0.1:\${PORT}"}}
admin: {address: "\${ADMIN_ADDRESS}"}
upstreams: {node: {endpoints: ["http://127.0.0.1:${port}"]}}
routes: {all: {match: {path: "/*"}, upstream: node}}
`,
  );
  const options = { binary: process.env.INTEROP_GATEWAY, config, folder: FOLDER };
  const gateway = await startGateway(name, options);
  after(async () => {
    await end(gateway.child);
    server.closeAllConnections();
    server.close();
  });
  return (method) => fetch(`${gateway.url}/`, { method });
}

describe("a Node server", () => {
  test("loses no POST to a connection that it closes for being idle", { timeout: 90_000 }, async () => {
    const server = createServer((_, response) => response.end("ok"));
    assert.equal(server.keepAliveTimeout, 5000, "Node's default");
    let [connections, closedHere] = [0, 0];
    server.on("connection", (socket) => {
      connections += 1;
      socket.on("timeout", () => (closedHere += 1));
    });
    const call = await behindGateway("node-idle", server);
    // Around the times at which Node closes: its timer is checked about every half second.
    for (const idle of [3000, 4900, 5000, 5100, 7000]) {
      const responses = await Promise.all(Array.from({ length: CALLERS }, () => call("POST")));
      assert.deepEqual(responses.map(({ status }) => status), Array(CALLERS).fill(200));
      await Promise.all(responses.map((response) => response.arrayBuffer()));
      await pause(idle);
    }
    assert.equal(closedHere, 0, "the gateway is always first");
    assert.ok(connections <= 5 * CALLERS, `${connections} connections`);
  });

  test("that closes a connection as it is used again is told by its cause", { timeout: 30_000 }, async () => {
    const used = new WeakSet();
    let requests = 0;
    const server = createServer((request, response) => {
      requests += 1;
      if (used.has(request.socket)) return request.socket.destroy();
      used.add(request.socket);
      response.end("ok");
    });
    const call = await behindGateway("node-stale", server);
    assert.equal((await call("POST")).status, 200);
    const lost = await call("POST");
    assert.equal(lost.status, 502);
    assert.equal((await lost.json()).code, "stale_connection");
    assert.equal(requests, 2, "it is not sent again");
    for (let number = 0; number < 4; number += 1) assert.equal((await call("GET")).status, 200);
  });
});
