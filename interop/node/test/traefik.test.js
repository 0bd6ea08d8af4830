// conf/gateway-service.yaml as it is deployed: connect-node and connect-web through Traefik, and
// what the record holds of each call.

import assert from "node:assert/strict";
import http from "node:http";
import { describe } from "node:test";

import { Code, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";

import { GatewayService } from "../gen/gateway/v1/gateway_pb.js";
import { addressesOf, CLIENTS, headersOf, rowsOf } from "./behind_traefik.js";
import { assertCode, assertRetryInfo, check, errorOf, eventually, resetCircuit, stack, unique } from "./support.js";

const { traefik } = stack;
const nextAddress = addressesOf("198.18");
const BAD = "no.such.token";
const PATH = "/gateway.v1.GatewayService/InvokeCustom";

// By the name that the upstream fails for: its status and the code it becomes; see stack/plain.js.
const FAILURES = {
  unauthorized: [401, Code.Unauthenticated],
  forbidden: [403, Code.PermissionDenied],
  notfound: [404, Code.NotFound],
  conflict: [409, Code.AlreadyExists],
  ratelimit: [429, Code.ResourceExhausted],
  unavailable: [503, Code.Unavailable],
};

const reset = () => resetCircuit(traefik.gatewayService, "upstream/custom-lang-service");
const rows = (address) => rowsOf(traefik.gatewayService, address);

/** The only row of the calls from `address`, as far as `wanted` names its fields. */
async function assertRow(address, wanted) {
  const found = await rows(address);
  assert.equal(found.length, 1, JSON.stringify(found));
  const fields = Object.keys(wanted).map((field) => [field, found[0][field]]);
  assert.deepEqual(Object.fromEntries(fields), wanted);
}

/** The row of a call that its client has given up, once the gateway knows. */
function ended(address) {
  return eventually(`the row of ${address}`, async () => {
    return (await rows(address)).find((row) => row.completed);
  });
}

for (const [name, transport] of Object.entries(CLIENTS)) {
  describe(name, () => {
    const clientOf = (baseUrl) => createClient(GatewayService, transport({ baseUrl }));
    const invoke = (name, { at = traefik.front, from, token, headers, ...options }) =>
      clientOf(at).invokeCustom({ name }, { headers: headers ?? headersOf(from, token), ...options });

    check("a name is greeted, and the row holds the client's address and the answer", async () => {
      await reset();
      const from = nextAddress();
      const message = "Hello Ada ✓ from custom-lang-service!";
      assert.equal((await invoke("Ada ✓", { from })).message, message);
      await assertRow(from, {
        route: "invoke-custom",
        path: PATH,
        consumer: "ada",
        name: "Ada ✓",
        result_message: message,
        success: true,
        status: 200,
        upstream_status: 200,
        cause: undefined,
        rejection: undefined,
      });
    });

    for (const [failure, [status, code]] of Object.entries(FAILURES)) {
      check(`${failure}: ${Code[code]}, and the row holds the service's words`, async () => {
        await reset();
        const from = nextAddress();
        const error = await errorOf(invoke(failure, { from }));
        assertCode(error, code);
        assert.equal(error.rawMessage, `the service says ${failure}`);
        await assertRow(from, {
          name: failure,
          result_message: `the service says ${failure}`,
          success: false,
          upstream_status: status,
          attempts: [429, 503].includes(status) ? 2 : 1,
          cause: status < 500 ? "upstream_4xx" : "upstream_5xx",
          rejection: undefined,
        });
      });
    }

    check("an upstream that does not answer in time: DeadlineExceeded, and the row says why", async () => {
      await reset();
      const from = nextAddress();
      const error = await errorOf(invoke("hang", { from }));
      assertCode(error, Code.DeadlineExceeded);
      const wanted = { name: "hang", result_message: error.rawMessage, cause: "attempt_timeout" };
      await assertRow(from, { ...wanted, success: false, attempts: 2, upstream_status: undefined });
    });

    check("an upstream that breaks off: Unavailable, and the row says why", async () => {
      await reset();
      const from = nextAddress();
      const error = await errorOf(invoke("hangup", { from }));
      assertCode(error, Code.Unavailable);
      const wanted = { name: "hangup", result_message: error.rawMessage, cause: "closed" };
      await assertRow(from, { ...wanted, success: false, upstream_status: undefined });
    });

    check("a caller's own deadline holds, and the row says so", async () => {
      await reset();
      const from = nextAddress();
      assertCode(await errorOf(invoke("hang", { from, timeoutMs: 300 })), Code.DeadlineExceeded);
      const row = await ended(from);
      assert.equal(row.success, false);
      // The client leaves when its time is up, too; which comes first is chance.
      assert.match(row.cause, /^(deadline_exceeded|client_gone)$/);
      assert.ok(row.result_message, "a reason");
    });

    check("clients that leave are recorded, and open no circuit", async () => {
      await reset();
      const froms = [1, 2, 3, 4, 5, 6].map(nextAddress);
      const signal = AbortSignal.timeout(300);
      await Promise.all(froms.map((from) => errorOf(invoke("hang", { from, signal }))));
      for (const from of froms) {
        const row = await ended(from);
        assert.deepEqual([row.success, row.cause], [false, "client_gone"]);
        assert.ok(row.result_message, "a reason");
      }
      assert.match((await invoke("Ada", { from: nextAddress() })).message, /^Hello Ada/);
    });

    check("an open circuit: Unavailable, and when to come again", async () => {
      await reset();
      let [from, error] = [];
      do {
        from = nextAddress();
        error = await errorOf(invoke("unavailable", { from }));
      } while (error.rawMessage.startsWith("the service"));
      await reset();
      assertCode(error, Code.Unavailable);
      assertRetryInfo(error, 30);
      await assertRow(from, { success: false, result_message: error.rawMessage, rejection: "circuit_open" });
    });

    check("no token, or a bad one, that Traefik refuses: Unauthenticated, and no row", async () => {
      const from = nextAddress();
      for (const token of [null, BAD]) {
        // Without words: what forwardAuth got is no error of Connect's.
        const error = await errorOf(invoke("Ada", { from, token }));
        assert.equal(Code[error.code], "Unauthenticated");
      }
      assert.deepEqual(await rows(from), []);
    });

    for (const [what, token] of Object.entries({ "no token": null, "a bad token": BAD })) {
      check(`${what} that the gateway refuses: Unauthenticated, and a row with the reason`, async () => {
        const from = nextAddress();
        const error = await errorOf(invoke("Ada", { at: traefik.open, from, token }));
        assertCode(error, Code.Unauthenticated);
        await assertRow(from, {
          result_message: error.rawMessage,
          success: false,
          attempts: 0,
          upstream_status: undefined,
        });
      });
    }

    check("beyond Traefik's rate limit: Unavailable as clients read 429, and no row", async () => {
      await reset();
      const from = nextAddress();
      const call = () => invoke("Ada", { at: traefik.tight, from });
      assert.equal((await call()).message, "Hello Ada from custom-lang-service!");
      assertCode(await errorOf(call()), Code.Unavailable);
      await assertRow(from, { success: true });
      await invoke("Ada", { at: traefik.tight, from: nextAddress() });
    });

    check("a call that comes again with its idempotency key is not made again", async () => {
      await reset();
      const from = nextAddress();
      const headers = { ...headersOf(from), "Idempotency-Key": unique("traefik") };
      let replayed;
      const onHeader = (header) => (replayed = header.get("idempotency-replayed"));
      const first = await invoke("Ada", { headers, onHeader });
      assert.equal(replayed, null);
      const again = await invoke("Ada", { headers, onHeader });
      assert.deepEqual([again.message, replayed], [first.message, "true"]);
      const attempts = (await rows(from)).map((row) => row.attempts);
      assert.deepEqual(attempts, [1, 0]);
    });
  });
}

describe("a client that Traefik does not know", () => {
  const OWN = "127.0.0.2";
  const FORGED = "203.0.113.66";
  const TRANSPORTS = {
    "Connect, HTTP/1.1": (options) => createConnectTransport({ ...options, httpVersion: "1.1" }),
    gRPC: createGrpcTransport,
  };

  for (const [name, transport] of Object.entries(TRANSPORTS)) {
    check(`${name}: the row holds its own address, whatever it claims`, async () => {
      await reset();
      const options = { baseUrl: traefik.front, nodeOptions: { localAddress: OWN } };
      const client = createClient(GatewayService, transport(options));
      const asked = unique("forged");
      await client.invokeCustom({ name: asked }, { headers: headersOf(`${FORGED}, 127.0.0.1`) });
      const found = (await rows(OWN)).filter((row) => row.name === asked);
      assert.equal(found.length, 1);
      assert.deepEqual(await rows(FORGED), []);
    });
  }
});

describe("a browser's preflight", () => {
  const ask = (origin) =>
    fetch(`${traefik.front}${PATH}`, {
      method: "OPTIONS",
      headers: {
        origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,connect-protocol-version,content-type",
        "X-Forwarded-For": nextAddress(),
      },
    });

  check("the gateway answers it, through Traefik", async () => {
    const answer = await ask(stack.page);
    assert.equal(answer.headers.get("access-control-allow-origin"), stack.page);
    assert.match(answer.headers.get("access-control-allow-headers"), /authorization/i);
    assert.match(answer.headers.get("access-control-allow-methods"), /POST/);
    assert.equal(answer.headers.get("access-control-max-age"), "7200");
  });

  check("another origin is allowed nothing", async () => {
    const answer = await ask(stack.strangePage);
    assert.equal(answer.headers.get("access-control-allow-origin"), null);
  });
});

describe("a target that no URI may hold, through Traefik's h2c", () => {
  // Traefik takes a stream that is only reset for a fault of the connection, and tries again for ever.
  check("is answered with 400, once", async () => {
    const status = await new Promise((resolve, reject) => {
      const path = `${PATH}?a=<d>&b={"x":"y"}`;
      const options = { path, headers: headersOf(nextAddress()), timeout: 5000 };
      const request = http.get(traefik.front, options, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      request.on("timeout", () => request.destroy(new Error("no answer within 5 s")));
      request.on("error", reject);
    });
    assert.equal(status, 400);
  });
});
