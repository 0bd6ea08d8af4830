"""grpcio: unary calls, the three streams, errors, deadlines, the health service."""

import queue
import time
import unittest
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from interop.v1 import echo_pb2
from support import (
    BOUND,
    GATEWAY,
    STACK,
    channel,
    details,
    echo,
    error_of,
    fate,
    retry_seconds,
    unique,
)

State = echo_pb2.FateResponse.State
Code = grpc.StatusCode


class Calls:
    """What must pass, whatever the service is written in."""

    compression = None

    def setUp(self):
        self.connection = channel(GATEWAY["url"], self.compression)
        self.addCleanup(self.connection.close)
        self.echo = echo(self.connection, self.prefix)

    def test_unary(self):
        """a unary call passes"""
        answer = self.echo.Say(echo_pb2.SayRequest(text="naïve ✓"), timeout=BOUND)
        self.assertEqual(answer.text, "naïve ✓")

    def test_large(self):
        """a message of a MiB passes both ways"""
        text = "x" * (1 << 20)
        self.assertEqual(self.echo.Say(echo_pb2.SayRequest(text=text), timeout=BOUND).text, text)

    def test_metadata(self):
        """metadata passes, text and binary, in headers and trailers"""
        metadata = [("x-echo", "kept"), ("x-echo-bin", b"\x00\x01\x7f\x80\xff")]
        _, call = self.echo.Say.with_call(echo_pb2.SayRequest(), metadata=metadata, timeout=BOUND)
        initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
        self.assertEqual([initial["x-echo"], initial["x-echo-bin"]], ["kept", metadata[1][1]])
        self.assertEqual(
            [trailing["x-echo-trailer"], trailing["x-echo-trailer-bin"]], ["kept", metadata[1][1]]
        )

    def test_server_stream(self):
        """a stream of answers passes, in order"""
        answers = self.echo.Count(echo_pb2.CountRequest(to=200, size=100), timeout=BOUND)
        self.assertEqual([answer.number for answer in answers], list(range(1, 201)))

    def test_client_stream(self):
        """a stream of requests passes"""
        numbers = (echo_pb2.SumRequest(number=number) for number in range(100))
        answer = self.echo.Sum(numbers, timeout=BOUND)
        self.assertEqual((answer.sum, answer.count), (4950, 100))

    def test_bidi(self):
        """both streams pass at once: a request may wait for the answer to the last"""
        turns = queue.Queue()
        turns.put(0)
        requests = (echo_pb2.SayRequest(text=f"turn {turn}") for turn in iter(turns.get, None))
        answered = []
        for answer in self.echo.Talk(requests, timeout=BOUND):
            answered.append(answer.text)
            turns.put(len(answered) if len(answered) < 20 else None)
        self.assertEqual(answered, [f"turn {turn}" for turn in range(20)])

    def test_errors(self):
        """each code passes, with its message and its details"""
        for code in Code:
            if code is Code.OK:
                continue
            message = f"no: {code.name}, 100 % naïve ✓"
            request = echo_pb2.FailRequest(
                code=code.value[0], message=message, reason=echo_pb2.Reason(text="as it is")
            )
            error = error_of(lambda request=request: self.echo.Fail(request, timeout=BOUND))
            self.assertEqual((error.code(), error.details()), (code, message))
            self.assertEqual([r.text for r in details(error, echo_pb2.Reason)], ["as it is"])

    def test_error_of_a_stream(self):
        """a stream's error passes after its messages"""
        failure = echo_pb2.FailRequest(
            code=Code.DATA_LOSS.value[0], message="lost", reason=echo_pb2.Reason(text="torn")
        )
        stream = self.echo.Count(echo_pb2.CountRequest(to=3, failure=failure), timeout=BOUND)
        self.assertEqual([next(stream).number for _ in range(3)], [1, 2, 3])
        error = error_of(lambda: next(stream))
        self.assertEqual((error.code(), error.details()), (Code.DATA_LOSS, "lost"))
        self.assertEqual([r.text for r in details(error, echo_pb2.Reason)], ["torn"])

    def test_deadline(self):
        """a deadline holds, is told to the service, and cancels it there"""
        call = unique("deadline")
        begun = time.monotonic()
        error = error_of(lambda: self.echo.Hold(echo_pb2.HoldRequest(call=call), timeout=0.9))
        self.assertIs(error.code(), Code.DEADLINE_EXCEEDED)
        self.assertTrue(0.85 <= time.monotonic() - begun < 5)
        told = fate(self.upstream, call, State.STATE_CANCELLED).timeout_ms
        # Clients round up what they send: from a second on to hundredths.
        self.assertTrue(0 < told <= 910, told)

    def test_cancel(self):
        """a call that is given up is cancelled at the service"""
        call = unique("cancel")
        future = self.echo.Hold.future(echo_pb2.HoldRequest(call=call), timeout=BOUND)
        fate(self.upstream, call, State.STATE_RUNNING)
        self.assertTrue(future.cancel())
        fate(self.upstream, call, State.STATE_CANCELLED)

    def test_cancel_stream(self):
        """a stream that is given up half-way is cancelled at the service"""
        call = unique("cancel-stream")
        stream = self.echo.Count(echo_pb2.CountRequest(to=2, call=call, hold=True), timeout=BOUND)
        self.assertEqual([next(stream).number, next(stream).number], [1, 2])
        stream.cancel()
        fate(self.upstream, call, State.STATE_CANCELLED)


class ToConnectNode(Calls, unittest.TestCase):
    """gRPC to a service of connect-node"""

    prefix, upstream = "", STACK["echo"]


