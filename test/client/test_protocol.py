"""
The client's side of the protocol, without I/O: every reply whole, byte by byte and with more behind it.
"""

from __future__ import annotations

from typing import Any, Optional

from twisted.trial.unittest import SynchronousTestCase

from darner.client import requests
from darner.client.errors import (
    AuthenticationFailed,
    BadQueueName,
    ClientError,
    ItemTooLarge,
    NotAllowed,
    ProtocolError,
    QueueFull,
    ServerError,
    TooManyConnections,
    TooManyOpenReads,
    Unauthenticated,
    Unavailable,
)  # fmt: skip
from darner.client.protocol import MAX_LINE, Connection, Delivery, Event, Farewell, Item, Piece, Refusal, Reply
from darner.client.requests import Kind, Request

VALUE = b"VALUE q 7 5\r\nhe\r\no\r\n"
ITEM = Item(b"he\r\no", 7, "q")

REPLIES: list[tuple[Request, bytes, Any]] = [
    (requests.put("q", b"x"), b"STORED\r\n", True),
    (requests.put("q", b"x"), b"STORED\n", True),
    (requests.login("u", "p"), b"STORED\r\n", True),
    (requests.get("q"), b"END\r\n", None),
    (requests.get("q"), VALUE + b"END\r\n", ITEM),
    (requests.get("q"), b"VALUE q 0 0\r\n\r\nEND\r\n", Item(b"", 0, "q")),
    (requests.get("q"), b"VALUE q/open/t=5 4294967295 1\r\nx\r\nEND\r\n", Item(b"x", 2**32 - 1, "q")),
    (requests.get("q", open=True, close=True, wait=1), VALUE + b"END\r\n", ITEM),
    (requests.get_each("q", "r"), VALUE + b"VALUE r 0 5\r\nEND\r\n\r\nEND\r\n", [ITEM, Item(b"END\r\n", 0, "r")]),
    (requests.get_each("q", "r"), b"END\r\n", []),
    (requests.get_first("q", "r", wait=1), VALUE + b"END\r\n", ITEM),
    (requests.close("q"), b"END\r\n", None),
    (requests.abort("q"), b"END\r\n", None),
    (requests.confirm("q", 2), b"END\r\n", True),
    (requests.confirm("q", 2), b"ERROR\r\n", False),
    (requests.touch("q"), b"TOUCHED\r\n", True),
    (requests.touch("q"), b"NOT_FOUND\r\n", False),
    (requests.flush("q"), b"END\r\n", None),
    (requests.flush_all(), b"Flushed all queues.\r\n", "Flushed all queues."),
    (requests.flush_expired("q"), b"17\r\n", 17),
    (requests.flush_expired(), b"0\r\n", 0),
    (requests.requeue("q", "r", 3), b"3\r\n", 3),
    (requests.delete("q"), b"DELETED\r\n", "DELETED"),
    (requests.stats(), b"STAT uptime 5\r\nSTAT store_refuses no room\r\nEND\r\n",
     {"uptime": "5", "store_refuses": "no room"}),
    (requests.stats(), b"END\r\n", {}),
    (requests.dump_stats("q"), b"queue 'q' {\r\n  items=1\r\n  a=b=c\r\n}\r\nqueue 'it's' {\r\n}\r\nEND\r\n",
     {"q": {"items": "1", "a": "b=c"}, "it's": {}}),
    (requests.dump_config(), b"END\r\n", {}),
    (requests.status(), b"UP\r\n", "UP"),
    (requests.set_status("up"), b"END\r\n", None),
    (requests.version(), b"VERSION 1.2\r\n", "1.2"),
    (requests.reload(), b"Reloaded config.\r\n", "Reloaded config."),
]  # fmt: skip

ERRORS: list[tuple[bytes, type[Exception], str]] = [
    (b"ERROR", ClientError, "the server does not know this command"),
    (b"CLIENT_ERROR bad queue name", BadQueueName, "bad queue name"),
    (b"CLIENT_ERROR close current item first", TooManyOpenReads, "close current item first"),
    (b"CLIENT_ERROR unauthenticated", Unauthenticated, "unauthenticated"),
    (b"CLIENT_ERROR authentication failure", AuthenticationFailed, "authentication failure"),
    (b"CLIENT_ERROR not allowed", NotAllowed, "not allowed"),
    (b"CLIENT_ERROR some new \xff one", ClientError, "some new \ufffd one"),
    (b"SERVER_ERROR object too large", ItemTooLarge, "object too large"),
    (b"SERVER_ERROR too many connections", TooManyConnections, "too many connections"),
    (b"SERVER_ERROR server is readonly", Unavailable, "server is readonly"),
    (b"SERVER_ERROR server is quiescent", Unavailable, "server is quiescent"),
    (b"SERVER_ERROR cannot write: oh", ServerError, "cannot write: oh"),
]


