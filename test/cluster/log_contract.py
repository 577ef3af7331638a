"""
What every L{ILog} promises, as tests.

An engine's own test module mixes L{LogContract} into a test case and says how nodes get to one log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from darner.cluster.interfaces import IFollowing, ILog
from darner.errors import LogConflict, LogDamaged, LogError, LogTrimmed, LogUnavailable
from test.servers import PATIENCE

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase

    Base = TestCase
else:
    Base = object

EVERYTHING = 1 << 30
"""More bytes than any test reads."""


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait, and let the reactor run, until something is so."""
    deadline = reactor.seconds() + PATIENCE
    while not condition():
        if reactor.seconds() > deadline:
            raise AssertionError(f"waited {PATIENCE} s in vain: {what}")
        await deferLater(reactor, 0.005)


async def outcomes(deferreds: list[Deferred[None]]) -> list[Optional[type]]:
    """@return: for each, C{None} or the type of its error."""
    return [None if good else result.type for good, result in await DeferredList(deferreds, consumeErrors=True)]


class Reading:
    """What one who follows has got."""

    def __init__(self, log: ILog, after: int = 0, slow: bool = False) -> None:
        """@param slow: whether each record is waited for, until L{go_on}."""
        self.got: list[tuple[int, bytes]] = []
        self._slow = slow
        self._waiting: Optional[Deferred[None]] = None
        self.following: IFollowing = log.follow(after, self.received)

    def received(self, number: int, record: bytes) -> Optional[Deferred[None]]:
        if self._waiting is not None:
            raise AssertionError("the next record came while the one before was waited for")
        self.got.append((number, record))
        if not self._slow:
            return None
        self._waiting = Deferred()
        return self._waiting

    def go_on(self, error: Optional[Exception] = None) -> None:
        """Done with a record."""
        waiting, self._waiting = self._waiting, None
        waiting.callback(None) if error is None else waiting.errback(error)

    async def until(self, count: int) -> None:
        """Wait for so many records."""
        await until(lambda: len(self.got) >= count, f"{count} records: {len(self.got)} came")


