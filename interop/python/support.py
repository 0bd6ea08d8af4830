"""What every suite of grpcio needs: where everything is, channels, and what an error must be."""

import json
import os
import time
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from interop.v1 import echo_pb2, echo_pb2_grpc

STACK = json.loads(os.environ["INTEROP_STACK"])
GATEWAY = STACK["passthrough"]
SEEN_WITHIN = 20
# A call without a deadline of its own must not hang a suite.
BOUND = 30


class At:
    """A channel whose methods lie behind a prefix, for clients that were generated without it."""

    def __init__(self, channel, prefix):
        self.channel, self.prefix = channel, prefix

    def __getattr__(self, kind):
        make = getattr(self.channel, kind)
        return lambda method, *args, **kwargs: make(self.prefix + method, *args, **kwargs)


def channel(url, compression=None):
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", 16 << 20)]
    return grpc.insecure_channel(url.removeprefix("http://"), options, compression)


def echo(connection, prefix=""):
    return echo_pb2_grpc.EchoStub(At(connection, prefix) if prefix else connection)


def unique(prefix):
    return f"{prefix}-{uuid.uuid4()}"


def error_of(call):
    """The error that a call fails with."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call did not fail")


def details(error, message_type):
    status = rpc_status.from_call(error)
    found = []
    for detail in status.details if status else []:
        message = message_type()
        if detail.Unpack(message):
            found.append(message)
    return found


def retry_seconds(error):
    found = details(error, error_details_pb2.RetryInfo)
    assert len(found) == 1, f"{len(found)} RetryInfo"
    return found[0].retry_delay.seconds


def eventually(what, find):
    until = time.monotonic() + SEEN_WITHIN
    while True:
        found = find()
        if found:
            return found
        assert time.monotonic() < until, f"{what}: not within {SEEN_WITHIN} s"
        time.sleep(0.02)


def fate(upstream, call, state):
    """Asks an upstream itself, past the gateway, until it says so of a call."""
    with channel(upstream) as connection:
        stub = echo(connection)

        def asked():
            answer = stub.Fate(echo_pb2.FateRequest(call=call), timeout=BOUND)
            return answer if answer.state == state else None

        return eventually(f"{call} in state {state} upstream", asked)


def resident_bytes(gateway):
    with open(f"/proc/{gateway['pid']}/status", encoding="utf-8") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
