"""
What every memcache client can do with queues, whatever its library.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import darner
from test.servers import Server, lend_server, until

BINARY = [
    b"", b"\0", b"\0\0", b"\r\n", b"END\r\n", b"VALUE q 0 3\r\nxyz\r\nEND\r\n", b"\r\nset q 0 0 1\r\n", b"\xff\xfe\n",
    bytes(range(256)), bytes(range(256)) * 1000, b"x" * 8191, b"x" * 8192, b"x" * 65535, b"x" * 65536,
]  # fmt: skip

TYPED = [
    b"bytes", "text", "grüße", "", 0, -7, 2**40, True, False, None, 1.5, [1, "two", b"three"],
    {"job": ("resize", 800, 600)}, {"large": "x" * 50_000},
]  # fmt: skip
"""Values that come back as they were only if the client's flags come back with them."""


class ClientContract:
    """
    What every client library can do with queues.

    A test case says with L{connect} how one connects.  A client has C{set}, C{get} and C{delete} as they all do.
    """

    dialect = "memcache"
    binary = BINARY
    typed = TYPED
    figures = {
        "curr_items": 2, "total_items": 3, "cmd_set": 3, "cmd_get": 1, "get_hits": 1, "curr_connections": 1,
        "queue_q_items": 2,
    }  # fmt: skip

    def setUp(self: Any) -> None:
        self.server = lend_server(self, Server, "--port=0", f"--dialect={self.dialect}")

    def start_own(self: Any) -> None:
        """Have a server whose figures nobody else has counted up."""
        self.server = Server(self, "--port=0", f"--dialect={self.dialect}")

    def client(self: Any) -> Any:
        client = self.connect(*self.server.address)
        self.addCleanup(self.disconnect, client)
        return client

    def disconnect(self, client: Any) -> None:
        client.close()

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
        self.start_own()
        client, other = self.client(), self.client()
        started = time.monotonic()
        self.assertIsNone(client.get("q/t=200"))
        self.assertLess(0.19, time.monotonic() - started)
        got: list[Any] = []
        waiting = threading.Thread(target=lambda: got.append(client.get("q/t=600000")))
        with self.server.client() as raw:
            self.assertEqual(raw.stats()[b"get_misses"], b"1", "the server has said so, and not the client given up")
            waiting.start()
            until(lambda: raw.stats().get(b"cmd_get") == b"2", "it waits")
        self.assertTrue(other.set("q", "for the one who waits"))
        waiting.join()
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
        self.assertTrue(self.delete(client, "q"))
        self.assertIsNone(client.get("q"))
        self.assertEqual(bool(self.delete(client, "q")), self.dialect == "kestrel")
        client.set("q", "y")
        self.assertEqual(client.get("q"), "y")

    def delete(self: Any, client: Any, key: str) -> Any:
        return client.delete(key)

    def test_several_queues(self: Any) -> None:
        client = self.client()
        self.assertTrue(client.set("a", "1"))
        self.assertTrue(client.set("b", "2"))
        self.assertEqual(self.get_many(client, "a", "none", "b"), ["1", None, "2"])
        self.assertEqual(self.get_many(client, "a", "none", "b"), [None] * 3)

    def get_many(self: Any, client: Any, *keys: str) -> list[Any]:
        return client.get_many(*keys)  # type: ignore[no-any-return]

    def test_flush_all(self: Any) -> None:
        client = self.client()
        for queue in "a", "b":
            client.set(queue, "x")
        self.assertTrue(self.flush_all(client))
        self.assertEqual([client.get("a"), client.get("b")], [None, None])
        client.set("a", "y")
        self.assertEqual(client.get("a"), "y")

    def flush_all(self: Any, client: Any) -> Any:
        return client.flush_all()

    def stats(self: Any, client: Any) -> dict[str, Any]:
        return client.stats()  # type: ignore[no-any-return]

    def test_touch(self: Any) -> None:
        """What is open stays so for longer, and what is not is not found."""
        client = self.client()
        client.set("q", "x")
        self.assertFalse(self.touch(client, "q"))
        self.assertEqual(client.get("q/open"), "x")
        self.assertTrue(self.touch(client, "q"))

    def touch(self: Any, client: Any, key: str) -> Any:
        return client.touch(key)

    def test_stats(self: Any) -> None:
        self.start_own()
        client = self.client()
        for number in range(3):
            client.set("q", f"item {number}")
        client.get("q")
        stats = self.stats(client)
        self.assertEqual({name: int(stats[name]) for name in self.figures}, self.figures)
        self.assertEqual(stats["version"], darner.__version__)
