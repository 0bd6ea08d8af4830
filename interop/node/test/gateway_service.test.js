// The GatewayService of conf/gateway-service.yaml, called by everything that connect-node and
// connect-web speak: the upstream behind it knows plain JSON alone.

import assert from "node:assert/strict";
import { describe } from "node:test";

import { Code, createClient } from "@connectrpc/connect";
import * as node from "@connectrpc/connect-node";
import * as web from "@connectrpc/connect-web";

import { GatewayService } from "../gen/gateway/v1/gateway_pb.js";
import { assertCode, assertRetryInfo, check, errorOf, resetCircuit, stack, unique } from "./support.js";

const SPEAKS = {
  "Connect with JSON, HTTP/1.1": (baseUrl) =>
    node.createConnectTransport({ baseUrl, httpVersion: "1.1", useBinaryFormat: false }),
  "Connect with JSON, HTTP/2": (baseUrl) =>
    node.createConnectTransport({ baseUrl, httpVersion: "2", useBinaryFormat: false }),
  "Connect, HTTP/1.1": (baseUrl) => node.createConnectTransport({ baseUrl, httpVersion: "1.1" }),
  "Connect, HTTP/2": (baseUrl) => node.createConnectTransport({ baseUrl, httpVersion: "2" }),
  gRPC: (baseUrl) => node.createGrpcTransport({ baseUrl }),
  "gRPC-Web, HTTP/1.1": (baseUrl) => node.createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
  "gRPC-Web, HTTP/2": (baseUrl) => node.createGrpcWebTransport({ baseUrl, httpVersion: "2" }),
  "Connect with JSON, fetch": (baseUrl) => web.createConnectTransport({ baseUrl }),
  "Connect, fetch": (baseUrl) => web.createConnectTransport({ baseUrl, useBinaryFormat: true }),
  "gRPC-Web, fetch": (baseUrl) => web.createGrpcWebTransport({ baseUrl }),
};

// By the name that the upstream fails for; see stack/plain.js.
const FAILURES = {
  badrequest: Code.InvalidArgument,
  unauthorized: Code.Unauthenticated,
  forbidden: Code.PermissionDenied,
  notfound: Code.NotFound,
  conflict: Code.AlreadyExists,
  ratelimit: Code.ResourceExhausted,
  internal: Code.Internal,
  badgateway: Code.Unavailable,
  unavailable: Code.Unavailable,
  gatewaytimeout: Code.DeadlineExceeded,
};

for (const [name, transport] of Object.entries(SPEAKS)) {
  describe(name, () => {
    const client = () => createClient(GatewayService, transport(stack.gatewayService.url));
    const authorized = () => ({ headers: { Authorization: `Bearer ${stack.token}` } });
    const invoke = (name, options = authorized()) => client().invokeCustom({ name }, options);
    const reset = () => resetCircuit(stack.gatewayService, "upstream/custom-lang-service");

    check("a name is greeted, and the world where there is none", async () => {
      assert.equal((await invoke("Ada ✓")).message, "Hello Ada ✓ from custom-lang-service!");
      assert.equal((await invoke("")).message, "Hello World from custom-lang-service!");
    });

    for (const [failure, code] of Object.entries(FAILURES)) {
      check(`${failure}: ${Code[code]}, in the service's words`, async () => {
        await reset();
        const error = await errorOf(invoke(failure));
        assertCode(error, code);
        assert.equal(error.rawMessage, `the service says ${failure}`);
      });
    }

    check("an upstream that does not answer in time: DeadlineExceeded", async () => {
      await reset();
      assertCode(await errorOf(invoke("hang")), Code.DeadlineExceeded);
    });

    check("an upstream that breaks off: Unavailable", async () => {
      await reset();
      assertCode(await errorOf(invoke("hangup")), Code.Unavailable);
    });

    check("a caller's own deadline holds", async () => {
      await reset();
      const begun = performance.now();
      const error = await errorOf(invoke("hang", { ...authorized(), timeoutMs: 300 }));
      assertCode(error, Code.DeadlineExceeded);
      // Two attempts of a second each would take longer.
      assert.ok(performance.now() - begun < 1900);
    });

    check("an open circuit: Unavailable, and when to come again", async () => {
      await reset();
      let error = await errorOf(invoke("unavailable"));
      for (let calls = 1; calls < 5 && error.rawMessage.startsWith("the service"); calls += 1) {
        error = await errorOf(invoke("unavailable"));
      }
      assertCode(error, Code.Unavailable);
      assertRetryInfo(error, 30);
      await reset();
      assert.equal((await invoke("Ada")).message, "Hello Ada from custom-lang-service!");
    });

    check("no token, or a bad one: Unauthenticated", async () => {
      assertCode(await errorOf(invoke("Ada", {})), Code.Unauthenticated);
      const bad = { headers: { Authorization: "Bearer no.such.token" } };
      assertCode(await errorOf(invoke("Ada", bad)), Code.Unauthenticated);
    });

    check("no such method: Unimplemented", async () => {
      const method = { ...GatewayService.method.invokeCustom, name: "InvokeNothing" };
      const unary = transport(stack.gatewayService.url).unary(method, undefined, undefined, undefined, {});
      assertCode(await errorOf(unary), Code.Unimplemented);
    });

    check("a call that comes again with its idempotency key is not made again", async () => {
      await reset();
      const key = unique("interop");
      const headers = { Authorization: `Bearer ${stack.token}`, "Idempotency-Key": key };
      let replayed;
      const onHeader = (header) => (replayed = header.get("idempotency-replayed"));
      const first = await invoke("Ada", { headers, onHeader });
      assert.equal(replayed, null);
      const again = await invoke("Ada", { headers, onHeader });
      assert.deepEqual([again.message, replayed], [first.message, "true"]);
      assertCode(await errorOf(invoke("Bob", { headers })), Code.InvalidArgument);
    });
  });
}
