"""
The engine in memory, for tests and for volatile queues.

It fulfils the same contract as `darner.store.leveldb` with the simplest data structures, so that it is the model for
that engine: it decodes the keys that a batch writes and stores what they mean.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Optional, TypeVar

from zope.interface import implementer

from darner.errors import StoreError
from darner.store import records
from darner.store.batch import Batch
from darner.store.interfaces import IStore
from darner.values.consumed import Consumed
from darner.values.items import ITEM_OVERHEAD, Delayed, Generation, Imported, Item, Mark, QueueState, Step

_K = TypeVar("_K")


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
        self.imported: dict[bytes, Imported] = {}


@implementer(IStore)
class MemoryStore:
    """
    A store in dictionaries.

    Closing it deletes nothing, so that a test can start another service on the same store.

    @ivar queues: the queues, by number.
    @ivar ids: the times when items were put, by the number of the generation and the id.
    @ivar chunks: the streams, by number.
    @ivar holders: the items that hold a stream, by stream, if there are several.
    @ivar unheld: the streams that no item holds.
    @ivar delays: the delayed items, by number: sorted tuples of due time, id and item.
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

    # What batches write

    def _apply(self, key: bytes, value: Optional[bytes]) -> None:
        kind = key[:1]
        if kind == records.QUEUE:
            self._apply_to_queue(records.queue_number(key), key, value)
        elif kind == records.NAME:
            if value is not None:
                number, created = records.unpack_name(value)
                self.queues[number] = _Queue(key[1:], created)
        elif kind == records.DELETED:
            self.deleted.add(records.key_number(key))
        elif kind == records.UNHELD:
            _keep(self.unheld, records.key_number(key), value)
        elif kind == records.HOLDER:
            stream, holder = records.holder_of(key)
            _keep(self.holders.setdefault(stream, set()), holder, value)
        else:
            assert value is not None
            self.chunks.setdefault(records.chunk_stream(key), {})[records.chunk_index(key)] = value

    def _apply_to_queue(self, number: int, key: bytes, value: Optional[bytes]) -> None:
        place = key[9]
        if place == records.RUNS:
            queue = self.queues[number]
            if value is None:
                last = records.key_number(key)
                run = queue.items[last].run if last in queue.items else 0
                for id in range(last - run + 1, last + 1):
                    queue.items.pop(id, None)
                return
            queue.items.update((item.id, item) for item in records.run_items(records.key_number(key), value))
            queue.bytes_put = records.run_head(value)[0]
        elif records.is_imported(key):
            assert value is not None
            self.queues[number].imported[key] = records.unpack_imported(key, value)
        elif place == records.MARK:
            assert value is not None
            self.queues[number].mark = records.unpack_mark(value)
        elif place == records.INTERVALS:
            _set(self.queues[number].above, records.key_number(key), value)
        elif records.is_delayed(key):
            self._apply_delayed(number, key, value)
        elif records.is_seen(key):
            ids = self.ids.setdefault(number, {})
            _set(ids, records.seen_id(key), value)
        elif key == records.delayed_key(number):
            self.queues[number].delayed = None if value is None else records.unpack_delayed(value)
        elif key == records.generations_key(number):
            self.queues[number].generations = records.unpack_generations(value or b"")
        elif key not in (records.intervals_end_key(number), records.end_key(number)):
            _set(self.queues[number].attempts, records.key_number(key), value)

    def _apply_delayed(self, number: int, key: bytes, value: Optional[bytes]) -> None:
        due, id = records.due_of(key), records.key_number(key)
        delays = self.delays.setdefault(number, []) if value is not None else self.delays.get(number, [])
        at = bisect_left(delays, (due, id))
        known = at < len(delays) and delays[at][:2] == (due, id)
        delays[at : at + known] = [] if value is None else [(due, id, item) for item in records.run_items(id, value)]

    # IStore

    def recover(self) -> Iterator[QueueState]:
        for number, queue in sorted(self.queues.items()):
            if number not in self.deleted:
                yield self._recover(number, queue)

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

    def write(self, batch: Batch, sync: bool = False) -> None:
        for key, value in batch.writes:
            self._apply(key, value)

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
        self, number: int, since: int, until: int, max_bytes: int, after: int = 0
    ) -> tuple[list[tuple[int, Item]], Optional[int]]:
        found: list[tuple[int, Item]] = []
        delays = self.delays.get(number, [])
        for due, _, item in islice(delays, bisect_left(delays, (since, after)), None):
            if due > until or max_bytes <= 0:
                return found, due
            found.append((due, item.copy()))
            max_bytes -= len(item.payload) + ITEM_OVERHEAD
        return found, None

    def delayed_deleted(self, number: int, since: int, until: int) -> None:
        pass

    def imported(self, number: int) -> list[Imported]:
        return [imported for _, imported in sorted(self.queues[number].imported.items())]

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
        """@return: whether other items than this one, which is deleted, hold a stream."""
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

    def worn(self) -> bool:
        return False

    def settle(self) -> None:
        pass

    def renew(self) -> None:
        pass

    def uncompacted(self) -> bool:
        return False

    def compact(self, wanted: Callable[[], bool] = lambda: True, all: bool = True) -> None:
        pass

    def close(self) -> None:
        pass


def _keep(kept: set[_K], key: _K, value: Optional[bytes]) -> None:
    if value is None:
        kept.discard(key)
    else:
        kept.add(key)


def _set(kept: dict[_K, int], key: _K, value: Optional[bytes]) -> None:
    if value is None:
        kept.pop(key, None)
    else:
        kept[key] = int.from_bytes(value, "big")
