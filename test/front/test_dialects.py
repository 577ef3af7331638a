"""
The dialects of the memcache protocol: what Kestrel's clients are told, and what stock clients of memcached are.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from darner.errors import ClientError, ItemTooLarge, QueueFull
from darner.front import memcache
from darner.front.memcache_requests import LineCache, parse
from darner.values.requests import Refused, Set
from darner.values.vocabulary import DIALECTS
from test.harness import EPOCH, Server, value

LARGE = bytes(range(256)) * 1000


class DialectTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server(max_item_bytes=1_000_000)
        self.kestrel = self.server.client()
        self.memcache = self.server.client(memcache.MEMCACHE)

    def check(self, client: Any, line: bytes, reply: bytes) -> None:
        self.assertEqual((line, client.does(line)), (line, reply))


class RepliesTests(DialectTestCase):
    def test_names(self) -> None:
        """The setting and the spellings go by the same names."""
        self.assertEqual(tuple(memcache.DIALECTS), DIALECTS)
        self.assertIs(memcache.DIALECTS["kestrel"], memcache.KESTREL)

    def test_flush_all(self) -> None:
        for line in (b"flush_all", b"flush_all 0", b"FLUSH_ALL -1"):
            self.check(self.memcache, line, b"OK\r\n")
        self.check(self.memcache, b"flush_all noreply", b"")
        self.check(self.kestrel, b"flush_all", b"Flushed all queues.\r\n")
        self.check(self.kestrel, b"flush_all 0", b"OK\r\n")

    def test_delete(self) -> None:
        for client, nothing in ((self.kestrel, b"DELETED\r\n"), (self.memcache, b"NOT_FOUND\r\n")):
            self.kestrel.sets(b"q", b"x")
            self.check(client, b"delete q", b"DELETED\r\n")
            self.check(client, b"delete q", nothing)
            self.check(client, b"delete q noreply", b"")

    def test_delete_of_what_is_only_waited_for(self) -> None:
        self.kestrel.ask(b"get q/t=1000")
        self.check(self.memcache, b"delete q", b"NOT_FOUND\r\n")

    def test_two_deletes_in_one_turn(self) -> None:
        """The second delete is not answered before the first is written."""
        self.kestrel.sets(b"q", b"x")
        self.memcache.ask(b"delete q")
        self.memcache.ask(b"delete q")
        self.assertEqual(self.memcache.hears(), b"")
        self.server.commit()
        self.assertEqual(self.memcache.hears(), b"DELETED\r\nNOT_FOUND\r\n")

    def test_flush_and_status(self) -> None:
        for client, done in ((self.kestrel, b"END\r\n"), (self.memcache, b"OK\r\n")):
            self.check(client, b"flush q", done)
            self.check(client, b"status up", done)

    def test_reloaded(self) -> None:
        self.assertEqual(memcache.KESTREL.reloaded(), b"Reloaded config.\r\n")
        self.assertEqual(memcache.MEMCACHE.reloaded(), b"OK\r\n")

    def test_confirm_and_touch(self) -> None:
        for client, none, done in (
            (self.kestrel, b"ERROR\r\n", b"END\r\n"), (self.memcache, b"NOT_FOUND\r\n", b"OK\r\n")
        ):  # fmt: skip
            self.kestrel.sets(b"q", b"x")
            self.check(client, b"touch q 0", b"NOT_FOUND\r\n")
            self.check(client, b"confirm q 1", none)
            client.does(b"monitor q 0")
            self.check(client, b"touch q 0", b"TOUCHED\r\n")
            self.check(client, b"confirm q 1", done)

    def test_errors(self) -> None:
        """What stock clients tell apart by its text is said in memcached's words."""
        for error, kestrel, stock in (
            (ItemTooLarge(), b"SERVER_ERROR object too large\r\n", b"SERVER_ERROR object too large for cache\r\n"),
            (QueueFull(), b"NOT_STORED\r\n", b"NOT_STORED\r\n"),
            (ClientError("so not"), b"CLIENT_ERROR so not\r\n", b"CLIENT_ERROR so not\r\n"),
        ):
            self.assertEqual((memcache.KESTREL.error(error), memcache.MEMCACHE.error(error)), (kestrel, stock))


class KeyTests(DialectTestCase):
    def test_key_as_it_was_sent(self) -> None:
        for _ in range(3):
            self.kestrel.sets(b"q", b"x")
        self.check(self.kestrel, b"get q/t=5", value(b"q", b"x"))
        self.check(self.memcache, b"get q/t=5/open", value(b"q/t=5/open", b"x"))
        self.check(self.memcache, b"get q/close", b"END\r\n")
        self.check(self.memcache, b"get q/peek/", value(b"q/peek/", b"x"))

    def test_key_of_a_wait(self) -> None:
        self.memcache.ask(b"get q/t=1000/open")
        self.kestrel.sets(b"q", b"x")
        self.assertEqual(self.memcache.hears(), value(b"q/t=1000/open", b"x"))


