"""grpcio: the GatewayService of conf/gateway-service.yaml, whose upstream knows plain JSON alone."""

import unittest
import urllib.request

import grpc

from gateway.v1 import gateway_pb2, gateway_pb2_grpc
from support import BOUND, STACK, channel, error_of, retry_seconds

GATEWAY = STACK["gatewayService"]
Code = grpc.StatusCode

# By the name that the upstream fails for; see node/stack/plain.js.
FAILURES = {
    "badrequest": Code.INVALID_ARGUMENT,
    "unauthorized": Code.UNAUTHENTICATED,
    "forbidden": Code.PERMISSION_DENIED,
    "notfound": Code.NOT_FOUND,
    "conflict": Code.ALREADY_EXISTS,
    "ratelimit": Code.RESOURCE_EXHAUSTED,
    "internal": Code.INTERNAL,
    "badgateway": Code.UNAVAILABLE,
    "unavailable": Code.UNAVAILABLE,
    "gatewaytimeout": Code.DEADLINE_EXCEEDED,
}


class GatewayService(unittest.TestCase):
    """gRPC"""

    compression = None

    def setUp(self):
        reset_circuit()
        connection = channel(GATEWAY["url"], self.compression)
        self.addCleanup(connection.close)
        self.stub = gateway_pb2_grpc.GatewayServiceStub(connection)

    def invoke(self, name, token=STACK["token"], timeout=BOUND):
        metadata = [("authorization", f"Bearer {token}")] if token else []
        request = gateway_pb2.InvokeCustomRequest(name=name)
        return self.stub.InvokeCustom(request, metadata=metadata, timeout=timeout).message

    def error(self, *args, **kwargs):
        return error_of(lambda: self.invoke(*args, **kwargs))

    def test_greeting(self):
        """a name is greeted, and the world where there is none"""
        for name in ["Ada ✓", "Ada ✓ " * 1000]:
            self.assertEqual(self.invoke(name), f"Hello {name} from custom-lang-service!")
        self.assertEqual(self.invoke(""), "Hello World from custom-lang-service!")

    def test_failures(self):
        """each failure of the service is its code, in the service's words"""
        for name, code in FAILURES.items():
            reset_circuit()
            error = self.error(name)
            self.assertEqual((error.code(), error.details()), (code, f"the service says {name}"))

    def test_no_answer(self):
        """an upstream that does not answer in time, and one that breaks off"""
        self.assertIs(self.error("hang").code(), Code.DEADLINE_EXCEEDED)
        self.assertIs(self.error("hangup").code(), Code.UNAVAILABLE)

    def test_deadline(self):
        """a caller's own deadline holds"""
        self.assertIs(self.error("hang", timeout=0.3).code(), Code.DEADLINE_EXCEEDED)

    def test_circuit(self):
        """an open circuit: UNAVAILABLE, and when to come again"""
        self.addCleanup(reset_circuit)
        errors = (self.error("unavailable") for _ in range(6))
        error = next(e for e in errors if not e.details().startswith("the service"))
        self.assertIs(error.code(), Code.UNAVAILABLE)
        self.assertTrue(1 <= retry_seconds(error) <= 30)

    def test_token(self):
        """no token, or a bad one: UNAUTHENTICATED"""
        self.assertIs(self.error("Ada", token=None).code(), Code.UNAUTHENTICATED)
        self.assertIs(self.error("Ada", token="no.such.token").code(), Code.UNAUTHENTICATED)


class GatewayServiceInGzip(GatewayService):
    """gRPC, gzip"""

    compression = grpc.Compression.Gzip


def reset_circuit(gateway=GATEWAY, upstream="custom-lang-service"):
    url = f"{gateway['admin']}/circuits/upstream/{upstream}/reset"
    with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=BOUND) as answer:
        assert answer.status == 200
