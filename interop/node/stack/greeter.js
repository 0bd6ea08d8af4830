// greeter.v1.GreeterService on connect-node: Connect, gRPC and gRPC-Web over h2c.

import { createServer } from "node:http2";

import { Code, ConnectError } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";

import { GreeterService } from "../gen/greeter/v1/greeter_pb.js";

/** What the service fails with, by the name it is called with. */
const FAILURES = {
  unauthorized: Code.Unauthenticated,
  forbidden: Code.PermissionDenied,
  notfound: Code.NotFound,
  conflict: Code.AlreadyExists,
  ratelimit: Code.ResourceExhausted,
  unavailable: Code.Unavailable,
};

export function greeterService() {
  const routes = (router) => router.service(GreeterService, { greet });
  return createServer(connectNodeAdapter({ routes }));
}

function greet({ name }, { requestHeader }) {
  const code = FAILURES[name];
  if (code) throw new ConnectError(`the service says ${name}`, code);
  return {
    message: `Hello ${name}!`,
    externalStatus: 200,
    user: requestHeader.get("x-auth-user") ?? "",
    forwardedFor: requestHeader.get("x-forwarded-for") ?? "",
  };
}
