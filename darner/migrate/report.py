"""
What an import did, or would do.
"""

from __future__ import annotations

from collections import Counter

from attrs import define, field

from darner.migrate.sources import Loss


@define
class QueueReport:
    """One queue of a source."""

    name: str
    """Its name in the source."""
    target: str
    """The queue that its items were put on."""
    items: int = 0
    """How many were put; in a dry run, how many would be."""
    bytes: int = 0
    """Their payload bytes."""
    delayed: int = 0
    """How many of them are not available yet."""
    expired: int = 0
    """How many were left out because they had expired."""
    lost: int = 0
    """How many are known to be unreadable."""
    before: int = 0
    """How many were gone through by an earlier run, and so were left out."""

    def line(self) -> str:
        text = f"queue {self.name}: {self.items} items, {self.bytes} bytes"
        if self.target != self.name:
            text += f", to {self.target}"
        for count, what in (
            (self.delayed, "delayed"), (self.expired, "expired and left out"), (self.lost, "unreadable"),
            (self.before, "imported before"),
        ):  # fmt: skip
            if count:
                text += f", {count} {what}"
        return text


@define
class Report:
    """
    What an import did, or would do.

    @ivar losses: what cannot be read, by its place.
    @ivar notes: what cannot be kept as it was, with how often that is so; 0 where that is not counted.
    """

    kind: str
    """What the source is."""
    place: str
    """Where it is."""
    dry: bool = False
    """Whether nothing was put."""
    queues: list[QueueReport] = field(factory=list)
    losses: list[Loss] = field(factory=list)
    notes: Counter[str] = field(factory=Counter)

    @property
    def items(self) -> int:
        return sum(queue.items for queue in self.queues)

    @property
    def bytes(self) -> int:
        return sum(queue.bytes for queue in self.queues)

    @property
    def sound(self) -> bool:
        """Whether everything could be read."""
        return not self.losses

    def lines(self) -> list[str]:
        """@return: the report, for the operator."""
        lines = [f"{self.kind}, {self.place}"]
        lines += [queue.line() for queue in self.queues]
        lines += [f"unreadable: {loss}" for loss in self.losses]
        lines += [f"note: {text}" + (f" ({count})" if count else "") for text, count in sorted(self.notes.items())]
        done = "to import" if self.dry else "imported"
        before = sum(queue.before for queue in self.queues)
        total = f"total: {len(self.queues)} queues, {self.items} items, {self.bytes} bytes {done}"
        return [*lines, total + (f"; {before} items were imported before" if before else "")]
