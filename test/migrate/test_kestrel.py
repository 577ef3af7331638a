"""
Tests of `darner.migrate.kestrel` and `darner.migrate.kestrel_journal`.

The journals are made by `test.migrate.journals`; the tests say what Kestrel's document and sources say of each.
"""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from darner.migrate import kestrel_journal, open_file
from darner.migrate.kestrel import Kestrel
from darner.migrate.kestrel_journal import read_journal
from darner.migrate.opening import open_source
from darner.migrate.sources import Findings, SourceError
from test.migrate import journals as write
from test.migrate.reading import read, read_place, snapshot

OPEN = "open reads become ready items, at the heads of their queues"
IDLE = "operations of a journal had nothing to do: an earlier part of it may be missing"


class KestrelCase(SynchronousTestCase):
    def directory(self, **files: bytes) -> Path:
        """@param files: the contents of files by their names, in which C{__} stands for a dot."""
        directory = Path(self.mktemp())
        directory.mkdir()
        for name, contents in files.items():
            (directory / name.replace("__", ".").replace("TILDE", "~~")).write_bytes(contents)
        return directory

    def read(self, **files: bytes) -> tuple[dict[bytes, list[bytes]], list[str], dict[str, int]]:
        return read_place(self.directory(**files))

    def items(self, *operations: bytes) -> list[bytes]:
        """@return: what is left in a queue with this journal, in which everything can be read."""
        findings = Findings()
        found = read(Kestrel(self.directory(q=b"".join(operations))), findings)
        self.assertEqual(list(findings.losses), [])
        return found[b"q"]


