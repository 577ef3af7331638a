"""
Tests of the records of a leader that are on their way to the log.
"""

from __future__ import annotations

import random
from typing import Optional

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from darner.cluster.appends import Appends
from darner.cluster.memory_log import MemoryLog, MemoryMember
from darner.errors import LogConflict, LogInDoubt


class ShuffledMember(MemoryMember):
    """
    A log whose requests and answers overtake one another, and whose outcomes are not known now and then.  A record that
    arrives before the one in front of it is refused.
    """

    def __init__(self, log: MemoryLog, chance: random.Random) -> None:
        super().__init__(log)
        self._shared = log
        self._chance = chance
        self.doubt = 0.0

    def append(self, number: int, record: bytes) -> Deferred[None]:
        done: Deferred[None] = Deferred()

        def arrive() -> None:
            lost = self._chance.random()
            error: Optional[Exception] = None
            if lost < self.doubt / 2:
                error = LogInDoubt("the request is lost")
            elif number != self._shared.last + 1:
                error = LogConflict(f"record {number} does not follow record {self._shared.last}")
            else:
                self._shared.appended(number, record)
                if lost < self.doubt:
                    error = LogInDoubt("the answer is lost")
            later = self._chance.random()
            self._clock.callLater(later, done.callback if error is None else done.errback, error)

        self._clock.callLater(self._chance.random(), arrive)
        return done


class AppendsTests(SynchronousTestCase):
    """L{Appends}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = MemoryLog(self.clock)
        self.begin(self.log.member())

    def begin(self, member: MemoryMember) -> None:
        self.member = member
        self.lost: list[Exception] = []
        self.told: list[int] = []
        self.given = 0
        self.appends = Appends(member, self.clock, self.lost.append)

    def give(self, count: int = 1) -> None:
        for _ in range(count):
            self.given += 1
            self.appends.append(self.given, b"%d" % self.given).addCallback(lambda _, n=self.given: self.tell(n))

    def tell(self, number: int) -> None:
        self.assertEqual(self.log.records.get(number), b"%d" % number)
        self.told.append(number)

    def run_on(self, seconds: float = 1.0) -> None:
        self.clock.pump([0.05] * int(seconds * 20))

    def complete(self) -> None:
        """All is in the log, once, and told in its order."""
        self.assertEqual(self.lost, [])
        self.assertEqual(self.told, list(range(1, self.given + 1)))
        self.assertEqual(self.log.records, {number: b"%d" % number for number in self.told})

    def test_in_flight(self) -> None:
        """They are under way at once, and told as they come."""
        self.member.delay = 0.1
        self.give(2)
        self.clock.advance(0.05)
        self.give()
        self.assertEqual((self.member.in_flight, self.told), (3, []))
        self.clock.advance(0.05)
        self.assertEqual(self.told, [1, 2])
        self.clock.advance(0.05)
        self.complete()

    def test_first_in_doubt(self) -> None:
        """The log has the first one or not; the second one, which was refused or not, is there behind it once."""
        for done in (True, False):
            self.member.doubtful = [done]
            self.give(3)
            self.run_on()
            self.complete()

    def test_out_of_reach(self) -> None:
        """Those under way fail, later ones wait; all are appended in the end."""
        self.member.unavailable = True
        self.give(2)
        self.run_on()
        self.give(2)
        self.run_on(5)
        self.assertEqual(self.told, [])
        self.member.unavailable = False
        self.run_on()
        self.complete()
        self.give()
        self.run_on()
        self.complete()

    def test_shuffled(self) -> None:
        """
        Whatever overtakes what, and whatever answer is lost: nothing is told that the log has not, nothing is there
        twice, and in the end all of it is there.
        """
        for seed in range(30):
            self.log = MemoryLog(self.clock)
            chance = random.Random(seed)
            member = ShuffledMember(self.log, chance)
            member.doubt = chance.choice((0.0, 0.5))
            self.begin(member)
            for _ in range(6):
                self.give(chance.randrange(4))
                self.run_on(chance.random() * 3)
            self.run_on(60)
            self.complete()

    def test_another_leads(self) -> None:
        """Where another node has appended, nothing is told any more, and nothing is appended behind its record."""
        for doubtful in ([], [False]):
            self.log = MemoryLog(self.clock)
            self.begin(self.log.member())
            self.give(2)
            self.run_on()
            self.member.delay = 0.1
            self.member.doubtful = list(doubtful)
            self.give(2)
            self.log.appended(3, b"of another")
            self.run_on(0.05)
            self.give(2)
            self.run_on()
            self.give(2)
            self.run_on()
            self.assertEqual([type(error) for error in self.lost], [LogConflict])
            self.assertEqual((self.told, self.log.last), ([1, 2], 3))

    def test_another_leads_while_it_finds_out(self) -> None:
        """Also where it comes between two records that were in flight together."""
        self.member.doubtful = [True]
        self.member.delay = 0.1
        self.give(2)
        self.clock.advance(0.1)
        self.log.appended(2, b"of another")
        self.run_on()
        self.assertEqual([type(error) for error in self.lost], [LogConflict])
        self.assertEqual((self.told, self.log.last), ([1], 2))

    def test_given_while_one_is_told(self) -> None:
        """What is given in the moment when the first is told, and the second fails, is appended behind that."""
        self.member.doubtful = []
        appended = self.log.appended

        def then_fail(number: int, record: bytes) -> None:
            appended(number, record)
            self.member.doubtful = [False] if number == 1 else []

        self.patch(self.log, "appended", then_fail)
        self.give(2)
        self.tell = lambda number: (self.told.append(number), number < 4 and self.give())  # type: ignore[method-assign,assignment,return-value]
        self.run_on()
        self.complete()
        self.assertEqual(self.given, 5)

    def test_damaged(self) -> None:
        """A record that cannot be read ends it."""
        self.member.doubtful = [True]
        self.log.damaged.add(1)
        self.give(2)
        self.run_on()
        self.assertEqual(([str(error) for error in self.lost], self.told), (["record 1 is damaged"], []))

    def test_internal_error(self) -> None:
        """So does an error that nobody has thought of, at once, and only once."""
        failing: list[Deferred[None]] = [Deferred(), Deferred()]
        self.patch(self.member, "append", lambda number, _: failing[number - 1])
        self.give(2)
        for deferred in failing:
            deferred.errback(ZeroDivisionError())
        self.give()
        self.run_on()
        self.assertEqual([type(error) for error in self.lost], [ZeroDivisionError])
        self.assertEqual(self.told, [])
