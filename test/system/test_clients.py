"""
Memcache clients as people use them, against a real server.

A client library that is missing is an error: these tests are the reason to believe that stock clients work.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import memcache
import pylibmc
import pymemcache
import pymemcache.serde
from twisted.trial.unittest import SynchronousTestCase

import darner
from test.servers import Client, Server, until

BINARY = [
    b"", b"\0", b"\0\0", b"\r\n", b"END\r\n", b"VALUE q 0 3\r\nxyz\r\nEND\r\n", b"\r\nset q 0 0 1\r\n", b"\xff\xfe\n",
    bytes(range(256)), bytes(range(256)) * 1000, b"x" * 8191, b"x" * 8192, b"x" * 65535, b"x" * 65536,
]  # fmt: skip

TYPED = [
    b"bytes", "text", "grüße", "", 0, -7, 2**40, True, False, None, 1.5, [1, "two", b"three"],
    {"job": ("resize", 800, 600)}, {"large": "x" * 50_000},
]  # fmt: skip
"""Values that come back as they were only if the client's flags come back with them."""


class _Contract:
    """
    What every client library can do with queues.

    A test case says with L{connect} how one connects.  A client has C{set}, C{get} and C{delete} as they all do.
    """

    options: tuple[str, ...] = ()
    """The server's, besides port and data directory."""
    binary = BINARY
    typed = TYPED
    figures = {
        "curr_items": 2, "total_items": 3, "cmd_set": 3, "cmd_get": 1, "get_hits": 1, "curr_connections": 1,
        "queue_q_items": 2,
    }  # fmt: skip

    def setUp(self: Any) -> None:
        self.server = Server(self, "--port=0", *self.options)

    def client(self: Any) -> Any:
        client = self.connect(*self.server.address)
        self.addCleanup(self.disconnect, client)
        return client

    def disconnect(self, client: Any) -> None:
        raise NotImplementedError

    def assert_same(self: Any, got: Any, expected: Any) -> None:
        self.assertEqual(got, expected)
        self.assertIs(type(got), type(expected))

    def test_order(self: Any) -> None:
        client = self.client()
        for number in range(500):
            self.assertTrue(client.set("q", f"item {number}"))
        self.assertEqual([client.get("q") for _ in range(500)], [f"item {number}" for number in range(500)])
        self.assertIsNone(client.get("q"))

    def test_order_after_crash(self: Any) -> None:
        client = self.client()
        for number in range(50):
            self.assertTrue(client.set("q", f"item {number}"))
        self.assertEqual(client.get("q"), "item 0")
        self.server.restart()
        client = self.client()
        self.assertEqual([client.get("q") for _ in range(49)], [f"item {number}" for number in range(1, 50)])

    def test_binary(self: Any) -> None:
        """Any bytes come back as they were sent."""
        client = self.client()
        for payload in self.binary:
            self.assertTrue(client.set("q", payload))
        for payload in self.binary:
            self.assert_same(client.get("q"), payload)

    def test_typed_values(self: Any) -> None:
        """Flags are kept, so that numbers, text and pickled objects come back as what they were."""
        client = self.client()
        for value in self.typed:
            self.assertTrue(client.set("q", value))
        for value in self.typed:
            self.assert_same(client.get("q"), value)

    def test_wait(self: Any) -> None:
        """A read waits for an item, and no longer than it was told."""
        client, other = self.client(), self.client()
        started = time.monotonic()
        self.assertIsNone(client.get("q/t=200"))
        self.assertTrue(0.19 < time.monotonic() - started < 5)
        got: list[Any] = []
        waiting = threading.Thread(target=lambda: got.append(client.get("q/t=20000")))
        waiting.start()
        with self.server.client() as raw:
            until(lambda: raw.stats().get(b"cmd_get") == b"2", "it waits")
        self.assertTrue(other.set("q", "for the one who waits"))
        waiting.join(10)
        self.assertEqual(got, ["for the one who waits"])

    def test_reliable_read(self: Any) -> None:
        """An item stays open until it is closed; then it is gone for good."""
        client = self.client()
        for number in range(3):
            client.set("q", f"item {number}")
        self.assertEqual(client.get("q/open"), "item 0")
        self.assertEqual(client.get("q/close/open"), "item 1")
        self.assertIsNone(client.get("q/abort"))
        self.assertEqual(client.get("q/t=100/open"), "item 1")
        self.assertIsNone(client.get("q/close"))
        self.server.restart()
        client = self.client()
        self.assertEqual([client.get("q"), client.get("q")], ["item 2", None])

    def test_client_that_dies(self: Any) -> None:
        """What a client had open when it died is the next to be had."""
        client, other = self.client(), self.client()
        for number in range(3):
            client.set("q", f"item {number}")
        self.assertEqual(client.get("q/open"), "item 0")
        self.assertEqual(other.get("q/peek"), "item 1")
        self.disconnect(client)
        with self.server.client() as raw:
            until(lambda: raw.count(b"q") == 3, "it was given back")
        self.assertEqual([other.get("q") for _ in range(4)], ["item 0", "item 1", "item 2", None])

    def test_delete(self: Any) -> None:
        client = self.client()
        client.set("q", "x")
        client.delete("q")
        self.assertIsNone(client.get("q"))
        client.set("q", "y")
        self.assertEqual(client.get("q"), "y")

    def test_flush_all(self: Any) -> None:
        client = self.client()
        for queue in "a", "b":
            client.set(queue, "x")
        self.flush_all(client)
        self.assertEqual([client.get("a"), client.get("b")], [None, None])
        client.set("a", "y")
        self.assertEqual(client.get("a"), "y")

    def test_stats(self: Any) -> None:
        client = self.client()
        for number in range(3):
            client.set("q", f"item {number}")
        client.get("q")
        stats = self.stats(client)
        self.assertEqual({name: int(stats[name]) for name in self.figures}, self.figures)
        self.assertEqual(stats["version"], darner.__version__)