class LogContract(Base):
    """
    @ivar member: returns the log of this test as one more node sees it.
    @ivar large: the size of a record that is large for the engine.
    """

    member: Callable[[], Any]
    large = 100_000

    async def fill(self, log: ILog, count: int, start: int = 1) -> list[tuple[int, bytes]]:
        """@return: the records that were appended, with their numbers."""
        records = [(number, b"record %d" % number) for number in range(start, start + count)]
        await gatherResults([log.append(number, record) for number, record in records])
        return records

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(ILog, self.member()))

    async def test_empty(self) -> None:
        log = self.member()
        self.assertEqual((await log.last(), await log.first()), (0, 1))
        self.assertEqual(await log.read(0, EVERYTHING), [])
        self.assertEqual(await log.notes(), {})

    async def test_append_and_read(self) -> None:
        """What one node has appended, all can read at once."""
        one, other = self.member(), self.member()
        await one.append(1, b"first")
        await one.append(2, b"")
        await one.append(3, bytes(range(256)))
        for log in (one, other):
            self.assertEqual(await log.last(), 3)
            self.assertEqual(await log.read(0, EVERYTHING), [(1, b"first"), (2, b""), (3, bytes(range(256)))])
            self.assertEqual(await log.read(1, EVERYTHING), [(2, b""), (3, bytes(range(256)))])
            self.assertEqual(await log.read(3, EVERYTHING), [])

    async def test_read_some(self) -> None:
        """At least one record, then as many as make so many bytes."""
        log = self.member()
        await gatherResults([log.append(number, b"x" * 100) for number in range(1, 31)])
        for most, count in ((1, 1), (100, 1), (101, 2), (2950, 30), (EVERYTHING, 30)):
            found = await log.read(0, most)
            self.assertEqual([number for number, _ in found], list(range(1, count + 1)), most)

    async def test_numbers_follow(self) -> None:
        """Only the number after the last one is appended."""
        log = self.member()
        for number in (2, 0):
            await self.assertFailure(log.append(number, b"x"), LogConflict)
        await log.append(1, b"first")
        for number in (1, 3):
            await self.assertFailure(log.append(number, b"x"), LogConflict)
        await log.append(2, b"second")
        self.assertEqual(await log.read(0, EVERYTHING), [(1, b"first"), (2, b"second")])

    async def test_many_in_flight(self) -> None:
        """They are appended in order, large ones between small ones, too."""
        log = self.member()
        records = [(number, bytes([number]) * (self.large if number % 9 == 4 else number)) for number in range(1, 41)]
        done: list[int] = []
        deferreds = []
        for number, record in records:
            deferred = log.append(number, record)
            deferred.addCallback(lambda _, number=number: done.append(number))
            deferreds.append(deferred)
        await gatherResults(deferreds)
        self.assertEqual(done, list(range(1, 41)))
        self.assertEqual(await self.member().read(0, EVERYTHING), records)

    async def test_two_compete(self) -> None:
        """Exactly one gets a number; the other learns so, also for what it has in flight."""
        one, other = self.member(), self.member()
        await one.append(1, b"first")
        mine = [one.append(number, b"one %d" % number) for number in range(2, 6)]
        others = [other.append(number, b"other %d" % number) for number in range(2, 6)]
        results = [await outcomes(mine), await outcomes(others)]
        self.assertEqual(sorted(results, key=str), [[LogConflict] * 4, [None] * 4])
        winner = b"one" if results[0][0] is None else b"other"
        records = await one.read(1, EVERYTHING)
        self.assertEqual(records, [(number, winner + b" %d" % number) for number in range(2, 6)])

    async def test_deposed(self) -> None:
        """Who led before appends nothing any more; and may lead again once it knows all."""
        old, new = self.member(), self.member()
        await self.fill(old, 3)
        await new.append(4, b"new")
        self.assertEqual(await outcomes([old.append(number, b"old") for number in (4, 5, 6)]), [LogConflict] * 3)
        self.assertEqual(await outcomes([old.append(5, b"again")]), [None])
        self.assertEqual(await outcomes([new.append(5, b"late")]), [LogConflict])
        self.assertEqual(await new.read(3, EVERYTHING), [(4, b"new"), (5, b"again")])

    async def test_too_large(self) -> None:
        log = self.member()
        self.assertRaises(ValueError, log.append, 1, bytes(log.max_record_bytes + 1))
        self.assertEqual(await log.last(), 0)

    # Following

    async def test_follow(self) -> None:
        """What is there comes first, then what is appended; once each, in order."""
        log = self.member()
        records = await self.fill(log, 20)
        reading = Reading(self.member())
        await reading.until(20)
        later = Reading(self.member(), after=15)
        records += await self.fill(log, 20, 21)
        await reading.until(40)
        self.assertEqual(reading.got, records)
        await later.until(25)
        self.assertEqual(later.got, records[15:])

    async def test_lost_records(self) -> None:
        """Who has more than the log is told so, as the log must have been set back."""
        log = self.member()
        await self.fill(log, 3)
        with self.assertRaises(LogDamaged):
            await log.read(4, EVERYTHING)
        await self.assertFailure(Reading(log, after=5).following.ended, LogDamaged)

    async def test_follow_large(self) -> None:
        log = self.member()
        await log.append(1, b"1" * self.large)
        reading = Reading(self.member())
        await reading.until(1)
        await gatherResults([log.append(2, b"2" * self.large), log.append(3, b"three")])
        await reading.until(3)
        self.assertEqual(reading.got, [(1, b"1" * self.large), (2, b"2" * self.large), (3, b"three")])

    async def test_back_pressure(self) -> None:
        log = self.member()
        reading = Reading(self.member(), slow=True)
        records = await self.fill(log, 10)
        for count in range(1, 11):
            await reading.until(count)
            # Nothing more has come, or received would have raised.
            await log.last()
            self.assertEqual(reading.got, records[:count])
            reading.go_on()
        self.assertNoResult(reading.following.ended)

    async def test_stop(self) -> None:
        log = self.member()
        reading = Reading(log)
        await self.fill(log, 2)
        await reading.until(2)
        reading.following.stop()
        self.assertIs(self.successResultOf(reading.following.ended), None)
        reading.following.stop()
        other = Reading(log)
        await self.fill(log, 2, 3)
        await other.until(4)
        self.assertEqual(len(reading.got), 2)

    async def test_stop_while_it_is_called(self) -> None:
        log = self.member()
        await self.fill(log, 3)
        got: list[int] = []

        def received(number: int, record: bytes) -> None:
            got.append(number)
            following.stop()

        following = log.follow(0, received)
        self.assertIs(await following.ended, None)
        self.assertEqual(got, [1])

    async def test_receiver_fails(self) -> None:
        """Following ends with the error of who follows."""
        log = self.member()
        await self.fill(log, 3)
        reading = Reading(log, slow=True)
        await reading.until(1)
        reading.go_on(ZeroDivisionError())
        await self.assertFailure(reading.following.ended, ZeroDivisionError)
        following = log.follow(0, lambda number, record: 1 // 0)
        await self.assertFailure(following.ended, ZeroDivisionError)
        self.assertEqual(len(reading.got), 1)

    # Trimming

    async def test_trim(self) -> None:
        log, other = self.member(), self.member()
        records = await self.fill(log, 10)
        await log.trim(4)
        self.assertEqual((await other.first(), await other.last()), (5, 10))
        await other.trim(2)
        self.assertEqual(await log.first(), 5)
        self.assertEqual(await other.read(4, EVERYTHING), records[4:])
        for after in (0, 3):
            await self.assertFailure(other.read(after, EVERYTHING), LogTrimmed)
            await self.assertFailure(Reading(other, after).following.ended, LogTrimmed)
        await self.assertFailure(log.trim(11), ValueError)
        await log.trim(10)
        self.assertEqual((await other.first(), await other.last()), (11, 10))
        self.assertEqual(await other.read(10, EVERYTHING), [])
        await self.assertFailure(other.append(1, b"x"), LogConflict)
        await other.append(11, b"next")
        self.assertEqual(await log.read(10, EVERYTHING), [(11, b"next")])

    async def test_trim_while_followed(self) -> None:
        """Who has what is trimmed follows on."""
        log = self.member()
        reading = Reading(self.member())
        for start in range(1, 61, 20):
            await self.fill(log, 20, start)
            await reading.until(start + 19)
            await log.trim(start + 18)
        self.assertEqual([number for number, _ in reading.got], list(range(1, 61)))

    # Notes

    async def test_notes(self) -> None:
        one, other = self.member(), self.member()
        await one.note("n1", b"follower 17")
        await other.note("n2", b"")
        await one.note("n1", b"leader 18")
        for log in (one, other):
            notes = await log.notes()
            self.assertEqual({node: value for node, (value, _) in notes.items()}, {"n1": b"leader 18", "n2": b""})
        self.assertRaises(ValueError, one.note, "a/b", b"")
        self.assertRaises(ValueError, one.note, "n1", bytes(65537))

    async def test_ages_of_notes(self) -> None:
        """They grow, until the note is set again, to the same value, too."""
        one, other = self.member(), self.member()
        start = reactor.seconds()
        await one.note("n1", b"same")
        await other.notes()
        while (age := (await other.notes())["n1"][1]) < 0.2:
            await deferLater(reactor, 0.02)
        self.assertLessEqual(age, reactor.seconds() - start + 0.1)
        start = reactor.seconds()
        await one.note("n1", b"same")
        age = (await other.notes())["n1"][1]
        self.assertLessEqual(age, reactor.seconds() - start + 0.1)

    # The end

    async def test_close(self) -> None:
        log, other = self.member(), self.member()
        await self.fill(log, 2)
        reading = Reading(log)
        appending, asking = log.append(3, b"x"), log.last()
        await log.close()
        with self.assertRaises(LogError):
            await appending
        with self.assertRaises(LogUnavailable):
            await asking
        self.assertIs(self.successResultOf(reading.following.ended), None)
        with self.assertRaises(LogUnavailable):
            await log.append(3, b"x")
        with self.assertRaises(LogUnavailable):
            await log.last()
        last = await other.last()
        self.assertIn(last, (2, 3))
        try:
            await other.append(last + 1, b"y")
        except LogConflict:
            # What was under way may be done as late as this, and only once.
            self.assertEqual((last, await other.last()), (2, 3))
            await other.append(4, b"y")
