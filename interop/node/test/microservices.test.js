// conf/microservices.yaml as it is deployed: connect-node and connect-web through Traefik to the
// greeter, to the gateway service (a gateway of its own, with its own record), and to auth.

import assert from "node:assert/strict";
import { request } from "node:http";
import { before, describe } from "node:test";

import { Code, createClient } from "@connectrpc/connect";

import { GatewayService } from "../gen/gateway/v1/gateway_pb.js";
import { GreeterService } from "../gen/greeter/v1/greeter_pb.js";
import { addressesOf, CLIENTS, headersOf, rowsOf } from "./behind_traefik.js";
import { assertCode, check, errorOf, eventually, resetCircuit, stack, unique } from "./support.js";

const { traefik } = stack;
const nextAddress = addressesOf("100.64");
const BAD = "no.such.token";
const RAW_WITHIN_MS = 1_000;

// By the name that both services fail for; see stack/greeter.js and stack/plain.js.
const FAILURES = {
  unauthorized: Code.Unauthenticated,
  forbidden: Code.PermissionDenied,
  notfound: Code.NotFound,
  conflict: Code.AlreadyExists,
  ratelimit: Code.ResourceExhausted,
  unavailable: Code.Unavailable,
};

async function reset() {
  await resetCircuit(traefik.microservices, "upstream/greeter-service");
  await resetCircuit(traefik.microservices, "upstream/gateway-service");
  await resetCircuit(traefik.gatewayService, "upstream/custom-lang-service");
}

/** The only row of the calls from `address` at a gateway, once its request has ended there. */
function rowOf(gateway, address) {
  return eventually(`a row of ${address}`, async () => {
    const rows = (await rowsOf(gateway, address)).filter((row) => row.completed);
    assert.ok(rows.length <= 1, JSON.stringify(rows));
    return rows[0];
  });
}

function assertRow(row, wanted) {
  const fields = Object.keys(wanted).map((field) => [field, row[field]]);
  assert.deepEqual(Object.fromEntries(fields), wanted);
}

async function assertNoRows(address) {
  assert.deepEqual(await rowsOf(traefik.microservices, address), []);
  assert.deepEqual(await rowsOf(traefik.gatewayService, address), []);
}

function rest(method, path, { from = nextAddress(), body, token = null } = {}) {
  const headers = { ...headersOf(from, token), "content-type": "application/json" };
  return fetch(`${traefik.services}${path}`, { method, headers, body: JSON.stringify(body) });
}

const user = { username: unique("ada"), password: "lovelace" };

/** A token as a front end gets it. */
async function login() {
  const answer = await rest("POST", "/auth/login", { body: user });
  assert.equal(answer.status, 200);
  return (await answer.json()).token;
}

before(async () => {
  assert.equal((await rest("POST", "/auth/register", { body: user })).status, 201);
});

for (const [name, transport] of Object.entries(CLIENTS)) {
  describe(name, () => {
    let token;
    before(async () => {
      token = await login();
    });
    const clientOf = (service) => createClient(service, transport({ baseUrl: traefik.services }));
    const options = (from, credentials = token) => ({ headers: headersOf(from, credentials) });
    const greet = (name, ...from) => clientOf(GreeterService).greet({ name }, options(...from));
    const invoke = (name, ...from) => clientOf(GatewayService).invokeCustom({ name }, options(...from));
    const isJson = name.includes("JSON");

    check("the greeter greets, learns who calls and from where, and so does the row", async () => {
      await reset();
      const from = nextAddress();
      const headers = { ...options(from).headers, "X-Auth-User": "root" };
      const answer = await clientOf(GreeterService).greet({ name: "Ada ✓" }, { headers });
      assert.deepEqual([answer.message, answer.externalStatus], ["Hello Ada ✓!", 200]);
      assert.equal(answer.user, user.username);
      assert.equal(answer.forwardedFor.split(",")[0], from);
      const row = await rowOf(traefik.microservices, from);
      // Fields are captured from JSON alone.
      const fields = [
        ["name", "Ada ✓"],
        ["result_message", "Hello Ada ✓!"],
        ["captured", { external_status: "200" }],
      ].map(([field, value]) => [field, isJson ? value : undefined]);
      assertRow(row, {
        route: "greeter",
        path: "/greeter.v1.GreeterService/Greet",
        consumer: user.username,
        success: true,
        upstream_status: 200,
        cause: undefined,
        ...Object.fromEntries(fields),
      });
    });

    for (const [failure, code] of Object.entries(FAILURES)) {
      check(`${failure} of the greeter: ${Code[code]}, and the row holds its words`, async () => {
        await reset();
        const from = nextAddress();
        const error = await errorOf(greet(failure, from));
        assertCode(error, code);
        assert.equal(error.rawMessage, `the service says ${failure}`);
        const row = await rowOf(traefik.microservices, from);
        assertRow(row, {
          route: "greeter",
          success: false,
          result_message: `the service says ${failure}`,
          rejection: undefined,
        });
        assert.ok(row.cause, "a failure has a cause");
      });
    }

    check("the gateway service answers, and both gateways hold the client's address", async () => {
      await reset();
      const from = nextAddress();
      const message = "Hello Ada ✓ from custom-lang-service!";
      assert.equal((await invoke("Ada ✓", from)).message, message);
      const path = "/gateway.v1.GatewayService/InvokeCustom";
      const inner = await rowOf(traefik.gatewayService, from);
      const common = { path, consumer: user.username, success: true };
      assertRow(inner, { ...common, name: "Ada ✓", result_message: message });
      assertRow(await rowOf(traefik.microservices, from), { ...common, route: "gateway" });
    });

    for (const [failure, code] of Object.entries(FAILURES)) {
      check(`${failure} behind the gateway service: ${Code[code]}, and both rows say why`, async () => {
        await reset();
        const from = nextAddress();
        const error = await errorOf(invoke(failure, from));
        assertCode(error, code);
        const said = `the service says ${failure}`;
        assert.equal(error.rawMessage, said);
        const wanted = { success: false, result_message: said };
        assertRow(await rowOf(traefik.gatewayService, from), { ...wanted, name: failure });
        assertRow(await rowOf(traefik.microservices, from), { ...wanted, route: "gateway" });
      });
    }

    check("no token, or a bad one: Unauthenticated, and no row", async () => {
      const from = nextAddress();
      for (const call of [greet, invoke]) {
        for (const credentials of [null, BAD]) {
          const error = await errorOf(call("Ada", from, credentials));
          assert.equal(Code[error.code], "Unauthenticated");
        }
      }
      await assertNoRows(from);
    });
  });
}

