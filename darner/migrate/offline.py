"""
Importing into a data directory that no server uses.

The batch that puts items also records how many of the source's were gone through (C{Batch.imported}).  So an import
that was interrupted anywhere goes on behind the last item that was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from darner.migrate.importing import ImportRefused, QueueDestination
from darner.migrate.sources import SourceItem, SourceQueue
from darner.store.batch import Batch
from darner.store.leveldb import LevelStore
from darner.values.items import Delayed, Imported, Item, QueueState
from darner.values.vocabulary import CHUNK_BYTES

_BATCH: Final = 256 * 1024
"""Payload bytes that are written together."""
_BUFFER: Final = 2 * 1024 * 1024
"""Bytes of LevelDB's write buffer, of which there are two."""
_OVERHEAD: Final = 64
"""Bytes that an item takes in a batch besides its payload."""


class _Queue:
    """One queue of the store."""

    def __init__(self, store: LevelStore, state: QueueState, imported: Imported, now: int) -> None:
        self._store = store
        self._state = state
        self._imported = imported
        self._now = now
        self._batch = Batch()
        self._items: list[Item] = []
        self._delayed: list[tuple[int, Item]] = []
        self._size = 0
        self.done = imported.items
        self.finished = imported.finished

    def put(self, item: SourceItem) -> None:
        stream, payload = 0, b""
        if item.size > CHUNK_BYTES:
            self._write()
            stream = self._store.new_stream()
        try:
            if stream:
                self._write_stream(stream, item)
            else:
                payload = b"".join(item.pieces)
        finally:
            self.skip()
        time = item.time or self._now
        if item.due > self._now:
            self._delay(item.due, Item(0, 0, time, item.expiry, item.size, payload, stream))
        else:
            state = self._state
            self._items.append(Item(state.next_id, 0, time, item.expiry, item.size, payload, stream))
            state.next_id += 1
            state.bytes_put += item.size
        self._size += len(payload) + _OVERHEAD
        if self._size >= _BATCH:
            self._write()

    def skip(self) -> None:
        self._imported = self._imported._replace(items=self._imported.items + 1)

    def _write_stream(self, stream: int, item: SourceItem) -> None:
        """Write the chunks of a large item.  What is left of one that cannot be read is reclaimed by the next start."""
        for index, chunk in enumerate(_chunks(item)):
            batch = Batch()
            batch.chunk(stream, index, chunk)
            self._store.write(batch)

    def _delay(self, due: int, item: Item) -> None:
        known = self._state.delayed or Delayed(self._store.new_number(), due=due)
        item.id = known.next_id
        self._state.delayed = Delayed(
            known.number, known.items + 1, known.bytes + item.size, min(known.due, due) if known.items else due,
            known.next_id + 1,
        )  # fmt: skip
        self._delayed.append((due, item))

    def _write(self, sync: bool = False) -> None:
        batch, state = self._batch, self._state
        if self._items:
            batch.put(state.number, self._items, state.bytes_put)
        if self._delayed and state.delayed is not None:
            batch.delay(state.delayed.number, self._delayed)
            batch.delayed(state.number, state.delayed)
        batch.imported(state.number, self._imported)
        self._store.write(batch, sync)
        self._batch, self._items, self._delayed, self._size = Batch(), [], [], 0

    def finish(self) -> None:
        self._imported = self._imported._replace(finished=True)
        self._write(sync=True)


def _chunks(item: SourceItem) -> Iterator[bytes]:
    """@return: the payload in chunks of the store's length."""
    held = bytearray()
    for piece in item.pieces:
        held += piece
        while len(held) >= CHUNK_BYTES:
            yield bytes(held[:CHUNK_BYTES])
            del held[:CHUNK_BYTES]
    if held:
        yield bytes(held)


class DataDirectoryImport:
    """A data directory that queues are imported into."""

    def __init__(self, path: Path, clock: Callable[[], float], again: bool = False) -> None:
        """
        Open the store, or create it.

        @param clock: the time, in s since the epoch.
        @param again: whether what was imported from a source that has changed since does not matter.
        @raise StoreUnusable: a server uses it, or it is not darner's.
        """
        self._path = path
        self._clock = clock
        self._again = again
        self._store = LevelStore(path, write_buffer=_BUFFER)
        try:
            self._states = {state.name: state for state in self._store.recover()}
        except BaseException:
            self._store.close()
            raise

    def begin(self, fingerprint: bytes, queues: list[SourceQueue]) -> None:
        pass

    def queue(self, source: bytes, fingerprint: bytes, target: bytes) -> QueueDestination:
        now = int(self._clock() * 1000)
        known = Imported(source, fingerprint, 0, False)
        state = self._states.get(target)
        if state is None:
            state = self._create(target, now)
        for imported in self._store.imported(state.number):
            if imported.fingerprint == fingerprint and (imported.source == source or not self._again):
                return _Queue(self._store, state, imported, now)
            if imported.source == source and not self._again:
                how = "was finished" if imported.finished else "was interrupted"
                raise ImportRefused(
                    f"an import of queue {target.decode()} from this source {how} after {imported.items} items, and "
                    "the source has changed since: import it into another data directory, or with --again to put all "
                    "of its items once more"
                )
        return _Queue(self._store, state, known, now)

    def _create(self, name: bytes, now: int) -> QueueState:
        state = self._states[name] = QueueState(name, self._store.new_number(), now)
        batch = Batch()
        batch.create(name, state.number, now)
        self._store.write(batch)
        return state

    def close(self) -> None:
        self._store.close()
