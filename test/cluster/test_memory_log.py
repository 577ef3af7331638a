"""
Tests of the log in memory.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from darner.cluster.memory_log import MemoryLog, MemoryMember
from darner.errors import LogConflict, LogDamaged, LogInDoubt, LogTrimmed, LogUnavailable
from test.cluster.log_contract import EVERYTHING, LogContract, Reading


class MemoryLogContract(LogContract, TestCase):
    """It keeps the contract."""

    def setUp(self) -> None:
        self.log = MemoryLog(reactor)

    def member(self) -> MemoryMember:
        member = self.log.member()
        self.addCleanup(member.close)
        return member


class MemoryLogTests(SynchronousTestCase):
    """Its faults, which tests order."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = MemoryLog(self.clock)
        self.one, self.other = self.log.member(), self.log.member()

    def result(self, deferred: Deferred[Any]) -> Any:
        self.clock.advance(0)
        return self.successResultOf(deferred)

    def test_nothing_happens_within_a_call(self) -> None:
        appended = self.one.append(1, b"x")
        self.assertNoResult(appended)
        self.assertEqual(self.one.in_flight, 1)
        self.assertIs(self.result(appended), None)
        self.assertEqual(self.one.in_flight, 0)

    def test_slow(self) -> None:
        """What is asked for later does not overtake."""
        self.one.delay = 2
        slow = self.one.append(1, b"x")
        self.one.delay = 0
        fast = self.one.append(2, b"y")
        self.clock.advance(1.9)
        self.assertNoResult(slow)
        self.assertEqual(self.result(self.other.last()), 0)
        self.clock.advance(0.1)
        self.assertEqual((self.successResultOf(slow), self.successResultOf(fast)), (None, None))

    def test_unavailable(self) -> None:
        """For one node, or for all; what was not done is never done."""
        for faulty in (self.one, self.log):
            faulty.unavailable = True
            asked = [self.one.append(1, b"x"), self.one.last(), self.one.notes(), self.one.trim(0)]
            behind = self.one.append(2, b"y")
            self.clock.advance(0)
            for deferred in asked:
                self.failureResultOf(deferred, LogUnavailable)
            self.failureResultOf(behind, LogConflict, LogUnavailable)
            faulty.unavailable = False
            self.assertEqual(self.result(self.one.last()), 0)

    def test_in_doubt(self) -> None:
        """It was done or not; what is behind it fails."""
        for done in (True, False):
            last = self.log.last
            self.one.doubtful = [done]
            doubtful, behind = self.one.append(last + 1, b"x"), self.one.append(last + 2, b"y")
            self.clock.advance(0)
            self.failureResultOf(doubtful, LogInDoubt)
            self.failureResultOf(behind, LogConflict)
            self.assertEqual(self.log.last, last + done)

    def test_damaged(self) -> None:
        for number in (1, 2, 3):
            self.result(self.one.append(number, b"x"))
        self.log.damaged = {2}
        self.assertEqual(self.result(self.one.read(0, EVERYTHING)), [(1, b"x")])
        damaged = self.one.read(1, EVERYTHING)
        reading = Reading(self.one)
        self.clock.pump([0] * 5)
        self.failureResultOf(damaged, LogDamaged)
        self.failureResultOf(reading.following.ended, LogDamaged)
        self.assertEqual(reading.got, [(1, b"x")])

    def test_follow_through_an_outage(self) -> None:
        reading = Reading(self.one)
        self.one.unavailable = True
        self.result(self.other.append(1, b"x"))
        self.clock.pump([1] * 5)
        self.assertEqual(reading.got, [])
        self.one.unavailable = False
        self.clock.pump([1] * 2)
        self.assertEqual(reading.got, [(1, b"x")])
        reading.following.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 1), st.integers(-1, 2), st.binary(max_size=9)),
        st.tuples(st.just("trim"), st.integers(0, 1), st.integers(0, 3), st.just(b"")),
        st.tuples(st.just("doubt"), st.integers(0, 1), st.integers(0, 1), st.just(b"")),
        st.tuples(st.just("cut off"), st.integers(0, 1), st.integers(0, 1), st.just(b"")),
        st.tuples(st.just("slow"), st.integers(0, 1), st.integers(0, 2), st.just(b"")),
        st.tuples(st.just("time"), st.just(0), st.integers(0, 3), st.just(b"")),
    ),
    max_size=60,
)


class KeptLog(MemoryLog):
    """One that keeps what was trimmed, for the test: in C{kept}."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.kept: dict[int, bytes] = {}

    def appended(self, number: int, record: bytes) -> None:
        super().appended(number, record)
        self.kept[number] = record


class MemoryLogModelTests(SynchronousTestCase):
    """Whatever two nodes do, and whatever fails."""

    @settings(max_examples=200, deadline=None, derandomize=True, database=None)
    @given(STEPS)
    def test_what_holds(self, steps: list[tuple[str, int, int, bytes]]) -> None:
        """
        What was acknowledged is there, as it was given, once; what failed otherwise than in doubt is not; who follows
        gets all of it in order.
        """
        clock = Clock()
        log = KeptLog(clock)
        members = [log.member(), log.member()]
        reading = Reading(log.member())
        next_numbers = [1, 1]
        acknowledged: dict[int, tuple[int, bytes]] = {}
        failed: list[tuple[int, bytes]] = []
        given_records = 0

        def append(who: int, number: int, payload: bytes) -> None:
            nonlocal given_records
            given_records += 1
            record = b"%d:%b" % (given_records, payload)

            def done(_: object) -> None:
                self.assertNotIn(number, acknowledged)
                acknowledged[number] = (who, record)

            def not_done(failure: Any) -> None:
                failure.trap(LogConflict, LogUnavailable, LogInDoubt)
                if not failure.check(LogInDoubt):
                    failed.append((number, record))
                next_numbers[who] = log.last + 1

            members[who].append(number, record).addCallbacks(done, not_done)
            next_numbers[who] = number + 1

        for step, who, value, payload in steps:
            if step == "append":
                append(who, next_numbers[who] + (value if value < 0 else 0), payload)
            elif step == "trim":
                members[who].trim(max(0, log.last - value)).addErrback(lambda failure: failure.trap(LogUnavailable))
            elif step == "doubt":
                members[who].doubtful.append(bool(value))
            elif step == "cut off":
                members[who].unavailable = bool(value)
            elif step == "slow":
                members[who].delay = value / 2
            else:
                clock.advance(value / 2)
        clock.pump([1] * 9)
        kept = log.kept
        for number, (_, record) in acknowledged.items():
            self.assertEqual(kept[number], record)
        self.assertEqual([number for number, record in failed if kept.get(number) == record], [])
        self.assertEqual(sorted(kept), list(range(1, log.last + 1)))
        self.assertEqual(reading.got, [(number, kept[number]) for number, _ in reading.got])
        self.assertEqual([number for number, _ in reading.got], list(range(1, len(reading.got) + 1)))
        if reading.following.ended.called:
            self.failureResultOf(reading.following.ended, LogTrimmed)
        else:
            self.assertEqual(len(reading.got), log.last)