def feed(connection: Connection, data: bytes, size: Optional[int] = None) -> list[Event]:
    """@return: the events of data that comes in pieces of a size, or whole."""
    events = []
    for at in range(0, len(data), size or len(data)):
        events += connection.receive(data[at : at + (size or len(data))])
    return events


class RepliesTests(SynchronousTestCase):
    """What each request is answered by."""

    def results(self, asked: list[Request], data: bytes, size: Optional[int] = None) -> list[Any]:
        connection = Connection()
        for request in asked:
            self.assertEqual(connection.send(request), request.data)
        found = []
        for event in feed(connection, data, size):
            assert isinstance(event, Reply), event
            found.append((event.request, event.result))
        self.assertEqual(connection.outstanding, len(asked) - len(found))
        return found

    def test_whole(self) -> None:
        for request, reply, result in REPLIES:
            self.assertEqual(self.results([request], reply), [(request, result)])

    def test_byte_by_byte(self) -> None:
        for request, reply, result in REPLIES:
            for size in (1, 2, 3, 7):
                self.assertEqual(self.results([request], reply, size), [(request, result)])

    def test_incomplete(self) -> None:
        """Nothing is told before all is there."""
        for request, reply, _ in REPLIES:
            for end in range(1, len(reply)):
                self.assertEqual(self.results([request], reply[:end]), [], reply[:end])

    def test_more_behind(self) -> None:
        """Every reply, with each other one behind it, cut anyhow."""
        asked = [request for request, _, _ in REPLIES] * 2
        data = b"".join(reply for _, reply, _ in REPLIES + REPLIES[::-1])
        expected = [(request, result) for request, _, result in REPLIES]
        asked = [request for request, _ in expected] + [request for request, _, _ in REPLIES[::-1]]
        for size in (None, 1, 5, 64):
            self.assertEqual(self.results(asked, data, size), expected + [(r, x) for r, _, x in REPLIES[::-1]])

    def test_errors(self) -> None:
        for line, kind, text in ERRORS:
            for request, _, _ in REPLIES:
                if request.kind == Kind.CONFIRMED and line == b"ERROR":
                    continue
                for size in (None, 1):
                    connection = Connection()
                    connection.send(request)
                    connection.send(requests.version())
                    refusal, reply = feed(connection, line + b"\r\nVERSION 1\r\n", size)
                    assert isinstance(refusal, Refusal)
                    assert isinstance(reply, Reply)
                    self.assertIs(type(refusal.error), kind)
                    self.assertEqual((str(refusal.error), refusal.request, reply.result), (text, request, "1"))

    def test_queue_full(self) -> None:
        connection = Connection()
        connection.send(requests.put("q", b""))
        (event,) = connection.receive(b"NOT_STORED\r\n")
        assert isinstance(event, Refusal)
        self.assertIsInstance(event.error, QueueFull)

    def test_error_behind_a_part(self) -> None:
        """What came before an error is not told with the next reply."""
        connection = Connection()
        for request in (requests.get_each("q", "r"), requests.get_each("q", "r"), requests.stats(), requests.stats()):
            connection.send(request)
        events = connection.receive(
            VALUE + b"SERVER_ERROR oh\r\nEND\r\nSTAT a b\r\nSERVER_ERROR oh\r\nEND\r\n"
        )
        self.assertEqual([event.result for event in events if isinstance(event, Reply)], [[], {}])

    def test_large_item(self) -> None:
        payload = bytes(range(256)) * 4000
        data = b"VALUE q 0 %d\r\n%b\r\nEND\r\n" % (len(payload), payload)
        for size in (None, 1000, 65536, len(data) - 3, len(data) - 6, len(data) - 7, len(data) - 8):
            self.assertEqual(self.results([requests.get("q")], data, size)[0][1].payload, payload)

    def test_sink(self) -> None:
        """Nothing of a payload is kept where it has somewhere to go."""
        data = b"VALUE q 7 6\r\nab\r\ncd\r\nEND\r\nEND\r\n"
        for size in (None, 1, 2, 5):
            connection = Connection()
            got: list[bytes] = []
            connection.send(requests.get("q", open=True, sink=got.append))
            connection.send(requests.get("q", open=True, sink=got.append))
            events = feed(connection, data, size)
            pieces = [event.data for event in events if isinstance(event, Piece)]
            self.assertEqual(b"".join(pieces), b"ab\r\ncd")
            self.assertEqual(
                [event.result for event in events if isinstance(event, Reply)], [Item(b"", 7, "q"), None]
            )

    def test_no_reply(self) -> None:
        connection = Connection()
        for request in (
            requests.put("q", b"", noreply=True), requests.touch("q", noreply=True), requests.quit(),
        ):  # fmt: skip
            connection.send(request)
        self.assertEqual(connection.outstanding, 0)

    def test_end(self) -> None:
        """A shutdown is answered by the end of the connection."""
        connection = Connection()
        connection.send(requests.get("q"))
        connection.send(requests.shutdown())
        (event,) = connection.end()
        assert isinstance(event, Reply)
        self.assertEqual(event.result, None)
        connection = Connection()
        connection.send(requests.shutdown())
        (refusal,) = connection.receive(b"CLIENT_ERROR shutdown is not allowed here\r\n")
        self.assertIsInstance(refusal, Refusal)


