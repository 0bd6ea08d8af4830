// ws: a WebSocket client through the gateway.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { describe } from "node:test";

import { WebSocket } from "ws";

import { check, stack } from "./support.js";

function connect(path, options) {
  const url = `${stack.passthrough.url.replace("http:", "ws:")}${path}`;
  return new WebSocket(url, options);
}

async function open(path, options) {
  const socket = connect(path, options);
  await once(socket, "open");
  return socket;
}

/** The status that a handshake is refused with. */
async function refusal(path, options) {
  const socket = connect(path, options);
  const [, response] = await once(socket, "unexpected-response");
  response.resume();
  return response.statusCode;
}

async function close(socket) {
  socket.close();
  await once(socket, "close");
}

describe("WebSocket", () => {
  check("text and binary messages pass both ways, small and large", async () => {
    const socket = await open("/websocket");
    for (const message of ["naïve ✓", "", randomBytes(1 << 20)]) {
      socket.send(message);
      const [data, isBinary] = await once(socket, "message");
      assert.equal(isBinary, Buffer.isBuffer(message));
      assert.ok(data.equals(Buffer.from(message)));
    }
    await close(socket);
  });

  check("a thousand messages stay in order", async () => {
    const socket = await open("/websocket");
    const heard = [];
    const all = new Promise((resolve) => {
      socket.on("message", (data) => heard.push(Number(data)) === 1000 && resolve());
    });
    for (let number = 0; number < 1000; number += 1) socket.send(String(number));
    await all;
    assert.deepEqual(heard, Array.from({ length: 1000 }, (_, number) => number));
    await close(socket);
  });

  check("pings are answered by the other end", async () => {
    const socket = await open("/websocket");
    socket.ping("are you there");
    assert.equal(String((await once(socket, "pong"))[0]), "are you there");
    await close(socket);
  });

  check("the service's code and reason for closing arrive", async () => {
    const socket = await open("/websocket");
    socket.send("close 4001 enough");
    const [code, reason] = await once(socket, "close");
    assert.deepEqual([code, String(reason)], [4001, "enough"]);
  });

  check("a connection that is silent for its idle timeout is closed, and not before", async () => {
    const socket = await open("/websocket");
    // Its limit is 2 s: what is said in time keeps it.
    for (let turn = 0; turn < 4; turn += 1) {
      await new Promise((resolve) => setTimeout(resolve, 700));
      socket.send(String(turn));
      await once(socket, "message");
    }
    const begun = performance.now();
    await once(socket, "close");
    const silent = performance.now() - begun;
    assert.ok(silent > 1500 && silent < 8000, `closed after ${silent} ms`);
  });

  check("a handshake passes the route's policies", async () => {
    assert.equal(await refusal("/websocket/private"), 401);
    const headers = { Authorization: `Bearer ${stack.token}` };
    const socket = await open("/websocket/private", { headers });
    socket.send("in");
    assert.equal(String((await once(socket, "message"))[0]), "in");
    await close(socket);
  });

  check("there is none without a route, and none on a route that does not allow it", async () => {
    assert.equal(await refusal("/websocket/nowhere"), 404);
    const status = await refusal("/websocket/not-allowed");
    assert.ok(status >= 400 && status < 500, `refused with ${status}`);
  });
});
