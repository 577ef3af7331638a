"""
Writing and reading the payloads of large items, chunk by chunk.

Memory contains one chunk of each, whatever the item's size.  `darner.store.records` has the records of a stream; the
front ends have the backpressure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Optional, Union

from darner.errors import StoreError
from darner.queues.commit import GroupCommit
from darner.queues.disk_space import DiskSpace
from darner.queues.reclaiming import Reclaimer
from darner.store.interfaces import IStore
from darner.values.items import Item
from darner.values.vocabulary import CHUNK_BYTES, chunk_count


class PayloadWriter:
    """
    The payload of an item that a client is sending.

    A payload larger than a chunk is written to the store as it arrives.  No item holds its stream until the put is
    complete, so that the stream is reclaimed if the client disconnects.

    @ivar size: bytes so far.
    @ivar stream: the number of the stream; 0 as long as the payload fits in a chunk.
    @ivar error: why the payload cannot be stored; C{None} if it can.
    """

    def __init__(self, store: IStore, commit: GroupCommit, reclaimer: Reclaimer, space: DiskSpace) -> None:
        self._store = store
        self._space = space
        self._commit = commit
        self._reclaimer = reclaimer
        self._pieces: list[Union[bytes, memoryview]] = []
        self._held = 0
        self._chunks = 0
        self.size = 0
        self.stream = 0
        self.error: Optional[StoreError] = None

    def write(self, data: Union[bytes, memoryview]) -> None:
        """Add a piece of the payload."""
        self.size += len(data)
        if self.error is not None:
            return
        self._pieces.append(data)
        self._held += len(data)
        if self._held > CHUNK_BYTES:
            self._spill(b"".join(self._pieces))

    def _spill(self, data: bytes) -> None:
        at = 0
        try:
            while len(data) - at > CHUNK_BYTES:
                self._chunk(data[at : at + CHUNK_BYTES])
                at += CHUNK_BYTES
        except StoreError as error:
            self.fail(error)
            return
        self._pieces = [data[at:]]
        self._held = len(data) - at

    def _chunk(self, data: bytes) -> None:
        self._space.take(len(data))
        if not self.stream:
            try:
                self.stream = self._store.new_stream()
            except StoreError as error:
                self._commit.trouble(error)
                raise
        self._commit.chunk(self, self.stream, self._chunks, data)
        self._chunks += 1

    def finish(self, stored: bool = False) -> bytes:
        """
        Complete the payload.

        @param stored: whether to write it to a stream even if it is small.
        @return: a small payload; empty if it is in C{stream}.
        @raise StoreError: it could not be stored.
        """
        data = b"".join(self._pieces)
        if self.error is None and (self.stream or stored):
            self._chunk(data)
            data = b""
        if self.error is not None:
            raise self.error
        self._pieces = []
        return data

    def fail(self, error: StoreError) -> None:
        if self.error is None:
            error.forget()
            self.error = error
            self.abandon()

    def abandon(self) -> None:
        """Drop the payload."""
        self._pieces = []
        self._held = 0
        stream, self.stream = self.stream, 0
        if stream:
            self._reclaimer.stream(stream)


class PayloadReader:
    """
    The payload of a large item that is being sent to a client.

    Its stream is not reclaimed until the last chunk is read or L{cancel} is called.
    """

    def __init__(self, store: IStore, reclaimer: Reclaimer, item: Item, done: Callable[[], None]) -> None:
        """@param done: called once, when this reader does not need the stream any more."""
        self._store = store
        self._reclaimer = reclaimer
        self._done: Optional[Callable[[], None]] = done
        self._stream = item.stream
        self._next = 0
        self._count = chunk_count(item.size)
        reclaimer.pin(item.stream)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """
        @return: the next chunk.
        @raise StoreError: it cannot be read.
        """
        if self._next >= self._count:
            self.cancel()
            raise StopIteration
        data = self._store.chunk(self._stream, self._next)
        self._next += 1
        return data

    def cancel(self) -> None:
        """Stop reading.  Idempotent."""
        if self._done is not None:
            done, self._done = self._done, None
            self._reclaimer.unpin(self._stream)
            done()
