// A page in headless Chromium: a front end on another origin, which calls the GatewayService as
// far as CORS lets it.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, describe } from "node:test";

import { chromium } from "playwright-core";

import { check, resetCircuit, stack } from "./support.js";

const PLACES = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const WITHIN_MS = 25_000;

let browser;

before(async () => {
  const executablePath = process.env.CHROMIUM ?? PLACES.find(existsSync);
  assert.ok(executablePath, `no Chromium at ${PLACES.join(", ")}; name it in CHROMIUM`);
  // As root, as in containers, it has no sandbox.
  const args = process.getuid?.() === 0 ? ["--no-sandbox"] : [];
  browser = await chromium.launch({ executablePath, args });
});

after(() => browser?.close());

/** Opens the page, fills in a name, sends it, and reads the answer. */
async function invoke(name, { url, protocol, token = stack.token, origin = stack.page }) {
  const page = await browser.newPage();
  try {
    const settings = new URLSearchParams({ gateway: url, protocol, token });
    await page.goto(`${origin}/#${settings}`);
    await page.getByLabel("Name").fill(name);
    await page.getByRole("button", { name: "Invoke" }).click();
    await page.waitForFunction(
      () => document.getElementById("answer").textContent,
      undefined,
      { timeout: WITHIN_MS },
    );
    return await page.locator("#answer").textContent();
  } finally {
    await page.close();
  }
}

// The gateway itself, and the same behind Traefik; `open` is where the gateway sees calls without a
// token.
const { gatewayService, traefik } = stack;
const WAYS = {
  "": { gateway: gatewayService, url: gatewayService.url, open: gatewayService.url },
  ", through Traefik": { gateway: traefik.gatewayService, url: traefik.front, open: traefik.open },
};
const PROTOCOLS = ["connect-json", "connect-binary", "grpc-web"];

for (const [way, { gateway, url, open }] of Object.entries(WAYS)) {
  for (const protocol of PROTOCOLS) describe(`${protocol}${way}`, () => page(protocol, gateway, url, open));
}

function page(protocol, gateway, url, open) {
  const reset = () => resetCircuit(gateway, "upstream/custom-lang-service");

  check("a name is greeted", async () => {
    assert.equal(await invoke("Ada ✓", { url, protocol }), "Hello Ada ✓ from custom-lang-service!");
  });

  check("errors of the service are read, with their codes", async () => {
    const said = {
      notfound: "NotFound: the service says notfound",
      conflict: "AlreadyExists: the service says conflict",
      ratelimit: "ResourceExhausted: the service says ratelimit",
      unavailable: "Unavailable: the service says unavailable",
    };
    for (const [name, answer] of Object.entries(said)) {
      await reset();
      assert.equal(await invoke(name, { url, protocol }), answer);
    }
  });

  check("refusals of the gateway are read, too", async () => {
    assert.match(await invoke("Ada", { url: open, protocol, token: "" }), /^Unauthenticated: ./);
  });

  check("a page from elsewhere learns nothing", async () => {
    const answer = await invoke("Ada", { url, protocol, origin: stack.strangePage });
    assert.doesNotMatch(answer, /Hello/);
  });
}
