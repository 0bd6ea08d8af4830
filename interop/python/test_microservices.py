"""conf/microservices.yaml as it is deployed: connectrpc and grpcio through Traefik to the greeter, and
to the gateway service, which is a gateway of its own with its own record."""

import unittest

from behind_traefik import Failure, addresses_of, headers_of, rows_of, with_each_client
from gateway.v1 import gateway_pb2
from greeter.v1 import greeter_pb2
from support import STACK, eventually
from test_gateway_service import reset_circuit

TRAEFIK = STACK["traefik"]
OUTER, INNER = TRAEFIK["microservices"], TRAEFIK["gatewayService"]
GREET = ("greeter.v1.GreeterService", "Greet", greeter_pb2.GreetResponse)
INVOKE = ("gateway.v1.GatewayService", "InvokeCustom", gateway_pb2.InvokeCustomResponse)
BAD = "no.such.token"
next_address = addresses_of("100.65")
# By the name that both services fail for; see node/stack/greeter.js and node/stack/plain.js.
FAILURES = {
    "unauthorized": "UNAUTHENTICATED",
    "forbidden": "PERMISSION_DENIED",
    "notfound": "NOT_FOUND",
    "conflict": "ALREADY_EXISTS",
    "ratelimit": "RESOURCE_EXHAUSTED",
    "unavailable": "UNAVAILABLE",
}


class Microservices(unittest.TestCase):
    def setUp(self):
        self.reset()

    def reset(self):
        reset_circuit(OUTER, "greeter-service")
        reset_circuit(OUTER, "gateway-service")
        reset_circuit(INNER)

    def greet(self, name, headers):
        request = greeter_pb2.GreetRequest(name=name)
        return self.client.call(TRAEFIK["services"], GREET, request, headers)

    def invoke(self, name, headers):
        request = gateway_pb2.InvokeCustomRequest(name=name)
        return self.client.call(TRAEFIK["services"], INVOKE, request, headers)

    def failure(self, call, *args):
        with self.assertRaises(Failure) as failed:
            call(*args)
        return failed.exception

    def assert_row(self, gateway, address, **wanted):
        """The only row of the calls from `address` at a gateway, once its request has ended there."""

        def found():
            rows = [row for row in rows_of(gateway, address) if row["completed"]]
            self.assertLessEqual(len(rows), 1, rows)
            return rows

        [row] = eventually(f"a row of {address}", found)
        self.assertEqual({field: row.get(field) for field in wanted}, wanted)

    def test_greeting(self):
        """the greeter greets, learns who calls and from where, and so does the row"""
        address = next_address()
        answer = self.greet("Ada ✓", headers_of(address, **{"x-auth-user": "root"}))
        self.assertEqual((answer.message, answer.external_status), ("Hello Ada ✓!", 200))
        self.assertEqual(answer.user, "ada")
        self.assertEqual(answer.forwarded_for.split(",")[0], address)
        path = "/greeter.v1.GreeterService/Greet"
        said = ("Ada ✓", "Hello Ada ✓!", {"external_status": "200"})
        # Fields are captured from JSON alone.
        name, message, more = said if self.client.is_json else (None, None, None)
        fields = {"name": name, "result_message": message, "captured": more}
        wanted = {"route": "greeter", "path": path, "consumer": "ada", "success": True}
        self.assert_row(OUTER, address, **wanted, **fields)

    def test_failures(self):
        """each failure of the greeter is its code, and the row holds its words"""
        for name, code in FAILURES.items():
            self.reset()
            address, said = next_address(), f"the service says {name}"
            failure = self.failure(self.greet, name, headers_of(address))
            self.assertEqual((failure.code, failure.message), (code, said))
            self.assert_row(OUTER, address, route="greeter", success=False, result_message=said)

    def test_gateway_service(self):
        """the gateway service answers, and both gateways hold the client's address"""
        address = next_address()
        message = "Hello Ada ✓ from custom-lang-service!"
        self.assertEqual(self.invoke("Ada ✓", headers_of(address)).message, message)
        self.assert_row(INNER, address, name="Ada ✓", result_message=message, success=True)
        self.assert_row(OUTER, address, route="gateway", consumer="ada", success=True)

    def test_failures_of_the_gateway_service(self):
        """each failure behind the gateway service is its code, and both rows say why"""
        for name, code in FAILURES.items():
            self.reset()
            address, said = next_address(), f"the service says {name}"
            failure = self.failure(self.invoke, name, headers_of(address))
            self.assertEqual((failure.code, failure.message), (code, said))
            self.assert_row(INNER, address, name=name, success=False, result_message=said)
            self.assert_row(OUTER, address, route="gateway", success=False, result_message=said)

    def test_token(self):
        """no token, or a bad one: UNAUTHENTICATED, and no row"""
        address = next_address()
        for call in [self.greet, self.invoke]:
            for token in [None, BAD]:
                failure = self.failure(call, "Ada", headers_of(address, token))
                self.assertEqual(failure.code, "UNAUTHENTICATED")
        self.assertEqual(rows_of(OUTER, address) + rows_of(INNER, address), [])


load_tests = with_each_client(Microservices)
