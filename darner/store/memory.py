"""
Queues in memory: the twin of `darner.store.leveldb`, for tests and for queues that need not outlive the process.

It keeps the same contract with the plainest data structures there are, so that it can serve as the model of the other.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Optional

from zope.interface import implementer

from darner.errors import StoreError
from darner.store.interfaces import IBatch, IStore
from darner.values.consumed import Consumed
from darner.values.items import ITEM_OVERHEAD, Delayed, Generation, Item, Mark, QueueState, Step


@implementer(IBatch)
class MemoryBatch:
    """A batch as a list of changes to be made."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.changes: list[Callable[[], None]] = []

    @property
    def empty(self) -> bool:
        return not self.changes

    def create(self, name: bytes, number: int, created: int) -> None:
        self.changes.append(lambda: self._store.create(name, number, created))

    def remove(self, name: bytes, number: int) -> None:
        self.changes.append(lambda: self._store.remove(name, number))

    def discard(self, number: int) -> None:
        self.changes.append(lambda: self._store.discard(number))

    def put(self, number: int, items: Sequence[Item], bytes_put: int) -> None:
        taken = tuple(item.copy() for item in items)
        self.changes.append(lambda: self._store.put(number, taken, bytes_put))

    def share(self, stream: int, number: int, id: int) -> None:
        self.changes.append(lambda: self._store.share(stream, number, id))

    def mark(self, number: int, mark: Mark) -> None:
        self.changes.append(lambda: self._store.mark(number, mark))

    def consume(self, number: int, changes: Sequence[tuple[int, int]]) -> None:
        self.changes.append(lambda: self._store.consume(number, changes))

    def attempts(self, number: int, changes: Sequence[tuple[int, int]]) -> None:
        taken = tuple(changes)
        self.changes.append(lambda: self._store.count_attempts(number, taken))

    def delayed(self, number: int, delayed: Optional[Delayed]) -> None:
        self.changes.append(lambda: self._store.know_delayed(number, delayed))

    def delay(self, number: int, items: Sequence[tuple[int, Item]]) -> None:
        taken = [(due, item.copy()) for due, item in items]
        self.changes.append(lambda: self._store.delay(number, taken))

    def due(self, number: int, items: Sequence[tuple[int, Item]]) -> None:
        taken = [(due, item.copy()) for due, item in items]
        self.changes.append(lambda: self._store.due(number, taken))

    def undelay(self, number: int, items: Sequence[tuple[int, Item]]) -> None:
        taken = [(due, item.copy()) for due, item in items]
        self.changes.append(lambda: self._store.undelay(number, taken))

    def generations(self, number: int, current: Optional[Generation], previous: Optional[Generation]) -> None:
        self.changes.append(lambda: self._store.keep_generations(number, current, previous))

    def seen(self, generation: int, id: bytes, time: int) -> None:
        self.changes.append(lambda: self._store.see(generation, id, time))

    def chunk(self, stream: int, index: int, data: bytes) -> None:
        self.changes.append(lambda: self._store.add_chunk(stream, index, data))


class _Queue:
    def __init__(self, name: bytes, created: int) -> None:
        self.name = name
        self.created = created
        self.items: dict[int, Item] = {}
        self.bytes_put = 0
        self.mark = Mark()
        self.above: dict[int, int] = {}
        self.attempts: dict[int, int] = {}
        self.delayed: Optional[Delayed] = None
        self.generations: tuple[Optional[Generation], Optional[Generation]] = (None, None)