class NumberTests(DialectTestCase):
    """The number behind an item's size in the reply to ``gets``, by which memcache clients would do a ``cas``."""

    def sets(self, *puts: bytes) -> None:
        for put in puts:
            queue, _, payload = put.partition(b":")
            self.kestrel.sets(queue, payload)

    def test_kestrel_has_none(self) -> None:
        self.sets(b"a:1", b"a:2", b"a:3")
        self.check(self.kestrel, b"gets a", value(b"a", b"1"))
        self.check(self.kestrel, b"gets a b", value(b"a", b"2"))
        self.check(self.kestrel, b"gets b a/t=0", value(b"a", b"3"))

    def test_one_queue(self) -> None:
        self.sets(b"a:1", b"a:2", b"a:")
        first, second = (self.memcache.does(b"gets a/peek") if n else self.memcache.does(b"gets a") for n in range(2))
        self.assertRegex(first, rb"\AVALUE a 0 1 \d+\r\n1\r\nEND\r\n\Z")
        self.assertRegex(second, rb"\AVALUE a/peek 0 1 \d+\r\n2\r\nEND\r\n\Z")
        self.assertNotEqual(first.split()[4], second.split()[4])
        self.check(self.memcache, b"get a", value(b"a", b"2"))
        self.assertRegex(self.memcache.does(b"gets a/open"), rb"\AVALUE a/open 0 0 \d+\r\n\r\nEND\r\n\Z")

    def test_several_queues(self) -> None:
        self.sets(b"a:1", b"a:2", b"b:3", b"a:4")
        expected = rb"\AVALUE a 0 1 \d+\r\n1\r\nVALUE b 0 1 \d+\r\n3\r\nEND\r\n\Z"
        self.assertRegex(self.memcache.does(b"gets a none b"), expected)
        self.assertRegex(self.memcache.does(b"gets b a/t=0"), rb"\AVALUE a/t=0 0 1 \d+\r\n2\r\nEND\r\n\Z")
        self.check(self.memcache, b"get a b", b"VALUE a 0 1\r\n4\r\nEND\r\n")

    def test_wait(self) -> None:
        self.memcache.ask(b"gets a/t=1000")
        self.sets(b"a:1")
        self.assertRegex(self.memcache.hears(), rb"\AVALUE a/t=1000 0 1 \d+\r\n1\r\nEND\r\n\Z")

    def test_large_items(self) -> None:
        self.kestrel.sets(b"a", LARGE)
        before, _, rest = self.memcache.does(b"gets a/peek").partition(b"\r\n")
        self.assertRegex(before, rb"\AVALUE a/peek 0 256000 \d+\Z")
        self.assertEqual(rest, LARGE + b"\r\nEND\r\n")
        self.check(self.memcache, b"get a", value(b"a", LARGE))

    def test_monitor_after_it(self) -> None:
        self.sets(b"a:1", b"a:2")
        self.memcache.does(b"gets a")
        self.check(self.memcache, b"monitor a 0", value(b"a", b"2") + memcache.END)


class ExpiryTests(DialectTestCase):
    """What counts from now, what is a date, and what can be neither."""

    MONTH = 30 * 24 * 3600

    def refusal(self, longest: int) -> bytes:
        return b"CLIENT_ERROR expiry is over %d s, and too early for a date\r\n" % longest

    def test_refused(self) -> None:
        """Each of these would be a date of 1970 to 2001, so that the item would expire at once."""
        for longest, refused in ((999_999, (1_000_000, self.MONTH)), (self.MONTH, ())):
            for expiry in (*refused, self.MONTH + 1, 365 * 24 * 3600, 999_999_999):
                line = b"set q 0 %d 5" % expiry
                refusal = self.refusal(longest)
                self.assertEqual(parse(line, longest), Refused(refusal, payload=5))
                self.assertTrue(parse(line + b" noreply", longest).noreply)
                self.assertEqual(LineCache(longest).parse(line).request, Refused(refusal, payload=5))
            for expiry in (0, -1, 1, longest, 1_000_000_000, 10**17):
                self.assertEqual(parse(b"set q 0 %d 5" % expiry, longest), Set(b"q", 0, expiry, 5))
        self.assertEqual(parse(b"set q 0 1000000 5"), Refused(self.refusal(999_999), payload=5))

    def lives(self, client: Any, expiry: int, seconds: float) -> None:
        """An item expires after so many seconds, and not before."""
        self.assertEqual(client.sets(b"q", b"x", expiry=expiry), memcache.STORED)
        self.server.clock.advance(seconds - 1)
        self.check(client, b"get q/peek", value(b"q/peek" if client is self.memcache else b"q", b"x"))
        self.server.clock.advance(2)
        self.check(client, b"get q", b"END\r\n")

    def test_seconds(self) -> None:
        self.lives(self.kestrel, 999_999, 999_999)
        self.lives(self.memcache, 1_000_000, 1_000_000)
        self.lives(self.memcache, self.MONTH, self.MONTH)

    def test_dates(self) -> None:
        self.lives(self.kestrel, EPOCH + 100, 100)
        self.lives(self.memcache, EPOCH + self.MONTH, self.MONTH - 101)

    def test_past(self) -> None:
        """A date that has passed is accepted."""
        for client in (self.kestrel, self.memcache):
            self.assertEqual(client.sets(b"q", b"x", expiry=1_000_000_000), memcache.STORED)
            self.check(client, b"get q", b"END\r\n")