class MonitorTests(SynchronousTestCase):
    """Both ways in which servers end the items of a monitor."""

    def deliveries(self, data: bytes, size: Optional[int]) -> tuple[list[Item], list[Event]]:
        connection = Connection()
        request = requests.monitor("q", 1.2, 5)
        self.assertEqual(connection.send(request), b"monitor q 2 5\r\nversion\r\n")
        connection.send(requests.confirm("q", 1))
        events = feed(connection, data + b"VERSION 1\r\nEND\r\n", size)
        items = [event.item for event in events if isinstance(event, Delivery)]
        return items, [event for event in events if not isinstance(event, Delivery)]

    def test_framings(self) -> None:
        for end in (b"", b"END\r\n"):
            for count in range(4):
                for size in (None, 1, 4):
                    items, (done, confirmed) = self.deliveries((VALUE + end) * count + b"END\r\n", size)
                    self.assertEqual(items, [ITEM] * count)
                    assert isinstance(done, Reply)
                    assert isinstance(confirmed, Reply)
                    self.assertEqual((done.result, confirmed.result), (None, True))

    def test_error(self) -> None:
        for data in (b"SERVER_ERROR server is quiescent\r\n", VALUE + b"SERVER_ERROR server is quiescent\r\n"):
            _, (refusal, confirmed) = self.deliveries(data, None)
            assert isinstance(refusal, Refusal)
            self.assertIsInstance(refusal.error, Unavailable)
            self.assertIsInstance(confirmed, Reply)

    def test_items_come_at_once(self) -> None:
        connection = Connection()
        connection.send(requests.monitor("q", 1))
        for end in (b"", b"END\r\n"):
            (event,) = connection.receive(VALUE + end)
            self.assertIsInstance(event, Delivery)


class HostileServerTests(SynchronousTestCase):
    """What is no reply ends the connection, and never hangs or raises anything else."""

    def test_wrong_replies(self) -> None:
        for asked, data in (
            (requests.put("q", b""), b"END\r\n"),
            (requests.put("q", b""), VALUE),
            (requests.get("q"), b"STORED\r\n"),
            (requests.get("q"), VALUE + VALUE),
            (requests.get("q"), b"VALUE q 7 5\r\nhello!\r\n"),
            (requests.get("q"), b"VALUE q 7 5\r\nhelloxx"),
            (requests.get("q"), b"VALUE q 7\r\n"),
            (requests.get("q"), b"VALUE q 7 -5\r\n"),
            (requests.get("q"), b"VALUE q 7 5" + b" " * MAX_LINE),
            (requests.get("q"), b"x" * (MAX_LINE + 1)),
            (requests.touch("q"), b"END\r\n"),
            (requests.requeue("q", "r"), b"-1\r\n"),
            (requests.requeue("q", "r"), b"END\r\n"),
            (requests.status(), VALUE),
            (requests.status(), b"END\r\n"),
            (requests.stats(), b"hello\r\nEND\r\n"),
            (requests.stats(), b"STAT\r\nEND\r\n"),
            (requests.dump_stats(), b"hello\r\nEND\r\n"),
            (requests.dump_stats(), b"queue 'q' {\r\nEND\r\n"),
            (requests.monitor("q", 1), b"STORED\r\n"),
            (requests.confirm("q", 1), b"STORED\r\n"),
            (requests.get("q"), b"ERRORS\r\n"),
            (None, b"END\r\n"),
            (None, b"hello"),
        ):
            for size in (None, 1):
                connection = Connection()
                if asked is not None:
                    connection.send(asked)
                self.assertRaises(ProtocolError, feed, connection, data, size)

    def test_farewell(self) -> None:
        for size in (None, 1):
            (event,) = feed(Connection(), b"SERVER_ERROR too many connections\r\n", size)
            assert isinstance(event, Farewell)
            self.assertIsInstance(event.error, TooManyConnections)


