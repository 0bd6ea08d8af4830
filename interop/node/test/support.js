// What every suite needs: where everything is, tests that are bounded, and what an error must be.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { RetryInfoSchema } from "../gen/google/rpc/error_details_pb.js";
import { Echo, FateResponse_State as State } from "../gen/interop/v1/echo_pb.js";

/** Where the gateways and the services are; see run.js. */
export const stack = JSON.parse(process.env.INTEROP_STACK ?? "{}");

const BOUND_MS = 60_000;
const SEEN_WITHIN_MS = 20_000;

/** A test that ends, one way or the other. */
export function check(name, body, bound = BOUND_MS) {
  test(name, { timeout: bound }, body);
}

/** A name that no other test uses. */
export function unique(prefix) {
  return `${prefix}-${randomUUID()}`;
}

/** Waits until `find` finds something. */
export async function eventually(what, find) {
  const until = Date.now() + SEEN_WITHIN_MS;
  for (;;) {
    const found = await find();
    if (found) return found;
    assert.ok(Date.now() < until, `${what}: not within ${SEEN_WITHIN_MS} ms`);
    await pause(20);
  }
}

/** The error that a call fails with; fails if it does not. */
export async function errorOf(call) {
  try {
    await call;
  } catch (error) {
    return ConnectError.from(error);
  }
  return assert.fail("the call did not fail");
}

export function assertCode(error, code) {
  assert.equal(Code[error.code], Code[code], error.message);
  assert.notEqual(error.rawMessage, "", "an error has a message");
}

/** A refusal that says when to come again. */
export function assertRetryInfo(error, atMostSeconds) {
  const [info] = error.findDetails(RetryInfoSchema);
  assert.ok(info?.retryDelay, `no RetryInfo among ${error.details.length} details`);
  const seconds = Number(info.retryDelay.seconds);
  assert.ok(seconds >= 1 && seconds <= atMostSeconds, `retry in ${seconds} s`);
}

/** Every message of a stream. */
export async function collect(stream) {
  const messages = [];
  for await (const message of stream) messages.push(message);
  return messages;
}

export async function* each(messages) {
  yield* messages;
}

/** Asks an upstream itself, past the gateway, what became of a call. */
export function fates(baseUrl) {
  const client = createClient(Echo, createGrpcTransport({ baseUrl }));
  return {
    cancelled: (call) =>
      eventually(`${call} is cancelled upstream`, async () => {
        const fate = await client.fate({ call });
        return fate.state === State.CANCELLED && fate;
      }),
    running: (call) =>
      eventually(`${call} runs upstream`, async () => {
        const fate = await client.fate({ call });
        return fate.state === State.RUNNING && fate;
      }),
  };
}

/** An order to a circuit, over the admin endpoints. */
export async function resetCircuit(gateway, circuit) {
  const answer = await fetch(`${gateway.admin}/circuits/${circuit}/reset`, { method: "POST" });
  assert.equal(answer.status, 200, await answer.text());
}

/** What the gateway has in memory, in bytes. */
export function residentBytes(gateway) {
  const status = readFileSync(`/proc/${gateway.pid}/status`, "utf8");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)[1]) * 1024;
}
