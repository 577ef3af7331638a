"""
The store of a node: a LevelDB that is written through the log of the cluster.

Each record of the log is applied in one batch, together with its number.  So all nodes have the same keys and values
when they have applied the same records, and each knows how far it is, whatever a crash left.

What the leader has given to the log is read here at once, and written when the log has it (`darner.cluster.overlay`).

Only what a node notes for itself is not in the log: which ranges are to be compacted (C{U}), and C{!format}, which is
the same in all stores of a version.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Optional

from twisted.internet.defer import Deferred
from zope.interface import implementer

from darner.cluster.overlay import Overlay
from darner.cluster.records import CLAIM, PART, Record, unpack_batch
from darner.errors import LogDamaged, StoreError, StoreUnusable
from darner.store import records
from darner.store.backup.capture import Capture
from darner.store.batch import Batch, Write
from darner.store.compaction import Compaction
from darner.store.database import DB
from darner.store.directory import GIVEN
from darner.store.interfaces import IReplicatedStore
from darner.store.leveldb import LevelStore
from darner.store.reclaiming import Reclaiming
from darner.values.items import Step

LOCAL: Final = (records.UNCOMPACTED, records.FORMAT_KEY)
"""What the keys begin with that each node has for itself."""

_NUMBERS_AT_ONCE: Final = 1024


class _Pending:
    """Deletions and numbers that the next commit writes.  Worker threads add to it."""

    def __init__(self, compaction: Compaction) -> None:
        self._compaction = compaction
        self._writes: deque[Write] = deque()

    def write(
        self, writes: Sequence[Write], deleted: Mapping[bytes, tuple[bytes, bytes]], apart: Sequence[bytes] = ()
    ) -> None:
        """As L{Compaction.write}."""
        self._writes.extend(writes)
        self._compaction.write([], deleted)

    def take(self) -> list[Write]:
        """@return: all of it, which is forgotten here."""
        return [self._writes.popleft() for _ in range(len(self._writes))]


@implementer(IReplicatedStore)
class ReplicatedStore(LevelStore):
    """
    The store of one node, in whichever role.

    @ivar cluster: the 16 bytes that name the cluster; empty while it has applied nothing.
    @ivar position: the number of the last record that was applied.
    """

    replicated = True

    def __init__(
        self,
        path: Path,
        open_database: Callable[..., Any] = DB,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        As for L{LevelStore}.

        @raise StoreUnusable: also if there are queues in it that are not from a log.
        """
        self._overlay = Overlay(open_database)
        # Where a payload is in segments is not the same on all nodes, so none is.
        super().__init__(path, self._overlay.open, seconds, separate_from=None)
        value = self._database.get(records.POSITION_KEY)
        self.cluster, self.position = (b"", 0) if value is None else records.unpack_position(value)
        self._parts: list[Record] = []
        self._pending = _Pending(self._compaction)
        self._steps = Reclaiming(self._database, self._pending, self._releasing)
        self._append: Optional[Callable[[Batch], Deferred[None]]] = None
        if value is None and (self._numbers[0] or next(iter(self._database.prefixed(records.NAME)), None)):
            self.close()
            raise StoreUnusable(
                f"{path} has queues that are not from a cluster: start the node with an empty data directory, and "
                "import them ('darner import')"
            )

    # Following

    @property
    def received(self) -> int:
        """The number of the last record that was given to L{apply}; parts of a turn wait for the rest of it."""
        return self.position + len(self._parts)

    def apply(self, number: int, record: Record) -> None:
        """
        Apply the next record of the log.

        @raise LogDamaged: it does not fit behind the one before, or is of another cluster.
        @raise StoreError: it cannot be written here.
        """
        if number != self.received + 1:
            raise LogDamaged(f"record {number} came after record {self.received}")
        if self.cluster and record.cluster != self.cluster:
            raise LogDamaged(f"record {number} is of another cluster than the data directory {self.path}")
        if record.kind == CLAIM:
            self._parts.clear()
        elif self._parts and self._parts[0].claim != record.claim:
            raise LogDamaged(f"record {number} does not continue the part before it")
        if record.kind == PART:
            self._parts.append(record)
            return
        batch = None
        if record.kind != CLAIM:
            body = record.body
            if self._parts:
                body = b"".join([*(part.body for part in self._parts), body])
            batch = unpack_batch(body)
        self._parts.clear()
        self.cluster = record.cluster
        chunks = [] if batch is None else [key for key, value in batch.writes if value is None and key[:1] == b"C"]
        self._advance(number, Batch() if batch is None else batch)
        if chunks:
            # The leader notes this when it finds what to delete.
            self._compaction.write([], {b"C": (min(chunks), max(chunks))})

    def _advance(self, number: int, batch: Batch) -> None:
        batch.writes.append((records.POSITION_KEY, records.pack_position(self.cluster, number)))
        self.mend()
        super().write(batch)
        self.position = number

    def sync(self) -> int:
        """
        Bring all that was applied to stable storage.  Called in a worker thread.

        @return: the position that is safe now.
        @raise StoreError: it cannot be written.
        """
        position = self.position
        self._database.write_safely([(records.FORMAT_KEY, records.FORMAT)])
        return position

    def capture_snapshot(self, proceed: Callable[[], None], wall: Callable[[], float]) -> Capture:
        """
        As L{capture}, beside a backup that may be made meanwhile.  One at a time.  Called in a worker thread.

        What is captured has applied at least what C{position} said before.
        """
        capture = Capture(self._database, None, proceed, wall, place=GIVEN)
        capture.take()
        return capture

    # Leading

    def lead(self, append: Callable[[Batch], Deferred[None]]) -> None:
        """
        Begin to lead.

        @param append: as L{IReplicatedStore.commit}; calls L{written} when the log has the batch.
        """
        self._append = append
        self._numbers = (self._counter(records.NUMBERS_KEY), 0)
        self._streams = (max(1, self._counter(records.STREAMS_KEY)), 0)

    def check_room(self) -> None:
        self._database.require_room()

    def commit(self, batch: Batch) -> Deferred[None]:
        assert self._append is not None
        batch.writes[:0] = self._pending.take()
        self._overlay.add(batch.writes)
        return self._append(batch)

    def written(self, number: int, batch: Batch) -> None:
        """
        Write a batch of this node that the log has, the first of those that were given to L{commit}.

        @param number: of its last record.
        @raise StoreError: it cannot be written here.
        """
        self._overlay.settle(lambda: self._advance(number, batch))

    def write(self, batch: Batch, sync: bool = False) -> None:
        """@raise StoreError: always, as nothing is written past the log."""
        raise StoreError("the store of a cluster is written through its log alone")

    def _next(self, key: bytes, given: tuple[int, int]) -> tuple[int, int]:
        number, end = given
        if number >= end:
            # No other node knows a number that it was not told of, so this goes with the batch that uses it first.
            end = number + _NUMBERS_AT_ONCE
            self._pending.write([(key, records.pack_u64(end))], {})
        return number + 1, end

    def reclaim(self, number: int, start: int, stop: int, next_id: int, limit: int) -> Step:
        return self._database.in_thread(lambda: self._steps.runs(number, start, stop, next_id, limit))

    def reclaim_queue(self, number: int, next_id: int, limit: int) -> Step:
        return self._database.in_thread(lambda: self._steps.queue(number, next_id, limit))

    def reclaim_stream(self, stream: int, next_index: int, limit: int) -> Step:
        return self._database.in_thread(lambda: self._steps.stream(stream, next_index, limit))

    # Comparing

    def shared(self) -> dict[bytes, bytes]:
        """@return: all keys and values that nodes at the same position have in common.  For tests: it is all there."""
        with self._database.iterator() as entries:
            return {key: value for key, value in entries if not key.startswith(LOCAL)}