class PymemcacheTests(_Contract, SynchronousTestCase):
    """
    pymemcache looks its reply up under the key that it asked for, so that it wants ``dialect = "memcache"``.
    """

    options = ("--dialect=memcache",)

    def connect(self, host: str, port: int) -> Any:
        return pymemcache.Client((host, port), serde=pymemcache.serde.pickle_serde, timeout=30, connect_timeout=30)

    def disconnect(self, client: Any) -> None:
        client.close()

    def flush_all(self, client: Any) -> None:
        self.assertTrue(client.flush_all(noreply=False))
        client.set("more", "x")
        self.assertTrue(client.flush_all())
        self.assertIsNone(client.get("more"))

    def stats(self, client: Any) -> dict[str, str]:
        decoded = {}
        for name, figure in client.stats().items():
            decoded[name.decode()] = figure.decode() if isinstance(figure, bytes) else str(figure)
        return decoded

    def test_bare_queue_name(self) -> None:
        """Without options it needs no setting."""
        server = Server(self)
        client = self.connect(*server.address)
        self.addCleanup(client.close)
        client.set("q", ["x"])
        self.assertEqual(client.get("q"), ["x"])

    def test_noreply(self) -> None:
        """It does not wait for replies by default; what it sends afterwards is answered in step."""
        client = self.client()
        for number in range(200):
            client.set("q", number, noreply=True)
        client.delete("other", noreply=True)
        self.assertEqual([client.get("q") for _ in range(201)], [*range(200), None])

    def test_several_queues(self) -> None:
        client = self.client()
        client.set_many({"a": 1, "b": 2})
        self.assertEqual(client.get_many(["a", "none", "b"]), {"a": 1, "b": 2})

    def test_version_and_quit(self) -> None:
        client = self.client()
        self.assertEqual(client.version(), darner.__version__.encode())
        client.quit()

    def test_errors(self) -> None:
        """Its exceptions are told from our errors."""
        client = self.client()
        client.set("q", "x", noreply=False)
        client.get("q/open")
        self.assertRaises(pymemcache.MemcacheClientError, client.get, "q")
        self.assertRaises(pymemcache.MemcacheUnknownCommandError, client.incr, "q", 1)


class PythonMemcachedTests(_Contract, SynchronousTestCase):
    """python-memcached, which sends a space before the line end of a ``set`` and takes any key in a reply."""

    typed = [value for value in TYPED if value is not None]
    """It cannot tell C{None} from nothing."""

    def connect(self, host: str, port: int) -> Any:
        return memcache.Client([f"{host}:{port}"], socket_timeout=30, server_max_value_length=2**30)

    def disconnect(self, client: Any) -> None:
        client.disconnect_all()

    def flush_all(self, client: Any) -> None:
        client.flush_all()

    def stats(self, client: Any) -> dict[str, str]:
        ((_, stats),) = client.get_stats()
        return stats

    def test_noreply(self) -> None:
        client = self.client()
        for number in range(200):
            client.set("q", number, noreply=True)
        client.delete("other", noreply=True)
        self.assertEqual([client.get("q") for _ in range(201)], [*range(200), None])

    def test_several_queues(self) -> None:
        client = self.client()
        self.assertEqual(client.set_multi({"a": 1, "b": "2"}), [])
        self.assertEqual(client.get_multi(["a", "none", "b"]), {"a": 1, "b": "2"})


