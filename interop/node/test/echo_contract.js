// What every client of RPC must find behind the gateway, whatever it speaks: a service that
// speaks it too, untouched, and the gateway's own refusals as errors of its protocol.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe } from "node:test";

import { Code, createClient, decodeBinaryHeader, encodeBinaryHeader } from "@connectrpc/connect";

import { RetryInfoSchema } from "../gen/google/rpc/error_details_pb.js";
import { Echo, ReasonSchema } from "../gen/interop/v1/echo_pb.js";
import {
  assertCode,
  assertRetryInfo,
  check,
  collect,
  each,
  errorOf,
  fates,
  resetCircuit,
  stack,
  unique,
} from "./support.js";

const CODES = [
  Code.Canceled,
  Code.Unknown,
  Code.InvalidArgument,
  Code.DeadlineExceeded,
  Code.NotFound,
  Code.AlreadyExists,
  Code.PermissionDenied,
  Code.ResourceExhausted,
  Code.FailedPrecondition,
  Code.Aborted,
  Code.OutOfRange,
  Code.Unimplemented,
  Code.Internal,
  Code.Unavailable,
  Code.DataLoss,
  Code.Unauthenticated,
];

/**
 * `transport(url)` makes the client's transport. `streams` is what it can send besides one
 * message: nothing, a stream (`"client"`), or a stream while it receives one (`"bidi"`). What it
 * sends by GET is in the path, which holds less.
 */
export function echoContract(name, { transport, streams, get = false }) {
  const at = (prefix, upstream = stack.passthrough?.url) =>
    createClient(Echo, transport(`${upstream}${prefix}`));

  describe(name, () => {
    calls(at, streams, get);
    errors(at);
    endings(at);
    refusals(at);
  });
}

function calls(at, streams, get) {
  check("a unary call passes", async () => {
    const { text } = await at("").say({ text: "naïve ✓" });
    assert.equal(text, "naïve ✓");
  });

  check("an empty message passes", async () => {
    assert.equal((await at("").say({})).text, "");
  });

  if (!get) {
    check("a message of a MiB passes both ways", async () => {
      const text = "x".repeat(1 << 20);
      assert.equal((await at("").say({ text })).text.length, text.length);
    });
  }

  check("headers and trailers pass, text and binary", async () => {
    const binary = new Uint8Array([0, 1, 127, 128, 255]);
    const headers = { "x-echo": "kept", "x-echo-bin": encodeBinaryHeader(binary) };
    let [header, trailer] = [];
    const onHeader = (value) => (header = value);
    const onTrailer = (value) => (trailer = value);
    await at("").say({ text: "x" }, { headers, onHeader, onTrailer });
    for (const [fields, field] of [[header, "x-echo"], [trailer, "x-echo-trailer"]]) {
      assert.equal(fields.get(field), "kept");
      assert.deepEqual(decodeBinaryHeader(fields.get(`${field}-bin`)), binary);
    }
  });

  check("a stream of answers passes, in order", async () => {
    const answers = await collect(at("").count({ to: 200, size: 100 }));
    assert.deepEqual(answers.map(({ number }) => number), Array.from({ length: 200 }, (_, i) => i + 1));
  });

  check("an empty stream of answers passes", async () => {
    assert.deepEqual(await collect(at("").count({ to: 0 })), []);
  });

  if (streams) {
    check("a stream of requests passes", async () => {
      const numbers = Array.from({ length: 100 }, (_, number) => ({ number }));
      const { sum, count } = await at("").sum(each(numbers));
      assert.deepEqual({ sum, count }, { sum: 4950, count: 100 });
    });
  }

  if (streams === "bidi") {
    check("both streams pass at once: a request may wait for the answer to the last", async () => {
      const answered = [];
      let next;
      async function* requests() {
        for (let turn = 0; turn < 20; turn += 1) {
          const heard = new Promise((resolve) => (next = resolve));
          yield { text: `turn ${turn}` };
          await heard;
        }
      }
      for await (const { text } of at("").talk(requests())) {
        answered.push(text);
        next();
      }
      assert.deepEqual(answered, Array.from({ length: 20 }, (_, turn) => `turn ${turn}`));
    });
  }
}

