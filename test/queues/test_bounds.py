"""
Tests of the limits of a queue: `Fifo.enforce_limits`, and what clients hear of it.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from darner.config.policies import Policies, QueueSettings
from darner.config.settings import Settings
from darner.errors import QueueFull
from darner.front import memcache
from darner.service import QueueService
from darner.store.memory import MemoryStore
from darner.values.vocabulary import CHUNK_BYTES
from test.harness import REFUSED, Asker, Server, value

LARGE = bytes(CHUNK_BYTES + 1)


class LimitTestCase(SynchronousTestCase):
    def serve(self, **settings: Any) -> None:
        self.memory = MemoryStore()
        self.server = Server(self.memory, **settings)
        self.client = self.server.client()

    def restart(self) -> None:
        self.server.start()
        self.client = self.server.client()

    def sets(self, *payloads: bytes) -> list[bytes]:
        return [self.client.sets(b"q", payload) for payload in payloads]

    def had(self) -> list[bytes]:
        payloads = []
        while (reply := self.client.does(b"get q")) != memcache.END:
            header, _, rest = reply.partition(b"\r\n")
            payloads.append(rest[: int(header.split()[3])])
        return payloads

    def discarded(self) -> tuple[Any, Any]:
        """@return: what the figures of the queue and of the server say."""
        queues = self.server.queues
        return queues.queue_figures(b"q")["discarded"], queues.figures("")["discarded"]


class RefusingTests(LimitTestCase):
    def test_items(self) -> None:
        self.serve(max_items=2)
        self.assertEqual(self.sets(b"a", b"b", b"c"), [memcache.STORED, memcache.STORED, memcache.NOT_STORED])
        self.restart()
        self.assertEqual(self.sets(b"c"), [memcache.NOT_STORED])
        self.client.does(b"get q")
        self.assertEqual(self.sets(b"c"), [memcache.STORED])
        self.assertEqual(self.had(), [b"b", b"c"])
        self.assertEqual(self.discarded(), (0, 0))

    def test_bytes(self) -> None:
        self.serve(max_bytes=10)
        self.assertEqual(self.sets(b"12345", b"123456", b"12345", b""), [
            memcache.STORED, memcache.NOT_STORED, memcache.STORED, memcache.STORED
        ])  # fmt: skip
        self.restart()
        self.assertEqual(self.sets(b"1"), [memcache.NOT_STORED])

    def test_item_that_can_never_be_held(self) -> None:
        """Its payload is skipped, no queue is created, and no other items are dropped."""
        for discard in (False, True):
            self.serve(max_bytes=10, max_item_bytes=CHUNK_BYTES * 2, discard_old_when_full=discard)
            self.assertEqual(self.sets(LARGE, bytes(11)), [memcache.NOT_STORED] * 2)
            self.assertEqual(self.sets(bytes(CHUNK_BYTES * 2 + 1)), [b"SERVER_ERROR object too large\r\n"])
            self.assertRaises(QueueFull, Asker(self.server.queues).put, b"q", bytes(11))
            self.assertEqual((self.server.queues.names(), self.memory.chunks), ([], {}))
            self.sets(b"x")
            self.assertRaises(QueueFull, Asker(self.server.queues).put, b"q", bytes(11))
            self.assertEqual(self.had(), [b"x"])

    def test_large_item(self) -> None:
        """The limit is checked when its payload is complete; if refused, nothing of it is stored."""
        self.serve(max_items=1)
        self.sets(b"a")
        self.assertEqual(self.sets(LARGE), [memcache.NOT_STORED])
        self.server.clock.pump([1] * 5)
        self.assertEqual((self.memory.chunks, self.server.figures(b"q")), ({}, (1, 1)))

    def test_open_reads_and_given_back(self) -> None:
        """Open items do not count; items that are given back do, even if the queue is then over its limit."""
        self.serve(max_items=2)
        self.sets(b"a", b"b")
        other = self.server.client()
        other.does(b"get q/open")
        self.assertEqual(self.sets(b"c", b"d"), [memcache.STORED, memcache.NOT_STORED])
        other.leave()
        self.assertEqual(self.server.figures(b"q"), (3, 3))
        self.client.does(b"get q")
        self.assertEqual(self.sets(b"d"), [memcache.NOT_STORED])
        self.assertEqual(self.had(), [b"b", b"c"])

    def test_noreply(self) -> None:
        self.serve(max_items=1)
        for payload in (b"a", b"b"):
            self.assertEqual(self.client.sets(b"q", payload, end=b" noreply"), b"")
        self.assertEqual(self.had(), [b"a"])

    def test_one_turn(self) -> None:
        self.serve(max_items=2)
        clients = [self.server.client() for _ in range(4)]
        for client in clients:
            client.set(b"q", b"x")
        self.server.commit()
        self.assertEqual([client.hears() for client in clients], [memcache.STORED] * 2 + [memcache.NOT_STORED] * 2)

    def test_who_waits_needs_no_room(self) -> None:
        self.serve(max_items=1)
        waiter = self.server.client()
        waiter.ask(b"get q/t=1000")
        for payload in (b"a", b"b"):
            self.client.set(b"q", payload)
        self.server.commit()
        self.assertEqual((self.client.hears(), waiter.hears()), (memcache.STORED * 2, value(b"q", b"a")))

    def test_expired_items_make_room(self) -> None:
        self.serve(max_items=2)
        self.client.sets(b"q", b"a", expiry=1)
        self.client.sets(b"q", b"b", expiry=1)
        self.server.clock.rightNow += 1
        self.assertEqual(self.sets(b"c", b"d"), [memcache.STORED] * 2)
        self.assertEqual(self.had(), [b"c", b"d"])
        self.assertEqual(self.discarded(), (0, 0))

    def test_more_expired_than_are_dropped_in_one_go(self) -> None:
        self.serve(max_bytes=10, max_expire_sweep=3)
        for _ in range(10):
            self.client.sets(b"q", b"x", expiry=-1)
        self.assertEqual(self.sets(b"12345"), [memcache.NOT_STORED])
        self.assertEqual(self.sets(b"12345"), [memcache.STORED])

    def test_failed_write(self) -> None:
        """An item that the store refused does not count towards the limit."""
        self.serve(max_items=1)
        for store in ("full", "broken"):
            setattr(self.server.store, store, 2)
            self.assertEqual(self.sets(b"a"), [REFUSED])
            setattr(self.server.store, store, 0)
            self.server.commit()
        self.assertEqual(self.sets(b"a", b"b"), [memcache.STORED, memcache.NOT_STORED])

    def test_other_limits(self) -> None:
        self.serve(max_items=1)
        self.sets(b"a")
        self.server.queues.apply(Policies(QueueSettings(max_items=2)))
        self.assertEqual(self.sets(b"b", b"c"), [memcache.STORED, memcache.NOT_STORED])
        self.server.queues.apply(Policies())
        self.assertEqual(self.sets(b"c"), [memcache.STORED])

    def test_unreadable(self) -> None:
        self.serve(max_items=1)
        self.sets(b"a")
        self.restart()
        self.server.store.unreadable = True
        self.assertEqual(self.sets(b"b"), [b"SERVER_ERROR unreadable\r\n"])


class DiscardingTests(LimitTestCase):
    def test_what_is_set_aside_does_not_count(self) -> None:
        """It is not dropped either; when it becomes available the queue may be over its limit by one."""
        self.serve(max_items=1, max_bytes=1, discard_old_when_full=True, retry_delay=10.0)
        self.client.sets(b"q", b"a")
        other = self.server.client()
        other.does(b"get q/open")
        other.leave()
        self.assertEqual(self.client.sets(b"q", b"b"), memcache.STORED)
        self.assertEqual(self.server.figures(b"q"), (2, 2))
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"b"))
        self.server.clock.pump([1.0] * 11)
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"a"))

    def test_items(self) -> None:
        self.serve(max_items=2, discard_old_when_full=True)
        self.assertEqual(self.sets(b"a", b"b", b"c", b"d"), [memcache.STORED] * 4)
        self.assertEqual(self.discarded(), (2, 2))
        self.restart()
        self.assertEqual(self.sets(b"e"), [memcache.STORED])
        self.assertEqual(self.had(), [b"d", b"e"])

    def test_bytes(self) -> None:
        self.serve(max_bytes=10, discard_old_when_full=True)
        self.sets(b"123", b"456", b"789", b"12345")
        self.assertEqual(self.had(), [b"789", b"12345"])

    def test_large(self) -> None:
        self.serve(max_items=1, discard_old_when_full=True)
        self.sets(LARGE, LARGE)
        self.server.clock.pump([1] * 5)
        self.assertEqual((len(self.memory.chunks), self.server.figures(b"q")), (1, (1, len(LARGE))))
        self.assertEqual(self.had(), [LARGE])

    def test_given_back_is_the_oldest(self) -> None:
        self.serve(max_items=2, discard_old_when_full=True)
        self.sets(b"a", b"b")
        other = self.server.client()
        other.does(b"get q/open")
        self.assertEqual(self.sets(b"c"), [memcache.STORED])
        other.leave()
        self.assertEqual(self.sets(b"d"), [memcache.STORED])
        self.assertEqual(self.had(), [b"c", b"d"])

    def test_failed_write(self) -> None:
        """The dropped item is back if the new one was not stored."""
        for fault in ("full", "broken"):
            self.serve(max_items=1, discard_old_when_full=True)
            self.sets(b"a")
            setattr(self.server.store, fault, 2)
            self.client.set(b"q", b"b")
            self.assertEqual(self.sets(b"c"), [REFUSED * 2])
            setattr(self.server.store, fault, 0)
            self.server.commit()
            self.assertEqual(self.server.figures(b"q"), (1, 1))
            self.restart()
            self.assertEqual(self.had(), [b"a"])

    def test_flushed_and_failed(self) -> None:
        """An item that was flushed meanwhile does not come back."""
        self.serve(max_items=1, discard_old_when_full=True)
        self.sets(b"a")
        self.client.set(b"q", b"b")
        self.client.ask(b"flush q")
        self.server.store.broken = 1
        self.server.commit()
        self.assertEqual(self.client.hears(), REFUSED + memcache.END)
        self.assertEqual(self.had(), [])

    def test_failed_twice(self) -> None:
        """A refused item, dropped to make space in the next turn, which is refused too, must not become an item."""
        self.serve(max_items=1, discard_old_when_full=True)
        self.sets(b"first")
        self.client.does(b"get q")
        self.server.holding = True
        self.client.sets(b"q/sync", b"a")
        self.client.sets(b"q", b"b")
        self.server.store.broken = 2
        self.server.store.full = True
        self.server.release()
        self.server.store.broken = 0
        self.server.store.full = False
        self.server.holding = False
        self.server.clock.pump([1] * 3)
        self.assertEqual(self.client.hears(), REFUSED * 2)
        self.assertEqual((self.server.figures(b"q"), self.had()), ((0, 0), []))

    def test_much_too_much(self) -> None:
        """After a limit was lowered, the item is accepted, and the excess is dropped in the following turns."""
        self.serve(max_expire_sweep=10)
        self.sets(*[b"%d" % at for at in range(95)])
        self.server.queues.apply(
            Policies(QueueSettings(max_items=2, discard_old_when_full=True, max_expire_sweep=10))
        )
        self.client.set(b"q", b"last")
        self.assertEqual(self.server.figures(b"q")[0], 86)
        self.server.commit()
        self.assertEqual(self.client.hears(), memcache.STORED)
        self.assertEqual(self.had(), [b"94", b"last"])
        self.assertEqual(self.discarded(), (94, 94))

    def test_unreadable_meanwhile(self) -> None:
        self.serve(max_expire_sweep=5)
        for _ in range(40):
            self.client.sets(b"q", bytes(50_000))
        self.server.queues.apply(
            Policies(QueueSettings(max_items=2, discard_old_when_full=True, max_expire_sweep=5))
        )
        self.client.set(b"q", b"last")
        self.server.store.unreadable = True
        self.server.commit()
        self.server.store.unreadable = False
        self.client.does(b"get q/peek")
        self.assertEqual(self.sets(b"one more"), [memcache.STORED])
        self.assertEqual(len(self.had()), 2)


class ApplicationTests(SynchronousTestCase):
    def test_put(self) -> None:
        server = Server(max_items=1)
        service = QueueService("unused", settings=Settings(), reactor=server.clock)
        service.queues = server.queues
        first, second = service.put(b"q", b"a"), service.put(b"q", b"b")
        self.failureResultOf(second, QueueFull)
        server.commit()
        self.assertIsNone(self.successResultOf(first))
