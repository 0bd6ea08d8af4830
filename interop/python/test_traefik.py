"""conf/gateway-service.yaml as it is deployed: connectrpc and grpcio through Traefik, and what the
record holds of each call."""

import unittest
import uuid

from behind_traefik import Failure, addresses_of, headers_of, rows_of, with_each_client
from gateway.v1 import gateway_pb2
from support import STACK
from test_gateway_service import reset_circuit

TRAEFIK = STACK["traefik"]
INVOKE = ("gateway.v1.GatewayService", "InvokeCustom", gateway_pb2.InvokeCustomResponse)
BAD = "no.such.token"
next_address = addresses_of("198.19")
# By the name that the upstream fails for: its status and the code it becomes; see node/stack/plain.js.
FAILURES = {
    "unauthorized": (401, "UNAUTHENTICATED"),
    "forbidden": (403, "PERMISSION_DENIED"),
    "notfound": (404, "NOT_FOUND"),
    "conflict": (409, "ALREADY_EXISTS"),
    "ratelimit": (429, "RESOURCE_EXHAUSTED"),
    "unavailable": (503, "UNAVAILABLE"),
}
# Long enough for the answer to be compressed, too.
LONG = "Ada ✓ " * 1000


class GatewayService(unittest.TestCase):
    def setUp(self):
        reset_circuit(TRAEFIK["gatewayService"])

    def invoke(self, name, headers, at="front"):
        request = gateway_pb2.InvokeCustomRequest(name=name)
        return self.client.call(TRAEFIK[at], INVOKE, request, headers).message

    def failure(self, *args, **kwargs):
        with self.assertRaises(Failure) as failed:
            self.invoke(*args, **kwargs)
        return failed.exception

    def rows(self, address):
        return rows_of(TRAEFIK["gatewayService"], address)

    def assert_row(self, address, **wanted):
        """The only row of the calls from `address`, as far as `wanted` names its fields."""
        rows = self.rows(address)
        self.assertEqual(len(rows), 1, rows)
        self.assertEqual({field: rows[0].get(field) for field in wanted}, wanted)

    def test_greeting(self):
        """a name is greeted, and the row holds the client's address and the answer"""
        for name in ["Ada ✓", LONG]:
            address = next_address()
            message = f"Hello {name} from custom-lang-service!"
            self.assertEqual(self.invoke(name, headers_of(address)), message)
            self.assert_row(address, consumer="ada", success=True, status=200, upstream_status=200)
            [row] = self.rows(address)
            self.assertTrue(name.startswith(row["name"]) and row["name"])
            self.assertTrue(message.startswith(row["result_message"]) and row["result_message"])
            self.assertEqual(row["path"], "/gateway.v1.GatewayService/InvokeCustom")

    def test_failures(self):
        """each failure of the service is its code, and the row holds the service's words"""
        for name, (status, code) in FAILURES.items():
            reset_circuit(TRAEFIK["gatewayService"])
            address, said = next_address(), f"the service says {name}"
            failure = self.failure(name, headers_of(address))
            self.assertEqual((failure.code, failure.message), (code, said))
            self.assert_row(
                address,
                name=name,
                result_message=said,
                success=False,
                upstream_status=status,
                attempts=2 if status in (429, 503) else 1,
                cause="upstream_4xx" if status < 500 else "upstream_5xx",
                rejection=None,
            )

    def test_no_answer(self):
        """an upstream that does not answer in time, or breaks off, and the row says why"""
        for name, code, cause in [
            ("hang", "DEADLINE_EXCEEDED", "attempt_timeout"),
            ("hangup", "UNAVAILABLE", "closed"),
        ]:
            address = next_address()
            failure = self.failure(name, headers_of(address))
            self.assertEqual(failure.code, code)
            self.assert_row(address, result_message=failure.message, cause=cause, success=False)

    def test_refused_by_traefik(self):
        """no token, or a bad one, that Traefik refuses: UNAUTHENTICATED, and no row"""
        address = next_address()
        for token in [None, BAD]:
            failure = self.failure("Ada", headers_of(address, token))
            self.assertEqual(failure.code, "UNAUTHENTICATED")
        self.assertEqual(self.rows(address), [])

    def test_refused_by_the_gateway(self):
        """no token, or a bad one, that the gateway refuses: UNAUTHENTICATED, and a row with the reason"""
        for token in [None, BAD]:
            address = next_address()
            failure = self.failure("Ada", headers_of(address, token), at="open")
            self.assertEqual(failure.code, "UNAUTHENTICATED")
            self.assertTrue(failure.message)
            self.assert_row(
                address,
                result_message=failure.message,
                success=False,
                attempts=0,
                upstream_status=None,
            )

    def test_rate_limit_of_traefik(self):
        """beyond Traefik's rate limit: UNAVAILABLE as clients read 429, and no row"""
        address = next_address()
        self.invoke("Ada", headers_of(address), at="tight")
        failure = self.failure("Ada", headers_of(address), at="tight")
        self.assertEqual(failure.code, "UNAVAILABLE")
        self.assert_row(address, success=True)

    def test_same_key(self):
        """a call that comes again with its idempotency key is not made again"""
        address = next_address()
        headers = headers_of(address, **{"idempotency-key": str(uuid.uuid4())})
        first = self.invoke(LONG, headers)
        self.assertEqual(self.invoke(LONG, headers), first)
        attempts = [row["attempts"] for row in self.rows(address)]
        self.assertEqual(attempts, [1, 0])


load_tests = with_each_client(GatewayService)
