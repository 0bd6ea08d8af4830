// What the suites behind Traefik share: the clients, an address for each call, and the rows that the
// calls from an address left.

import { execFile } from "node:child_process";
import { promisify } from "node:util";

import * as node from "@connectrpc/connect-node";
import * as web from "@connectrpc/connect-web";

import { stack } from "./support.js";

const RUN = promisify(execFile);

export const CLIENTS = {
  "connect-node, Connect with JSON, HTTP/1.1": (options) =>
    node.createConnectTransport({ ...options, httpVersion: "1.1", useBinaryFormat: false }),
  "connect-node, Connect, HTTP/2": (options) =>
    node.createConnectTransport({ ...options, httpVersion: "2" }),
  "connect-node, gRPC": (options) => node.createGrpcTransport(options),
  "connect-node, gRPC-Web, HTTP/1.1": (options) =>
    node.createGrpcWebTransport({ ...options, httpVersion: "1.1" }),
  "connect-web, Connect with JSON": (options) => web.createConnectTransport(options),
  "connect-web, Connect": (options) =>
    web.createConnectTransport({ ...options, useBinaryFormat: true }),
  "connect-web, gRPC-Web": (options) => web.createGrpcWebTransport(options),
};

/** Gives out the addresses of a network, a suite's own (`198.18`): no other call comes from one. */
export function addressesOf(network) {
  let given = 0;
  return () => {
    given += 1;
    return `${network}.${given >> 8}.${given & 255}`;
  };
}

/** The headers of a call from `address`, as the load balancer before Traefik hands it on. */
export function headersOf(address, token = stack.token) {
  const headers = { "X-Forwarded-For": address };
  return token ? { ...headers, Authorization: `Bearer ${token}` } : headers;
}

/** What a gateway's record holds of the calls from `address`, the oldest first. */
export async function rowsOf({ config, data }, address) {
  const args = ["invocations", "-c", config, "--format", "json", "-n", "100000"];
  const env = { ...process.env, PORTCULLIS_DATA: data };
  const { stdout } = await RUN(process.env.INTEROP_GATEWAY, args, { env, maxBuffer: 256 << 20 });
  const rows = stdout.split("\n").filter(Boolean).map((line) => JSON.parse(line));
  return rows.filter((row) => row.client_address === address);
}
