"""connectrpc for Python as it comes, which compresses every request: the GatewayService of
conf/gateway-service.yaml, whose upstream knows plain JSON alone."""

import time
import unittest
import uuid

from connectrpc.client import ConnectClientSync
from connectrpc.code import Code
from connectrpc.compat import google_protobuf_binary_codec, google_protobuf_json_codec
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.protocol import ProtocolType

from gateway.v1 import gateway_pb2
from support import BOUND, STACK
from test_gateway_service import reset_circuit

INVOKE = MethodInfo(
    name="InvokeCustom",
    service_name="gateway.v1.GatewayService",
    input=gateway_pb2.InvokeCustomRequest,
    output=gateway_pb2.InvokeCustomResponse,
    idempotency_level=IdempotencyLevel.UNKNOWN,
    stream_type=StreamType.UNARY,
)
# By the name that the upstream fails for; see node/stack/plain.js.
FAILURES = {
    "badrequest": Code.INVALID_ARGUMENT,
    "notfound": Code.NOT_FOUND,
    "ratelimit": Code.RESOURCE_EXHAUSTED,
    "unavailable": Code.UNAVAILABLE,
}
# Long enough for the answer to be compressed, too.
LONG = "Ada ✓ " * 1000


class Connect(unittest.TestCase):
    """connectrpc, Connect"""

    protocol, codec = ProtocolType.CONNECT, staticmethod(google_protobuf_binary_codec)

    def setUp(self):
        reset_circuit()
        url = STACK["gatewayService"]["url"]
        # Of what concerns compression, nothing is set.
        self.client = ConnectClientSync(url, codec=self.codec(), protocol=self.protocol)
        self.addCleanup(self.client.close)

    def invoke(self, name, **headers):
        headers = {"authorization": f"Bearer {STACK['token']}"} | headers
        request = gateway_pb2.InvokeCustomRequest(name=name)
        answer = self.client.execute_unary(
            request=request, method=INVOKE, headers=headers, timeout_ms=BOUND * 1000
        )
        return answer.message

    def test_greeting(self):
        """a name is greeted, and the world where there is none"""
        for name in ["Ada ✓", LONG]:
            self.assertEqual(self.invoke(name), f"Hello {name} from custom-lang-service!")
        self.assertEqual(self.invoke(""), "Hello World from custom-lang-service!")

    def test_failures(self):
        """each failure of the service is its code, in the service's words"""
        for name, code in FAILURES.items():
            reset_circuit()
            with self.assertRaises(ConnectError) as failed:
                self.invoke(name)
            said = f"the service says {name}"
            self.assertEqual((failed.exception.code, failed.exception.message), (code, said))

    def test_same_key(self):
        """a message compressed again a second later is the same for its key"""
        key = {"Idempotency-Key": str(uuid.uuid4())}
        first = self.invoke(LONG, **key)
        # Python's gzip holds the time, in seconds.
        time.sleep(1.1)
        self.assertEqual(self.invoke(LONG, **key), first)


class ConnectJson(Connect):
    """connectrpc, Connect with JSON"""

    codec = staticmethod(google_protobuf_json_codec)


class GrpcWeb(Connect):
    """connectrpc, gRPC-Web"""

    protocol = ProtocolType.GRPC_WEB
