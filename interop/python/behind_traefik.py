"""What the suites behind Traefik share: the clients, an address for each call, and the rows that the
calls from an address left."""

import itertools
import json
import os
import subprocess

import grpc
from connectrpc.client import ConnectClientSync
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_json_codec
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.protocol import ProtocolType

from support import BOUND, STACK, channel


class Failure(Exception):
    """An error of either client: its code and its message."""

    def __init__(self, code, message):
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


class Connectrpc:
    """connectrpc, as it comes: of what concerns compression, nothing is set."""

    def __init__(self, protocol=ProtocolType.CONNECT, codec=google_protobuf_binary_codec):
        self.protocol, self.codec = protocol, codec
        self.is_json = codec is google_protobuf_json_codec

    def call(self, url, method, request, headers):
        service, name, answer = method
        info = MethodInfo(
            name=name,
            service_name=service,
            input=type(request),
            output=answer,
            idempotency_level=IdempotencyLevel.UNKNOWN,
            stream_type=StreamType.UNARY,
        )
        client = ConnectClientSync(url, codec=self.codec(), protocol=self.protocol)
        try:
            return client.execute_unary(
                request=request, method=info, headers=headers, timeout_ms=BOUND * 1000
            )
        except ConnectError as error:
            raise Failure(error.code.name, error.message) from error
        finally:
            client.close()


class Grpcio:
    """grpcio, with or without gzip."""

    is_json = False

    def __init__(self, compression=None):
        self.compression = compression

    def call(self, url, method, request, headers):
        service, name, answer = method
        metadata = [(key.lower(), value) for key, value in headers.items()]
        with channel(url, self.compression) as connection:
            invoke = connection.unary_unary(
                f"/{service}/{name}", type(request).SerializeToString, answer.FromString
            )
            try:
                return invoke(request, metadata=metadata, timeout=BOUND)
            except grpc.RpcError as error:
                raise Failure(error.code().name, error.details()) from error


CLIENTS = {
    "connectrpc, Connect": Connectrpc(),
    "connectrpc, Connect with JSON": Connectrpc(codec=google_protobuf_json_codec),
    "connectrpc, gRPC": Connectrpc(ProtocolType.GRPC),
    "connectrpc, gRPC-Web": Connectrpc(ProtocolType.GRPC_WEB),
    "grpcio": Grpcio(),
    "grpcio, gzip": Grpcio(grpc.Compression.Gzip),
}


def with_each_client(suite):
    """Makes of a class of tests one for each client; goes to the module's `load_tests`."""

    def load_tests(loader, _tests, _pattern):
        made = [
            type(suite.__name__, (suite,), {"__doc__": name, "client": client})
            for name, client in CLIENTS.items()
        ]
        return loader.suiteClass(map(loader.loadTestsFromTestCase, made))

    return load_tests


def addresses_of(network):
    """Gives out the addresses of a network, a suite's own (`198.19`): no other call comes from one."""
    numbers = itertools.count(1)

    def next_address():
        number = next(numbers)
        return f"{network}.{number >> 8}.{number & 255}"

    return next_address


def headers_of(address, token=STACK["token"], **more):
    """The headers of a call from `address`, as the load balancer before Traefik hands it on."""
    bearer = {"authorization": f"Bearer {token}"} if token else {}
    return {"x-forwarded-for": address} | bearer | more


def rows_of(gateway, address):
    """What a gateway's record holds of the calls from `address`, the oldest first."""
    command = [os.environ["INTEROP_GATEWAY"], "invocations", "-c", gateway["config"]]
    command += ["--format", "json", "-n", "100000"]
    env = os.environ | {"PORTCULLIS_DATA": gateway["data"]}
    lines = subprocess.run(command, env=env, check=True, capture_output=True).stdout.splitlines()
    return [row for row in map(json.loads, lines) if row.get("client_address") == address]
