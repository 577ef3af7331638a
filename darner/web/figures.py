"""
What is remembered of queues from one look to the next: rates, and the course of the last hour.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import Any, Final, Optional

STEP: Final = 10
"""Seconds between two points of a course."""
POINTS: Final = 360
"""Points of a course: an hour."""
SPARK: Final = 60
"""Points of a sparkline: ten minutes."""

SHORTEST: Final = 0.5
"""Seconds of which a rate is made: where several look at a queue, one soon after another, it stays as it was."""

_BOUNDS: Final = [1.25**power for power in range(96)]
"""Bounds of ages, in ms: up to three weeks."""


class Ages:
    """How long items had been in their queues when they were taken, counted by about how long."""

    __slots__ = ("_counts", "_total")

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._total = 0

    def add(self, age: float, weight: int) -> None:
        """
        @param age: in ms.
        @param weight: for how many items it stands.
        """
        place = bisect_left(_BOUNDS, age) if age > 0 else -1
        self._counts[place] = self._counts.get(place, 0) + weight
        self._total += weight

    def quantile(self, part: float) -> Optional[float]:
        """@return: what this part of the items had waited at most, in ms, to within a quarter; C{None} for no items."""
        rest = self._total * part
        for place in sorted(self._counts):
            rest -= self._counts[place]
            if rest <= 0:
                return 0.0 if place < 0 else round(_BOUNDS[min(place, len(_BOUNDS) - 1)], 1)
        return None


class Course:
    """
    Figures of the last hour, a point each L{STEP} seconds.

    @ivar since: the number of the step of the first point that is kept.
    """

    FIELDS = ("items", "bytes", "in_rate", "out_rate", "age_p50_ms", "age_p99_ms")
    __slots__ = ("_columns", "since")

    def __init__(self, since: int) -> None:
        self.since = since
        self._columns: list[array[float]] = [array("d"), array("d"), *(array("f") for _ in range(4))]

    def add(self, values: tuple[Optional[float], ...]) -> None:
        """Add a point: the values of C{FIELDS}; C{None} where one is not known."""
        for column, value in zip(self._columns, values, strict=True):
            column.append(float("nan") if value is None else value)
        if len(self._columns[0]) >= POINTS + SPARK:
            self.since += SPARK
            for column in self._columns:
                del column[:SPARK]

    def spark(self) -> list[Optional[float]]:
        """@return: the items, as far back as a sparkline goes."""
        values: list[Optional[float]] = [*map(_number, self._columns[0][-SPARK:])]
        return [None] * (SPARK - len(values)) + values

    def describe(self) -> dict[str, list[Optional[float]]]:
        """@return: the last L{POINTS} values of each field."""
        return {
            name: [_number(value) for value in column[-POINTS:]]
            for name, column in zip(self.FIELDS, self._columns, strict=True)
        }

    @property
    def length(self) -> int:
        return len(self._columns[0])


def _number(value: float) -> Optional[float]:
    if value != value:
        return None
    return int(value) if value == int(value) else round(value, 3)


class Row:
    """
    What was seen of one queue.

    @ivar number: what the store knows it by; another one after it was deleted.
    @ivar put: how many items have come to it.
    @ivar gone: how many have left it.
    @ivar seen: when that was, in seconds.
    @ivar course: its last hour, where that is kept.
    @ivar ages: of the items taken in this step, and in the one before.
    """

    __slots__ = (
        "ages", "bytes", "course", "delayed", "gone", "in_rate", "items", "marked", "number", "open", "out_rate", "put",
        "retrying", "seen", "waiters",
    )  # fmt: skip

    def __init__(self) -> None:
        self.number = self.put = self.gone = -1
        self.items = self.bytes = self.open = self.delayed = self.retrying = self.waiters = 0
        self.in_rate = self.out_rate = self.seen = 0.0
        self.course: Optional[Course] = None
        self.ages: Optional[tuple[Ages, Ages]] = None
        self.marked: tuple[int, int] = (0, 0)  # what had come and gone at the last point

    def update(self, glimpse: tuple[int, ...], now: float) -> bool:
        """
        @param glimpse: of L{darner.queues.figures.glimpse}.
        @param now: in seconds.
        @return: whether items have come or gone.
        """
        number, put, self.items, self.bytes, self.open, self.delayed, self.retrying, self.waiters = glimpse
        gone = put - self.items - self.open
        if number != self.number:
            if self.number >= 0:
                self.marked = (0, 0)
                self.put = self.gone = 0
            else:
                self.put, self.gone, self.marked = put, gone, (put, gone)
            self.number = number
        came, went = put - self.put, gone - self.gone
        elapsed = now - self.seen
        if elapsed >= SHORTEST:
            self.in_rate = round(max(0, came) / elapsed, 3)
            self.out_rate = round(max(0, went) / elapsed, 3)
            self.put, self.gone, self.seen = put, gone, now
        return bool(came or went)

    def point(self) -> tuple[Optional[float], ...]:
        """@return: the point of the course for the step that ends now."""
        put, gone = self.marked
        self.marked = (self.put, self.gone)
        ages, self.ages = self.ages, None
        p50 = p99 = None
        if ages is not None:
            p50, p99 = ages[1].quantile(0.5), ages[1].quantile(0.99)
            if p50 is not None:
                self.ages = (ages[1], Ages())
        return (
            self.items, self.bytes, max(0, self.put - put) / STEP, max(0, self.gone - gone) / STEP, p50, p99,
        )  # fmt: skip

    def note_age(self, age: float, weight: int) -> None:
        """An item that was taken had waited so long, in ms."""
        if self.ages is None:
            self.ages = (Ages(), Ages())
        self.ages[1].add(age, weight)

    def quantile(self, part: float) -> Optional[float]:
        """@return: of the ages of the last moments."""
        if self.ages is None:
            return None
        now = self.ages[1].quantile(part)
        return self.ages[0].quantile(part) if now is None else now


NOTHING: Final[dict[str, Any]] = {
    "queues": 0, "items": 0, "bytes": 0, "open": 0, "delayed": 0, "retrying": 0, "waiters": 0, "in_rate": 0.0,
    "out_rate": 0.0,
}  # fmt: skip


class Sum:
    """Figures of many queues together."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values = dict(NOTHING)

    def add(self, row: Row, sign: int = 1) -> None:
        values = self.values
        values["queues"] += sign
        values["items"] += sign * row.items
        values["bytes"] += sign * row.bytes
        values["open"] += sign * row.open
        values["delayed"] += sign * row.delayed
        values["retrying"] += sign * row.retrying
        values["waiters"] += sign * row.waiters
        values["in_rate"] += sign * row.in_rate
        values["out_rate"] += sign * row.out_rate

    def describe(self) -> dict[str, Any]:
        """@return: as the schema C{Totals} says."""
        values = self.values
        return {**values, "in_rate": round(values["in_rate"], 3), "out_rate": round(values["out_rate"], 3)}
