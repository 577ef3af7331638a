"""
The ids under which items were put on a queue, so that a producer may try again without doing the work twice.

Only queues with a C{dedupe_window} have this.  An id is written down in the batch that puts its item, and forgotten
with all others of its I{generation}: after a window the current generation becomes the previous one, and a window later
that is given up as a whole.  So every id is known for a window at least, none is ever cleared away by itself, and
memory holds no ids but those that are not written yet.
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
"""About how many bytes an id takes in memory, where the queue is there."""

WRITTEN: Final = Verdict()
"""That of a put that is written already."""


class Deduplication:
    """
    A set under an id, perhaps not for the first time.

    @ivar id: what the producer calls the item.
    @ivar left_out: the queues that have it already.
    @ivar first: what the sets were told that put it there.
    @ivar anew: whether something is to be written for it all the same.
    """

    __slots__ = ("anew", "first", "id", "left_out")

    def __init__(self, id: bytes) -> None:
        self.id = id
        self.left_out: set[bytes] = set()
        self.first: list[Verdict] = []
        self.anew = False

    def answered(self, commit: GroupCommit, answers: Answers, slot: int) -> None:
        """The reply at C{slot} says that the item is stored."""
        for first in self.first:
            commit.follow(first, answers, slot)
        if self.anew:
            commit.put(answers, slot)


class Remembering(Protocol):
    """The queue, as far as this goes."""

    policy: QueueSettings

    def give_up(self, numbers: list[int]) -> None:
        """Nothing is kept under these numbers any more."""


@dataclass(frozen=True)
class _Dated:
    """A generation, and when it was by the monotonic clock what it is now."""

    kept: Generation
    at: float


def _kept(dated: Optional[_Dated]) -> Optional[Generation]:
    return None if dated is None else dated.kept


class _Put(NamedTuple):
    """A put under an id that is not written yet."""

    generation: int
    time: int
    reply: Verdict


def _digest(id: bytes) -> bytes:
    return blake2b(id, digest_size=16).digest()


class ProducerIds:
    """
    The ids of one queue.

    How old an id is goes by the wall clock, as its time has to outlive the process.  When generations end goes by the
    monotonic one, so that a wall clock that jumps makes nothing be forgotten for good, nor kept for ever; it is only
    at the start that the wall clock has to tell how old they are.
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
        self._refused: dict[bytes, int] = {}  # they may be in the store all the same
        self._handed: list[bytes] = []
        self._timer: Optional[IDelayedCall] = None
        self._counts = (0, 0)  # ids that this process has added, to the current generation and to the one before

    @property
    def count(self) -> int:
        """How many ids were added and may not be forgotten yet; those of an earlier process do not count."""
        return sum(self._counts)

    def recover(self, current: Optional[Generation], previous: Optional[Generation]) -> None:
        """Begin with what the store has."""
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
        Be ready to L{add} an id.

        @raise StoreError: the store has no number for the generation.
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
        """An item is put under this id in this turn; C{reply} is what that is told."""
        assert self._current is not None
        self._counts = (self._counts[0] + 1, self._counts[1])
        self._fresh[_digest(id)] = _Put(self._current.kept.number, self._commit.now, reply)

    # Generations

    def adopt(self) -> None:
        """The window may be another one now."""
        self._age()
        self._arm()

    def _age(self) -> None:
        """End the generations whose time has come."""
        now = self._commit.clock.seconds()
        if self._previous is not None and self._previous.at + self._window <= now:
            self._give_up_previous()
        if self._current is not None and self._current.at + self._window <= now:
            # All that is in the one before is older than this one.
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
        return False  # ids are of items, which hold the queue

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
        return []  # work that was given up is not to be done again by a retry

    def delete(self) -> list[int]:
        return [dated.kept.number for dated in (self._current, self._previous) if dated is not None]

    def stop(self) -> None:
        """Do nothing by the clock any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