class PylibmcTests(_Contract, SynchronousTestCase):
    """pylibmc, which is libmemcached: it sends a space before the line end of ``stats`` and ``flush_all``."""

    typed = [value for value in TYPED if value is not None and value is not True and value is not False]
    """It cannot tell C{None} from nothing, and reads truth values back as numbers, whatever the server."""
    figures = {name: figure for name, figure in _Contract.figures.items() if name != "queue_q_items"}
    """It gives out those that memcached has."""

    def connect(self, host: str, port: int) -> Any:
        behaviors = {"tcp_nodelay": True, "receive_timeout": 30_000_000, "send_timeout": 30_000_000}
        client = pylibmc.Client([f"{host}:{port}"], binary=False, behaviors=behaviors)
        # It gives up on a read after 5 s otherwise, whatever the wait.
        client.behaviors = {"_poll_timeout": 30_000}
        return client

    def disconnect(self, client: Any) -> None:
        client.disconnect_all()

    def flush_all(self, client: Any) -> None:
        # libmemcached knows memcached's "OK" only, and thinks ill of a server that answers as Kestrel does.
        self.assertRaises(pylibmc.SomeErrors, client.flush_all)
        client.disconnect_all()

    def stats(self, client: Any) -> dict[str, str]:
        ((_, stats),) = client.get_stats()
        return {_text(name): _text(figure) for name, figure in stats.items()}

    def test_several_queues(self) -> None:
        client = self.client()
        self.assertEqual(client.set_multi({"a": 1, "b": "2"}), [])
        self.assertEqual(client.get_multi(["a", "none", "b"]), {"a": 1, "b": "2"})

    def test_no_reply(self) -> None:
        """libmemcached's ``NOREPLY`` behaviour."""
        client = self.client()
        client.behaviors = {"_noreply": True}
        for number in range(200):
            client.set("q", number)
        client.behaviors = {"_noreply": False}
        self.assertEqual([client.get("q") for _ in range(201)], [*range(200), None])


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else value


class PipeliningTests(SynchronousTestCase):
    """Requests that are sent without waiting for replies are answered in their order."""

    def setUp(self) -> None:
        self.server = Server(self)

    def connect(self) -> Client:
        client = self.server.client()
        self.addCleanup(client.close)
        return client

    def test_in_order(self) -> None:
        client = self.connect()
        requests, replies = [], []
        for number in range(3000):
            payload = b"%d" % number * (number % 50)
            requests.append(b"set q %d 0 %d\r\n%b\r\n" % (number, len(payload), payload))
            replies.append(b"STORED\r\n")
            if number % 3 == 0:
                requests.append(b"get empty\r\nnonsense\r\nget q/peek\r\ndelete x\r\n")
                replies.append(b"END\r\nERROR\r\nVALUE q 0 0\r\n\r\nEND\r\nDELETED\r\n")
        for number in range(3000):
            payload = b"%d" % number * (number % 50)
            requests.append(b"get q\r\n")
            replies.append(b"VALUE q %d %d\r\n%b\r\nEND\r\n" % (number, len(payload), payload))
        requests.append(b"quit\r\n")
        sending = threading.Thread(target=client.send, args=(b"".join(requests),))
        sending.start()
        self.assertEqual(client.rest(), b"".join(replies))
        sending.join()

    def test_behind_a_wait(self) -> None:
        """What was sent behind a waiting read waits with it."""
        client, other = self.connect(), self.connect()
        client.send(b"get q/t=20000\r\nset q 5 0 6\r\nbehind\r\nget q\r\nget q/t=1\r\nversion\r\n")
        until(lambda: other.stats().get(b"cmd_get") == b"1", "it waits")
        self.assertEqual(other.count(b"q"), 0)
        self.assertEqual(other.set(b"q", b"first"), b"STORED")
        self.assertEqual(client.value(), (0, b"first"))
        self.assertEqual(client.line(), b"STORED")
        self.assertEqual(client.value(), (5, b"behind"))
        self.assertEqual(client.value(), None)
        self.assertEqual(client.line(), b"VERSION " + darner.__version__.encode())

    def test_behind_a_large_item(self) -> None:
        client = self.connect()
        large = bytes(range(256)) * 20_000
        client.send_set(b"q", large)
        client.send_set(b"q", b"small")
        client.send(b"get q\r\nget q\r\n")
        self.assertEqual([client.line(), client.line()], [b"STORED", b"STORED"])
        self.assertEqual([client.value(), client.value()], [(0, large), (0, b"small")])

    def test_noreply(self) -> None:
        client = self.connect()
        client.send(b"set q 0 0 1 noreply\r\na\r\nset q 0 0 1 noreply\r\nb\r\ndelete x noreply\r\nget q\r\nget q\r\n")
        self.assertEqual([client.value(), client.value()], [(0, b"a"), (0, b"b")])
        client.send(b"set q 0 0 1 noreply\r\na\r\nflush_all noreply\r\nget q\r\n")
        self.assertIsNone(client.value())

    def test_waiting_client_that_dies(self) -> None:
        """An item is not handed to a client that waited for it and has gone."""
        client, other = self.connect(), self.connect()
        for _ in range(5):
            gone = self.server.client()
            gone.send(b"get q/t=60000\r\nget q\r\n")
            until(lambda: other.stats().get(b"curr_connections") == b"3", "it has come")
            gone.close()
            until(lambda: other.stats().get(b"curr_connections") == b"2", "it has gone")
            self.assertEqual(client.set(b"q", b"x"), b"STORED")
            self.assertEqual(other.get(b"q"), b"x")