class OperationTests(KestrelCase):
    def test_add_and_remove(self) -> None:
        operations = [write.add(b"a"), write.addx(b"b"), write.addx(b""), write.remove(), write.add(b"\0\1\2")]
        self.assertEqual(self.items(*operations), [b"b", b"", b"\0\1\2"])

    def test_times(self) -> None:
        """Those of ADD are in seconds, and it does not say when the item was added."""
        source = Kestrel(self.directory(
            q=write.add(b"a", 1_900_000_000) + write.addx(b"b", 1_900_000_000_456, 77) + write.addx(b"c", -5, -7)
        ))  # fmt: skip
        (queue,) = source.queues(Findings())
        times = [(item.time, item.expiry) for item in queue.items(Findings())]
        self.assertEqual(times, [(0, 1_900_000_000_000), (77, 1_900_000_000_456), (0, 0)])

    def test_transactions(self) -> None:
        """Confirmed items are gone; items that are given back are at the head, the last one first."""
        self.assertEqual(
            self.items(
                *map(write.addx, [b"a", b"b", b"c", b"d"]),
                write.remove_tentative_xid(5), write.remove_tentative_xid(6), write.remove_tentative_xid(7),
                write.confirm_remove(6), write.unremove(5), write.unremove(7),
            ),
            [b"c", b"a", b"d"],
        )  # fmt: skip

    def test_given_back_and_taken_again(self) -> None:
        operations = [write.addx(b"a"), write.addx(b"b"), write.remove_tentative_xid(1), write.unremove(1)]
        self.assertEqual(self.items(*operations), [b"a", b"b"])
        self.assertEqual(self.items(*operations, write.remove()), [b"b"])
        self.assertEqual(self.items(*operations, write.remove_tentative_xid(2), write.confirm_remove(2)), [b"b"])

    def test_open_at_the_end(self) -> None:
        """Kestrel gives back what is open when it starts, the highest xid first: the lowest is at the head."""
        found, _, notes = self.read(q=b"".join([
            *map(write.addx, [b"a", b"b", b"c", b"d", b"e"]), write.remove_tentative_xid(9),
            write.remove_tentative_xid(4), write.remove_tentative_xid(3), write.unremove(3),
        ]))  # fmt: skip
        self.assertEqual(found[b"q"], [b"b", b"a", b"c", b"d", b"e"])
        self.assertEqual(notes[OPEN], 2)

    def test_only_open_items(self) -> None:
        self.assertEqual(self.items(write.addx(b"a"), write.remove_tentative_xid(1)), [b"a"])

    def test_xids_that_are_not_named(self) -> None:
        """A tentative removal gets the next xid, behind what SAVE_XID says, and none that is in use, nor 0."""
        self.assertEqual(
            self.items(
                write.save_xid(41), write.addx(b"a"), write.addx(b"b"), write.remove_tentative(),
                write.remove_tentative(), write.confirm_remove(43), write.unremove(42),
            ),
            [b"a"],
        )  # fmt: skip
        self.assertEqual(
            self.items(
                write.addx(b"a"), write.addx(b"b"), write.remove_tentative_xid(1), write.save_xid(-1),
                write.remove_tentative(), write.confirm_remove(2),
            ),
            [b"a"],
        )  # fmt: skip

    def test_named_xids(self) -> None:
        """A rewritten journal of Kestrel 1 begins with the items that were open, under their xids."""
        journal = write.packed(20, {11: b"a", 17: b"b"}, [b"c", b"d"])
        self.assertEqual(self.items(journal), [b"a", b"b", b"c", b"d"])
        self.assertEqual(self.items(journal, write.confirm_remove(17), write.unremove(11)), [b"a", b"c", b"d"])
        more = [write.remove_tentative(), write.confirm_remove(21)]
        self.assertEqual(self.items(journal, *more), [b"a", b"b", b"d"])

    def test_continue(self) -> None:
        """One item is done, and another one added, at once."""
        self.assertEqual(
            self.items(write.addx(b"a"), write.addx(b"b"), write.remove_tentative_xid(3), write.continue_(3, b"a2")),
            [b"b", b"a2"],
        )

    def test_state_dump(self) -> None:
        """The document's other operation 8 sets the xid."""
        self.assertEqual(
            self.items(write.state_dump(6, 0), write.addx(b"a"), write.remove_tentative(), write.confirm_remove(7)), []
        )

    def test_nothing_to_do(self) -> None:
        operations = [
            write.remove(), write.remove_tentative(), write.remove_tentative_xid(1), write.unremove(1),
            write.confirm_remove(1), write.continue_(1, b"a"),
        ]  # fmt: skip
        found, lost, notes = self.read(q=b"".join(operations))
        self.assertEqual((found, lost, notes[IDLE]), ({b"q": [b"a"]}, [], 6))

    def test_large(self) -> None:
        payload = os.urandom(300_000)
        operations = [write.addx(payload), write.addx(b"b"), write.add(payload)]
        self.assertEqual(self.items(*operations), [payload, b"b", payload])


