"""grpcio: ten thousand messages pass, and the gateway's memory stays as it is."""

import threading
import unittest

from interop.v1 import echo_pb2
from support import GATEWAY, channel, echo, resident_bytes

MESSAGES = 10_000
# 100 MB in all, so that a gateway that kept what it passes on could not hide it.
SIZE = 10_000
WARM_UP = 500
MAY_GROW = 16 << 20
SAMPLE_EVERY = 0.02
BOUND = 120


class Memory(unittest.TestCase):
    """gRPC"""

    def setUp(self):
        connection = channel(GATEWAY["url"])
        self.addCleanup(connection.close)
        self.echo = echo(connection)

    def test_answers(self):
        """a stream of 10000 answers passes in constant memory"""
        self.in_constant_memory(self.count)

    def test_both(self):
        """10000 messages pass each way in constant memory"""
        self.in_constant_memory(self.talk)

    def count(self, messages):
        stream = self.echo.Count(echo_pb2.CountRequest(to=messages, size=SIZE), timeout=BOUND)
        numbers = [answer.number for answer in stream]
        self.assertEqual(numbers, list(range(1, messages + 1)))

    def talk(self, messages):
        text = "x" * SIZE
        requests = (echo_pb2.SayRequest(text=text) for _ in range(messages))
        received = sum(1 for answer in self.echo.Talk(requests, timeout=BOUND) if answer.text == text)
        self.assertEqual(received, messages)

    def in_constant_memory(self, work):
        work(WARM_UP)
        before = resident_bytes(GATEWAY)
        samples, over = [before], threading.Event()

        def sample():
            while not over.wait(SAMPLE_EVERY):
                samples.append(resident_bytes(GATEWAY))

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            work(MESSAGES)
        finally:
            over.set()
            sampler.join()
        samples.append(resident_bytes(GATEWAY))
        grown = max(samples) - before
        self.assertLessEqual(grown, MAY_GROW, f"grew by {grown >> 20} MiB, from {before >> 20} MiB")
