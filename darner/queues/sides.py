"""
The data that a queue stores beside its items.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Optional

from darner.queues.delayed import DelayedItems
from darner.queues.interfaces import Side
from darner.queues.producer_ids import ProducerIds
from darner.queues.retries import Retries
from darner.store.batch import Batch


class Sides:
    """
    The sides of a queue, from its creation until its deletion.  Most queues have none.

    @ivar all: all of them, in the order in which they were added.
    @ivar retries: attempts, open reads and items that are set aside.
    @ivar delays: delayed items.
    @ivar ids: producers' ids.
    """

    __slots__ = ("all", "delays", "ids", "retries")

    def __init__(self) -> None:
        self.all: list[Side] = []
        self.retries: Optional[Retries] = None
        self.delays: Optional[DelayedItems] = None
        self.ids: Optional[ProducerIds] = None

    def add_retries(self, retries: Retries) -> Retries:
        self.retries = retries
        self.all.append(retries)
        return retries

    def add_delays(self, delays: DelayedItems) -> DelayedItems:
        self.delays = delays
        self.all.append(delays)
        return delays

    def add_ids(self, ids: ProducerIds) -> ProducerIds:
        self.ids = ids
        self.all.append(ids)
        return ids

    @property
    def set_aside_count(self) -> int:
        """The number of items that are set aside; L{Contents} counts them."""
        return self.retries.set_aside_count if self.retries is not None else 0

    @property
    def delayed_count(self) -> int:
        """The number of delayed items; L{Contents} does not count them."""
        return self.delays.count if self.delays is not None else 0

    # As one side

    @property
    def pending(self) -> bool:
        return any(side.pending for side in self.all)

    def adopt(self) -> None:
        """Apply new settings of the queue."""
        if self.ids is not None:
            self.ids.adopt()
        if self.retries is not None:
            self.retries.adopt()

    def write_to(self, batch: Batch, puts: bool) -> None:
        for side in self.all:
            side.write_to(batch, puts)

    def written(self) -> None:
        for side in self.all:
            side.written()

    def refuse(self, ids: set[int], uncertain: bool) -> None:
        for side in self.all:
            side.refuse(ids, uncertain)

    def not_written(self) -> None:
        for side in self.all:
            side.not_written()

    def flush(self, open: Collection[int]) -> list[int]:
        return [number for side in self.all for number in side.flush(open)]

    def delete(self) -> list[int]:
        self.stop()
        return [number for side in self.all for number in side.delete()]

    def stop(self) -> None:
        for side in self.all:
            side.stop()