class RequestsTests(SynchronousTestCase):
    """The bytes of requests, and what cannot be one."""

    def test_bytes(self) -> None:
        put = requests.put
        for request, data in (
            (put("q", b"hello"), b"set q 0 0 5\r\nhello\r\n"),
            (put(b"q", b"", flags=3, expiry=-1), b"set q 3 -1 0\r\n\r\n"),
            (put("q", b"x", sync=True, delay=1.5, id="k"), b"set q/sync/delay=1500/id=k 0 0 1\r\nx\r\n"),
            (put("q", b"x", delay=0), b"set q/delay=0 0 0 1\r\nx\r\n"),
            (put("q", b"x", noreply=True), b"set q 0 0 1 noreply\r\nx\r\n"),
            (requests.put_stream("q", 70000), b"set q 0 0 70000\r\n"),
            (requests.login("mailer", "a secret"), b"set auth 0 0 15\r\nmailer a secret\r\n"),
            (requests.get("q"), b"get q\r\n"),
            (requests.get("q", wait=0.25, open=True, close=True), b"get q/close/open/t=250\r\n"),
            (requests.get("q", peek=True), b"get q/peek\r\n"),
            (requests.get_each("a", "b"), b"get a b\r\n"),
            (requests.get_first("a", "b", open=True), b"get a b/t=0/open\r\n"),
            (requests.get_first("a", "b", wait=1, close=True), b"get a b/t=1000/close\r\n"),
            (requests.get_first("a", "b", peek=True), b"get a b/t=0/peek\r\n"),
            (requests.monitor("q", 0), b"monitor q 0\r\nversion\r\n"),
            (requests.touch("q", noreply=True), b"touch q noreply\r\n"),
            (requests.requeue("a", "b"), b"requeue a b\r\n"),
            (requests.flush_expired("q"), b"flush_expired q\r\n"),
            (requests.dump_stats(), b"dump_stats\r\n"),
            (requests.quit(), b"quit\r\n"),
        ):
            self.assertEqual(request.data, data)

    def test_refused(self) -> None:
        for name in ("", "a/b", "a b", "a\r\nflush_all", "grün", "x" * 251, b"\x00"):
            self.assertRaises(BadQueueName, requests.put, name, b"")
            self.assertRaises(BadQueueName, requests.get, name)
            if name:
                self.assertRaises(ClientError, requests.put, "q", b"", id=name)
        for call in (
            lambda: requests.put("q", b"", flags=2**32), lambda: requests.put("q", b"", flags=-1),
            lambda: requests.put("q", b"", delay=-1), lambda: requests.get("q", wait=float("nan")),
            lambda: requests.login("a b", "c"), lambda: requests.login("", "c"),
            lambda: requests.login("a", "c" * 1024),
            lambda: requests.set_status("up\r\nflush_all"), lambda: requests.get_each(*["q" * 250] * 9),
        ):  # fmt: skip
            self.assertRaises(ClientError, call)

    def test_repeatable(self) -> None:
        """What would do harm a second time is not sent again."""
        for request in (
            requests.put("q", b""), requests.get("q"), requests.get("q", close=True, open=True), requests.flush("q"),
            requests.requeue("a", "b"), requests.confirm("q", 1), requests.put_stream("q", 1, id="a"),
            requests.close("q"),
        ):  # fmt: skip
            self.assertFalse(request.repeatable, request)
        for request in (
            requests.put("q", b"", id="a"), requests.get("q", open=True), requests.get("q", peek=True),
            requests.stats(), requests.version(), requests.status(),
        ):  # fmt: skip
            self.assertTrue(request.repeatable, request)

    def test_names_that_are_known_are_bounded(self) -> None:
        for number in range(3 * requests._KNOWN_NAMES):
            requests.queue_name(f"q{number}")
        self.assertLessEqual(len(requests._names), requests._KNOWN_NAMES)
