// Everything around the gateway that speaks JavaScript, in one process: says where it is in one
// line of JSON, and ends when its standard input does.

import { authService } from "./auth.js";
import { echoService } from "./echo.js";
import { greeterService } from "./greeter.js";
import { makeIssuer } from "./issuer.js";
import { pages } from "./pages.js";
import { plainService } from "./plain.js";
import { websocketEcho } from "./websocket.js";

async function listen(server, host = "127.0.0.1") {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://${host}:${server.address().port}`;
}

const issuer = makeIssuer();
const plain = await listen(plainService(issuer));
const announced = {
  echo: await listen(echoService()),
  plain,
  auth: await listen(authService(issuer)),
  greeter: await listen(greeterService()),
  jwks: `${plain}/.well-known/jwks.json`,
  token: issuer.token("ada"),
  websocket: `http://127.0.0.1:${(await websocketEcho()).address().port}`,
  page: await listen(pages(), "localhost"),
  strangePage: await listen(pages(), "localhost"),
};
process.stdout.write(`${JSON.stringify(announced)}\n`);

process.stdin.on("end", () => process.exit(0));
process.stdin.resume();
