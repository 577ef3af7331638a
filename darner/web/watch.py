"""
Looking at all queues again and again, a few at a time: for rates, the totals, and the last hour.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Optional

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from darner.queues.figures import Totals, glimpse
from darner.queues.front_end import IQueues
from darner.web.figures import POINTS, STEP, Course, Row, Sum
from darner.web.pacing import Pace
from darner.web.visitors import Visitor

INTERVAL: Final = 1.0
"""Seconds between two looks."""
QUEUES_A_LOOK: Final = 5000
"""At how many queues a look goes: at all of them where they are not more, else at the next ones in order."""
QUEUES_AT_ONCE: Final = 25
COURSES: Final = 1000
"""Of how many queues the last hour is kept: of those in which something has happened last."""
KEPT_SUM: Final = 2.0
"""Seconds for which the totals of a user's queues are told without adding them up again."""


class Watch:
    """
    What is seen of the queues of one server.

    @ivar rows: the queues, as they were last seen.
    @ivar course: the last hour of all queues together.
    """

    _log = Logger()

    def __init__(
        self, queues: IQueues, wall: Callable[[], float], take_ages: Callable[[], list[tuple[bytes, float, int]]]
    ) -> None:
        """@param take_ages: gives the ages of items that were taken since it was called last."""
        self._take_ages = take_ages
        self._queues = queues
        self._clock = queues.clock
        self._wall = wall
        self.rows: dict[bytes, Row] = {}
        self._sum = Sum()
        self._all = Row()
        self.course = Course(self._step())
        self._point_step = self._step()
        self._courses: OrderedDict[bytes, Row] = OrderedDict()
        self._last = b""
        self._since_sweep = 0
        self._timer: Optional[IDelayedCall] = None
        self._look: Optional[Deferred[None]] = None
        self._waiting: list[Deferred[None]] = []
        self._sums: dict[Optional[str], tuple[float, dict[str, Any]]] = {}
        self.on_tick: list[Callable[[], object]] = []
        """Called at each look, before it begins."""

    def _step(self) -> int:
        """@return: the number of the step that it is now."""
        return int(self._wall() // STEP)

    # Time

    def start(self) -> None:
        self._timer = self._clock.callLater(0, self._begin)

    def stop(self) -> None:
        """Look no more; whoever waits for a look waits no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._look is not None:
            self._look.cancel()
        for waiting in self._waiting:
            waiting.cancel()

    def _begin(self) -> None:
        self._timer = self._clock.callLater(INTERVAL, self._begin)
        for call in self.on_tick:
            call()
        if self._look is None:
            self._look = Deferred.fromCoroutine(self._look_around())
            self._look.addBoth(self._looked)

    def _looked(self, result: Any) -> None:
        self._look = None
        if isinstance(result, Failure):
            if result.check(CancelledError):
                return
            self._log.failure("could not look at the queues", result)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    def next_look(self) -> Deferred[None]:
        """@return: fires when the next look is over; to be cancelled by whoever waits no longer."""
        waiter: Deferred[None] = Deferred(lambda _: self._waiting.remove(waiter) if waiter in self._waiting else None)
        self._waiting.append(waiter)
        return waiter

    async def _look_around(self) -> None:
        pace = Pace(self._queues)
        for name, age, weight in self._take_ages():
            self.note_age(name, age, weight)
            await pace.ease()
        names = self._queues.walks.names
        left = QUEUES_A_LOOK
        while left > 0:
            some = names.after(self._last, QUEUES_AT_ONCE)
            if not some:
                self._last = b""
                await self._forget_deleted(pace)
                break
            self._last = some[-1]
            left -= len(some)
            for name in some:
                self.see(name)
            await pace.ease()
        if self._step() > self._point_step:
            self._point_step = self._step()
            await self._add_points(pace)

    # Looking

    def see(self, name: bytes) -> Optional[Row]:
        """@return: a queue as it is now; C{None} where there is none."""
        fifo = self._queues.find(name)
        row = self.rows.get(name)
        seen = None if fifo is None else glimpse(fifo)
        if seen is None:
            if row is not None:
                self._forget(name, row)
            return None
        if row is None:
            row = self.rows[name] = Row()
        else:
            self._sum.add(row, -1)
        if row.update(seen, self._clock.seconds()):
            self._has_changed(name, row)
        self._sum.add(row)
        return row

    def _has_changed(self, name: bytes, row: Row) -> None:
        if row.course is None:
            row.course = Course(self._point_step)
            if len(self._courses) >= COURSES:
                _, other = self._courses.popitem(last=False)
                other.course = None
            self._courses[name] = row
        else:
            self._courses.move_to_end(name)

    def _forget(self, name: bytes, row: Row) -> None:
        del self.rows[name]
        self._sum.add(row, -1)
        self._courses.pop(name, None)

    async def _forget_deleted(self, pace: Pace) -> None:
        """All names were seen: what was not there is no more.  The rates are added up anew, as they are not exact."""
        in_rate = out_rate = 0.0
        for name in list(self.rows):  # names alone: very many tuples would wake the garbage collector
            row = self.rows.get(name)
            if row is None:
                continue
            if self._queues.find(name) is None:
                self._forget(name, row)
            else:
                in_rate += row.in_rate
                out_rate += row.out_rate
            await pace.ease()
        self._sum.values["in_rate"] = in_rate
        self._sum.values["out_rate"] = out_rate

    # The last hour

    async def _add_points(self, pace: Pace) -> None:
        p50, p99 = self._all.point()[4:]
        values = self._sum.values
        self.course.add(
            (values["items"], values["bytes"], values["in_rate"], values["out_rate"], p50, p99)
        )
        for name, row in list(self._courses.items()):
            if row.course is not None and self.rows.get(name) is row:
                row.course.add(row.point())
            await pace.ease()

    def note_age(self, name: bytes, age: float, weight: int) -> None:
        """
        An item was taken.

        @param age: how long it had been in its queue, in ms.
        @param weight: for how many items it stands.
        """
        self._all.note_age(age, weight)
        row = self.rows.get(name)
        if row is not None and row.course is not None:
            row.note_age(age, weight)

    def history(self, course: Optional[Course]) -> dict[str, Any]:
        """@return: as the schema C{History} says."""
        course = Course(self._point_step) if course is None else course
        first = course.since + max(0, course.length - POINTS)
        return {"start": first * STEP * 1000, "step_ms": STEP * 1000, **course.describe()}

    # Totals

    def counted(self) -> Totals:
        """@return: the totals of all queues, as the statistics want them."""
        totals = Totals()
        totals.items, totals.bytes = self._sum.values["items"], self._sum.values["bytes"]
        return totals

    async def totals(self, visitor: Visitor, pace: Pace) -> dict[str, Any]:
        """@return: the totals of all queues that a visitor may see, as the schema C{Totals} says."""
        if visitor.sees_all:
            return self._sum.describe()
        now = self._clock.seconds()
        known = self._sums.get(visitor.user)
        if known is not None and now - known[0] < KEPT_SUM:
            return known[1]
        summed = Sum()
        for name in list(self.rows):
            row = self.rows.get(name)
            if row is not None and visitor.may_see(name):
                summed.add(row)
            await pace.ease()
        described = summed.describe()
        if len(self._sums) >= 1000:
            self._sums.clear()
        self._sums[visitor.user] = (now, described)
        return described
