// @connectrpc/connect-node: everything it speaks, over HTTP/2 and HTTP/1.1.

import assert from "node:assert/strict";
import { describe } from "node:test";

import { Code, createClient } from "@connectrpc/connect";
import {
  compressionGzip,
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";

import { Echo, ReasonSchema } from "../gen/interop/v1/echo_pb.js";
import { echoContract } from "./echo_contract.js";
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

const GZIP = { acceptCompression: [compressionGzip], sendCompression: compressionGzip, compressMinBytes: 0 };

echoContract("Connect, HTTP/2", {
  transport: (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "2" }),
  streams: "bidi",
});
echoContract("Connect with JSON, HTTP/2", {
  transport: (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: false }),
  streams: "bidi",
});
echoContract("Connect with gzip, HTTP/2", {
  transport: (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "2", ...GZIP }),
  streams: "bidi",
});
echoContract("Connect, HTTP/1.1", {
  transport: (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1" }),
  streams: "client",
});
echoContract("Connect with GET, HTTP/1.1", {
  transport: (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "1.1", useHttpGet: true }),
  get: true,
});
echoContract("gRPC, HTTP/2", {
  transport: (baseUrl) => createGrpcTransport({ baseUrl }),
  streams: "bidi",
});
echoContract("gRPC with gzip, HTTP/2", {
  transport: (baseUrl) => createGrpcTransport({ baseUrl, ...GZIP }),
  streams: "bidi",
});
echoContract("gRPC-Web, HTTP/2", {
  transport: (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "2" }),
  streams: "bidi",
});
echoContract("gRPC-Web, HTTP/1.1", {
  transport: (baseUrl) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
  streams: "client",
});

const SPEAKS = {
  Connect: (baseUrl) => createConnectTransport({ baseUrl, httpVersion: "2" }),
  gRPC: (baseUrl) => createGrpcTransport({ baseUrl }),
};

describe("what the service answers", () => {
  for (const [protocol, transport] of Object.entries(SPEAKS)) {
    check(`opens its circuit, in ${protocol}`, async () => {
      await resetCircuit(stack.passthrough, "route/fragile");
      const client = createClient(Echo, transport(`${stack.passthrough.url}/fragile`));
      for (let failures = 0; failures < 2; failures += 1) {
        const error = await errorOf(client.fail({ code: Code.Unavailable, message: "on fire" }));
        assert.equal(error.rawMessage, "on fire");
      }
      const error = await errorOf(client.say({ text: "x" }));
      assertCode(error, Code.Unavailable);
      assertRetryInfo(error, 30);
      await resetCircuit(stack.passthrough, "route/fragile");
      assert.equal((await client.say({ text: "again" })).text, "again");
    });
  }
});

describe("gRPC to a service of grpcio", () => {
  const client = () =>
    createClient(Echo, createGrpcTransport({ baseUrl: `${stack.passthrough.url}/python` }));

  check("a unary call and the three streams pass", async () => {
    assert.equal((await client().say({ text: "naïve ✓" })).text, "naïve ✓");
    assert.equal((await collect(client().count({ to: 50 }))).length, 50);
    assert.equal((await client().sum(each([{ number: 2 }, { number: 3 }]))).sum, 5);
    const talked = await collect(client().talk(each([{ text: "a" }, { text: "b" }])));
    assert.deepEqual(talked.map(({ text }) => text), ["a", "b"]);
  });

  check("an error passes with its message and its details", async () => {
    const call = client().fail({ code: Code.Aborted, message: "no ✓", reason: { text: "why" } });
    const error = await errorOf(call);
    assertCode(error, Code.Aborted);
    assert.equal(error.rawMessage, "no ✓");
    assert.deepEqual(error.findDetails(ReasonSchema).map(({ text }) => text), ["why"]);
  });

  check("a deadline holds and cancels the call at the service", async () => {
    const call = unique("deadline");
    assertCode(await errorOf(client().hold({ call }, { timeoutMs: 1000 })), Code.DeadlineExceeded);
    await fates(stack.grpcio).cancelled(call);
  });
});