class FilesTests(KestrelCase):
    def test_queues(self) -> None:
        found, _, _ = self.read(**{"a": write.addx(b"1"), "b+c": write.addx(b"2"), "empty": b""})
        self.assertEqual(found, {b"a": [b"1"], b"b+c": [b"2"], b"empty": []})

    def test_rotated(self) -> None:
        """Files go on from each other, by their times and not by their names; the one without a time is the last."""
        found, _, _ = self.read(
            cars=write.remove_tentative_xid(2) + write.addx(b"5"),
            cars__904=write.addx(b"1") + write.addx(b"2"), cars__1000=write.addx(b"4") + write.confirm_remove(1),
            cars__950=write.remove_tentative_xid(1) + write.addx(b"3"), old__7=write.addx(b"x"),
        )  # fmt: skip
        self.assertEqual(found, {b"cars": [b"2", b"3", b"4", b"5"], b"old": [b"x"]})

    def test_packed(self) -> None:
        """A packed file takes the place of all that are as old or older; unfinished ones do not count."""
        found, _, notes = self.read(
            cars__904=write.addx(b"dead"), cars__950=write.addx(b"dead"),
            cars__950__pack=write.packed(3, {2: b"1"}, [b"2", b"3"]), cars__951=write.remove() + write.addx(b"4"),
            cars=write.confirm_remove(2), carsTILDE1234=write.addx(b"unfinished"), cars__x=write.addx(b"of no time"),
        )  # fmt: skip
        self.assertEqual(found, {b"cars": [b"3", b"4"]})
        self.assertNotIn(
            "queue cars was packed when Kestrel ended: its items may be there twice, as in Kestrel itself", notes
        )

    def test_packed_twice(self) -> None:
        found, _, _ = self.read(
            cars__5__pack=write.addx(b"dead"), cars__9__pack=write.addx(b"1"), cars__7=write.addx(b"dead"), cars=b""
        )
        self.assertEqual(found, {b"cars": [b"1"]})

    def test_rewritten(self) -> None:
        """Kestrel ended between two steps of a rewrite: it would have every item twice as well."""
        _, _, notes = self.read(cars__9__pack=write.addx(b"1"), cars=write.addx(b"1"))
        self.assertIn(
            "queue cars was packed when Kestrel ended: its items may be there twice, as in Kestrel itself", notes
        )

    def test_nothing_is_changed(self) -> None:
        directory = self.directory(q=write.addx(b"a") + b"\2\1", q__5=write.addx(b"b"), q__3__pack=write.addx(b"c"))
        before = snapshot(directory)
        read_place(directory)
        self.assertEqual(snapshot(directory), before)

    def test_changes(self) -> None:
        one = Kestrel(self.directory(q=write.addx(b"a")))
        self.assertEqual(one.fingerprint(), Kestrel(self.directory(q=write.addx(b"a"))).fingerprint())
        self.assertNotEqual(one.fingerprint(), Kestrel(self.directory(q=write.addx(b"b"))).fingerprint())
        self.assertNotEqual(one.fingerprint(), Kestrel(self.directory(r=write.addx(b"a"))).fingerprint())


class DamageTests(KestrelCase):
    def test_cut_end(self) -> None:
        """Wherever the end was cut, what is before it is there, and it is told how much is missing."""
        for last in (write.addx(b"last"), write.add_xid(7, b"last"), write.continue_(7, b"x"), write.add(b"last")):
            before = write.addx(b"a") + write.addx(b"b")
            for length in range(1, len(last)):
                found, lost, _ = self.read(q=before + last[:length])
                self.assertEqual(found, {b"q": [b"a", b"b"]}, (last, length))
                self.assertEqual(len(lost), 1)
                place, _, reason = lost[0].partition(": ")
                self.assertEqual(place, f"q, offset {len(before)} of {len(before) + length}")
                self.assertIn("the last operation is cut short", reason)

    def test_cut_short_operations(self) -> None:
        for last in (write.save_xid(7), write.unremove(7), write.confirm_remove(7), write.remove_tentative_xid(7)):
            found, lost, _ = self.read(q=write.addx(b"a") + last[:3])
            self.assertEqual(found, {b"q": [b"a"]})
            self.assertEqual(lost, ["q, offset 22 of 25: the last operation is cut short, 2 bytes are missing"])

    def test_unknown_operation(self) -> None:
        """What is behind it in its file is lost, and the next file is read."""
        found, lost, _ = self.read(q__5=write.addx(b"a") + b"\x0a" + write.addx(b"lost"), q=write.addx(b"b"))
        self.assertEqual(found, {b"q": [b"a", b"b"]})
        self.assertEqual(lost, ["q.5, offset 22 of 48: there is no operation 10"])

    def test_size(self) -> None:
        for code, size in ((b"\0", 3), (b"\2", 15), (b"\7\0\0\0\0", 15), (b"\0", -1), (b"\2", -(2**31))):
            _, lost, _ = self.read(q=write.addx(b"a") + code + size.to_bytes(4, "little", signed=True) + bytes(30))
            self.assertEqual([reason.partition(": ")[2] for reason in lost], [f"an item has the size {size}"])

    def test_file_that_cannot_be_read(self) -> None:
        directory = self.directory(q=write.addx(b"a"))
        source = Kestrel(directory)
        (queue,) = source.queues(Findings())
        (directory / "q").unlink()
        error = self.assertRaises(SourceError, list, queue.items(Findings()))
        self.assertIn("q: No such file or directory", str(error))

    def test_payload_that_is_gone(self) -> None:
        """It was there when the journal was read first."""
        directory = self.directory(q=write.addx(b"a") + write.addx(b"b" * 100))
        findings = Findings()
        source = open_source(str(directory))
        (queue,) = source.queues(findings)
        first, second = queue.items(findings)
        os.truncate(directory / "q", 50)
        self.assertEqual(b"".join(first.pieces), b"a")
        self.assertRaisesRegex(open_file.Unreadable, "q, offset 50: 93 bytes are missing", list, second.pieces)

    def assertRaisesRegex(self, kind: type[Exception], text: str, call: object, *arguments: object) -> None:
        error = self.assertRaises(kind, call, *arguments)  # type: ignore[arg-type]
        self.assertIn(text, str(error))

    def test_payload_whose_file_is_gone(self) -> None:
        directory = self.directory(q=write.addx(b"a"))
        (queue,) = Kestrel(directory).queues(Findings())
        (item,) = queue.items(Findings())
        (directory / "q").unlink()
        self.assertRaisesRegex(open_file.Unreadable, "q, offset 21: No such file or directory", list, item.pieces)


