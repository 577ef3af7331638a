"""Taking requests out of what a client sends: `darner.front.framing`."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Optional

from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from darner.front import kestrel, memcache, memcache_requests
from darner.front.framing import Framing
from darner.front.kestrel_port import TextFraming
from darner.front.session import Session
from darner.net.port import FastPort
from darner.values import requests
from test.harness import Server, value

STREAM = (
    b"set q 1 0 5\r\nhello\r\nget q\r\n"
    b"set q 0 0 0 noreply\r\n\r\nGET q \n"
    b"set bad/name 0 0 4\r\n\r\n\r\n\r\nversions\r\n"
)
REPLIES = (
    b"STORED\r\nVALUE q 1 5\r\nhello\r\nEND\r\n"
    b"VALUE q 0 0\r\n\r\nEND\r\n"
    b"CLIENT_ERROR unknown option of set\r\nERROR\r\n"
)


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.calls: list[str] = []

    def write(self, data: bytes) -> None:
        self.written += data

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def loseConnection(self) -> None:
        self.calls.append("lose")

    def abortConnection(self) -> None:
        self.calls.append("abort")


class Carrier:
    """
    A connection.

    @ivar on_refused: called when a request is refused, in the middle of the work.
    """

    def __init__(self) -> None:
        self.transport = Transport()
        self.modes: list[str] = []
        self.on_refused: Optional[Callable[[], None]] = None

    def refused(self, request: requests.Refused) -> None:
        if self.on_refused is not None:
            self.on_refused()

    def setRawMode(self) -> None:
        self.modes.append("raw")

    def setLineMode(self) -> None:
        self.modes.append("line")

    def ended(self) -> None:
        self.transport.calls.append("ended")


class LogTests(SynchronousTestCase):
    """Also what is compiled knows whose its log is."""

    def test_names(self) -> None:
        self.assertEqual(FastPort._log.namespace, "darner.net.port.FastPort")
        with capturedLogs() as logs:
            Server().queues.commit.log.emit(LogLevel.info, "something")
        self.assertEqual([event["log_namespace"] for event in logs], ["darner.queues"])


class FramingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.carrier = Carrier()
        self.framing = Framing(self.carrier, self.server.queues, memcache_requests.LineCache())
        self.framing.session = Session(self.server.queues, self.framing, memcache.KESTREL)
        self.calls = self.carrier.transport.calls

    def said(self) -> bytes:
        """@return: what was written since the last time, when the turn is over."""
        self.server.commit()
        transport = self.carrier.transport
        written, transport.written = transport.written, b""
        return written

    def test_ending(self) -> None:
        """A connection that only the server has closed is not idle, and is aborted after a time-out."""
        self.assertEqual((self.framing.stalled, self.framing.idle), (False, True))
        self.framing.received(b"quit\r\n")
        self.said()
        self.assertEqual(self.calls, ["ended", "lose"])
        self.assertEqual((self.framing.stalled, self.framing.idle), (True, False))
        self.framing.abort()
        self.assertEqual(self.calls[2:], ["ended", "abort"])

    def test_whole(self) -> None:
        self.framing.received(STREAM)
        self.assertEqual(self.said(), REPLIES)

    def test_by_bytes(self) -> None:
        for at in range(len(STREAM)):
            self.framing.received(STREAM[at : at + 1])
        self.assertEqual(self.said(), REPLIES)

    def test_every_cut(self) -> None:
        for cut in range(len(STREAM) + 1):
            self.framing.received(STREAM[:cut])
            self.framing.received(STREAM[cut:])
            self.assertEqual(self.said(), REPLIES, cut)

    def test_line_ends_where_none_is_expected(self) -> None:
        """The lengths of earlier lines are no more than a guess."""
        for known in (b"get abc\r\n", b"version\r\n"):
            self.framing.received(known * 2)
        self.said()
        for stream, count in (
            (b"abcd\r\nx\r\n", 2),  # its second line ends where a known one would
            (b"ab\r\nabc\r\n", 2),
            (b"get abcdef\r\nget abc\r\n", 2),
            (b"get abc\r", 0),
            (b"\nget abc\r\nversion", 2),
            (b"\r\n", 1),
        ):
            self.framing.received(stream)
            said = self.said()
            self.assertEqual(said.count(b"END\r\n") + said.count(b"ERROR\r\n") + said.count(b"VERSION"), count, stream)

    def test_long_lines_are_not_kept(self) -> None:
        """What a connection keeps of its last lines is bounded as the cache is."""
        short, long = b"get q\r", b"get %b\r" % (b"q" * memcache_requests.LineCache.MAX_LENGTH)
        for line in (short, long, long):
            self.framing.received(line + b"\n")
        self.assertEqual(self.said(), memcache.END * 3)
        self.assertEqual((self.framing._last.text, self.framing._last_but_one.text), (short, b""))

    def test_any_lines(self) -> None:
        """However lines follow one another, and payloads look like lines, the replies are those to single bytes."""
        chance = random.Random(1)
        for _ in range(50):
            requests = []
            for _ in range(chance.randrange(1, 12)):
                payload = bytes(chance.choices(b"\r\n qg", k=chance.randrange(12)))
                requests.append(chance.choice([
                    b"get q\r\n", b"get qq\r\n", b"get qqq\n", b"delete q\r\n", b"\r\n", b"\n", b"x\n",
                    b"set q 0 0 %d\r\n%b\r\n" % (len(payload), payload),
                    b"set qq 0 0 %d noreply\r\n%b\r\n" % (len(payload), payload),
                ]))  # fmt: skip
            stream = b"".join(requests)
            said = []
            for size in (len(stream), 1, 7):
                self.setUp()
                for at in range(0, len(stream), size):
                    self.framing.received(stream[at : at + size])
                said.append(self.said())
            self.assertEqual(said, [said[0]] * 3, stream)

    def test_with_more_behind(self) -> None:
        self.framing.received(STREAM + b"get")
        self.assertEqual(self.said(), REPLIES)
        self.framing.received(b" q\r\n")
        self.assertEqual(self.said(), memcache.END)

    def test_modes(self) -> None:
        """Raw mode is only for payloads that were not received whole."""
        self.framing.received(b"set q 0 0 1\r\nx\r\n")
        self.assertEqual(self.carrier.modes, [])
        self.framing.received(b"set q 0 0 1\r\nx\r")
        self.assertEqual(self.carrier.modes, ["raw"])
        self.framing.received(b"\n")
        self.assertEqual(self.carrier.modes, ["raw", "line"])
        self.assertEqual(self.said(), memcache.STORED * 2)

    def test_received_in_the_middle_of_the_work(self) -> None:
        """Bytes received meanwhile are handled after the present request."""
        self.carrier.on_refused = lambda: self.framing.received(b"get q\r\n")
        self.framing.received(b"nonsense\r\nset q 0 0 1\r\nx\r\n")
        self.assertEqual(self.said(), memcache.ERROR + memcache.STORED + value(b"q", b"x", 0))

    def test_lost_in_the_middle_of_the_work(self) -> None:
        """Requests after that are not served."""
        self.carrier.on_refused = self.framing.lost
        self.framing.received(b"nonsense\r\nset q 0 0 1\r\nx\r\n")
        self.assertEqual(self.said(), b"")
        self.assertEqual(self.server.queues.names(), [])

    def test_end(self) -> None:
        for end, call in ((self.framing.close, "lose"), (self.framing.abort, "abort")):
            end()
            self.assertEqual(self.calls, ["ended", call])
            self.calls.clear()
        self.framing.lost()
        self.framing.close()
        self.framing.abort()
        self.assertEqual(self.calls, [])

    def test_much_is_held(self) -> None:
        """The server does not read from a client that sends far ahead while it waits, until the wait ends."""
        ahead = b"get q\r\n" * (self.server.queues.client_bytes // 7 + 2)
        self.framing.received(b"get q/t=1000\r\n" + ahead)
        self.assertEqual(self.calls, ["pause"])
        self.server.clock.advance(1)
        while not self.said().endswith(memcache.END) or self.calls == ["pause"]:
            self.server.clock.advance(0)
        self.assertEqual(self.calls, ["pause", "resume"])


class TextFramingTests(SynchronousTestCase):
    """The same of Kestrel's text protocol."""

    def said(self, stream: bytes, size: int) -> bytes:
        """@return: what is answered to a stream that is received in pieces of this size."""
        server, carrier = Server(), Carrier()
        framing = TextFraming(carrier, server.queues, memcache_requests.LineCache())
        framing.session = Session(server.queues, framing, kestrel.TEXT)
        for at in range(0, len(stream), size):
            framing.received(stream[at : at + size])
        server.commit()
        return carrier.transport.written

    def test_any_lines(self) -> None:
        chance = random.Random(1)
        parts = [b"\n", b"\r\n", b"put q:\nx\n\n", b"get q\n", b"put q:\n\n", b"nonsense\r\n", b"delete q\n"]
        for _ in range(50):
            stream = b"".join(chance.choices(parts, k=chance.randrange(1, 12)))
            self.assertEqual([self.said(stream, size) for size in (len(stream), 7)], [self.said(stream, 1)] * 2, stream)

    def test_empty_lines(self) -> None:
        self.assertEqual(self.said(b"\n\n", 2), b"-Unknown command.\n" * 2)


class EmptyLineTests(SynchronousTestCase):
    """What stands for lines that were not received yet is an empty line, as each dialect answers it."""

    def test_dialects(self) -> None:
        for dialect in memcache.DIALECTS.values():
            line = memcache_requests.LineCache(dialect.relative_expiry).parse(b"")
            self.assertEqual(line, memcache_requests.NO_LINE)
