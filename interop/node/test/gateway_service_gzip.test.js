// The GatewayService of conf/gateway-service.yaml, called by connect-node with every message in gzip.

import assert from "node:assert/strict";
import { describe } from "node:test";

import { Code, createClient } from "@connectrpc/connect";
import {
  compressionGzip,
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";

import { GatewayService } from "../gen/gateway/v1/gateway_pb.js";
import { assertCode, check, errorOf, resetCircuit, stack } from "./support.js";

const GZIP = { acceptCompression: [compressionGzip], sendCompression: compressionGzip, compressMinBytes: 0 };
const SPEAKS = {
  "Connect with JSON, HTTP/1.1": (url) => createConnectTransport({ ...url, httpVersion: "1.1", useBinaryFormat: false }),
  "Connect, HTTP/2": (url) => createConnectTransport({ ...url, httpVersion: "2" }),
  gRPC: (url) => createGrpcTransport(url),
  "gRPC-Web, HTTP/1.1": (url) => createGrpcWebTransport({ ...url, httpVersion: "1.1" }),
};

for (const [name, transport] of Object.entries(SPEAKS)) {
  describe(`${name}, gzip`, () => {
    const baseUrl = stack.gatewayService.url;
    const encodings = [];
    const noted = (next) => async (request) => {
      const answer = await next(request);
      encodings.push(answer.header.get("content-encoding") ?? answer.header.get("grpc-encoding"));
      return answer;
    };
    const client = createClient(GatewayService, transport({ baseUrl, ...GZIP, interceptors: [noted] }));
    const invoke = (name) =>
      client.invokeCustom({ name }, { headers: { Authorization: `Bearer ${stack.token}` } });

    check("a name is greeted, short or long, and the world where there is none", async () => {
      for (const name of ["Ada ✓", "Ada ✓ ".repeat(1000)]) {
        assert.equal((await invoke(name)).message, `Hello ${name} from custom-lang-service!`);
      }
      assert.equal((await invoke("")).message, "Hello World from custom-lang-service!");
    });

    check("only the long answer came in gzip", () => {
      assert.deepEqual(encodings, [null, "gzip", null]);
    });

    check("a failure is its code, in the service's words", async () => {
      await resetCircuit(stack.gatewayService, "upstream/custom-lang-service");
      const error = await errorOf(invoke("notfound"));
      assertCode(error, Code.NotFound);
      assert.equal(error.rawMessage, "the service says notfound");
    });
  });
}