@implementer(IStore)
class MemoryStore:
    """
    Queues in dictionaries.

    Closing forgets nothing, so that a test can start a service anew on what an earlier one left.

    @ivar queues: what is kept, by number.
    @ivar ids: when items were put, by the number of the generation and the id.
    @ivar chunks: the streams, by number.
    @ivar holders: of streams that several items hold, those.
    @ivar unheld: the streams that no item holds.
    @ivar delays: the delayed items, by number; in order, each behind when it is due and its id.
    @ivar deleted: the numbers of deleted queues that are not reclaimed yet.
    """

    def __init__(self) -> None:
        self.queues: dict[int, _Queue] = {}
        self.ids: dict[int, dict[bytes, int]] = {}
        self.chunks: dict[int, dict[int, bytes]] = {}
        self.unheld: set[int] = set()
        self.holders: dict[int, set[tuple[int, int]]] = {}
        self.deleted: set[int] = set()
        self.delays: dict[int, list[tuple[Any, ...]]] = {}
        self._next_number = 0
        self._next_stream = 1

    # What batches do

    def create(self, name: bytes, number: int, created: int) -> None:
        self.queues[number] = _Queue(name, created)

    def remove(self, name: bytes, number: int) -> None:
        self.deleted.add(number)

    def discard(self, number: int) -> None:
        self.deleted.add(number)

    def put(self, number: int, items: Sequence[Item], bytes_put: int) -> None:
        queue = self.queues[number]
        queue.items.update((item.id, item) for item in items)
        queue.bytes_put = bytes_put
        self.unheld.difference_update(item.stream for item in items)

    def share(self, stream: int, number: int, id: int) -> None:
        self.holders.setdefault(stream, set()).add((number, id))

    def mark(self, number: int, mark: Mark) -> None:
        self.queues[number].mark = mark

    def consume(self, number: int, changes: Sequence[tuple[int, int]]) -> None:
        above = self.queues[number].above
        for start, stop in changes:
            if stop > start:
                above[start] = stop
            else:
                above.pop(start, None)

    def count_attempts(self, number: int, changes: Sequence[tuple[int, int]]) -> None:
        attempts = self.queues[number].attempts
        for id, count in changes:
            attempts[id] = count
            if not count:
                del attempts[id]

    def know_delayed(self, number: int, delayed: Optional[Delayed]) -> None:
        self.queues[number].delayed = delayed

    def delay(self, number: int, items: Sequence[tuple[int, Item]]) -> None:
        self.due(number, items)  # they may be there already
        delays = self.delays.setdefault(number, [])
        for due, item in items:
            insort(delays, (due, item.id, item))
        self.unheld.difference_update(item.stream for _, item in items)

    def due(self, number: int, items: Sequence[tuple[int, Item]]) -> None:
        delays = self.delays.get(number, [])
        gone = {(due, item.id) for due, item in items}
        start = bisect_left(delays, min(gone))
        due, id = max(gone)
        stop = bisect_left(delays, (due, id + 1))
        delays[start:stop] = [entry for entry in delays[start:stop] if entry[:2] not in gone]
        for _, item in items:
            self._is_held(item.stream, number, item.id)

    def undelay(self, number: int, items: Sequence[tuple[int, Item]]) -> None:
        self.due(number, items)
        self.unheld.update(item.stream for _, item in items if item.stream in self.chunks)

    def keep_generations(
        self, number: int, current: Optional[Generation], previous: Optional[Generation]
    ) -> None:
        self.queues[number].generations = (current, previous)

    def see(self, generation: int, id: bytes, time: int) -> None:
        ids = self.ids.setdefault(generation, {})
        ids[id] = time
        if not time:
            del ids[id]

    def add_chunk(self, stream: int, index: int, data: bytes) -> None:
        if index == 0:
            self.unheld.add(stream)
        self.chunks.setdefault(stream, {})[index] = data

    # IStore

    def recover(self) -> list[QueueState]:
        return [
            self._recover(number, queue)
            for number, queue in sorted(self.queues.items())
            if number not in self.deleted
        ]  # fmt: skip

    def _recover(self, number: int, queue: _Queue) -> QueueState:
        mark = queue.mark
        above = [(start, stop) for start, stop in sorted(queue.above.items()) if stop > mark.low]
        next_id = max([mark.next_id - 1, *queue.items]) + 1
        bytes_put = max(mark.bytes_put, queue.bytes_put)
        return QueueState(
            queue.name, number, queue.created, next_id, bytes_put, mark.bytes_consumed, mark.floor,
            Consumed(mark.low, above), {id: count for id, count in queue.attempts.items() if id >= mark.low},
            queue.delayed,
            queue.generations,
        )  # fmt: skip

    def leftovers(self) -> tuple[list[int], list[int]]:
        return sorted(self.deleted), sorted(self.unheld)

    def new_number(self) -> int:
        self._next_number += 1
        return self._next_number - 1

    def new_stream(self) -> int:
        self._next_stream += 1
        return self._next_stream - 1

    def batch(self) -> MemoryBatch:
        return MemoryBatch(self)

    def write(self, batch: IBatch, sync: bool = False) -> None:
        assert isinstance(batch, MemoryBatch)
        for change in batch.changes:
            change()

    def pressed(self) -> bool:
        return False

    def mend(self) -> None:
        pass

    def ready(self) -> None:
        pass

    def space(self) -> Optional[tuple[int, int]]:
        return None

    def read(self, number: int, start: int, stop: int, max_bytes: int) -> list[Item]:
        found: list[Item] = []
        items = self.queues[number].items
        for id in range(start, min(stop, max(items, default=-1) + 1)):
            if max_bytes <= 0:
                break
            if id in items:
                found.append(items[id].copy())
                max_bytes -= len(items[id].payload) + ITEM_OVERHEAD
        return found

    def read_delayed(
        self, number: int, since: int, until: int, max_bytes: int
    ) -> tuple[list[tuple[int, Item]], Optional[int]]:
        found: list[tuple[int, Item]] = []
        delays = self.delays.get(number, [])
        for due, _, item in islice(delays, bisect_left(delays, (since,)), None):
            if due > until or max_bytes <= 0:
                return found, due
            found.append((due, item.copy()))
            max_bytes -= len(item.payload) + ITEM_OVERHEAD
        return found, None

    def spent(self, number: int, since: int, until: int) -> None:
        pass

    def seen(self, generation: int, id: bytes) -> Optional[int]:
        return self.ids.get(generation, {}).get(id)

    def chunk(self, stream: int, index: int) -> bytes:
        try:
            return self.chunks[stream][index]
        except KeyError:
            raise StoreError(f"chunk {index} of stream {stream} is missing") from None

    def reclaim(self, number: int, start: int, stop: int, next_id: int, limit: int) -> Step:
        items = self.queues[number].items
        return self._give_up(number, [id for id in sorted(items) if max(start, next_id) <= id < stop], limit)

    def _give_up(self, number: int, ids: Sequence[int], limit: int) -> Step:
        items = self.queues[number].items if ids else {}
        gone = [items.pop(id) for id in ids[:limit]]
        return self._gave_up(number, gone, ids[limit] if len(ids) > limit else None)

    def _gave_up(self, number: int, gone: Sequence[Item], next_id: Optional[int]) -> Step:
        streams = tuple(item.stream for item in gone if item.stream and not self._is_held(item.stream, number, item.id))
        self.unheld.update(streams)
        return Step(next_id, sum(item.size for item in gone), streams)

    def _is_held(self, stream: int, number: int, id: int) -> bool:
        """@return: whether others than this item, which is gone, hold a stream."""
        holders = self.holders.get(stream, set())
        holders.discard((number, id))
        return bool(holders)

    def reclaim_queue(self, number: int, next_id: int, limit: int) -> Step:
        delays = self.delays.get(number)
        if delays:
            gone = [item for _, _, item in delays[:limit]]
            del delays[:limit]
            return self._gave_up(number, gone, 0)
        self.delays.pop(number, None)
        ids = self.ids.get(number, {})
        for id in list(ids)[:limit]:
            del ids[id]
        if ids:
            return Step(0)
        self.ids.pop(number, None)
        items = self.queues[number].items if number in self.queues else {}
        step = self._give_up(number, sorted(items), limit)
        if step.next_id is None:
            self.queues.pop(number, None)
            self.deleted.discard(number)
        return step

    def reclaim_stream(self, stream: int, next_index: int, limit: int) -> Step:
        if self.holders.get(stream):
            self.unheld.discard(stream)
        if stream not in self.unheld:
            return Step()
        chunks = self.chunks[stream]
        gone = sorted(chunks)[:limit]
        freed = sum(len(chunks.pop(index)) for index in gone)
        if chunks:
            return Step(min(chunks), freed)
        del self.chunks[stream]
        self.unheld.discard(stream)
        return Step(None, freed)

    def uncompacted(self) -> bool:
        return False

    def compact(self, wanted: Callable[[], bool] = lambda: True) -> None:
        pass

    def close(self) -> None:
        pass