describe("the auth service, as REST", () => {
  check("who registers and logs in gets a token that is verified", async () => {
    const [from, token] = [nextAddress(), await login()];
    const verified = await rest("GET", "/auth/verify", { from, token });
    assert.deepEqual([verified.status, await verified.json()], [200, { user: user.username }]);
    assertRow(await rowOf(traefik.microservices, from), {
      route: "auth",
      path: "/auth/verify",
      success: true,
      status: 200,
    });
  });

  check("its refusals are its own, and have rows", async () => {
    const cases = [
      ["/auth/register", user, 409, "that name is taken"],
      ["/auth/login", { ...user, password: "guessed" }, 401, "no such name, or another password"],
    ];
    for (const [path, body, status, error] of cases) {
      const from = nextAddress();
      const answer = await rest("POST", path, { from, body });
      assert.deepEqual([answer.status, await answer.json()], [status, { error }]);
      assertRow(await rowOf(traefik.microservices, from), { route: "auth", path, success: false, status });
    }
  });

  check("its keys are open to all", async () => {
    const answer = await rest("GET", "/.well-known/jwks.json");
    assert.equal(answer.status, 200);
    assert.equal((await answer.json()).keys.length, 1);
  });

  // Traefik passes a query on as it came, and speaks h2c to the gateway. A target with such characters
  // is malformed: the gateway answers 400 before its HTTP/2 library resets the stream.
  check("JSON in a query: served if it is encoded, else refused with 400 and no row", async () => {
    const statusOf = (from, query) =>
      new Promise((resolve) => {
        const options = { headers: headersOf(from, token), path: `/auth/verify?filter=${query}` };
        const asked = request(traefik.services, options, (answer) => {
          answer.resume().once("end", () => resolve(answer.statusCode));
        });
        asked.once("error", () => resolve(undefined));
        asked.setTimeout(RAW_WITHIN_MS, () => asked.destroy());
        asked.end();
      });
    const [token, json] = [await login(), '{"x":[1]}'];
    const [raw, encoded] = [nextAddress(), nextAddress()];
    assert.equal(await statusOf(raw, json), 400);
    assert.equal(await statusOf(encoded, encodeURIComponent(json)), 200);
    assertRow(await rowOf(traefik.microservices, encoded), { route: "auth", status: 200 });
    await assertNoRows(raw);
  });

  check("what it keeps for itself is not found", async () => {
    assert.equal((await rest("GET", "/auth/users")).status, 404);
  });
});

describe("a browser's preflight", () => {
  for (const path of ["/greeter.v1.GreeterService/Greet", "/auth/login"]) {
    check(`${path}: the gateway answers it, through Traefik`, async () => {
      const headers = {
        origin: stack.page,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
        "X-Forwarded-For": nextAddress(),
      };
      const answer = await fetch(`${traefik.services}${path}`, { method: "OPTIONS", headers });
      assert.equal(answer.headers.get("access-control-allow-origin"), stack.page);
    });
  }
});
