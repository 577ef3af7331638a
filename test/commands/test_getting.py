"""
L{darner.commands.getting}: taking and showing items.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time

from test.commands.harness import ProgramTestCase, until
from test.servers import PATIENCE


class GetTests(ProgramTestCase):
    def put(self, *payloads: bytes, flags: int = 0) -> None:
        self.client.put_many(self.queue, payloads, flags=flags)

    def test_one(self) -> None:
        self.put(b"a", b"b")
        self.assertEqual(self.well("get", self.queue), "a\n")
        self.assertEqual(self.items(), [b"b"])

    def test_none(self) -> None:
        done = self.call("get", self.queue)
        self.assertEqual((done.status, done.out, done.errors), (3, b"", ""))

    def test_so_many(self) -> None:
        self.put(b"a", b"b", b"c")
        self.assertEqual(self.well("get", self.queue, "-n", "2"), "a\nb\n")
        self.assertEqual(self.well("get", self.queue, "-n", "2"), "c\n")

    def test_all(self) -> None:
        self.put(*(b"%d" % number for number in range(300)))
        self.assertEqual(self.well("get", self.queue, "--all").split(), [str(number) for number in range(300)])
        self.assertEqual(self.items(), [])

    def test_null_and_raw(self) -> None:
        self.put(b"a\nb", b"\xff\0", b"c\n", b"d")
        self.assertEqual(self.call("get", self.queue, "-0", "-n", "2").out, b"a\nb\0\xff\0\0")
        self.assertEqual(self.call("get", self.queue, "--raw", "-a").out, b"c\nd")

    def test_json(self) -> None:
        """A payload that is no text is there in base64."""
        self.put("ä".encode(), flags=3)
        self.put(b"\xff")
        done = self.call("get", self.queue, "--all", "--json")
        first, second = done.text.splitlines()
        self.assertEqual(
            self.call("--json", "get", self.queue).status, 3, "the option stands before the command as well"
        )
        self.assertEqual(
            first,
            f'{{"queue": "{self.queue}", "flags": 3, "server": "{self.address}", "payload": "ä"}}',
        )
        self.assertIn('"payload_base64": "/w=="', second)

    def test_several_queues(self) -> None:
        """The first that has any."""
        self.put(b"normal", b"normal too")
        self.client.put(self.queue + "_urgent", b"urgent")
        self.assertEqual(self.well("get", self.queue + "_urgent", self.queue, "-n", "2"), "urgent\nnormal\n")

    def test_wait(self) -> None:
        putting = threading.Timer(0.2, self.put, (b"late",))
        putting.start()
        self.addCleanup(putting.join)
        self.assertEqual(self.well("get", self.queue, "--wait", str(PATIENCE)), "late\n")
        self.assertEqual(self.call("get", self.queue, "--wait", "0.05").status, 3)

    def test_flags_are_kept(self) -> None:
        self.put(b"x", flags=9)
        self.assertEqual(self.call("get", self.queue, "--json").json["flags"], 9)

    def test_to_file(self) -> None:
        payload = bytes(range(256)) * 4000
        self.put(payload)
        path = self.directory / "film"
        self.assertEqual(self.well("get", self.queue, "-o", str(path)), "")
        self.assertEqual(path.read_bytes(), payload)
        path.unlink()
        self.client.put(self.queue, payload, flags=1)
        facts = self.call("get", self.queue, "-o", str(path), "--json").json
        self.assertEqual(facts, {"queue": self.queue, "flags": 1, "size": len(payload), "file": str(path)})
        self.assertEqual(self.call("get", self.queue, "-o", str(self.directory / "none"), "-w", "0.01").status, 3)
        self.assertEqual(self.call("get", self.queue, "-o", str(self.directory / "none")).status, 3)
        self.assertEqual([file.name for file in self.directory.iterdir()], ["film"])

    def test_to_file_that_cannot_be(self) -> None:
        self.put(b"x")
        self.fails(1, "No such file or directory", "get", self.queue, "-o", str(self.directory / "none" / "film"))
        (self.directory / "film.part").touch()
        self.fails(2, "is there already", "get", self.queue, "-o", str(self.directory / "film"))
        self.assertEqual(self.items(), [b"x"])

    def test_wrong_usage(self) -> None:
        for text, *arguments in (
            ("exclude each other", "q", "-n", "1", "--all"),
            ("without --wait", "q", "--follow", "--wait", "1"),
            ("--exec writes nothing itself", "q", "--exec", "true", "--raw"),
            ("--output is for one item", "q", "-o", "x", "--all"),
            ("missing argument", *()),
        ):
            self.fails(2, text, "get", *arguments)

    def test_unreachable(self) -> None:
        done = self.call("-s", "127.0.0.1:1", "get", "q")
        self.assertEqual((done.status, done.errors), (4, "darner: no connection to 127.0.0.1:1: Connection refused\n"))

    def test_fleet(self) -> None:
        self.put(b"x")
        done = self.call("-s", f"{self.address},127.0.0.1:1", "get", self.queue)
        self.assertEqual((done.status, done.out), (0, b"x\n"))

    def test_peek(self) -> None:
        self.assertEqual(self.call("peek", self.queue).status, 3)
        self.put(b"a", b"b", flags=1)
        self.assertEqual(self.well("peek", self.queue), "a\n")
        self.assertEqual(self.well("peek", self.queue, "--raw"), "a")
        facts = {"queue": self.queue, "flags": 1, "server": self.address, "payload": "a"}
        self.assertEqual(self.call("peek", self.queue, "--json").json, facts)
        self.assertEqual(self.call("-s", f"127.0.0.1:1,{self.address}", "peek", self.queue).out, b"a\n")
        self.assertEqual(self.items(), [b"a", b"b"])


class PipeTests(ProgramTestCase):
    """What scripts do with it."""

    def test_follow(self) -> None:
        """Items come as they are put, until it is interrupted, which takes none away."""
        process = self.start("get", self.queue, "--follow")
        assert process.stdout is not None
        for line in (b"first", b"second"):
            self.client.put(self.queue, line)
            self.assertEqual(process.stdout.readline(), line + b"\n")
            until(lambda: self.client.stats().queues[self.queue].open_transactions == 0, "it is done with")
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, out, errors), (130, b"", b"darner: interrupted\n"))
        self.client.put(self.queue, b"third")
        self.assertEqual(self.items(), [b"third"])

    def test_terminated(self) -> None:
        process = self.start("get", self.queue, "--follow")
        until(lambda: self.client.stats().figures.get(f"queue_{self.queue}_waiters") == "1", "it waits")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.communicate(timeout=PATIENCE), (b"", b""))
        self.assertEqual(process.returncode, 143)

    def test_nobody_reads(self) -> None:
        """What could not be written goes back, in its place; nothing is said of it."""
        self.client.put_many(self.queue, [b"%d" % number + b"." * 70_000 for number in range(20)])
        process = self.start("get", self.queue, "--all", shell=" | head -c 1", stderr=subprocess.PIPE)
        out, errors = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, out, errors), (141, b"0", b""))
        left = self.items()
        self.assertGreater(len(left), 10)
        self.assertEqual([item.split(b".")[0] for item in left], [b"%d" % n for n in range(20 - len(left), 20)])

    def test_interrupted_while_nobody_reads(self) -> None:
        """It ends where it blocks, and gives back what it could not write."""
        self.client.put(self.queue, b"x" * 1_000_000)
        process = self.start("get", self.queue)
        until(lambda: self.client.stats().queues[self.queue].open_transactions, "it writes")
        time.sleep(0.1)  # whether it blocks by now or not, it ends
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(PATIENCE), 130)
        until(lambda: self.client.stats().queues[self.queue].items == 1, "the item is back")

    def test_help_that_nobody_reads(self) -> None:
        process = self.start("--help", shell=" | true")
        self.assertEqual(process.communicate(timeout=PATIENCE)[1], b"")
        self.assertIn(process.returncode, (0, 141))
