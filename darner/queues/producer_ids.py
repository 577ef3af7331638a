"""
Deduplication by producers' ids, so that a producer can retry a put without doubling the item.

Only queues with a C{dedupe_window} have this.  The batch that puts an item writes its id.  Ids are deleted by
I{generation}: after one window the current generation becomes the previous one, and another window later the previous
one is deleted as a whole.  So every id is known for at least one window, no id is deleted on its own, and memory
contains only the ids that are not written yet.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple, Optional, Protocol

from twisted.internet.interfaces import IDelayedCall

from darner.config.policies import QueueSettings
from darner.errors import StoreError
from darner.queues.answers import Answers, Verdict
from darner.queues.commit import GroupCommit
from darner.queues.ledger import Ledger
from darner.store.batch import Batch
from darner.store.interfaces import IStore
from darner.values.items import Generation

ID_OVERHEAD: Final = 120
"""Approximate bytes that an id takes in memory if the queue is volatile."""

WRITTEN: Final = Verdict()
"""The outcome of a put that is already written."""


class Deduplication:
    """
    A put with an id, which may be a retry.

    @ivar id: the producer's id of the item.
    @ivar left_out: the queues that have the item already.
    @ivar first: the outcomes of the earlier puts there.
    @ivar anew: whether this put needs a write all the same.
    """

    __slots__ = ("anew", "first", "id", "left_out")

    def __init__(self, id: bytes) -> None:
        self.id = id
        self.left_out: set[bytes] = set()
        self.first: list[Verdict] = []
        self.anew = False

    def answered(self, commit: GroupCommit, answers: Answers, slot: int) -> None:
        """Register the reply at C{slot}, which says that the item is stored."""
        for first in self.first:
            commit.follow(first, answers, slot)
        if self.anew:
            commit.put(answers, slot)


class Remembering(Protocol):
    """The queue, as L{ProducerIds} sees it."""

    policy: QueueSettings

    def give_up(self, numbers: list[int]) -> None:
        """Delete the data under these numbers."""


@dataclass(frozen=True)
class _Dated:
    """A generation, and when it became current or previous, by the monotonic clock."""

    kept: Generation
    at: float


def _kept(dated: Optional[_Dated]) -> Optional[Generation]:
    return None if dated is None else dated.kept


class _Put(NamedTuple):
    """A put with an id that is not written yet."""

    generation: int
    time: int
    reply: Verdict


def _digest(id: bytes) -> bytes:
    return blake2b(id, digest_size=16).digest()


class ProducerIds:
    """
    A L{Side} of a queue: the producers' ids of its items.

    The age of an id depends on the wall clock, as its time must survive the process.  The end of a generation depends
    on the monotonic clock, so that no jump of the wall clock deletes ids too early or keeps them for ever; only at the
    start the wall clock tells the age of a generation.
    """

    def __init__(self, queue: Remembering, ledger: Ledger, commit: GroupCommit, store: IStore) -> None:
        self._queue = queue
        self._ledger = ledger
        self._commit = commit
        self._store = store
        self._current: Optional[_Dated] = None
        self._previous: Optional[_Dated] = None
        self._marked = False
        self._handed_mark = False
        self._fresh: dict[bytes, _Put] = {}
        self._writing: dict[bytes, _Put] = {}
        self._refused: dict[bytes, int] = {}  # refused, but possibly in the store
        self._handed: list[bytes] = []
        self._timer: Optional[IDelayedCall] = None
        self._counts = (0, 0)  # ids added by this process to the current and the previous generation

    @property
    def count(self) -> int:
        """The number of known ids that this process has added."""
        return sum(self._counts)

    def recover(self, current: Optional[Generation], previous: Optional[Generation]) -> None:
        """Start with the generations in the store."""
        self._current = self._dated(current)
        self._previous = self._dated(previous)
        self.adopt()

    def _dated(self, generation: Optional[Generation]) -> Optional[_Dated]:
        if generation is None:
            return None
        age = max(0, self._commit.now - generation.since) / 1000
        return _Dated(generation, self._commit.clock.seconds() - age)

    @property
    def _window(self) -> float:
        # Where the setting was taken away, what is known is of no use any more.
        return self._queue.policy.dedupe_window or 0.0

    # Ids

    def find(self, id: bytes) -> Optional[Verdict]:
        """
        @return: where an item was put under this id within the window, the reply to that (see L{GroupCommit.follow}).
        @raise StoreError: it cannot be told.
        """
        self._age()
        digest = _digest(id)
        put = self._fresh.get(digest) or self._writing.get(digest)
        if put is not None:
            return put.reply if self._is_young(put.time) else None
        if digest in self._refused:
            return None
        for generation in (self._current, self._previous):
            if generation is not None:
                time = self._store.seen(generation.kept.number, digest)
                if time is not None and self._is_young(time):
                    return WRITTEN
        return None

    def _is_young(self, time: int) -> bool:
        return self._commit.now - time < self._window * 1000

    def begin(self) -> None:
        """
        Prepare for L{add}.

        @raise StoreError: the store cannot give the generation a number.
        """
        self._age()
        if self._current is None:
            try:
                number = self._store.new_number()
            except StoreError as error:
                self._commit.trouble(error)
                raise
            self._current = _Dated(Generation(number, self._commit.now), self._commit.clock.seconds())
            self._marked = True
            self._arm()

    def add(self, id: bytes, reply: Verdict) -> None:
        """Record that this turn puts an item with this id; C{reply} is the outcome."""
        assert self._current is not None
        self._counts = (self._counts[0] + 1, self._counts[1])
        self._fresh[_digest(id)] = _Put(self._current.kept.number, self._commit.now, reply)

    # Generations

    def adopt(self) -> None:
        """Apply new settings of the queue."""
        self._age()
        self._arm()

    def _age(self) -> None:
        """End the generations that are older than a window."""
        now = self._commit.clock.seconds()
        if self._previous is not None and self._previous.at + self._window <= now:
            self._give_up_previous()
        if self._current is not None and self._current.at + self._window <= now:
            # The previous generation is older still.
            self._give_up_previous()
            self._previous = _Dated(Generation(self._current.kept.number, self._commit.now), now)
            self._current = None
            self._counts = (0, self._counts[0])
            self._change()

    def _give_up_previous(self) -> None:
        if self._previous is not None:
            self._queue.give_up([self._previous.kept.number])
            self._previous = None
            self._counts = (self._counts[0], 0)
            self._change()

    def _change(self) -> None:
        self._marked = True
        self._ledger.changed()

    def _arm(self) -> None:
        self.stop()
        ends = [generation.at for generation in (self._previous, self._current) if generation is not None]
        if ends:
            delay = min(ends) + self._window - self._commit.clock.seconds()
            self._timer = self._commit.clock.callLater(max(0.0, delay), self._look)

    def _look(self) -> None:
        self._timer = None
        self.adopt()

    # A side of the queue

    @property
    def pending(self) -> bool:
        return False  # the items keep the queue in existence

    def write_to(self, batch: Batch, puts: bool) -> None:
        if self._marked:
            batch.generations(self._ledger.number, _kept(self._current), _kept(self._previous))
            self._marked, self._handed_mark = False, True
        if self._refused:
            self._handed = list(self._refused)
            for id, generation in self._refused.items():
                batch.seen(generation, id, 0)
        if puts:
            self._writing, self._fresh = self._fresh, {}
            for id, put in self._writing.items():
                batch.seen(put.generation, id, put.time)

    def written(self) -> None:
        self._writing = {}
        self._handed_mark = False
        for id in self._handed:
            del self._refused[id]
        self._handed = []

    def refuse(self, ids: set[int], uncertain: bool) -> None:
        if uncertain:
            self._refused.update((id, put.generation) for id, put in self._writing.items())
        self._writing = {}

    def not_written(self) -> None:
        self._marked |= self._handed_mark
        self._handed_mark = False
        self._handed = []

    def flush(self, open: Collection[int]) -> list[int]:
        return []  # a retry must not put a flushed item again

    def delete(self) -> list[int]:
        return [dated.kept.number for dated in (self._current, self._previous) if dated is not None]

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
