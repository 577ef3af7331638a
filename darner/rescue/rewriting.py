"""
The records of a repaired store: all counters are right, and nothing is left to reclaim.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from darner.rescue.queue_records import Entries, QueueRecords, by_queue, read_delayed_item, read_run
from darner.rescue.survey import Survey
from darner.store import records
from darner.values.items import Delayed, Mark


def rewritten(survey: Survey, entries: Entries) -> Iterator[tuple[bytes, bytes]]:
    """
    @param survey: of the damaged store.
    @param entries: the records of the damaged store again.
    @return: the records of the new store, not sorted.
    """
    yield records.FORMAT_KEY, records.FORMAT
    yield records.NUMBERS_KEY, records.pack_u64(survey.next_number)
    yield records.STREAMS_KEY, records.pack_u64(survey.next_stream)
    for number, finding in survey.found.items():
        yield records.name_key(finding.name), records.pack_name(number, survey.queue_records[number].created)
    for stream, holders in survey.holders.items():
        if len(holders) > 1:
            yield from ((records.holder_key(stream, *holder), b"") for holder in holders)
    written = set()
    for kind, group in groupby(entries, lambda entry: entry[0][:1]):
        if kind == b"C":
            for key, value in group:
                if len(key) == 13 and survey.streams.is_held(records.chunk_stream(key)):
                    yield key, value
        elif kind == b"Q":
            for number, queue in by_queue(group):
                if number in survey.found:
                    written.add(number)
                    yield from _rewritten_queue(survey.queue_records[number], queue)
                elif number in survey.owned:
                    yield from _rewritten_delays(survey, queue)
                elif number in survey.generations:
                    yield from ((key, value) for key, value in queue if records.is_seen(key) and len(value) == 8)
    for number in survey.generations:
        yield records.end_key(number), b""
    for number in survey.found:
        if number not in written:
            yield from _rewritten_queue(survey.queue_records[number], ())
        yield from _rewritten_delayed(survey, survey.queue_records[number])


def _rewritten_delays(survey: Survey, entries: Entries) -> Iterator[tuple[bytes, bytes]]:
    for key, value in entries:
        item = read_delayed_item(key, value)
        if item is not None and survey.is_whole(item):
            yield key, value


def _rewritten_delayed(survey: Survey, queue: QueueRecords) -> Iterator[tuple[bytes, bytes]]:
    if queue.delayed is not None:
        number = queue.delayed.number
        delays, _ = survey.delays_of(queue)
        next_id = max(queue.delayed.next_id, delays.next_id)
        known = Delayed(number, delays.items, delays.bytes, delays.due, next_id)
        yield records.delayed_key(queue.number), records.pack_delayed(known)
        yield records.end_key(number), b""


def _rewritten_queue(queue: QueueRecords, entries: Entries) -> Iterator[tuple[bytes, bytes]]:
    size = 0
    before = -1
    for key, value in entries:
        items = read_run(key, value, before)
        if items:
            before = items[-1].id
            sizes = [item.size for item in items if item.id not in queue.gone]
            if sizes:
                size += sum(sizes)
                yield key, value
    low = queue.gone.low
    put = max(queue.bytes_put, queue.mark.bytes_put if queue.mark is not None else 0, size)
    mark = Mark(low, queue.next_id, put, put - size, low)
    yield records.mark_key(queue.number), records.pack_mark(mark)
    for imported in queue.imported:
        yield records.imported_key(queue.number, imported.source), records.pack_imported(imported)
    for start, stop in queue.gone.intervals():
        if start >= low:
            yield records.interval_key(queue.number, start), records.pack_u64(stop)
    yield records.intervals_end_key(queue.number), b""
    for id, count in queue.attempts.items():
        if id not in queue.gone:
            yield records.attempts_key(queue.number, id), records.pack_u32(count)
    if any(queue.generations):
        yield records.generations_key(queue.number), records.pack_generations(*queue.generations)
    yield records.end_key(queue.number), b""
