"""
What of a queue is still to be deleted: the numbers under which the store keeps it, and what it had no time to write.
"""

from __future__ import annotations

from itertools import chain

from darner.queues.interfaces import Reclaims
from darner.store.batch import Batch
from darner.values.items import Item


class Deletions:
    """
    Deletions that are not written yet: numbers under which the store has unneeded data, and items of deleted queues
    which may have been delivered, so that their replies depend on whether their puts are refused.

    It outlives the ledger: a queue may be deleted and created again in one turn.
    """

    __slots__ = ("_abandoned", "_abandoning", "_handed_numbers", "_handed_queues", "_numbers", "_queues", "_reclaimer")

    def __init__(self, reclaimer: Reclaims) -> None:
        self._reclaimer = reclaimer
        self._queues: list[int] = []  # numbers of queues, whose names are deleted as well
        self._numbers: list[int] = []  # other numbers
        self._handed_queues = 0
        self._handed_numbers = 0
        self._abandoned: list[Item] = []  # put since the last batch, before the queue was deleted
        self._abandoning: list[Item] = []  # in the batch that is being written

    @property
    def pending(self) -> bool:
        """Whether there are deletions to write."""
        return bool(self._queues or self._numbers)

    @property
    def done(self) -> bool:
        """Whether everything is written and no item's outcome is open."""
        return not (self._queues or self._numbers or self._abandoned or self._abandoning)

    def add_queue(self, number: int) -> None:
        """Delete the queue with this number, which may not be in the store."""
        self._queues.append(number)

    def add(self, numbers: list[int]) -> None:
        """Delete the data under these numbers, which are not queues."""
        self._numbers += numbers

    def abandon(self, fresh: list[Item], writing: list[Item]) -> None:
        """
        Track items of a deleted queue until they are written or refused.

        @param fresh: items that are in no batch.
        @param writing: items in the batch that is being written.
        """
        self._abandoned += fresh
        self._abandoning += writing

    def write_to(self, batch: Batch, name: bytes, puts: bool) -> None:
        for number in self._queues:
            batch.remove(name, number)
        for number in self._numbers:
            batch.discard(number)
        self._handed_queues = len(self._queues)
        self._handed_numbers = len(self._numbers)
        if puts:
            self._abandoning += self._abandoned
            self._abandoned = []

    def written(self) -> None:
        for number in chain(self._queues[: self._handed_queues], self._numbers[: self._handed_numbers]):
            self._reclaimer.queue(number)
        del self._queues[: self._handed_queues]
        del self._numbers[: self._handed_numbers]
        self._handed_queues = self._handed_numbers = 0
        self._abandoning = []

    def refuse(self) -> None:
        for item in self._abandoning:
            item.refused = True
        self._abandoning = []
