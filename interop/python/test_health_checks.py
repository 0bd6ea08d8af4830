"""grpcio's health service, as the gateway's health checks see it."""

import json
import os
import socket
import subprocess
import tempfile
import unittest
import urllib.request
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from support import BOUND, channel, eventually

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE = "interop.v1.Named"
CONFIG = """
listeners: {{public: {{address: "127.0.0.1:{port}"}}}}
admin: {{address: "127.0.0.1:{admin}"}}
upstreams:
  service:
    endpoints: {endpoints}
    protocol: h2c
    balance: round_robin
    health: {{grpc: {grpc}, interval: 50ms, fast_interval: 50ms}}
routes:
  all: {{match: {{path: /*}}, upstream: service}}
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A service whose one method answers its server's name."""

    def __init__(self, name, with_health=True):
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        answer = grpc.unary_unary_rpc_method_handler(lambda request, context: name)
        named = grpc.method_handlers_generic_handler(SERVICE, {"Name": answer})
        self.server.add_generic_rpc_handlers((named,))
        self.health = health.HealthServicer()
        if with_health:
            health_pb2_grpc.add_HealthServicer_to_server(self.health, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def says(self, status, service=SERVICE):
        self.health.set(service, status)


class HealthChecks(unittest.TestCase):
    """gRPC health checks"""

    def server(self, *args, **kwargs):
        server = Server(*args, **kwargs)
        self.addCleanup(server.server.stop, 0)
        return server

    def gateway(self, *servers, **settings):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        port, self.admin = free_port(), free_port()
        endpoints = json.dumps([f"http://127.0.0.1:{server.port}" for server in servers])
        config = os.path.join(folder.name, "gateway.yaml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(
                CONFIG.format(
                    port=port, admin=self.admin, endpoints=endpoints, grpc=json.dumps(settings)
                )
            )
        gateway = subprocess.Popen(
            [os.environ["INTEROP_GATEWAY"], "run", "-c", config], cwd=folder.name
        )
        self.addCleanup(gateway.wait, BOUND)
        self.addCleanup(gateway.kill)
        eventually("a gateway that is ready", self.is_ready)
        self.connection = channel(f"http://127.0.0.1:{port}")
        self.addCleanup(self.connection.close)

    def page(self, path):
        return urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=BOUND)

    def is_ready(self):
        try:
            return self.page("/readyz").status == 200
        except OSError:
            return False

    def until(self, server, state):
        """Waits until the gateway shows an endpoint in this state; how its last check ended."""
        address = f"127.0.0.1:{server.port}"

        def shown():
            with self.page("/status") as page:
                endpoints = json.load(page)["upstreams"]["service"]["endpoints"]
            [health] = [e["health"] for e in endpoints if e["address"] == address]
            return health["last"] if health["state"] == state else None

        return eventually(f"{address} that is {state}", shown)

    def names(self):
        """Who answers each of twenty calls."""
        call = self.connection.unary_unary(f"/{SERVICE}/Name")
        return {name: 0 for name in [b"one", b"other"]} | count(
            call(b"", timeout=BOUND) for _ in range(20)
        )

    def test_statuses(self):
        """a server that says NOT_SERVING gets no calls, and gets them again once it is SERVING"""
        one, other = self.server(b"one"), self.server(b"other")
        one.says(SERVING)
        other.says(SERVING)
        self.gateway(one, other, service=SERVICE)
        self.until(one, "healthy")
        self.until(other, "healthy")
        self.assertEqual(self.names(), {b"one": 10, b"other": 10})
        one.says(NOT_SERVING)
        self.assertEqual(self.until(one, "unhealthy"), "the server says NOT_SERVING")
        self.assertEqual(self.names(), {b"one": 0, b"other": 20})
        one.says(SERVING)
        self.until(one, "healthy")
        self.assertEqual(self.names(), {b"one": 10, b"other": 10})

    def test_whole(self):
        """without a service's name the server as a whole is asked; its shutdown ends the calls"""
        one, other = self.server(b"one"), self.server(b"other")
        self.gateway(one, other)
        self.until(one, "healthy")
        one.health.enter_graceful_shutdown()
        self.assertEqual(self.until(one, "unhealthy"), "the server says NOT_SERVING")
        self.assertEqual(self.names(), {b"one": 0, b"other": 20})

    def test_unknown(self):
        """a service that the server does not know is not healthy"""
        one = self.server(b"one")
        self.gateway(one, service="no.such.Service")
        self.assertIn("does not know the service", self.until(one, "unhealthy"))

    def test_unimplemented(self):
        """a server without the health service is not healthy, unless that is told"""
        one = self.server(b"one", with_health=False)
        self.gateway(one)
        self.assertIn("no health service", self.until(one, "unhealthy"))
        self.gateway(one, unimplemented="healthy")
        self.assertEqual(self.until(one, "healthy"), "passed")


def count(names):
    counts = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts
