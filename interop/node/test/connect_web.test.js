// @connectrpc/connect-web over Node's own fetch, as code that runs in a browser has it.

import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";

import { echoContract } from "./echo_contract.js";

echoContract("Connect with JSON, fetch", {
  transport: (baseUrl) => createConnectTransport({ baseUrl }),
});
echoContract("Connect, fetch", {
  transport: (baseUrl) => createConnectTransport({ baseUrl, useBinaryFormat: true }),
});
echoContract("Connect with GET, fetch", {
  transport: (baseUrl) => createConnectTransport({ baseUrl, useHttpGet: true }),
  get: true,
});
echoContract("gRPC-Web, fetch", {
  transport: (baseUrl) => createGrpcWebTransport({ baseUrl }),
});
