"""A stream that says nothing for longer than a gRPC server bears pings. By default it takes one in five
minutes without data, and ends a connection that pings more often: `Too many pings`."""

import time
import unittest

from interop.v1 import echo_pb2
from support import BOUND, GATEWAY, STACK, channel, echo, fate, unique

# With a ping a minute, the connection ended after 120 s.
SILENCE = 135


class Silence(unittest.TestCase):
    """gRPC"""

    def test_silence(self):
        """a stream of grpcio that is silent for 135 s lives on, and so does its connection"""
        service, name = echo(channel(GATEWAY["url"]), "/silent"), unique("silent")
        stream = service.Count(echo_pb2.CountRequest(call=name, to=1, hold=True))
        self.assertEqual(next(stream).number, 1)
        until = time.monotonic() + SILENCE
        while time.monotonic() < until:
            # An error, with its details, as soon as there is one.
            if not stream.is_active():
                list(stream)
            time.sleep(1)
        self.assertEqual(service.Say(echo_pb2.SayRequest(text="hi"), timeout=BOUND).text, "hi")
        self.assertTrue(stream.is_active())
        stream.cancel()
        fate(STACK["grpcio"], name, echo_pb2.FateResponse.State.STATE_CANCELLED)


if __name__ == "__main__":
    unittest.main()
