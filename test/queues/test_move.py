"""Moving items between queues: `Queues.move`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from darner.config.policies import Policies, QueueSettings
from darner.errors import StoreError
from darner.front import memcache
from darner.queues.contents import HEAVY
from darner.store.memory import MemoryStore
from darner.values.items import Item
from darner.values.vocabulary import CHUNK_BYTES
from test.harness import REFUSED, Server, value

LARGE = bytes(range(256)) * (CHUNK_BYTES // 100)


class MoveTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.memory = MemoryStore()
        self.server = Server(self.memory)
        self.client = self.server.client()

    def take(self, queue: bytes = b"from") -> Item:
        """@return: the item at the head, neither to be had nor consumed."""
        fifo = self.server.queues.find(queue)
        assert fifo is not None
        assert fifo.peek() is not None
        return fifo.take_out()

    def move(self, item: Item, origin: bytes = b"from", target: bytes = b"to") -> None:
        fifo = self.server.queues.find(origin)
        assert fifo is not None
        self.server.queues.move(fifo, item, target)

    def had(self, queue: bytes) -> list[bytes]:
        payloads = []
        while (reply := self.client.does(b"get " + queue)) != memcache.END:
            header, _, rest = reply.partition(b"\r\n")
            payloads.append(rest[: int(header.split()[3])])
        return payloads

    def test_small(self) -> None:
        self.client.sets(b"from", b"one", flags=7)
        self.client.sets(b"from", b"two")
        self.move(self.take())
        self.server.commit()
        self.server.start()
        self.client = self.server.client()
        self.assertEqual(self.server.figures(b"from"), (1, 3))
        self.assertEqual(self.client.does(b"get to"), value(b"to", b"one", flags=7))
        self.assertEqual(self.had(b"from"), [b"two"])

    def test_onto_a_queue_with_items(self) -> None:
        self.client.sets(b"to", b"first")
        self.client.sets(b"from", b"one")
        self.move(self.take())
        self.assertEqual(self.had(b"to"), [b"first", b"one"])

    def test_to_who_waits(self) -> None:
        waiter = self.server.client()
        waiter.does(b"get to/t=1000")
        self.client.sets(b"from", b"one")
        self.move(self.take())
        self.server.commit()
        self.assertEqual(waiter.hears(), value(b"to", b"one"))

    def test_large(self) -> None:
        """Its stream is not copied, and is kept until the item is consumed in its new queue."""
        self.client.sets(b"from", LARGE)
        (stream,) = self.memory.chunks
        self.move(self.take())
        self.server.commit()
        self.server.clock.pump([1] * 5)
        self.assertEqual(self.memory.queues[0].items, {}, "it is reclaimed where it was")
        self.server.start()
        self.client = self.server.client()
        self.assertEqual(self.had(b"to"), [LARGE])
        self.assertEqual(list(self.memory.chunks), [stream])
        self.server.clock.pump([1] * 5)
        self.assertEqual((self.memory.chunks, self.memory.unheld), ({}, set()))

    def test_large_twice(self) -> None:
        self.client.sets(b"from", LARGE)
        self.move(self.take())
        self.server.commit()
        self.move(self.take(b"to"), b"to", b"third")
        self.server.commit()
        self.server.clock.pump([1] * 5)
        self.assertEqual(self.had(b"third"), [LARGE])
        self.server.clock.pump([1] * 5)
        self.assertEqual((self.memory.chunks, self.memory.unheld), ({}, set()))

    def test_payload_that_was_let_go_of(self) -> None:
        payload = b"x" * (HEAVY + 1)
        self.client.sets(b"from", payload)
        other = self.server.client()
        other.does(b"get from/open")
        other.leave()
        self.server.commit()
        fifo = self.server.queues.find(b"from")
        assert fifo is not None
        item = fifo.take_out()
        self.move(item)
        self.assertEqual(self.had(b"to"), [payload])

    def test_payload_that_is_missing(self) -> None:
        payload = b"x" * (HEAVY + 1)
        self.client.sets(b"from", payload)
        self.client.does(b"get from/open")
        fifo = self.server.queues.find(b"from")
        assert fifo is not None
        (item,) = fifo.storage.contents.open.values()
        self.memory.queues[0].items.clear()
        self.assertRaises(StoreError, self.move, item)
        self.assertEqual(self.server.figures(b"to"), (0, 0))

    def test_write_fails(self) -> None:
        """The item is in its old queue, and in no other."""
        for payload in (b"one", LARGE):
            self.client.sets(b"from", payload)
            self.client.sets(b"to", b"first")
            self.move(self.take())
            self.server.store.full = True
            self.server.commit()
            self.server.store.full = False
            self.assertEqual(self.had(b"to"), [b"first"])
            self.server.start()
            self.client = self.server.client()
            self.assertEqual(self.had(b"to"), [])
            self.assertEqual(self.had(b"from"), [payload])

    def test_nothing_can_be_written(self) -> None:
        self.client.sets(b"from", b"one")
        self.move(self.take())
        self.server.store.broken = 2
        self.server.commit()
        self.assertEqual(self.had(b"to"), [])
        self.assertEqual(self.had(b"from"), [b"one"])

    def test_handed_out_and_not_written(self) -> None:
        """The client that was handed the item in its new queue gets an error."""
        self.client.sets(b"from", b"one")
        self.move(self.take())
        self.server.store.full = True
        self.assertEqual(self.client.does(b"get to"), REFUSED)
        self.server.store.full = False
        self.assertEqual(self.had(b"from"), [b"one"])

    def test_no_queue_can_be_made(self) -> None:
        self.client.sets(b"from", b"one")
        item = self.take()
        self.server.store.numberless = True
        self.assertRaises(StoreError, self.move, item)
        self.assertIsNone(self.server.queues.find(b"to"))


class CountTests(SynchronousTestCase):
    """Items that leave a queue because of a put are not counted as removed if the put is refused."""

    def start(self, **settings: Any) -> None:
        self.server = Server(MemoryStore(), **settings)
        self.client = self.server.client()

    def counted(self, counter: str) -> tuple[int, int]:
        """@return: how often, of the queue and of the server; the latter knows not all of them."""
        queues = self.server.queues
        return queues.queue_figures(b"from")[counter], int(queues.figures("").get(counter, 0))

    def refuse(self, line: bytes) -> None:
        self.server.store.broken = 1
        self.client.does(line)

    def test_discarded(self) -> None:
        self.start(max_items=1, discard_old_when_full=True)
        self.client.sets(b"from", b"one")
        self.server.store.broken = 1
        self.assertEqual(self.client.sets(b"from", b"two"), REFUSED)
        self.assertEqual(self.counted("discarded"), (0, 0))
        self.client.sets(b"from", b"two")
        self.assertEqual(self.counted("discarded"), (1, 1))

    def test_expired(self) -> None:
        self.start(expire_to_queue="to")
        self.client.sets(b"from", b"one", expiry=1)
        self.server.clock.rightNow += 1
        self.refuse(b"get from")
        self.assertEqual(self.counted("expired_items"), (0, 0))
        self.server.clock.pump([1] * 3)
        self.assertEqual(self.counted("expired_items"), (1, 1))

    def test_dead(self) -> None:
        self.start(max_attempts=1, dead_letter_queue="to")
        self.client.sets(b"from", b"one")
        self.client.does(b"get from/open")
        self.refuse(b"get from/abort")
        self.assertEqual(self.counted("dead"), (0, 0))
        self.server.clock.pump([1] * 3)
        self.assertEqual(self.counted("dead"), (1, 0))
    def test_discarded_after_the_last_attempt(self) -> None:
        """It was dropped rather than moved to the dead letters, and does not come back from there."""
        self.start(max_attempts=2, dead_letter_queue="to")
        self.client.sets(b"from", b"one")
        self.client.does(b"get from/open")
        self.client.does(b"get from/abort")
        settings = QueueSettings(max_attempts=1, dead_letter_queue="to", max_items=1, discard_old_when_full=True)
        self.server.queues.apply(Policies(settings))
        self.server.store.broken = 1
        self.assertEqual(self.client.sets(b"from", b"two"), REFUSED)
        self.assertEqual((self.counted("discarded"), self.counted("dead")), ((0, 0), (0, 0)))
        self.client.does(b"get from/peek")
        self.assertEqual(self.counted("dead"), (1, 0))
