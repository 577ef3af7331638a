"""Sending items of one queue to the end of another: `darner.queues.transfer`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from darner.config.policies import Policies, QueueSettings
from darner.front import memcache
from darner.queues.transfer import BYTES_A_TURN, ITEMS_A_TURN
from darner.store.memory import MemoryStore
from darner.values.vocabulary import CHUNK_BYTES
from test.harness import REFUSED, Server, value

LARGE = bytes(range(256)) * (CHUNK_BYTES // 100)


class RequeueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.memory = MemoryStore()
        self.server = Server(self.memory)
        self.client = self.server.client()

    def puts(self, *payloads: bytes, queue: bytes = b"from") -> None:
        for payload in payloads:
            self.client.set(queue, payload)
        self.server.commit()
        self.assertEqual(self.client.hears(), memcache.STORED * len(payloads))

    def had(self, queue: bytes) -> list[bytes]:
        payloads = []
        while (reply := self.client.does(b"get " + queue)) != memcache.END:
            header, _, rest = reply.partition(b"\r\n")
            payloads.append(rest[: int(header.split()[3])])
        return payloads

    def test_all(self) -> None:
        self.puts(b"first", queue=b"to")
        self.puts(b"one", LARGE, b"two")
        self.assertEqual(self.client.does(b"requeue from to"), b"3\r\n")
        self.server.start()
        self.client = self.server.client()
        self.assertEqual(self.server.figures(b"from"), (0, 0))
        self.assertEqual(self.had(b"to"), [b"first", b"one", LARGE, b"two"])

    def test_some(self) -> None:
        self.puts(b"one", b"two", b"three")
        self.assertEqual(self.client.does(b"requeue from to 2"), b"2\r\n")
        self.assertEqual(self.client.does(b"requeue from to 0"), b"0\r\n")
        self.assertEqual(self.client.does(b"requeue from to 2"), b"1\r\n")
        self.assertEqual(self.had(b"to"), [b"one", b"two", b"three"])

    def test_behind_many_that_have_expired(self) -> None:
        """As with any read, the items behind are found when the expired ones are dropped."""
        self.server.queues.apply(Policies(QueueSettings(max_expire_sweep=2)))
        for payload in (b"1", b"2", b"3", b"4", b"5"):
            self.client.sets(b"from", payload, expiry=1)
        self.puts(b"one", b"two")
        self.server.clock.rightNow += 1
        self.assertEqual(self.client.does(b"requeue from to"), b"2\r\n")
        self.assertEqual(self.had(b"to"), [b"one", b"two"])

    def test_behind_many_that_cannot_be_dropped(self) -> None:
        """They must go to another queue, and the store refuses writes: the client gets an error."""
        own = {"max_expire_sweep": 2, "expire_to_queue": "late"}
        self.server.queues.apply(Policies(QueueSettings(), {"from": own}))
        for payload in (b"1", b"2", b"3", b"4", b"5"):
            self.client.sets(b"from", payload, expiry=1)
        self.server.clock.rightNow += 1
        self.server.store.full = True
        self.assertEqual(self.client.does(b"requeue from to"), REFUSED)
        self.assertEqual(self.server.figures(b"from"), (5, 5))

    def test_nothing(self) -> None:
        """Moving nothing creates no queue."""
        self.assertEqual(self.client.does(b"requeue from to"), b"0\r\n")
        self.assertEqual(self.server.queues.names(), [])

    def test_open_ones_stay(self) -> None:
        self.puts(b"one", b"two")
        other = self.server.client()
        other.does(b"get from/open")
        self.assertEqual(self.client.does(b"requeue from to"), b"1\r\n")
        other.leave()
        self.assertEqual((self.had(b"from"), self.had(b"to")), ([b"one"], [b"two"]))

    def test_attempts_begin_anew(self) -> None:
        own = {"max_attempts": 2, "dead_letter_queue": "dead"}
        self.server.queues.apply(Policies(QueueSettings(), {"from": own, "to": own}))
        self.puts(b"one")
        self.client.does(b"get from/open")
        self.client.does(b"get from/abort")
        self.assertEqual(self.client.does(b"requeue from to"), b"1\r\n")
        for _ in range(2):
            self.assertEqual(self.client.does(b"get to/open"), value(b"to", b"one"))
            self.client.does(b"get to/abort")
        self.assertEqual(self.client.does(b"requeue dead from"), b"1\r\n")
        self.assertEqual((self.had(b"to"), self.had(b"from")), ([], [b"one"]))

    def test_fewer_than_there_seemed(self) -> None:
        """Those that expired, and those that are set aside, are not moved."""
        self.server.queues.apply(Policies(QueueSettings(retry_delay=5.0)))
        self.puts(b"one", b"two")
        self.client.sets(b"from", b"three", expiry=1)
        self.client.does(b"get from/open")
        self.client.does(b"get from/abort")
        self.server.clock.advance(2)
        self.assertEqual(self.client.does(b"requeue from to"), b"1\r\n")

    def test_bounded_turns(self) -> None:
        """Others are served in between, and requests behind it wait."""
        count = 3 * ITEMS_A_TURN + 1
        self.puts(*(b"%d" % at for at in range(count)))
        writes = len(self.server.store.writes)
        self.client.ask(b"requeue from to")
        self.client.ask(b"version")
        other = self.server.client()
        seen = []

        def look() -> None:
            other.ask(b"stats")
            seen.append(self.server.figures(b"to")[0])

        for _ in range(3):
            self.server.clock.callLater(0, look)
        self.server.commit()
        self.assertEqual(len(self.server.store.writes), writes + 4)
        self.assertEqual(seen[0], ITEMS_A_TURN)
        self.assertTrue(self.client.hears().startswith(b"%d\r\nVERSION " % count))
        self.assertEqual(self.had(b"to"), [b"%d" % at for at in range(count)])

    def test_bounded_bytes(self) -> None:
        payload = b"x" * 20_000
        self.puts(*[payload] * (BYTES_A_TURN // 10_000))
        writes = len(self.server.store.writes)
        self.client.does(b"requeue from to")
        self.assertEqual(len(self.server.store.writes), writes + 2)

    def test_client_goes(self) -> None:
        """What is moved is moved; the rest stays."""
        self.puts(*(b"%d" % at for at in range(2 * ITEMS_A_TURN)))
        self.client.ask(b"requeue from to")
        self.client.leave()
        self.server.commit()
        self.assertEqual(self.server.figures(b"from")[0], ITEMS_A_TURN)
        self.assertEqual(self.server.figures(b"to")[0], ITEMS_A_TURN)
        self.assertEqual(self.client.hears(), b"")

    def test_client_goes_between_turns(self) -> None:
        self.puts(*(b"%d" % at for at in range(3 * ITEMS_A_TURN)))
        self.client.ask(b"requeue from to")
        self.server.queues.commit.end()
        self.client.leave()
        self.server.commit()
        self.assertEqual(self.server.figures(b"to")[0], ITEMS_A_TURN)

    def test_write_fails(self) -> None:
        self.puts(b"one", b"two")
        self.server.store.full = True
        self.assertEqual(self.client.does(b"requeue from to"), REFUSED)
        self.server.store.full = False
        self.assertEqual((self.had(b"to"), self.had(b"from")), ([], [b"one", b"two"]))

    def test_cannot_be_moved(self) -> None:
        """Items that were moved before stay moved, and the others stay in their old queue."""
        self.puts(b"one", b"two")
        self.server.store.numberless = True
        self.assertEqual(self.client.does(b"requeue from to"), b"SERVER_ERROR no numbers\r\n")
        self.server.store.numberless = False
        self.assertEqual(self.server.figures(b"from"), (2, 6))
        self.assertEqual((self.had(b"to"), self.had(b"from")), ([], [b"one", b"two"]))

    def test_disk_is_almost_full(self) -> None:
        self.puts(b"one")
        self.server.store.room = (1, 10**12)
        self.server.start()
        self.client = self.server.client()
        reply = self.client.does(b"requeue from to")
        self.assertTrue(reply.startswith(b"SERVER_ERROR "), reply)
        self.assertEqual((self.had(b"to"), self.had(b"from")), ([], [b"one"]))
