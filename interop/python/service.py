"""interop.v1.Echo and the health service on grpcio. Says where it is in one line of JSON, and ends
when its standard input does."""

import json
import sys
import threading
from concurrent import futures

import grpc
from google.protobuf import any_pb2
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from interop.v1 import echo_pb2, echo_pb2_grpc

State = echo_pb2.FateResponse.State


class Echo(echo_pb2_grpc.EchoServicer):
    """The same service as stack/echo.js."""

    def __init__(self):
        self.calls = {}

    def Say(self, request, context):
        reflect(context)
        return echo_pb2.SayResponse(text=request.text, consumer=metadata(context, "x-consumer"))

    def Count(self, request, context):
        call, ended = self.follow(request.call, context)
        padding = bytes(request.size)
        for number in range(1, request.to + 1):
            yield echo_pb2.CountResponse(number=number, padding=padding)
        if request.HasField("failure"):
            fail(request.failure, context)
        if request.hold:
            ended.wait()
            return
        call.state = State.STATE_DONE

    def Sum(self, requests, context):
        numbers = [request.number for request in requests]
        return echo_pb2.SumResponse(sum=sum(numbers), count=len(numbers))

    def Talk(self, requests, context):
        reflect(context)
        for request in requests:
            yield echo_pb2.SayResponse(text=request.text)

    def Fail(self, request, context):
        fail(request, context)

    def Hold(self, request, context):
        _, ended = self.follow(request.call, context)
        ended.wait()
        return echo_pb2.SayResponse()

    def Fate(self, request, context):
        return self.calls.get(request.call, echo_pb2.FateResponse())

    def follow(self, name, context):
        """Follows a call that named itself, until it ends or is cancelled."""
        # Without a deadline grpcio says None, or a time that no call lives to see.
        left = context.time_remaining() or 0
        told = int(left * 1000) if left < 1_000_000 else 0
        call = echo_pb2.FateResponse(state=State.STATE_RUNNING, timeout_ms=told)
        ended = threading.Event()
        if name:
            self.calls[name] = call

        def end():
            if call.state == State.STATE_RUNNING:
                call.state = State.STATE_CANCELLED
            ended.set()

        if not context.add_callback(end):
            end()
        return call, ended


def metadata(context, key):
    return next((value for name, value in context.invocation_metadata() if name == key), "")


def reflect(context):
    pairs = [(name, metadata(context, name)) for name in ("x-echo", "x-echo-bin")]
    pairs = [(name, value) for name, value in pairs if value]
    context.send_initial_metadata(pairs)
    context.set_trailing_metadata(
        [(name.replace("x-echo", "x-echo-trailer"), value) for name, value in pairs]
    )


def fail(request, context):
    status = status_pb2.Status(code=request.code, message=request.message)
    if request.HasField("reason"):
        detail = any_pb2.Any()
        detail.Pack(request.reason)
        status.details.append(detail)
    context.abort_with_status(rpc_status.to_status(status))


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64))
    echo_pb2_grpc.add_EchoServicer_to_server(Echo(), server)
    checks = health.HealthServicer()
    checks.set("interop.v1.Echo", health_pb2.HealthCheckResponse.SERVING)
    checks.set("interop.v1.Resting", health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(json.dumps({"grpcio": f"http://127.0.0.1:{port}"}), flush=True)
    sys.stdin.read()
    server.stop(grace=0)


if __name__ == "__main__":
    main()