class Model:
    """A queue, as Kestrel's document describes the operations."""

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.opened: dict[int, bytes] = {}
        self.journal = b""
        self.count = 0

    def add(self) -> None:
        self.count += 1
        self.items.append(b"%d" % self.count)
        self.journal += write.addx(self.items[-1])

    def remove(self) -> None:
        if self.items:
            self.items.pop(0)
        self.journal += write.remove()

    def open(self, xid: int) -> None:
        if xid not in self.opened and self.items:
            self.opened[xid] = self.items.pop(0)
            self.journal += write.remove_tentative_xid(xid)

    def close(self, xid: int) -> None:
        self.opened.pop(xid, None)
        self.journal += write.confirm_remove(xid)

    def abort(self, xid: int) -> None:
        if xid in self.opened:
            self.items.insert(0, self.opened.pop(xid))
            self.journal += write.unremove(xid)

    def left(self) -> list[bytes]:
        return [*(self.opened[xid] for xid in sorted(self.opened)), *self.items]


class ModelTests(KestrelCase):
    @given(st.lists(st.tuples(st.sampled_from(["add", "add", "remove", "open", "close", "abort"]), st.integers(1, 4))))
    @settings(deadline=None, max_examples=200)
    def test_any_operations(self, steps: list[tuple[str, int]]) -> None:
        model = Model()
        for step, xid in steps:
            getattr(model, step)(*[xid] * (step not in ("add", "remove")))
        self.assertEqual(self.items(model.journal), model.left())

    @given(st.lists(st.one_of(
        st.binary(max_size=40), st.sampled_from([write.addx(b"x"), write.remove(), write.remove_tentative_xid(1)])
    )).map(b"".join))  # fmt: skip
    @settings(deadline=None, max_examples=300)
    def test_any_bytes(self, data: bytes) -> None:
        """They are read up to a place that is told, or to the end, whatever the window."""
        path = self.directory(q=data) / "q"
        results = []
        for window in (1, 64, 256 * 1024):
            self.patch(kestrel_journal, "_WINDOW", window)
            lost: list[str] = []
            results.append((list(read_journal(path, lambda place, _, lost=lost: lost.append(place))), lost))
        self.assertEqual(results[0][0], results[1][0])
        self.assertEqual(results[0], results[2])
        source = Kestrel(path.parent)
        read(source, Findings())
