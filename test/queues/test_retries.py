"""Retries: attempts, dead letters, delays before the next attempt, and time-outs of open reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from darner.config.policies import Policies, QueueSettings
from darner.front import memcache
from darner.queues.contents import HEAVY
from darner.queues.head import WINDOW_BYTES
from darner.queues.retries import AT_ONCE, DEAD_LETTER_RETRY
from darner.store.leveldb import LevelStore
from darner.store.memory import MemoryStore
from darner.values.vocabulary import CHUNK_BYTES
from test import servers
from test.harness import REFUSED, Client, FaultyStore, Server, value
from test.servers import make_directory

LARGE = bytes(range(256)) * (CHUNK_BYTES // 100)


class Case(SynchronousTestCase):
    """
    A server whose queue C{q} has settings of its own.

    @cvar own: those settings.
    """

    own: dict[str, Any] = {}

    def setUp(self) -> None:
        self.memory = MemoryStore()
        self.begin(self.memory)

    def begin(self, store: Any) -> None:
        self.server = Server(store)
        self.apply(**self.own)
        self.client = self.server.client()

    def open_again(self, store: Any) -> Any:
        """@return: the store as the next process finds it."""
        return store

    def apply(self, **own: Any) -> None:
        self.server._policies = Policies(QueueSettings(), {"q": own})
        self.server.queues.apply(self.server._policies)

    def start(self, crash: bool = True) -> None:
        """Restart with the same store."""
        if not crash:
            self.server.stop()
        self.server.store = FaultyStore(self.open_again(self.server.store.store))
        self.server.start()
        self.server.commit()
        self.client = self.server.client()

    def puts(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.assertEqual(self.client.sets(b"q", payload), memcache.STORED)

    def opens(self, payload: Optional[bytes], client: Optional[Client] = None) -> None:
        """Open the next item and check that it is this one; C{None}: that there is none."""
        reply = (client or self.client).does(b"get q/open")
        self.assertEqual(reply, memcache.END if payload is None else value(b"q", payload))

    def fails(self, *payloads: bytes) -> None:
        """Open the next items, and give each back."""
        for payload in payloads:
            self.opens(payload)
            self.assertEqual(self.client.does(b"get q/abort"), memcache.END)

    def had(self, queue: bytes = b"q") -> list[bytes]:
        """Take all there is."""
        payloads = []
        while (reply := self.client.does(b"get " + queue)) != memcache.END:
            header, _, rest = reply.partition(b"\r\n")
            payloads.append(rest[: int(header.split()[3])])
        return payloads

    def figure(self, name: str) -> int:
        return self.server.queues.queue_figures(b"q")[name]

    def attempts(self) -> dict[int, int]:
        """@return: what is written down."""
        return self.memory.queues[0].attempts


class AttemptsTests(Case):
    """An item that was opened too often goes to the dead letters."""

    own = {"max_attempts": 2, "dead_letter_queue": "dead"}

    def test_abort(self) -> None:
        self.puts(b"poison", b"good")
        self.fails(b"poison")
        self.assertEqual((self.figure("dead"), self.figure("items")), (0, 2))
        self.fails(b"poison")
        self.assertEqual((self.figure("dead"), self.figure("items"), self.figure("bytes")), (1, 1, 4))
        self.opens(b"good")
        self.client.does(b"get q/close")
        self.assertEqual(self.had(b"dead"), [b"poison"])
        self.assertEqual(self.attempts(), {})

    def test_in_the_same_turn(self) -> None:
        """After a crash it is in one of the two queues."""
        self.puts(b"poison")
        self.fails(b"poison")
        self.opens(b"poison")
        writes = len(self.server.store.writes)
        self.client.does(b"get q/abort")
        self.assertEqual(len(self.server.store.writes), writes + 1)
        self.start()
        self.assertEqual((self.had(), self.had(b"dead")), ([], [b"poison"]))

    def test_disconnect(self) -> None:
        self.puts(b"poison")
        for _ in range(2):
            other = self.server.client()
            self.opens(b"poison", other)
            other.leave()
        self.assertEqual((self.had(), self.had(b"dead")), ([], [b"poison"]))

    def test_crash(self) -> None:
        """An item that makes the process crash each time is not opened more often either."""
        self.puts(b"poison", b"good")
        self.opens(b"poison")
        self.start()
        self.opens(b"poison")
        self.start()
        self.assertEqual(self.server.figures(b"q"), (1, 4))
        self.assertEqual((self.had(), self.had(b"dead")), ([b"good"], [b"poison"]))

    def test_restart(self) -> None:
        self.puts(b"poison")
        self.fails(b"poison")
        self.start(crash=False)
        self.fails(b"poison")
        self.assertEqual((self.had(), self.had(b"dead")), ([], [b"poison"]))

    def test_many_at_the_start(self) -> None:
        """They are moved a few at a time, also with other items between them, and none is moved twice."""
        self.apply(max_attempts=1, dead_letter_queue="dead", max_open_reads=1000)
        count = 2 * AT_ONCE + 10
        for at in range(count):
            self.client.sets(b"q", b"%d" % at)
        for at in range(count):
            self.opens(b"%d" % at)
        self.start()
        self.assertEqual(len(self.server.store.writes), 3)
        self.assertEqual(self.server.figures(b"q"), (0, 0))
        self.assertEqual(self.had(b"dead"), [b"%d" % at for at in range(count)])

    def test_read_before_they_went(self) -> None:
        """A client that reads at once after the start does not get them either."""
        self.apply(max_attempts=1, dead_letter_queue="dead", max_open_reads=9)
        self.puts(b"one", b"two", b"three")
        self.opens(b"one")
        self.opens(b"two")
        self.server.start()
        self.client = self.server.client()
        self.client.ask(b"get q")
        self.server.commit()
        self.assertEqual(self.client.hears(), value(b"q", b"three"))
        self.assertEqual(self.had(b"dead"), [b"one", b"two"])

    def test_unreadable_at_the_start(self) -> None:
        """The item is moved when it gets to the head."""
        self.apply(max_attempts=1, dead_letter_queue="dead")
        self.puts(b"one", b"two")
        self.opens(b"one")
        self.server.start()
        self.server.store.unreadable = True
        self.server.commit()
        self.server.store.unreadable = False
        self.client = self.server.client()
        self.assertEqual((self.had(), self.had(b"dead")), ([b"two"], [b"one"]))

    def test_refused_at_the_start(self) -> None:
        """The item is in its queue once, and is moved when it gets to the head."""
        self.apply(max_attempts=1, dead_letter_queue="dead")
        self.puts(b"one", b"two")
        self.opens(b"one")
        self.server.start()
        self.server.store.full = True
        self.server.commit()
        self.assertEqual(self.server.figures(b"q"), (2, 6))
        self.server.store.full = False
        self.client = self.server.client()
        self.assertEqual((self.had(), self.had(b"dead")), ([b"two"], [b"one"]))

    def test_refused_when_the_settings_are_gone(self) -> None:
        """The item is in its queue once, as any other."""
        self.apply(max_attempts=1, dead_letter_queue="dead")
        self.puts(b"one", b"two")
        self.opens(b"one")
        self.server.start()
        self.server.holding = True
        self.server.queues.commit.sync()
        self.server.commit()
        self.apply()
        self.server.store.full = True
        self.server.release()
        self.server.store.full = self.server.holding = False
        self.assertEqual(self.server.figures(b"q"), (2, 6))
        self.client = self.server.client()
        self.assertEqual((self.had(), self.had(b"dead")), ([b"one", b"two"], []))

    def test_settings_gone_at_the_start(self) -> None:
        """The stored attempts are ignored then."""
        self.puts(b"one", b"two")
        self.fails(b"one", b"one")
        self.puts(b"three")
        self.fails(b"two")
        self.apply()
        self.start()
        self.assertEqual(self.attempts(), {1: 1})
        self.assertEqual(self.had(), [b"two", b"three"])
        self.assertEqual(self.attempts(), {})

    def test_limit_without_dead_letters(self) -> None:
        """Patterns may set max_attempts without a target: the item stays in its queue."""
        self.apply(max_attempts=1)
        self.puts(b"one")
        self.fails(b"one", b"one")

    def test_limit_lowered(self) -> None:
        """Items over the new limit are moved when they get to the head."""
        self.puts(b"one", b"two")
        self.fails(b"one")
        self.apply(max_attempts=1, dead_letter_queue="dead")
        self.assertEqual((self.had(), self.had(b"dead")), ([b"two"], [b"one"]))

    def test_settings_while_open(self) -> None:
        """Attempts that began without the settings do not count."""
        self.apply()
        self.puts(b"one", b"two")
        self.opens(b"one")
        self.apply(max_attempts=1, dead_letter_queue="dead", max_open_reads=2)
        self.opens(b"two")
        self.client.does(b"get q/abort")
        self.assertEqual(self.attempts(), {1: 1})
        self.assertEqual(self.had(b"dead"), [])

    def test_large(self) -> None:
        """A large item is moved, and not copied; heavy ones are read again."""
        for payload in (LARGE, b"x" * (HEAVY + 1)):
            self.puts(payload)
            streams = list(self.memory.chunks)
            self.fails(payload, payload)
            self.assertEqual(list(self.memory.chunks), streams)
            self.start()
            self.assertEqual((self.had(), self.had(b"dead")), ([], [payload]))
            self.server.clock.pump([1] * 5)

    def test_counted_anew(self) -> None:
        """In its new queue it is another item, with its own attempts."""
        self.apply(max_attempts=1, dead_letter_queue="dead")
        self.puts(b"one")
        self.fails(b"one")
        for _ in range(3):
            self.assertEqual(self.client.does(b"get dead/open"), value(b"dead", b"one"))
            self.client.does(b"get dead/abort")

    def test_waiter_of_the_dead_letters(self) -> None:
        other = self.server.client()
        other.does(b"get dead/t=1000")
        self.puts(b"one")
        self.fails(b"one", b"one")
        self.assertEqual(other.hears(), value(b"dead", b"one"))

    def test_round_and_round(self) -> None:
        """Two queues that send each other their dead letters, while a client waits for both."""
        own = {"max_attempts": 1, "max_open_reads": 2}
        self.server.queues.apply(
            Policies(
                QueueSettings(),
                {"q": {**own, "dead_letter_queue": "p"}, "p": {**own, "dead_letter_queue": "q"}},
            )
        )
        self.puts(b"one")
        other = self.server.client()
        self.opens(b"one")
        other.does(b"get p/open/t=1000")
        self.client.does(b"get q/abort")
        self.assertEqual(other.hears(), value(b"p", b"one"))
        self.client.does(b"get q/t=1000")
        other.leave()
        self.server.commit()
        self.assertEqual(self.client.hears(), value(b"q", b"one"))

    def test_flush_and_delete(self) -> None:
        self.apply(max_attempts=2, dead_letter_queue="dead", max_open_reads=2, retry_delay=5.0)
        self.puts(b"one", b"two")
        self.opens(b"one")
        other = self.server.client()
        self.opens(b"two", other)
        other.leave()
        self.assertEqual((self.figure("items"), self.figure("set_aside")), (1, 1))
        self.assertEqual(self.client.does(b"flush q"), memcache.END)
        self.assertEqual((self.figure("items"), self.figure("set_aside")), (0, 0))
        self.assertEqual(self.attempts(), {0: 1})
        self.server.clock.advance(6)
        self.opens(None)
        self.client.does(b"get q/abort")
        self.assertEqual(self.client.does(b"delete q"), memcache.DELETED)
        self.server.clock.advance(6)
        self.opens(None)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_put_that_is_refused(self) -> None:
        """Nothing is left of an item that was opened but never stored."""
        self.apply(max_attempts=1, dead_letter_queue="dead")
        self.puts(b"first")
        self.had()
        self.client.set(b"q", b"one")
        self.server.store.full = True
        self.assertEqual(self.client.does(b"get q/open"), REFUSED + REFUSED)
        self.server.store.full = False
        self.assertEqual(self.client.does(b"get q/abort"), memcache.END)
        self.assertEqual((self.had(b"dead"), self.had(), self.attempts()), ([], [], {}))

    def test_all_in_one_turn(self) -> None:
        """An item that is put, opened and given back in a turn that is refused is in no queue."""
        self.apply(max_attempts=1, dead_letter_queue="dead")
        for refused in (False, True):
            self.client.set(b"q", b"one")
            other = self.server.client()
            other.ask(b"get q/open")
            other.ask(b"get q/abort")
            self.server.store.full = refused
            self.server.commit()
            self.server.store.full = False
            self.assertEqual(self.client.hears(), REFUSED if refused else memcache.STORED)
            self.assertEqual((self.had(), self.had(b"dead")), ([], [] if refused else [b"one"]))
            self.assertEqual(self.attempts(), {})

    def test_queue_that_never_was(self) -> None:
        """Of a queue whose only item is put, opened and given back in a turn that is refused nothing is left."""
        self.apply(max_attempts=3, dead_letter_queue="dead")
        self.client.set(b"q", b"one")
        self.client.ask(b"get q/open")
        self.client.ask(b"get q/abort")
        self.server.store.full = True
        self.assertIn(REFUSED, self.client.does(b"get q"))
        self.server.store.full = False
        self.assertEqual(self.server.queues.queue_figures(b"q"), {})

    def test_read_that_is_not_written(self) -> None:
        """If the open is not written, the attempt does not count."""
        self.puts(b"one", b"two")
        self.fails(b"one")
        for _ in range(2):
            self.server.store.broken = 2
            self.assertEqual(self.client.does(b"get q"), REFUSED)
        self.fails(b"one")
        self.server.store.broken = 2
        self.assertEqual(self.client.does(b"get q"), REFUSED)
        self.assertEqual((self.had(), self.had(b"dead")), ([b"two"], [b"one"]))
        self.assertEqual(self.attempts(), {})

    def test_given_back_while_it_is_written(self) -> None:
        """It is moved once its put is stored; if that is refused, it is in no queue."""
        self.apply(max_attempts=1, dead_letter_queue="dead")
        self.puts(b"first")
        self.had()
        for refused in (False, True):
            self.server.holding = True
            self.client.set(b"q/sync", b"one")
            self.server.commit()
            other = self.server.client()
            other.ask(b"get q/open")
            other.ask(b"get q/abort")
            self.server.commit()
            self.server.store.full = refused
            self.server.release()
            self.server.store.full = self.server.holding = False
            self.assertEqual(self.client.hears(), REFUSED if refused else memcache.STORED)
            self.server.clock.advance(1)
            self.server.commit()
            self.assertEqual((self.had(), self.had(b"dead")), ([], [] if refused else [b"one"]))
            self.assertEqual(self.figure("set_aside"), 0)

    def test_disk_is_full(self) -> None:
        """It blocks no other item, is not handed out again, and is moved once there is space."""
        self.puts(b"poison", b"good")
        self.fails(b"poison")
        self.opens(b"poison")
        self.server.store.full = True
        self.assertEqual(self.client.does(b"get q/abort"), memcache.END)
        self.assertEqual((self.figure("dead"), self.figure("items"), self.figure("set_aside")), (0, 2, 1))
        self.opens(b"good")
        self.client.does(b"get q/close")
        self.server.clock.pump([1] * 3)
        self.assertEqual((self.figure("dead"), self.figure("items")), (0, 1))
        self.server.store.full = False
        self.server.clock.pump([1] * 3)
        self.assertEqual((self.figure("dead"), self.figure("items")), (1, 0))
        self.assertEqual(self.had(b"dead"), [b"poison"])

    def test_no_queue_for_them(self) -> None:
        self.puts(b"poison", b"good")
        self.fails(b"poison")
        self.server.store.numberless = True
        self.fails(b"poison")
        self.server.store.numberless = False
        self.opens(b"good")
        self.server.clock.advance(1)
        self.assertEqual(self.had(b"dead"), [b"poison"])
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    def test_log(self) -> None:
        """An attempt each second does not fill the log."""
        self.puts(b"poison")
        self.fails(b"poison")
        self.server.store.numberless = True
        with capturedLogs() as logs:
            self.fails(b"poison")
            self.server.clock.pump([DEAD_LETTER_RETRY] * 90)
            self.server.store.numberless = False
            self.server.clock.pump([DEAD_LETTER_RETRY] * 120)
        self.assertEqual(self.had(b"dead"), [b"poison"])
        failed = r"cannot move item 0 of queue b'q' to its dead_letter_queue, will try again: no numbers"
        first, *more, last = [line for line in map(formatEvent, logs) if "dead_letter_queue" in line]
        self.assertEqual((first, len(more)), (failed, 2))
        self.assertRegex(more[0], failed + r" \(\d+ more in the last 60 s\)")
        self.assertRegex(last, failed + r" \(over: 9\d times in 180 s\)")

    def test_nothing_can_be_written(self) -> None:
        """Attempts that could not be written are written later."""
        self.puts(b"one")
        self.server.store.broken = 2
        self.opens(b"one")
        self.assertEqual(self.attempts(), {})
        self.server.clock.advance(1)
        self.assertEqual(self.attempts(), {0: 1})
        self.server.store.broken = 2
        self.client.does(b"get q/abort")
        self.opens(b"one")
        self.server.store.broken = 2
        self.client.does(b"get q/abort")
        self.server.clock.pump([1] * 3)
        self.assertEqual((self.had(), self.had(b"dead"), self.attempts()), ([], [b"one"], {}))

    def test_expired(self) -> None:
        """Expired items do not go to the dead letters."""
        self.assertEqual(self.client.sets(b"q", b"one", expiry=5), memcache.STORED)
        self.fails(b"one")
        self.server.clock.advance(6)
        self.opens(None)
        self.assertEqual((self.attempts(), self.figure("dead"), self.figure("expired_items")), ({}, 0, 1))

    def test_long_queue(self) -> None:
        """No item is delivered twice after the window was evicted and read again."""
        payloads = [b"%d" % at * 2000 for at in range(10, 10 + WINDOW_BYTES // 1000)]
        self.puts(*payloads)
        self.fails(payloads[0], payloads[0], payloads[1])
        self.start()
        self.fails(payloads[1])
        self.assertEqual(self.had(b"dead"), payloads[:2])
        self.assertEqual(self.had(), payloads[2:])


class DelayTests(Case):
    """An item that was given back is unavailable for a while."""

    own = {"retry_delay": 2.0}

    def test_others_go_first(self) -> None:
        self.puts(b"one", b"two", b"three")
        self.fails(b"one")
        self.server.clock.advance(1)
        self.fails(b"two")
        self.assertEqual((self.figure("items"), self.figure("set_aside")), (3, 2))
        self.opens(b"three")
        self.server.clock.advance(0.5)
        self.opens(None, self.server.client())
        self.client.does(b"get q/close")
        self.server.clock.advance(0.5)
        self.opens(b"one")
        self.client.does(b"get q/close")
        self.opens(None)
        self.server.clock.advance(1)
        self.opens(b"two")

    def test_ahead_of_what_came_after(self) -> None:
        self.puts(b"one", b"two")
        self.fails(b"one")
        self.server.clock.advance(2)
        self.assertEqual(self.had(), [b"one", b"two"])

    def test_waiter(self) -> None:
        self.puts(b"one")
        self.fails(b"one")
        other = self.server.client()
        other.does(b"get q/t=10000")
        self.server.clock.advance(1.9)
        self.assertEqual(other.hears(), b"")
        self.server.clock.advance(0.1)
        self.server.commit()
        self.assertEqual(other.hears(), value(b"q", b"one"))

    def test_one_call_of_the_clock(self) -> None:
        self.puts(*(b"%d" % at for at in range(50)))
        for at in range(50):
            self.fails(b"%d" % at)
        self.server.clock.advance(1)
        self.assertEqual(len(self.server.clock.getDelayedCalls()), 1)
        self.server.clock.advance(1)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_many_at_once(self) -> None:
        """Not all in one go."""
        count = AT_ONCE + 1
        self.puts(*(b"%d" % at for at in range(count)))
        for at in range(count):
            self.fails(b"%d" % at)
        seen: list[int] = []
        self.server.clock.callLater(2, lambda: seen.append(self.figure("set_aside")))
        self.server.clock.advance(2)
        self.assertEqual((seen, self.figure("set_aside")), ([1], 0))
        self.assertEqual(self.had(), [b"%d" % at for at in range(count)])

    def test_after_a_restart(self) -> None:
        """After a restart it may be available at once."""
        self.puts(b"one", b"two")
        self.fails(b"one")
        self.start(crash=False)
        self.assertEqual(self.had(), [b"one", b"two"])

    def test_stop(self) -> None:
        self.puts(b"one")
        self.fails(b"one")
        self.server.stop()
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_what_came_after_expires_meanwhile(self) -> None:
        """The server drops the expired item even if no client reads."""
        self.puts(b"one")
        self.fails(b"one")
        self.assertEqual(self.client.sets(b"q", b"two", expiry=1), memcache.STORED)
        self.server.clock.pump([0.5] * 6)
        self.assertEqual(self.server.queues.queue_figures(b"q")["expired_items"], 1)

    def test_expires_meanwhile(self) -> None:
        self.client.sets(b"q", b"one", expiry=1)
        self.fails(b"one")
        self.server.clock.advance(2)
        self.assertEqual(self.had(), [])
        self.assertEqual(self.server.figures(b"q"), (0, 0))


class TimeOutTests(Case):
    """An open read that is not closed in time is given back."""

    own = {"open_timeout": 10.0}

    def test_given_back(self) -> None:
        self.puts(b"one")
        self.opens(b"one")
        self.server.clock.advance(9)
        self.assertEqual(self.figure("open_transactions"), 1)
        self.server.clock.advance(1)
        self.assertEqual((self.figure("open_transactions"), self.figure("canceled_transactions")), (0, 1))
        self.opens(b"one", self.server.client())

    def test_late_close(self) -> None:
        """A late close finds nothing, even if another client has the item open by then."""
        self.puts(b"one")
        self.opens(b"one")
        self.server.clock.advance(10)
        other = self.server.client()
        self.opens(b"one", other)
        self.assertEqual(self.client.does(b"get q/close"), memcache.END)
        self.client.leave()
        self.assertEqual(self.figure("open_transactions"), 1)
        other.leave()
        self.client = self.server.client()
        self.assertEqual(self.had(), [b"one"])

    def test_late_close_of_the_older(self) -> None:
        """The newer read stays open, as the close is meant for the older one."""
        self.apply(open_timeout=10.0, max_open_reads=2)
        self.puts(b"one", b"two", b"three")
        self.opens(b"one")
        self.server.clock.advance(9)
        self.opens(b"two")
        self.server.clock.advance(1)
        self.client.does(b"get q/close")
        self.assertEqual(self.figure("open_transactions"), 1)
        self.client.does(b"get q/close")
        self.assertEqual(self.figure("open_transactions"), 0)
        self.assertEqual(self.had(), [b"one", b"three"])

    def test_late_close_of_the_older_and_one_that_was_refused(self) -> None:
        """A read whose item the store refused does not replace the late one."""
        self.apply(open_timeout=10.0, max_open_reads=2)
        self.puts(b"one")
        self.opens(b"one")
        self.server.store.full = True
        other = self.server.client()
        other.set(b"q", b"two")
        self.assertEqual(self.client.does(b"get q/open"), REFUSED)
        self.server.store.full = False
        self.server.clock.advance(10)
        self.assertEqual(self.server.client().does(b"get q/open"), value(b"q", b"one"))
        self.puts(b"three")
        self.opens(b"three")
        self.client.does(b"get q/close")
        self.assertEqual(self.figure("open_transactions"), 2)

    def test_more_than_were_closed(self) -> None:
        """A client whose open reads are all late may open more; the server remembers no more than C{max_open_reads}."""
        self.apply(open_timeout=10.0, max_open_reads=2)
        self.puts(b"one")
        for _ in range(5):
            self.opens(b"one")
            self.server.clock.advance(10)
        self.assertLessEqual(len(self.client.session.reads.opens._reads[b"q"]), 2)
        self.opens(b"one")
        self.opens(None)

    def test_opened_again_without_a_close(self) -> None:
        """With one open read it is clear which one a close is for."""
        self.puts(b"one", b"two")
        self.opens(b"one")
        self.server.clock.advance(10)
        self.opens(b"one")
        self.client.does(b"get q/close")
        self.assertEqual(self.had(), [b"two"])

    def test_waiter(self) -> None:
        self.puts(b"one")
        self.opens(b"one")
        other = self.server.client()
        other.does(b"get q/open/t=60000")
        self.server.clock.advance(10)
        self.server.commit()
        self.assertEqual(other.hears(), value(b"q", b"one"))
        self.assertEqual(self.client.does(b"get q/close"), memcache.END)
        self.server.clock.advance(9)
        self.assertEqual(self.figure("open_transactions"), 1)
        self.server.clock.advance(1)
        self.assertEqual(self.figure("open_transactions"), 0)

    def test_counts_as_an_attempt(self) -> None:
        self.apply(open_timeout=10.0, max_attempts=2, dead_letter_queue="dead", retry_delay=1.0)
        self.puts(b"one")
        for _ in range(2):
            self.opens(b"one")
            self.server.clock.advance(10)
            self.server.clock.advance(1)
        self.assertEqual((self.had(), self.had(b"dead")), ([], [b"one"]))

    def test_one_call_of_the_clock(self) -> None:
        """One timer for any number of open reads, and none when there are none."""
        self.puts(*(b"%d" % at for at in range(20)))
        clients = [self.server.client() for _ in range(20)]
        for at, client in enumerate(clients):
            self.opens(b"%d" % at, client)
        self.assertEqual(len(self.server.clock.getDelayedCalls()), 1)
        for client in clients:
            client.does(b"get q/close")
        self.server.clock.pump([10] * 2)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_shortened(self) -> None:
        """A shorter time-out applies at once to open reads, and those over it are given back."""
        self.puts(b"one", b"two")
        self.opens(b"one")
        self.server.clock.advance(3)
        self.opens(b"two", self.server.client())
        self.apply(open_timeout=2.0)
        self.server.commit()
        self.assertEqual((self.figure("items"), self.figure("open_transactions")), (1, 1))
        self.server.clock.advance(2)
        self.assertEqual((self.figure("items"), self.figure("open_transactions")), (2, 0))

    def test_no_longer_wanted(self) -> None:
        self.puts(b"one")
        self.opens(b"one")
        self.apply()
        self.server.clock.advance(20)
        self.assertEqual(self.figure("open_transactions"), 1)
        self.client.does(b"get q/close")
        self.assertEqual(self.had(), [])

    def test_opened_before_it_was_wanted(self) -> None:
        self.apply()
        self.puts(b"one")
        self.opens(b"one")
        self.apply(**self.own)
        self.server.clock.advance(20)
        self.assertEqual(self.figure("open_transactions"), 1)

    def test_heavy(self) -> None:
        payload = b"x" * (HEAVY + 1)
        self.puts(payload)
        self.opens(payload)
        self.server.clock.advance(10)
        self.opens(payload)


class TouchTests(Case):
    own = {"open_timeout": 10.0, "max_open_reads": 3}

    def test_extends(self) -> None:
        self.puts(b"one", b"two")
        self.opens(b"one")
        self.opens(b"two")
        for _ in range(5):
            self.server.clock.advance(9)
            self.assertEqual(self.client.does(b"touch q"), memcache.TOUCHED)
        self.assertEqual(self.figure("open_transactions"), 2)
        self.server.clock.advance(10)
        self.assertEqual(self.figure("open_transactions"), 0)

    def test_only_ones_own(self) -> None:
        self.puts(b"one", b"two")
        other = self.server.client()
        self.opens(b"one")
        self.opens(b"two", other)
        self.server.clock.advance(9)
        self.client.does(b"touch q")
        self.server.clock.advance(1)
        self.assertEqual(self.figure("open_transactions"), 1)
        self.assertEqual(other.does(b"touch q"), memcache.NOT_FOUND)

    def test_nothing_open(self) -> None:
        self.assertEqual(self.client.does(b"touch q"), memcache.NOT_FOUND)
        self.assertIsNone(self.server.queues.find(b"q"))

    def test_too_late(self) -> None:
        self.puts(b"one")
        self.opens(b"one")
        self.server.clock.advance(10)
        self.assertEqual(self.client.does(b"touch q"), memcache.NOT_FOUND)

    def test_no_time_out(self) -> None:
        self.client.sets(b"p", b"one")
        self.client.does(b"get p/open")
        self.assertEqual(self.client.does(b"touch p"), memcache.TOUCHED)

    def test_noreply(self) -> None:
        self.puts(b"one")
        self.opens(b"one")
        self.server.clock.advance(9)
        self.assertEqual(self.client.does(b"touch q 0 noreply"), b"")
        self.server.clock.advance(9)
        self.assertEqual(self.client.does(b"touch q 0"), memcache.TOUCHED)


MAX_ATTEMPTS = 3
DELAY = 2.0
TIMEOUT = 10.0
CLIENTS = 3

steps = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 2)),
    st.tuples(st.just("open"), st.integers(0, CLIENTS - 1)),
    st.tuples(st.just("open"), st.integers(0, CLIENTS - 1)),
    st.tuples(st.just("close"), st.integers(0, CLIENTS - 1)),
    st.tuples(st.just("abort"), st.integers(0, CLIENTS - 1)),
    st.tuples(st.just("leave"), st.integers(0, CLIENTS - 1)),
    st.tuples(st.just("pass"), st.sampled_from((0.5, 1.5, 2.0, 6.0))),
    st.tuples(st.just("crash"), st.just(0)),
    st.tuples(st.just("restart"), st.just(0)),
    st.tuples(st.just("fault"), st.booleans()),
    st.tuples(st.just("requeue"), st.integers(1, 3)),
)


class Twin:
    """What the queue should be like: its items, by the order in which they were set."""

    def __init__(self) -> None:
        self.waiting: dict[bytes, float] = {}
        self.open: dict[bytes, tuple[int, float]] = {}
        self.attempts: dict[bytes, int] = {}
        self.dead: list[bytes] = []
        self.order: list[bytes] = []

    def give_back(self, payload: bytes, due: float) -> None:
        del self.open[payload]
        if self.attempts[payload] >= MAX_ATTEMPTS:
            self.dead.append(payload)
        else:
            self.waiting[payload] = due

    def end_order(self, crash: bool) -> Callable[[bytes], int]:
        """@return: by what the open items are sorted when the server ends: their place, or who holds them."""
        return self.order.index if crash else lambda payload: self.open[payload][0]

    def pass_until(self, now: float) -> None:
        for payload, (_, since) in list(self.open.items()):
            if since + TIMEOUT <= now:
                self.give_back(payload, now + DELAY)

    def next(self, now: float) -> Optional[bytes]:
        for payload in self.order:
            if payload in self.waiting and self.waiting[payload] <= now:
                return payload
        return None

    def requeue(self, count: int) -> int:
        moved, self.dead = self.dead[:count], self.dead[count:]
        for payload in moved:
            self.order.remove(payload)
            self.order.append(payload)
            self.waiting[payload] = 0.0
            del self.attempts[payload]
        return len(moved)


class PropertyTests(Case):
    """Random operations, faults and restarts in any order."""

    own = {
        "max_attempts": MAX_ATTEMPTS,
        "dead_letter_queue": "dead",
        "retry_delay": DELAY,
        "open_timeout": TIMEOUT,
    }

    def scenarios(self, count: int, begin: Callable[[], None]) -> None:
        @settings(
            max_examples=count,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(steps, min_size=10, max_size=40))
        def run(scenario: list[tuple[str, Any]]) -> None:
            begin()
            self.scenario(scenario)

        run()

    def test_memory(self) -> None:
        self.scenarios(200, self.setUp)

    def test_disk(self) -> None:
        paths = []

        def begin() -> None:
            paths.append(make_directory(self))
            self.begin(LevelStore(paths[-1]))

        def open_again(store: LevelStore) -> LevelStore:
            store.close()
            return LevelStore(paths[-1])

        self.patch(self, "open_again", open_again)
        self.scenarios(20, begin)

    def passes(self, twin: Twin, seconds: float) -> None:
        for _ in range(2):
            self.server.clock.advance(seconds / 2)
            twin.pass_until(self.server.clock.seconds())
        self.server.commit()

    def holder(self, twin: Twin, at: int) -> Optional[bytes]:
        return next((payload for payload, (client, _) in twin.open.items() if client == at), None)

    def scenario(self, scenario: list[tuple[str, Any]]) -> None:
        twin = Twin()
        faulty = False
        made = 0
        clients = [self.server.client() for _ in range(CLIENTS)]
        for step, argument in scenario:
            now = self.server.clock.seconds()
            if step == "put":
                made += 1
                payload = b"%d" % made + b"x" * (HEAVY * argument)
                if self.client.sets(b"q", payload) == memcache.STORED:
                    twin.order.append(payload)
                    twin.waiting[payload] = 0.0
            elif step == "open":
                client = clients[argument]
                if self.holder(twin, argument) is None:
                    expected = twin.next(now)
                    self.opens(expected, client)
                    if expected is not None:
                        del twin.waiting[expected]
                        twin.open[expected] = argument, now
                        twin.attempts[expected] = twin.attempts.get(expected, 0) + 1
            elif step == "close":
                clients[argument].does(b"get q/close")
                if (held := self.holder(twin, argument)) is not None:
                    del twin.open[held]
            elif step in ("abort", "leave"):
                if step == "abort":
                    clients[argument].does(b"get q/abort")
                else:
                    clients[argument].leave()
                    self.server.commit()
                    clients[argument] = self.server.client()
                if (held := self.holder(twin, argument)) is not None:
                    twin.give_back(held, now + DELAY)
            elif step == "pass":
                self.passes(twin, argument)
            elif step in ("crash", "restart"):
                self.server.store.full = False
                self.passes(twin, 2.0)  # what could not be moved is
                if step == "restart":
                    for client in clients:
                        client.leave()
                self.start(step == "crash")
                clients = [self.server.client() for _ in range(CLIENTS)]
                for payload in sorted(twin.open, key=twin.end_order(step == "crash")):
                    twin.give_back(payload, 0.0)
                twin.waiting = dict.fromkeys(twin.waiting, 0.0)
            elif step == "requeue":
                if not faulty:  # else nobody knows in which order they went there
                    reply = self.client.does(b"requeue dead q %d" % argument)
                    self.assertEqual(reply, b"%d\r\n" % twin.requeue(argument))
            else:
                self.server.store.full = argument
                faulty = faulty or argument
            dead = self.figure("items") - len(twin.waiting) if twin.order else 0
            self.assertIn(dead, range(len(twin.dead) + 1) if self.server.store.full else (0, len(twin.dead)))
        self.server.store.full = False
        for client in clients:
            client.leave()
        for payload in list(twin.open):
            twin.give_back(payload, 0.0)
        self.server.clock.pump([DELAY, DELAY, 0])
        self.assertEqual(self.had(), [payload for payload in twin.order if payload in twin.waiting])
        self.assertEqual(sorted(self.had(b"dead")), sorted(twin.dead))
        for state in self.server.store.recover():
            self.assertEqual(state.attempts, {})
        self.server.store.close()


class KillTests(SynchronousTestCase):
    """An item whose reader kills the server each time, with a real process."""

    def test_poison(self) -> None:
        directory = make_directory(self)
        config = directory / "darner.toml"
        config.write_text('[queues.q]\nmax_attempts = 2\ndead_letter_queue = "dead"\n')
        server = servers.Server(
            self, "--port=0", f"--data-dir={directory / 'data'}", f"--config={config}", directory=directory
        )
        with server.client() as client:
            client.send(b"set q 0 0 6\r\npoison\r\nset q 0 0 4\r\ngood\r\n")
            self.assertEqual([client.line(), client.line()], [b"STORED"] * 2)
        for _ in range(2):
            with server.client() as client:
                client.send(b"get q/open\r\n")
                self.assertEqual([client.line() for _ in range(3)], [b"VALUE q 0 6", b"poison", b"END"])
                server.kill()
            server.start()
        with server.client() as client:
            # It is moved soon after the start; who reads before that is not given it either.
            self.assertEqual(client.get(b"q"), b"good")
            servers.until(lambda: (client.count(b"q"), client.count(b"dead")) == (0, 1), "it is moved")
            self.assertEqual(client.get(b"dead"), b"poison")
