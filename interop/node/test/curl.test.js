// curl: HTTP/1.0, HTTP/1.1 and HTTP/2 with prior knowledge, as people type it.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { describe } from "node:test";
import { promisify } from "node:util";

import { check, stack, unique } from "./support.js";

const CURL = promisify(execFile);
const VERSIONS = { "HTTP/1.1": "--http1.1", "HTTP/2": "--http2-prior-knowledge" };
const INVOKE = "/gateway.v1.GatewayService/InvokeCustom";

/** One call: the status, the headers by name in lower case, the body. */
function curl(url, ...options) {
  return upload("", url, ...options);
}

/** The same; with `--data-binary @-` it sends `body`. */
async function upload(body, url, ...options) {
  const common = ["--silent", "--show-error", "--include", "--max-time", "20", "--noproxy", "*"];
  const running = CURL("curl", [...common, ...options, url], { maxBuffer: 64 << 20 });
  // One that is refused does not read all of it.
  running.child.stdin.on("error", () => {});
  running.child.stdin.end(body);
  const { stdout } = await running;
  let rest = stdout;
  for (;;) {
    const end = rest.indexOf("\r\n\r\n");
    const [line, ...fields] = rest.slice(0, end).split("\r\n");
    rest = rest.slice(end + 4);
    const [, version, status] = /^HTTP\/([\d.]+) (\d+)/.exec(line);
    if (Number(status) < 200) continue;
    const headers = Object.fromEntries(
      fields.map((field) => [field.split(":")[0].toLowerCase(), field.replace(/^[^:]*: ?/, "")]),
    );
    return { version, status: Number(status), headers, body: rest };
  }
}

const json = (data) => ["--json", JSON.stringify(data)];
const token = () => ["--header", `Authorization: Bearer ${stack.token}`];

for (const [name, version] of Object.entries(VERSIONS)) {
  describe(name, () => plain(name, version));
}

function plain(name, version) {
  const at = (path) => `${stack.passthrough.url}${path}`;
  const invoke = (...options) => curl(`${stack.gatewayService.url}${INVOKE}`, version, ...options);

  check("a request passes, by the version asked for", async () => {
    const answer = await curl(at("/plain/echo?a=1&b=%20"), version);
    assert.deepEqual([answer.status, `HTTP/${answer.version}`.replace(".0", "")], [200, name]);
    const seen = JSON.parse(answer.body);
    assert.deepEqual([seen.method, seen.url, seen.httpVersion], ["GET", "/echo?a=1&b=%20", "1.1"]);
    assert.ok(answer.headers["x-request-id"]);
  });

  check("an upload passes, of known length and of unknown", async () => {
    const body = "x".repeat(200_000);
    const known = await upload(body, at("/plain/echo"), version, "--data-binary", "@-");
    assert.equal(JSON.parse(known.body).length, body.length);
    const unknown = await upload(body, at("/plain/echo"), version, "--upload-file", "-");
    const seen = JSON.parse(unknown.body);
    assert.deepEqual([seen.method, seen.length], ["PUT", body.length]);
  });

  check("an upload that waits to be asked for passes", async () => {
    const expect = ["--header", "Expect: 100-continue", "--data-binary", "@-"];
    const answer = await upload("x".repeat(2_000_000), at("/plain/echo"), version, ...expect);
    assert.equal(JSON.parse(answer.body).length, 2_000_000);
  });

  check("HEAD has a length and no body", async () => {
    const answer = await curl(at("/plain/echo"), version, "--head");
    assert.deepEqual([answer.status, answer.body], [200, ""]);
  });

  check("a refusal is a problem", async () => {
    const answer = await curl(at("/private/x"), version);
    assert.equal(answer.status, 401);
    assert.equal(answer.headers["content-type"], "application/problem+json");
    assert.match(answer.headers["www-authenticate"], /^Bearer/);
    const problem = JSON.parse(answer.body);
    assert.deepEqual([problem.status, problem.code], [401, "credentials_missing"]);
    assert.equal(problem.request_id, answer.headers["x-request-id"]);
  });

  check("beyond a rate limit it is told when to come again", async () => {
    const client = ["--header", `X-Test: ${unique("curl")}`];
    await curl(at("/limited/x"), version, ...client);
    const answer = await curl(at("/limited/x"), version, ...client);
    assert.equal(answer.status, 429);
    const seconds = Number(answer.headers["retry-after"]);
    assert.ok(seconds >= 1 && seconds <= 60, answer.headers["retry-after"]);
  });

  check("an upload that is refused before it is over says why", async () => {
    // Within HTTP/2's first window: Debian 12's curl loses an answer while it waits for a larger one.
    const body = "x".repeat(50_000);
    const send = ["--data-binary", "@-", "--header", "Expect:"];
    assert.equal((await upload(body, at("/private/x"), version, ...send)).status, 401);
    assert.equal((await upload(body, at("/small/x"), version, ...send)).status, 413);
  });

  check("the GatewayService answers", async () => {
    const answer = await invoke(...token(), ...json({ name: "Ada" }));
    assert.equal(answer.status, 200);
    assert.deepEqual(JSON.parse(answer.body), { message: "Hello Ada from custom-lang-service!" });
  });

  check("the GatewayService refuses as Connect does", async () => {
    const answer = await invoke(...json({ name: "Ada" }));
    assert.deepEqual([answer.status, JSON.parse(answer.body).code], [401, "unauthenticated"]);
  });

  check("the GatewayService answers the same again for an idempotency key", async () => {
    const key = ["--header", `Idempotency-Key: ${unique("curl")}`];
    const first = await invoke(...token(), ...key, ...json({ name: "Ada" }));
    const again = await invoke(...token(), ...key, ...json({ name: "Ada" }));
    assert.deepEqual([again.status, again.body], [200, first.body]);
    assert.equal(first.headers["idempotency-replayed"], undefined);
    assert.equal(again.headers["idempotency-replayed"], "true");
    const other = await invoke(...token(), ...key, ...json({ name: "Bob" }));
    assert.equal(JSON.parse(other.body).code, "invalid_argument");
  });

  check("the GatewayService is healthy", async () => {
    assert.equal((await curl(`${stack.gatewayService.url}/healthz`, version)).status, 200);
  });
}

describe("other versions", () => {
  check("HTTP/1.0 is answered, and the connection closed", async () => {
    const answer = await curl(`${stack.passthrough.url}/plain/echo`, "--http1.0");
    assert.equal(answer.status, 200);
  });

  check("an offer to upgrade to HTTP/2 is answered over HTTP/1.1", async () => {
    const answer = await curl(`${stack.passthrough.url}/plain/echo`, "--http2");
    assert.deepEqual([answer.status, answer.version], [200, "1.1"]);
  });
});