class ToGrpcio(Calls, unittest.TestCase):
    """gRPC to a service of grpcio"""

    prefix, upstream = "/python", STACK["grpcio"]


class WithGzip(Calls, unittest.TestCase):
    """gRPC with gzip to a service of grpcio"""

    prefix, upstream, compression = "/python", STACK["grpcio"], grpc.Compression.Gzip


class Refusals(unittest.TestCase):
    """what the gateway refuses"""

    def setUp(self):
        self.connection = channel(GATEWAY["url"])
        self.addCleanup(self.connection.close)

    def errors(self, prefix, metadata=()):
        """Of a unary call and of a stream: they travel differently."""
        stub = echo(self.connection, prefix)
        say = lambda: stub.Say(echo_pb2.SayRequest(), metadata=metadata, timeout=BOUND)
        count = lambda: list(
            stub.Count(echo_pb2.CountRequest(to=1), metadata=metadata, timeout=BOUND)
        )
        found = [error_of(say), error_of(count)]
        for error in found:
            self.assertTrue(error.details())
        return found

    def assert_codes(self, errors, code):
        self.assertEqual([error.code() for error in errors], [code, code])

    def test_no_route(self):
        """no route: UNIMPLEMENTED"""
        self.assert_codes(self.errors("/nowhere"), Code.UNIMPLEMENTED)

    def test_no_token(self):
        """no token, or a bad one: UNAUTHENTICATED"""
        self.assert_codes(self.errors("/private"), Code.UNAUTHENTICATED)
        bad = [("authorization", "Bearer no.such.token")]
        self.assert_codes(self.errors("/private", bad), Code.UNAUTHENTICATED)

    def test_token(self):
        """a good token: the service learns whose it is"""
        metadata = [("authorization", f"Bearer {STACK['token']}"), ("x-consumer", "root")]
        stub = echo(self.connection, "/private")
        answer = stub.Say(echo_pb2.SayRequest(), metadata=metadata, timeout=BOUND)
        self.assertEqual(answer.consumer, "ada")

    def test_rate_limit(self):
        """beyond a rate limit: RESOURCE_EXHAUSTED, and when to come again"""
        metadata = [("x-test", unique("limited"))]
        stub = echo(self.connection, "/limited")
        stub.Say(echo_pb2.SayRequest(), metadata=metadata, timeout=BOUND)
        errors = self.errors("/limited", metadata)
        self.assert_codes(errors, Code.RESOURCE_EXHAUSTED)
        for error in errors:
            self.assertTrue(1 <= retry_seconds(error) <= 60)

    def test_circuit(self):
        """an open circuit: UNAVAILABLE, and when to come again"""
        reset_circuit("route/fragile")
        self.addCleanup(reset_circuit, "route/fragile")
        stub = echo(self.connection, "/fragile")
        request = echo_pb2.FailRequest(code=Code.UNAVAILABLE.value[0], message="on fire")
        for _ in range(2):
            error = error_of(lambda: stub.Fail(request, timeout=BOUND))
            self.assertEqual(error.details(), "on fire")
        errors = self.errors("/fragile")
        self.assert_codes(errors, Code.UNAVAILABLE)
        for error in errors:
            self.assertTrue(1 <= retry_seconds(error) <= 30)

    def test_attempt_timeout(self):
        """an attempt that takes too long: DEADLINE_EXCEEDED, and cancelled at the service"""
        call = unique("hurried")
        stub = echo(self.connection, "/hurried")
        error = error_of(lambda: stub.Hold(echo_pb2.HoldRequest(call=call), timeout=BOUND))
        self.assertIs(error.code(), Code.DEADLINE_EXCEEDED)
        fate(STACK["echo"], call, State.STATE_CANCELLED)

    def test_unreachable(self):
        """a service that cannot be reached: UNAVAILABLE"""
        self.assert_codes(self.errors("/nobody"), Code.UNAVAILABLE)

    def test_too_large(self):
        """a message that is too large: RESOURCE_EXHAUSTED"""
        request = echo_pb2.SayRequest(text="x" * 4096)
        error = error_of(lambda: echo(self.connection, "/small").Say(request, timeout=BOUND))
        self.assertIs(error.code(), Code.RESOURCE_EXHAUSTED)


class Health(unittest.TestCase):
    """the health service of grpcio, through the gateway"""

    def setUp(self):
        connection = channel(GATEWAY["url"])
        self.addCleanup(connection.close)
        self.health = health_pb2_grpc.HealthStub(connection)

    def check(self, service):
        return self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=BOUND)

    def test_check(self):
        """Check says what serves, what does not, and what is not known"""
        self.assertEqual(self.check("").status, health_pb2.HealthCheckResponse.SERVING)
        self.assertEqual(self.check("interop.v1.Echo").status, health_pb2.HealthCheckResponse.SERVING)
        self.assertEqual(
            self.check("interop.v1.Resting").status, health_pb2.HealthCheckResponse.NOT_SERVING
        )
        self.assertIs(error_of(lambda: self.check("nobody")).code(), Code.NOT_FOUND)

    def test_watch(self):
        """Watch streams the state"""
        stream = self.health.Watch(
            health_pb2.HealthCheckRequest(service="interop.v1.Echo"), timeout=BOUND
        )
        self.assertEqual(next(stream).status, health_pb2.HealthCheckResponse.SERVING)
        stream.cancel()


def reset_circuit(circuit):
    order = urllib.request.Request(f"{GATEWAY['admin']}/circuits/{circuit}/reset", method="POST")
    with urllib.request.urlopen(order, timeout=BOUND) as answer:
        assert answer.status == 200
