"""
L{darner.commands.archive}: the file of an export.
"""

from __future__ import annotations

import io
import json
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from darner.commands import archive
from darner.commands.archive import BadArchive, CutShort, Reader, Record, Writer, scan

ITEMS = (
    (Record("jobs", 0, 5, id="1"), b"first"),
    (Record("jobs", 2**32 - 1, 0, expires=2**50, state="retrying", id="2"), b""),
    (Record("jobs", 0, 30, due=17, state="delayed", id="5-6"), b"0123456789" * 3),
    (Record("mail", 1, 3), bytes([0, 255, 10])),
)


def write(items: tuple[tuple[Record, bytes], ...] = ITEMS, end: bool = True) -> bytes:
    """@return: a file, whose blocks are 8 bytes long at most, but for what goes before an item's payload."""
    file = io.BytesIO()
    with mock.patch.object(archive, "LONGEST", 8):
        writer = Writer(file)
        writer.begin({"id": "x"})
        for record, payload in items:
            writer.put(record, [payload[:3], payload[3:20], payload[20:]])
        if end:
            writer.end()
    return file.getvalue()


def read(data: bytes) -> tuple[tuple[Record, bytes], ...]:
    """@raise BadArchive: it is not whole."""
    reader = Reader(io.BytesIO(data))
    items = tuple((record, b"".join(payload)) for record, payload in reader.records())
    assert reader.complete
    return items


class ArchiveTests(SynchronousTestCase):
    def test_whole(self) -> None:
        self.assertEqual(read(write()), ITEMS)
        self.assertEqual(read(write(())), ())

    def test_header(self) -> None:
        data = write()
        self.assertEqual(Reader(io.BytesIO(data)).header, {"id": "x"})
        self.assertTrue(data.startswith(b'darner-export 1\nH\x00\x00\x00\x0b{"id": "x"}'))

    def test_payloads_that_are_not_read(self) -> None:
        reader = Reader(io.BytesIO(write()))
        self.assertEqual([record for record, _ in reader.records()], [record for record, _ in ITEMS])

    def test_trickling(self) -> None:
        """A pipe gives fewer bytes than were asked for."""

        class Trickle(io.BytesIO):
            def read(self, size: object = -1) -> bytes:
                return super().read(min(size, 1) if isinstance(size, int) else None)

        reader = Reader(Trickle(write()))
        self.assertEqual(len(list(reader.records())), 4)

    def test_cut_anywhere(self) -> None:
        """What is whole can be read, and that it is not all is told; a scan says where to go on."""
        data = write()
        for length in range(len(data)):
            self.assertRaises(CutShort, read, data[:length])
            if length < 36:
                self.assertRaises(CutShort, scan, io.BytesIO(data[:length]))
                continue
            found = scan(io.BytesIO(data[:length]))
            self.assertFalse(found.complete)
            file = io.BytesIO(data[: found.position])
            file.seek(0, io.SEEK_END)
            queue = found.last.queue if found.last is not None else ""
            with mock.patch.object(archive, "LONGEST", 8):
                writer = Writer(file, found.digest, found.items, found.bytes, queue)
                for record, payload in ITEMS[found.items :]:
                    writer.put(record, [payload])
                writer.end()
            self.assertEqual(file.getvalue(), data)

    def test_damaged_anywhere(self) -> None:
        """No byte can change without being noticed."""
        data = write()
        for place in range(len(data)):
            for change in (1, 128):
                damaged = bytearray(data)
                damaged[place] ^= change
                self.assertRaises(BadArchive, read, bytes(damaged))

    def test_items_left_out(self) -> None:
        """Blocks are right by themselves, and do not make a whole."""
        whole, shorter = write(), write(ITEMS[:-1])
        end = whole.index(b'{"items"') - 5
        begin = shorter.index(b'{"items"') - 5
        self.assertRaises(BadArchive, read, shorter[:begin] + whole[end:])
        other = write(((Record("jobs", 0, 5, id="9"), b"other"), *ITEMS[1:]))
        self.assertRaises(BadArchive, read, other[: other.index(b'{"items"') - 5] + whole[end:])

    def test_something_behind(self) -> None:
        self.assertRaises(BadArchive, read, write() + b"x")

    def test_another_version(self) -> None:
        error = self.assertRaises(BadArchive, read, b"darner-export 2\n" + b"x" * 100)
        self.assertIn("of a version that this darner does not know", str(error))

    def test_something_else(self) -> None:
        self.assertIn("this is no file of darner export", str(self.assertRaises(BadArchive, read, b"PK" * 100)))

    def test_what_the_end_says(self) -> None:
        data = write()
        end = json.loads(data[data.index(b'{"items"') : -4])
        self.assertEqual((end["items"], end["bytes"], len(end["sha256"])), (4, 38, 64))

    def test_complete(self) -> None:
        found = scan(io.BytesIO(write()))
        self.assertEqual((found.complete, found.items, found.last), (True, 4, ITEMS[-1][0]))
