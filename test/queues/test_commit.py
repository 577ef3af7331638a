"""The group commit: `darner.queues.commit`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from darner.front import memcache, memcache_requests
from darner.net.log_limits import PERIOD
from darner.queues.commit import RESUMED, RETRY
from darner.values import requests
from darner.values.stats import Health
from darner.values.vocabulary import CHUNK_BYTES
from test.harness import EPOCH, REFUSED, Asker, Server, value


class TurnTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.store = self.server.store
        self.a = self.server.client()
        self.b = self.server.client()
        self.commit = self.server.queues.commit

    def assertHears(self, **expected: bytes) -> None:
        for name, reply in expected.items():
            self.assertEqual((name, getattr(self, name).hears()), (name, reply))


class GatheringTests(TurnTestCase):
    def test_one_write_for_all_and_replies_after_it(self) -> None:
        for number in range(20):
            self.a.set(b"q", b"%d" % number)
            self.b.set(b"other", b"%d" % number)
        self.a.ask(b"get q")
        self.assertHears(a=b"", b=b"")
        self.assertEqual(self.store.writes, [])
        self.server.commit()
        self.assertEqual(self.store.writes, [False])
        self.assertEqual(self.a.writes, [memcache.STORED * 20 + value(b"q", b"0")])
        self.assertHears(b=memcache.STORED * 20)

    def test_nothing_is_written_where_nothing_changed(self) -> None:
        self.assertEqual(self.a.does(b"get q"), memcache.END)
        self.assertEqual(self.a.does(b"version")[:8], b"VERSION ")
        self.assertEqual(self.store.writes, [])

    def test_one_time_for_a_whole_turn(self) -> None:
        now = self.commit.now
        self.assertEqual(now, EPOCH * 1000)
        self.server.clock.rightNow += 5
        self.assertEqual(self.commit.now, now)
        self.server.commit()
        self.assertEqual(self.commit.now, now + 5000)

    def test_the_time_is_asked_again_by_who_begins_to_serve_many(self) -> None:
        """The time was read between two turns, and the wall clock was set since."""
        now = self.commit.now
        self.server.clock.rightNow += 5
        self.commit.begin()
        self.assertEqual(self.commit.now, now + 5000)
        self.commit.end()

    def test_an_answer_that_fails_does_not_keep_the_others_from_theirs(self) -> None:
        def explode(data: bytes) -> None:
            raise RuntimeError("boom")

        self.a.write = explode  # type: ignore[method-assign]
        self.a.set(b"q", b"1")
        self.b.set(b"q", b"2")
        self.server.commit()
        self.assertHears(b=memcache.STORED)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_who_serves_many_at_once_ends_the_turn_itself(self) -> None:
        """No call of the reactor is needed."""
        self.commit.begin()
        self.a.set(b"q", b"1")
        self.b.ask(b"get q")
        self.assertEqual(self.server.clock.getDelayedCalls(), [])
        self.commit.end()
        self.assertHears(a=memcache.STORED, b=value(b"q", b"1"))
        self.assertEqual(self.store.writes, [False])
        self.assertEqual(self.a.sets(b"q", b"2"), memcache.STORED)

    def test_who_wants_much_rests(self) -> None:
        """However many such clients there are, the others are answered in the next turn."""
        calls: list[Any] = []
        self.commit._schedule = calls.append
        greedy = [self.server.client() for _ in range(3 * RESUMED)]
        for client in greedy:
            for _ in range(1000):
                client.ask(b"version")
        heard = [0] * len(greedy)

        def commit() -> list[int]:
            """@return: how many replies each of the greedy has got in one turn."""
            calls.pop(0)()
            got = [client.hears().count(b"VERSION ") for client in greedy]
            for at, count in enumerate(got):
                heard[at] += count
            return got

        first = commit()
        self.assertEqual(len(set(first)), 1)
        self.assertTrue(200 < first[0] < 300, first[0])
        turns = 0
        while calls:
            self.a.ask(b"version")
            got = commit()
            self.assertEqual(self.a.hears().count(b"VERSION "), 1)
            self.assertLessEqual(len([count for count in got if count]), RESUMED)
            self.assertLessEqual(max(got), first[0])
            turns += 1
        self.assertEqual(heard, [1000] * len(greedy))
        self.assertGreater(turns, 6)

    def test_who_rests_may_go(self) -> None:
        for _ in range(1000):
            self.a.ask(b"version")
        self.commit.begin()
        self.commit.end()
        self.assertTrue(self.a.session.busy)
        self.a.leave()
        self.b.ask(b"version")
        self.server.commit()
        self.assertEqual(self.b.hears().count(b"VERSION "), 1)

    def test_who_rests_while_many_are_served_at_once(self) -> None:
        """The caller of C{begin} ends the turn; no further call of the reactor is needed."""
        gone_on: list[int] = []

        class Resting:
            def go_on(self) -> None:
                gone_on.append(1)

        self.commit.begin()
        self.commit.rest(Resting())
        self.commit.end()
        self.assertEqual(gone_on, [])
        self.server.commit()
        self.assertEqual(gone_on, [1])

    def test_who_fails_to_go_on_does_not_keep_the_others(self) -> None:
        class Broken:
            def go_on(self) -> None:
                raise RuntimeError("boom")

        self.commit.rest(Broken())
        self.assertEqual(self.a.sets(b"q", b"1"), memcache.STORED)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_written_fires_after_the_write(self) -> None:
        self.a.set(b"q", b"1")
        seen: list[list[bool]] = []
        self.commit.written().addCallback(lambda _: seen.append(list(self.store.writes)))
        self.assertEqual(seen, [])
        self.server.commit()
        self.assertEqual(seen, [[False]])

    def test_written_fires_where_there_is_nothing_to_write(self) -> None:
        done = self.commit.written()
        self.assertNoResult(done)
        self.server.commit()
        self.assertIsNone(self.successResultOf(done))

    def test_who_asks_while_the_turn_is_answered_asks_for_the_next_one(self) -> None:
        asked: list[Deferred[Any]] = []
        first = self.commit.written()

        def ask(data: bytes) -> None:
            self.b.set(b"q", b"2")
            asked.append(self.commit.written())
            asked[0].addCallback(lambda _: self.assertEqual(self.store.writes, [False, False]))
            self.assertNoResult(first)

        self.a.write = ask  # type: ignore[method-assign]
        self.a.set(b"q", b"1")
        self.commit.end()
        self.successResultOf(first)
        self.assertNoResult(asked[0])
        self.server.commit()
        self.successResultOf(asked[0])


class SyncTests(TurnTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server.holding = True

    def test_the_thread_writes_and_nobody_hears_before(self) -> None:
        self.a.set(b"q/sync", b"1")
        self.b.set(b"q", b"2")
        self.server.commit()
        self.assertTrue(self.commit.busy)
        self.assertHears(a=b"", b=b"")
        self.server.release()
        self.assertFalse(self.commit.busy)
        self.assertHears(a=memcache.STORED, b=memcache.STORED)
        self.assertEqual(self.store.writes, [True])

    def test_what_arrives_meanwhile_gathers_for_one_write(self) -> None:
        self.a.set(b"q/sync", b"1")
        self.server.commit()
        for number in range(5):
            self.a.set(b"q/sync", b"%d" % number)
            self.server.commit()
            self.b.set(b"q/sync", b"%d" % number)
            self.server.commit()
        self.assertHears(a=b"", b=b"")
        self.server.release()
        self.assertHears(a=memcache.STORED, b=b"")
        self.server.release()
        self.assertHears(a=memcache.STORED * 5, b=memcache.STORED * 5)
        self.assertEqual(self.store.writes, [True, True])

    def test_replies_keep_their_order(self) -> None:
        self.a.set(b"q/sync", b"1")
        self.server.commit()
        self.a.ask(b"get q")
        self.a.ask(b"version")
        self.server.commit()
        self.a.set(b"other", b"2")
        self.server.release()
        said = self.a.hears()
        self.assertTrue(said.startswith(memcache.STORED + value(b"q", b"1") + b"VERSION "))
        self.assertTrue(said.endswith(b"\r\n" + memcache.STORED))
        self.assertEqual(self.store.writes, [True, False])

    def test_written_fires_when_the_thread_is_done(self) -> None:
        self.a.set(b"q/sync", b"1")
        first = self.commit.written()
        self.server.commit()
        self.b.set(b"q", b"2")
        second = self.commit.written()
        self.server.commit()
        self.assertNoResult(first)
        self.server.release()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_an_item_that_is_read_before_its_write_fails(self) -> None:
        """No client gets an item that is not in the store, not even in the turn that gathers meanwhile."""
        self.a.set(b"q/sync", b"1")
        self.a.set(b"q", b"2")
        self.a.set(b"q", b"3")
        self.server.commit()
        self.b.ask(b"get q")
        self.b.ask(b"get q/peek")
        self.b.ask(b"get q/open")
        self.b.ask(b"version")
        self.store.broken = 1
        self.server.release()
        self.assertHears(a=REFUSED * 3)
        said = self.b.hears()
        self.assertTrue(said.startswith(REFUSED * 3 + b"VERSION "), said)
        self.assertEqual(self.b.does(b"get q"), memcache.END)

    def test_a_write_that_explodes(self) -> None:
        self.a.set(b"q/sync", b"1")
        self.server.commit()
        done, _, arguments = self.server.held[0]

        def explode(*arguments: Any) -> None:
            raise RuntimeError("boom")

        self.server.held[0] = (done, explode, arguments)
        self.server.release()
        self.assertHears(a=b"SERVER_ERROR cannot write: boom\r\n")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.server.holding = False
        self.assertEqual(self.a.sets(b"q/sync", b"2"), memcache.STORED)
        self.assertEqual(self.a.does(b"get q"), value(b"q", b"2"))


class FaultTests(TurnTestCase):
    """An unexpected error is logged, and all clients get a reply all the same."""

    def explode(self, times: int) -> None:
        write = self.store.write
        left = [None] * times

        def explosive(batch: Any, sync: bool = False) -> None:
            if left:
                left.pop()
                raise RuntimeError("boom")
            write(batch, sync)

        self.store.write = explosive  # type: ignore[method-assign]

    def test_once(self) -> None:
        self.a.sets(b"q", b"1")
        self.explode(1)
        self.a.set(b"q", b"2")
        self.b.ask(b"get q")
        self.server.commit()
        self.assertHears(a=b"SERVER_ERROR cannot write: boom\r\n", b=value(b"q", b"1"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_twice(self) -> None:
        self.a.sets(b"q", b"1")
        self.explode(2)
        error = b"SERVER_ERROR cannot write: boom\r\n"
        self.a.set(b"q", b"2")
        self.b.ask(b"get q")
        self.server.commit()
        self.assertHears(a=error, b=error)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1, "of the same fault")
        self.assertEqual(self.b.does(b"get q"), value(b"q", b"1"))


class FullTests(TurnTestCase):
    """There is room for small records only: sets are refused, and everything else goes on."""

    def setUp(self) -> None:
        super().setUp()
        for payload in (b"1", b"2", b"3"):
            self.a.sets(b"q", payload)
        self.store.full = True

    def test_a_set_is_refused(self) -> None:
        self.assertEqual(self.a.sets(b"q", b"4"), REFUSED)
        self.assertEqual(self.a.sets(b"new", b"4"), REFUSED)
        self.assertEqual(self.a.sets(b"q/sync", b"4"), REFUSED)
        self.assertEqual(self.a.sets(b"q", b"4", end=b" noreply"), b"")
        self.assertEqual(self.server.queues.names(), [b"q"])
        self.assertEqual(self.server.figures(b"q"), (3, 3))

    def test_reads_go_on(self) -> None:
        self.assertEqual(self.a.does(b"get q"), value(b"q", b"1"))
        self.assertEqual(self.a.does(b"get q/open"), value(b"q", b"2"))
        self.assertEqual(self.a.does(b"get q/close"), memcache.END)
        self.assertEqual(self.a.does(b"get q/peek"), value(b"q", b"3"))
        self.server.start()
        self.assertEqual(self.server.figures(b"q"), (1, 1))

    def test_in_one_turn_with_what_is_refused(self) -> None:
        self.b.ask(b"get q")
        self.a.set(b"q", b"4")
        self.b.ask(b"get q/open")
        self.b.ask(b"get q/close")
        self.server.commit()
        self.assertHears(a=REFUSED, b=value(b"q", b"1") + value(b"q", b"2") + memcache.END)
        self.server.start()
        self.assertEqual(self.server.figures(b"q"), (1, 1))

    def test_put_and_read_in_one_turn(self) -> None:
        """No client gets an item that was never stored."""
        self.b.ask(b"get new/t=1000")
        self.a.set(b"new", b"4")
        self.a.ask(b"flush q")
        self.server.commit()
        self.assertHears(a=REFUSED + memcache.END, b=REFUSED)
        self.assertEqual(self.server.queues.names(), [b"q"])

    def test_several_queues_at_once(self) -> None:
        """One request has one reply, whatever fails: the items that can be read, then the error in place of C{END}."""
        self.a.set(b"new", b"4")
        self.b.ask(b"get new q none")
        self.b.ask(b"get none")
        self.server.commit()
        self.assertHears(a=REFUSED, b=value(b"q", b"1", end=b"") + REFUSED + memcache.END)

    def test_sets_work_again_once_there_is_room(self) -> None:
        self.assertEqual(self.a.sets(b"q", b"4"), REFUSED)
        self.store.full = False
        self.assertEqual(self.a.sets(b"q", b"5"), memcache.STORED)
        self.server.start()
        self.assertEqual(self.server.figures(b"q"), (4, 4))
        client = self.server.client()
        for payload in (b"1", b"2", b"3", b"5"):
            self.assertEqual(client.does(b"get q"), value(b"q", payload))
        self.assertEqual(client.does(b"get q"), memcache.END)

    def test_a_large_item(self) -> None:
        """It is refused, the connection goes on, and no byte of it stays in the store."""
        self.assertEqual(self.a.sets(b"q", b"x" * 200_000), REFUSED)
        self.store.full = False
        self.assertEqual(self.a.sets(b"q", b"y" * 200_000), memcache.STORED)
        self.server.clock.advance(1)
        self.assertEqual(len(self.store.store.chunks), 1)

    def test_a_large_item_that_fails_half_way(self) -> None:
        self.store.full = False
        inflow = self.a.session.inflow()
        self.a.session.receive(inflow, b"x" * 100_000)
        self.server.commit()
        self.store.full = True
        self.a.session.receive(inflow, b"x" * 100_000)
        self.server.commit()
        self.store.full = False
        self.a.session.receive(inflow, b"x" * 100_000)
        request = memcache_requests.parse(b"set q 0 0 300000")
        assert isinstance(request, requests.Set)
        self.a.session.put_flow(request, inflow)
        self.server.commit()
        self.assertHears(a=REFUSED)
        self.server.clock.advance(1)
        self.assertEqual(self.store.store.chunks, {})
        self.assertEqual(self.server.figures(b"q"), (3, 3))


class TurnAfterTurnTests(TurnTestCase):
    """A turn knows nothing of those before it, which were kept for their room."""

    def test_refused(self) -> None:
        """Each turn registers all that depends on a write; when the next fails, only its own replies change."""
        for name in (b"q", b"r"):
            self.a.sets(name, b"1")
        large = b"x" * (CHUNK_BYTES + 1)
        for broken in (False, True, True, False):
            self.a.set(b"q", b"2")
            self.a.set(b"q", b"3")
            self.b.ask(b"get q/open")
            self.b.ask(b"get q/close")
            self.b.ask(b"get q")
            self.b.ask(b"delete other")
            self.a.set(b"large", large)
            verdict = self.commit.verdict()
            answers = Asker(self.server.queues).answers()
            self.commit.follow(verdict, answers, answers.add(b"followed"))
            self.store.broken = int(broken)
            self.server.commit()
            said = self.a.hears()
            self.assertEqual((said.count(memcache.STORED), said.count(REFUSED)), (0, 3) if broken else (3, 0))
            self.assertEqual(verdict.error is not None, broken)
            self.assertEqual(answers.entries[0] == b"followed", not broken)
            self.b.hears()
            self.store.broken = 0
            while self.b.does(b"get large") != memcache.END:
                pass
            self.a.sets(b"q", b"1")
            self.a.sets(b"q", b"1")

    def test_sync(self) -> None:
        """Only the turn that was asked for it is synced."""
        self.a.sets(b"q/sync", b"1")
        self.a.sets(b"q", b"1")
        self.a.sets(b"q", b"1")
        self.assertEqual(self.store.writes, [True, False, False])


class BrokenTests(TurnTestCase):
    """Nothing can be written: items that were read are given back, and their readers get an error."""

    def setUp(self) -> None:
        super().setUp()
        for payload in (b"1", b"2", b"3"):
            self.a.sets(b"q", payload)

    def break_store(self) -> None:
        self.store.broken = 2

    def mend_store(self) -> None:
        self.store.broken = 0

    def test_reads_are_given_back(self) -> None:
        self.break_store()
        self.assertEqual(self.a.does(b"get q"), REFUSED)
        self.mend_store()
        self.assertEqual(self.server.figures(b"q"), (3, 3))
        self.assertEqual(self.a.does(b"get q"), value(b"q", b"1"))

    def test_given_back_to_who_waits(self) -> None:
        self.a.ask(b"get q")
        self.a.ask(b"get q")
        self.a.ask(b"get q")
        self.b.ask(b"get q/t=1000")
        self.break_store()
        self.server.commit()
        self.assertHears(a=REFUSED * 3, b=value(b"q", b"1"))
        self.assertEqual(self.server.figures(b"q"), (2, 2))

    def test_several_queues_at_once(self) -> None:
        self.b.sets(b"r", b"4")
        self.break_store()
        self.assertEqual(self.a.does(b"get q r none"), REFUSED)
        self.mend_store()
        self.assertEqual(self.a.does(b"get q r none"), value(b"q", b"1", end=b"") + value(b"r", b"4"))

    def test_opens_and_peeks_need_no_write(self) -> None:
        self.a.set(b"q", b"4")
        self.b.ask(b"get q/open")
        self.b.ask(b"get q/peek")
        self.break_store()
        self.server.commit()
        self.assertHears(a=REFUSED, b=value(b"q", b"1") + value(b"q", b"2"))

    def test_a_close_is_not_acknowledged(self) -> None:
        """It is written once the store works again."""
        self.a.does(b"get q/open")
        self.break_store()
        self.assertEqual(self.a.does(b"get q/close"), REFUSED)
        self.mend_store()
        self.assertEqual(self.a.does(b"get q/open"), value(b"q", b"2"))
        self.server.start()
        self.assertEqual(self.server.figures(b"q"), (2, 2))

    def test_flush_and_delete_are_not_acknowledged(self) -> None:
        for line in (b"flush q", b"flush_all", b"delete q"):
            self.break_store()
            self.assertEqual(self.a.does(line), REFUSED)
            self.mend_store()

    def test_an_item_put_and_read_in_the_turn(self) -> None:
        self.a.set(b"new", b"4")
        self.b.ask(b"get new")
        self.break_store()
        self.server.commit()
        self.assertHears(a=REFUSED, b=REFUSED)
        self.mend_store()
        self.assertEqual(self.b.does(b"get new"), memcache.END)

    def test_a_large_item_is_given_back(self) -> None:
        payload = b"x" * 200_000
        self.a.sets(b"large", payload)
        self.break_store()
        self.assertEqual(self.a.does(b"get large"), REFUSED)
        self.assertFalse(self.a.session.busy)
        self.mend_store()
        self.assertEqual(self.a.does(b"get large"), value(b"large", payload))

    def test_a_read_of_a_queue_that_is_deleted_in_the_same_turn(self) -> None:
        self.a.ask(b"get q")
        self.b.ask(b"delete q")
        self.b.set(b"q", b"new")
        self.break_store()
        self.server.commit()
        self.assertHears(a=REFUSED, b=REFUSED * 2)
        self.mend_store()
        self.assertEqual(self.a.does(b"get q"), memcache.END)
        self.assertEqual(self.b.sets(b"q", b"newer"), memcache.STORED)
        self.assertEqual(self.a.does(b"get q"), value(b"q", b"newer"))
        self.server.start()
        self.assertEqual(self.server.figures(b"q"), (0, 0))


class UnmendableTests(BrokenTests):
    """The same where the store cannot even be made writable again."""

    def break_store(self) -> None:
        self.store.unmendable = True

    def mend_store(self) -> None:
        self.store.unmendable = False

    def test_given_back_to_who_waits(self) -> None:
        """Waiting clients get an error too, while the fault lasts."""
        for _ in range(3):
            self.a.ask(b"get q")
        self.break_store()
        self.server.commit()
        self.assertHears(a=REFUSED * 3)
        self.assertEqual(self.server.figures(b"q"), (3, 3))

    def test_a_set_is_refused_for_good(self) -> None:
        """The item does not appear once the store is mended."""
        self.break_store()
        self.assertEqual(self.a.sets(b"q", b"4"), REFUSED)
        self.assertEqual(self.server.figures(b"q"), (3, 3))
        self.mend_store()
        self.assertEqual(self.a.sets(b"q", b"5"), memcache.STORED)
        self.server.start()
        self.assertEqual(self.server.figures(b"q"), (4, 4))


class RetryTests(TurnTestCase):
    """A timer tries refused writes again; until one succeeds, C{health} says that the store refuses them."""

    def setUp(self) -> None:
        super().setUp()
        for payload in (b"1", b"2"):
            self.a.sets(b"q", payload)
        self.queues = self.server.queues

    def test_what_was_deleted(self) -> None:
        """No further request is needed."""
        self.store.broken = 4
        self.assertEqual(self.a.does(b"delete q"), REFUSED)
        self.server.clock.advance(RETRY)
        self.assertEqual(self.store.broken, 0)
        self.assertEqual(len(list(self.store.recover())), 1)
        self.server.clock.advance(RETRY)
        self.assertEqual(list(self.store.recover()), [])
        self.assertEqual(self.queues.health(), Health())
        self.server.clock.advance(PERIOD)
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_log(self) -> None:
        """A full disk is logged once, then once a minute, and when it is over: not for each write that is refused."""
        refused = "the store refused a write: no room"
        with capturedLogs() as logs:
            self.store.full = True
            for _ in range(90):
                for _ in range(10):
                    self.assertEqual(self.a.sets(b"q", b"x"), REFUSED)
                self.server.clock.advance(RETRY)
            self.store.full = False
            self.server.clock.advance(RETRY)
        first, period, last = map(formatEvent, logs)
        self.assertEqual(first, refused)
        self.assertRegex(period, refused + r" \(\d+ more in the last 60 s\)")
        self.assertRegex(last, r"the store takes writes again; it refused \d+ in 91 s")

    def test_log_while_nobody_asks(self) -> None:
        """The log says that it is over only after the store has accepted a write."""
        self.store.full = True
        with capturedLogs() as logs:
            self.a.sets(b"q", b"x")
            self.server.clock.pump([RETRY] * 130)
            self.assertNotIn("over", " ".join(map(formatEvent, logs)))
            self.store.full = False
            self.server.clock.advance(RETRY)
        self.assertIn("takes writes again", formatEvent(logs[-1]))

    def test_log_at_the_stop(self) -> None:
        self.store.full = True
        with capturedLogs() as logs:
            for _ in range(3):
                self.a.sets(b"q", b"x")
            self.commit.stop()
        self.assertEqual(len(logs), 2)
        self.assertIn("(2 more in the last 0 s)", formatEvent(logs[1]))

    def test_health(self) -> None:
        self.assertEqual(self.queues.health(), Health())
        self.store.full = True
        self.server.clock.advance(5)
        self.assertEqual(self.a.sets(b"q", b"x"), REFUSED)
        expected = Health(False, "no room", EPOCH + 5)
        for _ in range(3):
            self.assertEqual(self.queues.health(), expected)
            self.server.clock.advance(RETRY)
            # What is written meanwhile, for there is room for that, is no sign of health.
            self.assertNotIn(b"ERROR", self.a.does(b"get q"))
        self.store.full = False
        self.server.clock.advance(RETRY)
        self.assertEqual(self.queues.health(), Health())

    def test_works_again_with_the_next_set(self) -> None:
        self.store.full = True
        self.a.sets(b"q", b"x")
        self.store.full = False
        self.assertEqual(self.a.sets(b"q", b"x"), memcache.STORED)
        self.assertEqual(self.queues.health(), Health())

    def test_cannot_be_mended(self) -> None:
        self.store.unmendable = True
        self.assertEqual(self.a.sets(b"q", b"x"), REFUSED)
        self.server.clock.pump([RETRY] * 3)
        self.assertFalse(self.queues.health().writable)
        self.store.unmendable = False
        self.server.clock.advance(RETRY)
        self.assertTrue(self.queues.health().writable)

    def test_no_number(self) -> None:
        """A queue that cannot be created counts as a refused write, and nothing of it is left."""
        self.store.numberless = True
        self.assertEqual(self.a.sets(b"new", b"x"), b"SERVER_ERROR no numbers\r\n")
        self.assertFalse(self.queues.health().writable)
        self.assertIsNone(self.queues.find(b"new"))
        self.server.clock.advance(RETRY)
        self.assertEqual(self.a.sets(b"new", bytes(100_000)), b"SERVER_ERROR no numbers\r\n")
        self.assertFalse(self.queues.health().writable)

    def test_while_a_thread_writes(self) -> None:
        """The store is not reopened while a thread writes."""
        self.store.full = True
        self.a.sets(b"q", b"x")
        self.store.full = False
        self.server.holding = True
        self.a.set(b"q/sync", b"y")
        self.server.commit()
        self.patch(self.store, "mend", lambda: self.fail("a thread is writing"))
        self.server.clock.advance(RETRY)
        self.assertFalse(self.queues.health().writable)
        self.patch(self.store, "mend", lambda: None)
        self.server.release()
        self.assertEqual(self.queues.health(), Health())

    def test_an_error_that_is_kept_keeps_nothing_else(self) -> None:
        """Otherwise all payloads of that turn would stay in memory until the garbage collector runs."""
        inflow = self.queues.puts.inflow()
        inflow.write(bytes(100_000))
        self.store.full = True
        self.server.commit()
        error = inflow.error
        assert error is not None
        self.assertEqual((error.__traceback__, error.__cause__, error.__context__), (None, None, None))

    def test_stop(self) -> None:
        self.store.full = True
        self.a.sets(b"q", b"x")
        self.a.leave()
        self.server.stop()
        self.assertEqual(self.server.clock.getDelayedCalls(), [])
