// Plain HTTP/1.1: the custom language service as the GatewayService knows it, with more names
// that fail; the keys of the tokens; and an echo for curl.

import { createServer } from "node:http";

/** What the service answers to a name; 200 to any other. */
export const STATUSES = {
  badrequest: 400,
  unauthorized: 401,
  forbidden: 403,
  notfound: 404,
  conflict: 409,
  ratelimit: 429,
  internal: 500,
  badgateway: 502,
  unavailable: 503,
  gatewaytimeout: 504,
};

export function plainService(issuer) {
  return createServer((request, response) => {
    const chunks = [];
    request.on("error", () => {});
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => answer(request, Buffer.concat(chunks), response, issuer));
  });
}

function answer(request, body, response, issuer) {
  const { pathname } = new URL(request.url, "http://service");
  if (pathname === "/.well-known/jwks.json") return send(response, 200, issuer.jwks);
  if (pathname === "/invoke" && request.method === "POST") return invoke(body, response);
  if (pathname === "/echo") return echo(request, body, response);
  return json(response, 404, { error: "no such path" });
}

function invoke(body, response) {
  const { name } = JSON.parse(body);
  if (name === "hang") return undefined;
  if (name === "hangup") return response.destroy();
  const status = STATUSES[name];
  if (status) return json(response, status, { error: `the service says ${name}` });
  return json(response, 200, { message: `Hello ${name} from custom-lang-service!` });
}

function echo(request, body, response) {
  const { method, url, httpVersion } = request;
  json(response, 200, { method, url, httpVersion, length: body.length, headers: request.headers });
}

function json(response, status, value) {
  send(response, status, JSON.stringify(value));
}

function send(response, status, text) {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(text);
}
