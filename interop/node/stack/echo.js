// interop.v1.Echo on connect-node: Connect, gRPC and gRPC-Web over h2c.

import { createServer } from "node:http2";

import { Code, ConnectError } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";

import { Echo, FateResponse_State as State, ReasonSchema } from "../gen/interop/v1/echo_pb.js";

export function echoService() {
  return createServer(connectNodeAdapter({ routes: (router) => router.service(Echo, service()) }));
}

function service() {
  const calls = new Map();

  // Follows a call that named itself, until it ends or is cancelled.
  const follow = (name, context) => {
    const call = { state: State.RUNNING, timeoutMs: Math.ceil(context.timeoutMs() ?? 0) };
    if (name) calls.set(name, call);
    context.signal.addEventListener("abort", () => {
      if (call.state === State.RUNNING) call.state = State.CANCELLED;
    });
    return call;
  };

  return {
    say(request, context) {
      reflect(context);
      return { text: request.text, consumer: context.requestHeader.get("x-consumer") ?? "" };
    },

    async *count(request, context) {
      const call = follow(request.call, context);
      const padding = new Uint8Array(request.size);
      for (let number = 1; number <= request.to; number += 1) {
        yield { number, padding };
      }
      if (request.failure) throw failure(request.failure);
      if (request.hold) await untilCancelled(context);
      call.state = State.DONE;
    },

    async sum(requests) {
      let [sum, count] = [0, 0];
      for await (const { number } of requests) {
        sum += number;
        count += 1;
      }
      return { sum, count };
    },

    async *talk(requests, context) {
      reflect(context);
      for await (const { text } of requests) yield { text };
    },

    fail(request) {
      throw failure(request);
    },

    async hold(request, context) {
      follow(request.call, context);
      await untilCancelled(context);
      return {};
    },

    fate({ call }) {
      return calls.get(call) ?? {};
    },
  };
}

function reflect({ requestHeader, responseHeader, responseTrailer }) {
  for (const name of ["x-echo", "x-echo-bin"]) {
    const value = requestHeader.get(name);
    if (value === null) continue;
    responseHeader.set(name, value);
    responseTrailer.set(name.replace("x-echo", "x-echo-trailer"), value);
  }
}

function failure({ code, message, reason }) {
  const details = reason ? [{ desc: ReasonSchema, value: reason }] : [];
  return new ConnectError(message, code, undefined, details);
}

function untilCancelled({ signal }) {
  return new Promise((_, reject) => {
    const cancelled = () => reject(ConnectError.from(signal.reason, Code.Canceled));
    if (signal.aborted) return cancelled();
    signal.addEventListener("abort", cancelled);
  });
}
