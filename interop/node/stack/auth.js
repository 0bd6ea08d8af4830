// The auth service: REST, its keys, and what Traefik's forwardAuth asks.

import { createServer } from "node:http";

export function authService(issuer) {
  const passwords = new Map();
  const routes = {
    "GET /.well-known/jwks.json": () => [200, JSON.parse(issuer.jwks)],
    "POST /auth/register": ({ username, password }) => {
      if (!username || !password) return [400, { error: "username and password are needed" }];
      if (passwords.has(username)) return [409, { error: "that name is taken" }];
      passwords.set(username, password);
      return [201, { username }];
    },
    "POST /auth/login": ({ username, password }) => {
      if (!password || passwords.get(username) !== password) {
        return [401, { error: "no such name, or another password" }];
      }
      return [200, { token: issuer.token(username) }];
    },
    "GET /auth/verify": (_, request) => {
      const subject = issuer.subject(request.headers.authorization?.replace(/^Bearer /, ""));
      if (!subject) return [401, { error: "no valid token" }];
      return [200, { user: subject }, { "X-Auth-User": subject }];
    },
  };
  return createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://auth");
    const route = routes[`${request.method} ${pathname}`];
    const [status, value, headers] = route
      ? route(await bodyOf(request), request)
      : [404, { error: "no such path" }];
    response.writeHead(status, { "content-type": "application/json", ...headers });
    response.end(JSON.stringify(value));
  });
}

/** The JSON of a request; an empty object for anything else. */
async function bodyOf(request) {
  try {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    return JSON.parse(Buffer.concat(chunks));
  } catch {
    return {};
  }
}