function errors(at) {
  check("each code passes, with its message and its details", async () => {
    for (const code of CODES) {
      const message = `no: ${Code[code]}, 100 % naïve ✓`;
      const error = await errorOf(at("").fail({ code, message, reason: { text: "as it is" } }));
      assertCode(error, code);
      assert.equal(error.rawMessage, message);
      assert.deepEqual(error.findDetails(ReasonSchema).map(({ text }) => text), ["as it is"]);
    }
  });

  check("a stream's error passes after its messages", async () => {
    const failure = { code: Code.DataLoss, message: "lost", reason: { text: "torn" } };
    const received = [];
    const error = await errorOf(
      (async () => {
        for await (const { number } of at("").count({ to: 3, failure })) received.push(number);
      })(),
    );
    assert.deepEqual(received, [1, 2, 3]);
    assertCode(error, Code.DataLoss);
    assert.equal(error.rawMessage, "lost");
    assert.deepEqual(error.findDetails(ReasonSchema).map(({ text }) => text), ["torn"]);
  });
}

function endings(at) {
  const upstream = fates(stack.echo);

  check("a deadline holds, is told to the service, and cancels it there", async () => {
    const call = unique("deadline");
    const begun = performance.now();
    const error = await errorOf(at("").hold({ call }, { timeoutMs: 1000 }));
    const took = performance.now() - begun;
    assertCode(error, Code.DeadlineExceeded);
    assert.ok(took >= 950 && took < 5000, `took ${took} ms`);
    const { timeoutMs } = await upstream.cancelled(call);
    assert.ok(timeoutMs > 0 && timeoutMs <= 1000, `told ${timeoutMs} ms`);
  });

  check("a call that is given up is cancelled at the service", async () => {
    const call = unique("cancel");
    const leave = new AbortController();
    const error = errorOf(at("").hold({ call }, { signal: leave.signal }));
    await upstream.running(call);
    leave.abort();
    assertCode(await error, Code.Canceled);
    await upstream.cancelled(call);
  });

  check("a stream that is given up half-way is cancelled at the service", async () => {
    const call = unique("cancel-stream");
    const leave = new AbortController();
    const stream = at("").count({ to: 2, call, hold: true }, { signal: leave.signal });
    let received = 0;
    const error = await errorOf(
      (async () => {
        for await (const { number } of stream) {
          received = number;
          if (number === 2) leave.abort();
        }
      })(),
    );
    assert.equal(received, 2);
    assertCode(error, Code.Canceled);
    await upstream.cancelled(call);
  });
}

function refusals(at) {
  // As a unary call and as a stream: their errors travel differently.
  const both = async (prefix, options, judge) => {
    judge(await errorOf(at(prefix).say({ text: "x" }, options)));
    judge(await errorOf(collect(at(prefix).count({ to: 1 }, options))));
  };

  check("no route: unimplemented", () =>
    both("/nowhere", {}, (error) => assertCode(error, Code.Unimplemented)));

  check("no token, or a bad one: unauthenticated", async () => {
    const judge = (error) => assertCode(error, Code.Unauthenticated);
    await both("/private", {}, judge);
    await both("/private", { headers: { Authorization: "Bearer no.such.token" } }, judge);
  });

  check("a good token: the service learns whose it is", async () => {
    const headers = { Authorization: `Bearer ${stack.token}`, "X-Consumer": "root" };
    const { consumer } = await at("/private").say({ text: "x" }, { headers });
    assert.equal(consumer, "ada");
  });

  check("beyond a rate limit: resource_exhausted, and when to come again", async () => {
    const headers = { "X-Test": unique("limited") };
    await at("/limited").say({ text: "x" }, { headers });
    await both("/limited", { headers }, (error) => {
      assertCode(error, Code.ResourceExhausted);
      assertRetryInfo(error, 60);
    });
  });

  check("an open circuit: unavailable, and when to come again", async () => {
    await resetCircuit(stack.passthrough, "route/broken");
    await both("/broken", {}, (error) => {
      assertCode(error, Code.Unavailable);
      assert.deepEqual(error.findDetails(RetryInfoSchema), [], "the circuit is closed still");
    });
    await both("/broken", {}, (error) => {
      assertCode(error, Code.Unavailable);
      assertRetryInfo(error, 30);
    });
  });

  check("an attempt that takes too long: deadline_exceeded, and cancelled at the service", async () => {
    const call = unique("hurried");
    assertCode(await errorOf(at("/hurried").hold({ call })), Code.DeadlineExceeded);
    await fates(stack.echo).cancelled(call);
  });

  check("a service that cannot be reached: unavailable", () =>
    both("/nobody", {}, (error) => assertCode(error, Code.Unavailable)));

  check("a message that is too large: resource_exhausted", async () => {
    // Compressed it is too large still.
    const text = randomBytes(8192).toString("hex");
    assertCode(await errorOf(at("/small").say({ text })), Code.ResourceExhausted);
  });
}
