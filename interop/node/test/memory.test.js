// Streams do not pile up in the gateway: ten thousand messages pass, and its memory stays as it is.

import assert from "node:assert/strict";
import { describe } from "node:test";
import { setTimeout as pause } from "node:timers/promises";

import { createClient } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";

import { Echo } from "../gen/interop/v1/echo_pb.js";
import { check, residentBytes, stack } from "./support.js";

const MESSAGES = 10_000;
// 100 MB in all, so that a gateway that kept what it passes on could not hide it.
const SIZE = 10_000;
const WARM_UP = 500;
const MAY_GROW = 16 << 20;
const SAMPLE_EVERY_MS = 20;

/** Fails if the gateway needs more while `work` is done than it did before. */
async function inConstantMemory(work) {
  const before = residentBytes(stack.passthrough);
  let most = before;
  const sample = () => (most = Math.max(most, residentBytes(stack.passthrough)));
  const timer = setInterval(sample, SAMPLE_EVERY_MS);
  try {
    await work();
  } finally {
    clearInterval(timer);
  }
  sample();
  const grown = ((most - before) / (1 << 20)).toFixed(1);
  assert.ok(most - before <= MAY_GROW, `grew by ${grown} MiB, from ${before >> 20} MiB`);
}

async function count(client, to) {
  let received = 0;
  for await (const { number } of client.count({ to, size: SIZE })) {
    received += 1;
    assert.equal(number, received);
  }
  assert.equal(received, to);
}

async function talk(client, messages) {
  const text = "x".repeat(SIZE);
  async function* requests() {
    for (let sent = 0; sent < messages; sent += 1) yield { text };
  }
  let received = 0;
  for await (const answer of client.talk(requests())) {
    received += 1;
    assert.equal(answer.text.length, SIZE);
  }
  assert.equal(received, messages);
}

const TRANSPORTS = {
  gRPC: (baseUrl) => createGrpcTransport({ baseUrl }),
  Connect: (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "2" }),
  "gRPC-Web": (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
};

for (const [name, transport] of Object.entries(TRANSPORTS)) {
  const client = () => createClient(Echo, transport(stack.passthrough.url));

  describe(name, () => {
    check(`a stream of ${MESSAGES} answers passes in constant memory`, async () => {
      await count(client(), WARM_UP);
      await inConstantMemory(() => count(client(), MESSAGES));
    });

    if (name === "gRPC-Web") return;

    check(`${MESSAGES} messages pass each way in constant memory`, async () => {
      await talk(client(), WARM_UP);
      await inConstantMemory(() => talk(client(), MESSAGES));
    }, 120_000);

    check("an answer that is not read stays where it comes from", async () => {
      await count(client(), WARM_UP);
      await inConstantMemory(async () => {
        let received = 0;
        for await (const { number } of client().count({ to: MESSAGES, size: SIZE })) {
          received += 1;
          assert.equal(number, received);
          if (received === 1) await pause(2000);
        }
        assert.equal(received, MESSAGES);
      });
    });
  });
}
