"""
L{darner.commands.putting}: putting items, however they come.
"""

from __future__ import annotations

import subprocess

from test.commands.harness import ProgramTestCase, until
from test.servers import PATIENCE


class PutTests(ProgramTestCase):
    def test_items(self) -> None:
        self.assertEqual(self.well("put", self.queue, "one", "two three", ""), f"3 items put on {self.queue}\n")
        self.assertEqual(self.items(), [b"one", b"two three", b""])

    def test_bytes(self) -> None:
        """An argument that is no text is put as it is."""
        self.well("put", self.queue, b"\xff\xfe".decode("utf-8", "surrogateescape"))
        self.assertEqual(self.items(), [b"\xff\xfe"])

    def test_lines(self) -> None:
        """Of standard input, with either line end and without one at the end; an empty line is an empty item."""
        self.well("put", self.queue, "-", given=b"a\r\n\nb\nc")
        self.assertEqual(self.items(), [b"a", b"", b"b", b"c"])

    def test_no_lines(self) -> None:
        self.assertEqual(self.well("put", self.queue, "-"), "")

    def test_null(self) -> None:
        self.well("put", self.queue, "--null", "-", given=b"a\nb\r\0\0c\0")
        self.assertEqual(self.items(), [b"a\nb\r", b"", b"c"])

    def test_many_lines(self) -> None:
        """More than are sent at once, cut anywhere."""
        lines = [b"%d" % number * (number % 50) + b"." for number in range(5000)]
        done = self.call("put", self.queue, "-", "--json", given=b"\n".join(lines))
        self.assertEqual(done.json, {"queue": self.queue, "put": 5000})
        self.assertEqual(self.items(), lines)

    def test_lines_as_they_come(self) -> None:
        """A line is put when it is there, and not when more of them are."""
        process = self.start("put", self.queue, "-")
        assert process.stdin is not None
        for line in (b"first", b"second"):
            process.stdin.write(line + b"\n")
            process.stdin.flush()
            item = self.client.get(self.queue, timeout=PATIENCE)
            self.assertEqual(item.payload if item is not None else None, line)
        errors = process.communicate(timeout=PATIENCE)[1]
        self.assertEqual((process.returncode, errors), (0, b""))

    def test_interrupted(self) -> None:
        """What was read is put, and it says how much that was."""
        process = self.start("put", self.queue, "-")
        assert process.stdin is not None
        process.stdin.write(b"1\n2\n3")
        process.stdin.flush()
        until(lambda: self.client.stats().queues.get(self.queue), "two items are put")
        self.has_heard(process)
        process.send_signal(2)
        out, errors = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, errors), (130, b"darner: interrupted\n"))
        self.assertEqual(out.decode(), f"2 items put on {self.queue}\n")
        self.assertEqual(self.items(), [b"1", b"2"])

    def test_file(self) -> None:
        """A file is one item, of any size."""
        path = self.directory / "film"
        path.write_bytes(bytes(range(256)) * 4000)
        self.well("put", self.queue, "-f", str(path), "-f", str(path), "--flags", "7")
        for _ in range(2):
            item = self.client.get(self.queue)
            self.assertTrue(item is not None and item.payload == path.read_bytes() and item.flags == 7)

    def test_regular_file_as_standard_input(self) -> None:
        path = self.directory / "lines"
        path.write_bytes(b"a\nb\n")
        with path.open("rb") as file:
            process = self.start("put", self.queue, "-", stdin=file)
            process.communicate(timeout=PATIENCE)
        self.assertEqual(self.items(), [b"a", b"b"])

    def test_standard_input_as_one_item(self) -> None:
        self.well("put", self.queue, "-f", "-", given=b"a\nb\n")
        self.assertEqual(self.items(), [b"a\nb\n"])

    def test_options(self) -> None:
        self.well("put", self.queue, "late", "--delay", "3600", "--sync")
        self.well("put", self.queue, "soon gone", "--expiry", "3600", "--flags", "5")
        self.assertEqual(self.client.stats().queues[self.queue].delayed, 1)
        item = self.client.get(self.queue)
        self.assertTrue(item is not None and (item.payload, item.flags) == (b"soon gone", 5))

    def test_id(self) -> None:
        for _ in range(2):
            self.well("put", "once_" + self.queue, "x", "--id", "7")
        self.assertEqual(self.items("once_" + self.queue), [b"x"])
        self.fails(1, "has no dedupe_window", "put", self.queue, "x", "--id", "7")

    def test_quiet(self) -> None:
        self.assertEqual(self.well("put", self.queue, "x", "--quiet"), "")

    def test_refused(self) -> None:
        """It says how many were put before."""
        queue = "full_" + self.queue
        self.fails(1, "queue is full", "put", queue, *"1234")
        self.assertEqual(self.items(queue), [b"1", b"2"])
        done = self.fails(1, "put 2 items, and then: ", "put", queue, "-", given=b"1\n2\n3\n")
        self.assertEqual(done.text, f"2 items put on {queue}\n")

    def test_wrong_usage(self) -> None:
        for text, *arguments in (
            ("there is no item", "q"),
            ("--id is for one item", "q", "a", "b", "--id", "x"),
            ("--null is for items of standard input", "q", "a", "-0"),
            ("standard input can be read once", "q", "-", "-f", "-"),
            ("is not the name of a queue", "a b", "x"),
            ("-1 is not in the range", "q", "x", "--flags=-1"),
        ):
            self.fails(2, text, "put", *arguments)

    def test_no_file(self) -> None:
        self.fails(1, "No such file or directory", "put", self.queue, "-f", str(self.directory / "none"))
        self.fails(1, "is not a file", "put", self.queue, "-f", str(self.directory))

    def test_fleet(self) -> None:
        """Servers that are away are left out, and it says so."""
        done = self.call("-s", f"127.0.0.1:1,{self.address}", "put", self.queue, *map(str, range(20)))
        self.assertEqual(done.status, 0, done)
        self.assertEqual(done.errors, "darner: no connection to 127.0.0.1:1: Connection refused\n")
        self.assertEqual(len(self.items()), 20)


class PipeTests(ProgramTestCase):
    def test_nothing_is_drawn(self) -> None:
        """Neither progress nor colours where no terminal is."""
        process = self.start("put", self.queue, "-")
        out, errors = process.communicate(b"x\n" * 3000, timeout=PATIENCE)
        self.assertEqual((out.decode(), errors), (f"3,000 items put on {self.queue}\n", b""))

    def test_closed_output(self) -> None:
        """Nobody reads what it says: it is done all the same, and quiet."""
        process = self.start("put", self.queue, "x", shell=" | true", stdout=subprocess.DEVNULL)
        self.assertEqual(process.communicate(timeout=PATIENCE)[1], b"")
        self.assertEqual(self.items(), [b"x"])
