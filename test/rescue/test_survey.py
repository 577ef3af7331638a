"""
Tests of `darner.rescue.survey`, and of `darner.rescue.rewriting`: records that are missing or damaged in single cases.
"""

from __future__ import annotations

from typing import Optional

from twisted.trial.unittest import SynchronousTestCase

from darner.rescue.rewriting import rewritten
from darner.rescue.survey import QueueFinding, Survey
from darner.store import records
from darner.values.items import Delayed, Generation, Imported, Item, Mark
from darner.values.vocabulary import CHUNK_BYTES
from test.store_contract import large, small


class SurveyTests(SynchronousTestCase):
    """What records tell, whatever is missing of them."""

    def queue(self, number: int, name: Optional[bytes], mark: Optional[Mark], *items: int) -> dict[bytes, bytes]:
        """@return: the records of a queue with items of these numbers."""
        found = {records.end_key(number): b""}
        if name is not None:
            found[records.name_key(name)] = records.pack_name(number, 77)
        if mark is not None:
            found[records.mark_key(number)] = records.pack_mark(mark)
        for id in items:
            ((last, value),) = records.runs([small(id, b"%d" % id)], 10 * id)
            found[records.run_key(number, last)] = value
        return found

    def survey(self, *parts: dict[bytes, bytes]) -> tuple[Survey, dict[bytes, bytes]]:
        """@return: what is to be said of these records, and those that take their place."""
        own = {records.FORMAT_KEY: records.FORMAT}
        entries = sorted(entry for part in (own, *parts) for entry in part.items())
        survey = Survey(entries, lambda start, stop: False)
        written = sorted(rewritten(survey, entries))
        again = Survey(written, lambda start, stop: False)
        self.assertTrue(again.sound)
        self.assertEqual([queue.saved for queue in again.queues], [queue.saved for queue in survey.queues])
        return survey, dict(written)

    COUNTERS = {records.NUMBERS_KEY: records.pack_u64(100), records.STREAMS_KEY: records.pack_u64(100)}

    def test_imported(self) -> None:
        """How far a queue was imported stays known, so that the import can go on."""
        imported = {records.imported_key(3, b"s" * 16): records.pack_imported(Imported(b"s" * 16, b"f" * 16, 9, True))}
        survey, written = self.survey(self.COUNTERS, imported, self.queue(3, b"q", Mark(), 0))
        self.assertTrue(survey.sound)
        self.assertLessEqual(imported.items(), written.items())
        broken = {records.imported_key(3, b"s" * 16): b"short"}
        survey, written = self.survey(self.COUNTERS, broken, self.queue(3, b"q", Mark(), 0))
        self.assertEqual(survey.unreadable, 1)
        self.assertNotIn(records.imported_key(3, b"s" * 16), written)

    def test_gaps(self) -> None:
        interval = {records.interval_key(3, 6): records.pack_u64(8)}
        survey, written = self.survey(
            self.COUNTERS, interval, self.queue(3, b"q", Mark(2, 10, 100, 20, 0), 2, 4, 5, 9)
        )
        self.assertEqual(survey.queues, [QueueFinding(b"q", 4, 2)])
        self.assertFalse(survey.sound)
        mark = records.unpack_mark(written[records.mark_key(3)])
        self.assertEqual(mark, Mark(2, 10, 100, 96, 2))
        intervals = {
            records.key_number(key): records.unpack_u64(value)
            for key, value in written.items() if key[9:10] == b"\2"
        }  # fmt: skip
        self.assertEqual(intervals, {3: 4, 6: 9})

    def test_mark_lost(self) -> None:
        """What is before the first item there is taken for consumed, and the rest is uncertain."""
        survey, written = self.survey(self.COUNTERS, self.queue(3, b"q", None, 5, 7))
        self.assertEqual(survey.queues, [QueueFinding(b"q", 2, 1, uncertain=True)])
        mark = records.unpack_mark(written[records.mark_key(3)])
        self.assertEqual((mark.low, mark.next_id), (5, 8))

    def test_all_lost_but_the_name(self) -> None:
        survey, _ = self.survey(self.COUNTERS, {records.name_key(b"q"): records.pack_name(3, 77)})
        self.assertEqual(survey.queues, [QueueFinding(b"q", 0, 0, uncertain=True)])

    def test_name_lost(self) -> None:
        other = self.queue(4, b"recovered_3", Mark(0, 1), 0)
        survey, written = self.survey(self.COUNTERS, other, self.queue(3, None, Mark(0, 2), 0, 1))
        self.assertEqual(
            survey.queues, [QueueFinding(b"recovered_3", 1, 0), QueueFinding(b"recovered_3_", 2, 0, unnamed=True)]
        )
        number, created = records.unpack_name(written[records.name_key(b"recovered_3_")])
        self.assertEqual((number, created), (3, 1_700_000_000_000))

    def test_name_lost_of_an_empty_queue(self) -> None:
        survey, written = self.survey(self.COUNTERS, self.queue(3, None, Mark(2, 2)))
        self.assertEqual(survey.queues, [])
        self.assertNotIn(records.mark_key(3), written)

    def test_deleted(self) -> None:
        """A queue that is to be reclaimed is not written again."""
        survey, written = self.survey(self.COUNTERS, {records.deleted_key(3): b""}, self.queue(3, b"q", None, 5))
        self.assertEqual((survey.queues, survey.sound), ([], True))
        self.assertEqual(set(written), {records.FORMAT_KEY, records.NUMBERS_KEY, records.STREAMS_KEY})

    def test_counters_lost(self) -> None:
        """They are above all that is in use."""
        chunk = {records.chunk_key(9, 0): b"x", records.unheld_key(12): b""}
        survey, written = self.survey(self.queue(3, b"q", Mark(0, 1), 0), chunk)
        self.assertFalse(survey.sound)
        self.assertEqual(written[records.NUMBERS_KEY], records.pack_u64(4))
        self.assertEqual(written[records.STREAMS_KEY], records.pack_u64(13))
        self.assertNotIn(records.chunk_key(9, 0), written)

    def test_large_items(self) -> None:
        """One that is not there as a whole is lost; chunks that nothing holds are left behind."""
        size = CHUNK_BYTES + 5
        parts = self.queue(3, b"q", Mark(0, 5))
        for id, stream in enumerate((10, 11, 12, 13, 14)):
            ((last, value),) = records.runs([large(id, stream, size)], size * (id + 1))
            parts[records.run_key(3, last)] = value
        full = bytes(CHUNK_BYTES)
        chunks = {
            records.chunk_key(10, 0): full, records.chunk_key(10, 1): bytes(5),
            records.chunk_key(11, 1): bytes(5),
            records.chunk_key(12, 0): full,
            records.chunk_key(13, 0): full, records.chunk_key(13, 1): bytes(6),
            records.chunk_key(20, 0): full,
        }  # fmt: skip
        survey, written = self.survey(self.COUNTERS, parts, chunks)
        self.assertEqual(survey.queues, [QueueFinding(b"q", 1, 4)])
        self.assertEqual(
            [key for key in written if key[:1] == b"C"], [records.chunk_key(10, 0), records.chunk_key(10, 1)]
        )

    def test_ids_lost(self) -> None:
        """That costs ids, and no items; the number of what is lost is not given again."""
        named = {records.generations_key(3): records.pack_generations(Generation(400, 1), None)}
        survey, written = self.survey(self.COUNTERS, named, self.queue(3, b"q", Mark(0, 2), 0, 1))
        self.assertEqual(survey.queues, [QueueFinding(b"q", 2, 0)])
        self.assertEqual(survey.next_number, 401)
        self.assertIn(records.end_key(400), written)
        self.assertEqual(written[records.generations_key(3)], named[records.generations_key(3)])

    def test_ids_that_nobody_can_read(self) -> None:
        wrong = {
            records.generations_key(3): b"short", records.seen_key(5, bytes(16)): b"short",
            records.generations_key(4): records.pack_generations(Generation(5, 1), None),
            records.seen_key(5, bytes(range(16))): records.pack_u64(1), records.seen_key(5, b"not of 16"): b"",
        }  # fmt: skip
        queues = self.queue(3, b"q", Mark(0, 1), 0), self.queue(4, b"r", Mark(0, 1), 0)
        survey, written = self.survey(self.COUNTERS, wrong, *queues)
        self.assertEqual((survey.unreadable, [queue.saved for queue in survey.queues]), (3, [1, 1]))
        self.assertEqual([key for key in written if records.is_seen(key)], [records.seen_key(5, bytes(range(16)))])
        self.assertNotIn(records.generations_key(3), written)

    def test_what_is_no_record_of_ours(self) -> None:
        strange = {
            b"X": b"", b"C123": b"", b"N": b"short", records.NUMBERS_KEY: b"", b"Q": b"",
            records.run_key(3, 4): b"no run", records.run_key(3, 5): b"", b"Q" + bytes(7) + b"\3\7": b"",
            records.interval_key(3, 9): b"short", records.mark_key(5): b"short",
        }  # fmt: skip
        survey, written = self.survey(strange, self.queue(3, b"q", Mark(0, 1), 0))
        self.assertEqual(survey.queues, [QueueFinding(b"q", 1, 0)])
        self.assertEqual(survey.unreadable, 9)
        self.assertFalse(set(strange) - {records.NUMBERS_KEY} & set(written) - set(strange))
        self.assertNotIn(b"X", written)

    def test_runs_that_overlap(self) -> None:
        """Ids stand in one run only; what claims them again is left out."""
        ((last, value),) = records.runs([small(0), small(1), small(2)], 21)
        survey, written = self.survey(
            self.COUNTERS, self.queue(3, b"q", Mark(0, 3), 1), {records.run_key(3, last): value}
        )
        self.assertEqual(survey.queues, [QueueFinding(b"q", 1, 2)])
        self.assertNotIn(records.run_key(3, 2), written)

    def delayed(self, number: int, *items: tuple[int, Item]) -> dict[bytes, bytes]:
        found = {records.end_key(number): b""}
        for due, item in items:
            ((_, value),) = records.runs([item], 0)
            found[records.due_key(number, due, item.id)] = value
        return found

    def test_delayed(self) -> None:
        """They are items of their queue, and what the queue says of them is put right."""
        size = CHUNK_BYTES + 5
        known = {records.delayed_key(3): records.pack_delayed(Delayed(8, 5, 500, 10, 9))}
        chunks = {records.chunk_key(10, 0): bytes(CHUNK_BYTES), records.chunk_key(10, 1): bytes(5)}
        kept = self.delayed(
            8, (50, small(2)), (50, small(4)), (40, large(7, 10, size)), (60, large(8, 11, size))
        )
        survey, written = self.survey(self.COUNTERS, self.queue(3, b"q", Mark(0, 1), 0), known, kept, chunks)
        self.assertEqual(survey.queues, [QueueFinding(b"q", 4, 2)])
        self.assertEqual(
            records.unpack_delayed(written[records.delayed_key(3)]),
            Delayed(8, 3, 2 * small(2).size + size, 40, 9),
        )
        self.assertEqual(
            [key for key in written if records.is_delayed(key)],
            [records.due_key(8, 40, 7), records.due_key(8, 50, 2), records.due_key(8, 50, 4)],
        )
        self.assertIn(records.chunk_key(10, 1), written)

    def test_delayed_of_which_nothing_is_there(self) -> None:
        known = {records.delayed_key(3): records.pack_delayed(Delayed(8, 2, 500, 10, 9))}
        survey, written = self.survey(self.COUNTERS, self.queue(3, b"q", Mark(0, 1), 0), known)
        self.assertEqual(survey.queues, [QueueFinding(b"q", 1, 2)])
        self.assertEqual(records.unpack_delayed(written[records.delayed_key(3)]), Delayed(8, 0, 0, 0, 9))

    def test_delayed_of_nobody(self) -> None:
        """They get a queue of their own, and those that were given up do not."""
        given_up = {**self.delayed(9, (50, small(1))), records.deleted_key(9): b""}
        survey, written = self.survey(self.COUNTERS, self.delayed(8, (50, small(2))), given_up)
        (found,) = survey.queues
        self.assertEqual((found.saved, found.lost, found.unnamed), (1, 0, True))
        number, _ = records.unpack_name(written[records.name_key(found.name)])
        self.assertEqual(number, 100)
        self.assertEqual(written[records.NUMBERS_KEY], records.pack_u64(101))

    def test_delayed_that_cannot_be_read(self) -> None:
        parts = self.delayed(8, (50, small(2)))
        parts[records.due_key(8, 51, 3)] = b"short"
        parts[records.due_key(8, 52, 4)] = parts[records.due_key(8, 50, 2)] + b"x"
        known = {records.delayed_key(3): records.pack_delayed(Delayed(8, 3, 500, 10, 9))}
        survey, _ = self.survey(self.COUNTERS, self.queue(3, b"q", Mark(0, 1), 0), known, parts)
        self.assertEqual(survey.queues, [QueueFinding(b"q", 2, 2)])
        self.assertEqual(survey.unreadable, 2)
