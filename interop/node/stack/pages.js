// The front end's own server: one page and its script.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";

const FILES = {
  "/": ["../page/index.html", "text/html; charset=utf-8"],
  "/page.js": ["../gen/page.js", "text/javascript"],
};

export function pages() {
  return createServer(async (request, response) => {
    const file = FILES[new URL(request.url, "http://page").pathname];
    if (!file) return response.writeHead(404).end();
    const content = await readFile(new URL(file[0], import.meta.url));
    return response.writeHead(200, { "content-type": file[1] }).end(content);
  });
}
