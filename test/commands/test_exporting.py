"""
L{darner.commands.exporting} and L{darner.commands.importing}: to a file and back, while the server runs.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import time
from pathlib import Path

from darner.commands.archive import Reader, Record, Writer
from test.commands.admin_http import NOW, AdminHTTP
from test.commands.harness import Done, ProgramTestCase, until
from test.servers import PATIENCE


class FileTestCase(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.directory / "file"

    def read(self, path: Path) -> list[tuple[str, bytes]]:
        """@return: queue and payload of each item."""
        with path.open("rb") as file:
            reader = Reader(file)
            found = [(record.queue, b"".join(pieces)) for record, pieces in reader.records()]
            self.assertTrue(reader.complete)
        return found

    def write(self, *items: tuple[Record, bytes], end: bool = True) -> None:
        with self.path.open("wb") as file:
            writer = Writer(file)
            writer.begin({"id": "0123"})
            for record, payload in items:
                writer.put(record, [payload])
            if end:
                writer.end()


class TakeTests(FileTestCase):
    """``export --take``."""

    def test_and_back(self) -> None:
        other = self.queue + "_2"
        payloads = [b"%d" % number for number in range(500)]
        self.client.put_many(self.queue, payloads, flags=3)
        self.client.put(other, b"x" * 3_000_000)
        said = self.well("export", self.queue, other, "--take", "-o", str(self.path))
        self.assertEqual(said, f"501 items written to {self.path}, 2.9 MiB\n")
        self.assertEqual((self.items(), self.items(other)), ([], []))
        self.assertEqual(self.well("import", str(self.path)), "501 items put\n")
        item = self.client.get(self.queue)
        self.assertEqual(item.flags if item is not None else None, 3)
        self.assertEqual(self.items(), payloads[1:])
        self.assertEqual(self.items(other), [b"x" * 3_000_000])

    def test_pipe(self) -> None:
        """From one queue to another by a pipe."""
        self.client.put_many(self.queue, [b"a", b"b"])
        target = self.queue + "_2"
        process = self.start(
            "export", self.queue, "--take", "-o", "-", stdout=subprocess.PIPE,
        )  # fmt: skip
        out, errors = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, errors), (0, b""))
        self.assertEqual(self.well("import", "-", "--to", target, given=out), "2 items put\n")
        self.assertEqual(self.items(target), [b"a", b"b"])

    def test_interrupted_and_gone_on_with(self) -> None:
        """Each item is in the file or in the queue, or in both."""
        for count in (4000, 4000, 12_000, 40_000, 120_000):
            payloads = [b"%d" % number for number in range(count)]
            self.client.put_many(self.queue, payloads)
            process = self.start("export", self.queue, "--take", "-o", str(self.path))
            until(lambda: self.path.exists() and self.path.stat().st_size > 10_000, "some items are in the file")
            process.send_signal(signal.SIGINT)
            errors = process.communicate(timeout=PATIENCE)[1].decode()
            if process.returncode or self.items():
                break
            # It had taken all before it was interrupted: this process may stand still for so long.
            self.path.unlink()
        self.assertEqual(process.returncode, 130, errors)
        self.assertIn("go on with --resume", errors)
        self.fails(2, "--resume goes on with it", "export", self.queue, "--take", "-o", str(self.path))
        self.assertIn(" more written to ", self.well("export", self.queue, "--take", "--resume", "-o", str(self.path)))
        found = [payload for _, payload in self.read(self.path)]
        self.assertEqual(list(dict.fromkeys(found)), payloads)
        self.assertLessEqual(len(found), len(payloads) + 1)
        said = self.well("export", self.queue, "--take", "--resume", "-o", str(self.path))
        self.assertIn("is complete already", said)

    def test_full_disk(self) -> None:
        """What cannot be written stays in the queue."""
        self.client.put_many(self.queue, [b"a", b"b"])
        done = self.call("export", self.queue, "--take", "-o", "/dev/full")
        self.assertEqual(done.status, 2)  # it is there already
        process = self.start("export", self.queue, "--take", "-o", "-", shell=" > /dev/full")
        self.assertIn(b"No space left on device", process.communicate(timeout=PATIENCE)[1])
        self.assertEqual(process.returncode, 1)
        self.assertEqual(self.items(), [b"a", b"b"])

    def test_sync(self) -> None:
        self.client.put_many(self.queue, [b"a", b"b"])
        self.well("export", self.queue, "--take", "--sync", "-o", str(self.path))
        self.assertEqual(self.read(self.path), [(self.queue, b"a"), (self.queue, b"b")])

    def test_wrong_usage(self) -> None:
        for text, *arguments in (
            ("name queues, or --all", "-o", "x"), ("name no queue", "q", "--all", "-o", "x"),
            ("--sync is for --take", "q", "--sync", "-o", "x"), ("cannot be gone on with", "q", "--resume", "-o", "-"),
            ("missing option", "q"), ("export without --take needs the admin HTTP", "q", "-o", "x"),
        ):  # fmt: skip
            self.fails(2, text, "export", *arguments)
        self.fails(1, "No such file", "export", "q", "--take", "--resume", "-o", str(self.path))
        self.path.write_bytes(b"something else altogether")
        self.fails(1, "no file of darner export", "export", "q", "--take", "--resume", "-o", str(self.path))


class CopyTests(FileTestCase):
    """``export`` of items that stay."""

    def setUp(self) -> None:
        super().setUp()
        self.admin = AdminHTTP(self)

    def export(self, *arguments: str) -> Done:
        return self.call("--http", self.admin.url, "export", "-o", str(self.path), *arguments)

    def test_states(self) -> None:
        """All that is there and not in somebody's hands, with what is known of it."""
        admin = self.admin
        for number in range(450):
            admin.put("jobs", b"%d" % number, flags=number)
        admin.put("jobs", b"L" * 3_000_000, expires=NOW + 5000)
        admin.put("jobs", b"again", "retrying")
        admin.put("jobs", b"later", "delayed", due=NOW + 9000)
        admin.put("jobs", b"busy", "open")
        admin.put("jobs", b"new", time=NOW + 1)
        admin.put("mail", b"\xff")
        done = self.export("--all")
        self.assertEqual((done.status, done.errors), (0, ""))
        found = self.read(self.path)
        self.assertEqual([payload for queue, payload in found[:450]], [b"%d" % number for number in range(450)])
        self.assertEqual(
            found[450:], [("jobs", b"L" * 3_000_000), ("jobs", b"again"), ("jobs", b"later"), ("mail", b"\xff")]
        )
        with self.path.open("rb") as file:
            records = [record for record, _ in Reader(file).records()]
        self.assertEqual((records[7].flags, records[450].expires, records[452].due), (7, NOW + 5000, NOW + 9000))
        self.assertEqual([record.state for record in records[450:]], ["ready", "retrying", "delayed", "ready"])

    def test_gone_meanwhile(self) -> None:
        """An item that is taken after its page was made is left out."""
        self.admin.gone.add(self.admin.put("jobs", b"x" * 5000))
        self.admin.put("jobs", b"y" * 5000)
        self.assertEqual(self.export("jobs").status, 0)
        self.assertEqual(self.read(self.path), [("jobs", b"y" * 5000)])

    def test_gone_on_with(self) -> None:
        """From wherever the file ends, it has each item once."""
        items: list[tuple[str, bytes]] = []
        for queue in ("jobs", "mail"):
            for state in ("ready", "delayed"):
                for _ in range(2):
                    items.append((queue, b"%d" % len(items)))
                    self.admin.put(*items[-1], state)
        self.assertEqual(self.export("jobs", "mail").status, 0)
        whole = self.path.read_bytes()
        self.assertEqual(self.read(self.path), items)
        for length in range(len(whole) - 1, len(whole) // 3, -83):
            self.path.write_bytes(whole[:length])
            done = self.export("jobs", "mail", "--resume")
            self.assertEqual((done.status, self.read(self.path)), (0, items), done)

    def test_other_queues(self) -> None:
        self.write((Record("jobs", 0, 1, id="0"), b"x"), end=False)
        done = self.export("mail", "--resume")
        self.assertEqual(done.status, 2)
        self.assertIn("name the same queues as before", done.errors)


class ImportTests(FileTestCase):
    def test_dry_run(self) -> None:
        self.write((Record("a", 0, 1), b"x"), (Record("b", 0, 2000), b"y" * 2000), (Record("a", 0, 1), b"z"))
        self.assertEqual(
            self.call("-s", "127.0.0.1:1", "import", "--dry-run", str(self.path)).text,
            "queue  items    bytes\n"
            "a          2      2 B\n"
            "b          1  2.0 KiB\n"
            f"{self.path} is whole: 3 items, 2.0 KiB\n",
        )
        facts = self.call("import", "--dry-run", "--json", str(self.path)).json
        self.assertEqual((facts["id"], facts["items"], facts["queues"]["a"]), ("0123", 3, {"items": 2, "bytes": 2}))

    def test_damaged(self) -> None:
        """What is before the damage is put, and it says how much that was."""
        self.write((Record(self.queue, 0, 1), b"x"), (Record(self.queue, 0, 1), b"y"))
        data = bytearray(self.path.read_bytes())
        data[data.index(b"y")] ^= 1
        self.path.write_bytes(data)
        self.fails(1, "a checksum is wrong, at byte ", "import", "--dry-run", str(self.path))
        self.fails(1, "a checksum is wrong, at byte ", "import", str(self.path))
        self.assertIn(self.items(), ([], [b"x"]))

    def test_expiry_and_delay(self) -> None:
        now = int(time.time() * 1000)
        self.write(
            (Record(self.queue, 0, 1, expires=now - 1), b"1"),
            (Record(self.queue, 0, 1, expires=now + 3_600_000), b"2"),
            (Record(self.queue, 0, 1, due=now - 1), b"3"),
            (Record(self.queue, 0, 1, due=now + 3_600_000), b"4"),
        )
        self.assertEqual(self.well("import", str(self.path)), "3 items put, 1 item left out as expired\n")
        self.assertEqual(self.client.stats().queues[self.queue].delayed, 1)
        self.assertEqual(self.items(), [b"2", b"3"])

    def test_queues(self) -> None:
        a, b = self.queue + "_a", self.queue + "_b"
        self.write((Record(a, 0, 1), b"1"), (Record(b, 0, 1), b"2"))
        self.well("import", str(self.path), "--queue", b)
        self.assertEqual((self.items(a), self.items(b)), ([], [b"2"]))
        self.well("import", str(self.path), "--to", self.queue)
        self.assertEqual(self.items(), [b"1", b"2"])

    def test_again(self) -> None:
        """It is known to be done; --restart does it once more."""
        self.write((Record(self.queue, 0, 1), b"1"))
        self.well("import", str(self.path))
        self.assertEqual(self.well("import", str(self.path)), "0 items put, and 1 item before\n")
        self.well("import", str(self.path), "--restart")
        self.assertEqual(self.items(), [b"1", b"1"])

    def test_cut_short_and_gone_on_with(self) -> None:
        """An import of which nobody knows the end goes on behind what it knows to be put."""
        queue = "full_" + self.queue
        self.write(*((Record(queue, 0, 1), b"%d" % number) for number in range(5)))
        self.fails(1, "put 2 items, and then: queue is full", "import", str(self.path))
        self.assertEqual(self.items(queue), [b"0", b"1"])
        self.fails(1, "put 2 items, and then: queue is full", "import", str(self.path))
        self.assertEqual(self.items(queue), [b"2", b"3"])
        self.assertEqual(self.well("import", str(self.path)), "1 item put, and 4 items before\n")
        self.assertEqual(self.items(queue), [b"4"])

    def test_a_queue_that_is_refused(self) -> None:
        """Nothing of those behind it is put, and so nothing is put twice when the import is tried again."""
        full, next_one = f"full_{self.queue}", self.queue + "_next"
        for _ in range(2):
            self.client.put(full, b"x")
        self.write((Record(self.queue, 0, 1), b"1"), (Record(full, 0, 1), b"2"), (Record(next_one, 0, 1), b"3"))
        self.fails(1, "put 1 item, and then: queue is full", "import", str(self.path))
        self.fails(1, "put 0 items, and then: queue is full", "import", str(self.path))
        self.assertEqual((self.items(), self.items(next_one)), ([b"1"], []))
        self.client.flush(full)
        self.assertEqual(self.well("import", str(self.path)), "2 items put, and 1 item before\n")
        self.assertEqual((self.items(), self.items(next_one)), ([], [b"3"]))

    def test_ids(self) -> None:
        """Where the queue knows ids, the same file puts nothing twice."""
        queue = "once_" + self.queue
        self.write((Record(queue, 0, 1), b"1"), (Record(queue, 0, 1), b"2"))
        for _ in range(2):
            self.well("import", str(self.path), "--restart")
        self.assertEqual(self.items(queue), [b"1", b"2"])

    def test_note_that_is_none(self) -> None:
        self.write((Record(self.queue, 0, 1), b"1"))
        note = self.path.with_name("file.imported")
        note.write_text("[]")
        self.fails(2, "remove it to begin anew", "import", str(self.path))
        note.write_text(json.dumps({"export": "another", "items": {self.address: 1}}))
        self.well("import", str(self.path))
        self.assertEqual(self.items(), [b"1"])

    def test_something_else(self) -> None:
        self.path.write_bytes(os.urandom(100))
        self.fails(1, "no file of darner export", "import", str(self.path))
        self.fails(1, "No such file", "import", str(self.path) + "x")
        self.fails(1, "no file of darner export", "import", "-", given=b"")

    def test_large(self) -> None:
        file = io.BytesIO()
        writer = Writer(file)
        writer.begin({})
        for letter in b"abc":
            writer.put(Record(self.queue, 0, 3_000_000), [bytes([letter]) * 3_000_000])
        writer.end()
        self.assertEqual(self.well("import", "-", given=file.getvalue()), "3 items put\n")
        self.assertEqual([item[:1] for item in self.items()], [b"a", b"b", b"c"])
