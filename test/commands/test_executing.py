"""
L{darner.commands.executing}: a shell command as a worker.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from test.commands.harness import ProgramTestCase, program_on_path, until
from test.servers import PATIENCE


class ExecuteTests(ProgramTestCase):
    def put(self, *payloads: bytes, flags: int = 0) -> None:
        self.client.put_many(self.queue, payloads, flags=flags)

    def file(self, name: str) -> Path:
        return self.directory / name

    def execute(self, command: str, *options: str, status: int = 0, **variables: str) -> str:
        """@return: what it said."""
        done = self.call("get", self.queue, "--exec", command, *options, **variables)
        self.assertEqual(done.status, status, done)
        return done.text + done.errors

    def open_reads(self) -> int:
        return self.client.stats().queues[self.queue].open_transactions

    def test_items(self) -> None:
        """Each is the standard input of the command, which knows where it comes from."""
        self.put(b"one\n", b"two\n", b"three\n", flags=4)
        out = self.file("out")
        self.execute(f"cat >> {out}; echo $DARNER_QUEUE $DARNER_FLAGS $DARNER_SERVER >> {out}", "-n", "2")
        facts = f"{self.queue} 4 {self.address}\n"
        self.assertEqual(out.read_text(), f"one\n{facts}two\n{facts}")
        self.assertEqual(self.items(), [b"three\n"])

    def test_none(self) -> None:
        self.assertEqual(self.execute("true", status=3), "")

    def test_failing(self) -> None:
        """Its exit status says that the item is not done with: it goes back, ahead of the others."""
        self.put(b"one", b"two")
        said = self.execute("exit 3", status=1)
        reason = f"darner: exit 3: exit status 3; an item of {self.queue} is given back\n"
        self.assertEqual(said, "0 done, 1 given back\n" + reason)
        self.assertEqual(self.items(), [b"one", b"two"])

    def test_killed(self) -> None:
        self.put(b"one")
        self.assertIn("ended by SIGKILL", self.execute("kill -9 $$", status=1))
        self.assertEqual(self.items(), [b"one"])

    def test_until_it_goes_well(self) -> None:
        """An item that failed comes again, after a pause."""
        self.put(b"one")
        tried = self.file("tried")
        said = self.execute(f"test -e {tried} || {{ touch {tried}; exit 1; }}", "-n", "2", status=1)
        self.assertIn("1 done, 1 given back", said)
        self.assertEqual(self.items(), [])

    def test_large(self) -> None:
        self.put(b"x" * 3_000_000)
        self.execute(f"wc -c > {self.file('out')}")
        self.assertEqual(self.file("out").read_text().strip(), "3000000")

    def test_input_that_is_not_read(self) -> None:
        self.put(b"x" * 3_000_000)
        self.assertEqual(self.execute("true"), "1 done\n")

    def test_concurrency(self) -> None:
        """So many run at a time: each waits for the other two."""
        self.put(b"a", b"b", b"c")
        command = (
            f"i=$(cat); touch {self.directory}/$i; "
            f"for _ in $(seq 600); do test $(ls {self.directory} | wc -l) = 3 && exit 0; sleep 0.05; done; exit 1"
        )
        self.assertEqual(self.execute(command, "--all", "-c", "3"), "3 done\n")

    def test_json(self) -> None:
        self.put(b"a")
        done = self.call("get", self.queue, "-x", "true", "--json")
        self.assertEqual(done.json, {"done": 1, "given_back": 0})

    def assertKept(self, arguments: Callable[[int], Sequence[str]], **options: Any) -> None:
        """
        The command ends longer after its item was opened than the open_timeout, and the item is still its.

        @param arguments: by the seconds of the open_timeout.
        """
        for queues, seconds in (("timed", 2), ("timed", 2), ("timed8", 8), ("timed20", 20)):
            queue = f"{queues}_{self.queue}"
            self.client.put(queue, b"slow")
            process = self.start("get", queue, *arguments(seconds), **options)
            out, errors = process.communicate(timeout=4 * PATIENCE)
            if not self.items(queue):
                self.assertEqual((process.returncode, out), (0, b"1 done\n"), errors)
                return
            # Whoever is to ask for more time may stand still for as long, and then it is given back.
        self.fail("the item was given back each time")

    def test_touch(self) -> None:
        """The command asks for more time."""
        command = "for _ in $(seq {}); do sleep 0.5; darner touch -q || exit 1; done"
        with program_on_path(self.directory) as path:
            self.assertKept(lambda seconds: ("-x", command.format(3 * seconds)), variables={"PATH": path})

    def test_heartbeat(self) -> None:
        """The worker asks for more time by itself."""
        self.assertKept(lambda seconds: ("--heartbeat", "0.3", "-x", f"sleep {1.5 * seconds}"))

    def test_no_heartbeat(self) -> None:
        """Nobody asks for more time: the item is somebody else's while the command still runs."""
        queue = "timed_" + self.queue
        self.client.put(queue, b"slow")
        begun, taken = self.file("begun"), self.file("taken")
        process = self.start("get", queue, "-x", f"touch {begun}; while ! test -e {taken}; do sleep 0.05; done")
        until(begun.exists, "the command runs")
        item = self.client.get(queue, timeout=PATIENCE)
        self.assertEqual(item.payload if item is not None else None, b"slow")
        self.assertIsNone(process.poll())
        taken.touch()
        process.communicate(timeout=PATIENCE)

    def test_touch_too_late(self) -> None:
        """It is told that the item is somebody else's by now."""
        queue = "timed_" + self.queue
        self.client.put(queue, b"slow")
        begun, taken = self.file("begun"), self.file("taken")
        wait = f"touch {begun}; while ! test -e {taken}; do sleep 0.05; done"
        command = f"{wait}; darner touch; echo $? > {self.file('status')}"
        with program_on_path(self.directory) as path:
            process = self.start("get", queue, "-x", command, variables={"PATH": path})
            until(begun.exists, "the command runs")
            item = self.client.get(queue, timeout=PATIENCE)
            self.assertEqual(item.payload if item is not None else None, b"slow")
            taken.touch()
            out, errors = process.communicate(timeout=PATIENCE)
        self.assertEqual(self.file("status").read_text(), "3\n")
        self.assertIn(b"was given back before it was closed", errors)
        self.assertEqual((process.returncode, out), (1, b"0 done, 1 given back\n"))

    def test_touch_elsewhere(self) -> None:
        self.fails(1, "touch is for commands that darner get --exec runs", "touch")
        done = self.call("touch", DARNER_TOUCH_SOCKET=str(self.file("none")))
        self.assertEqual(done.status, 1)
        self.assertIn("the worker does not answer", done.errors)

    def test_interrupted(self) -> None:
        """The terminal's signal ends the command as well; the item goes back."""
        self.put(b"one", b"two")
        process = self.start("get", self.queue, "--follow", "-x", f"touch {self.file('begun')}; exec sleep 60")
        until(self.file("begun").exists, "the command runs")
        os.killpg(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, out), (130, b"0 done, 1 given back\n"), errors)
        self.assertEqual(self.items(), [b"one", b"two"])

    def test_stopped(self) -> None:
        """What runs may end, and is done with; nothing more is begun."""
        self.put(b"one", b"two")
        command = f"touch {self.file('begun')}; while ! test -e {self.file('go')}; do sleep 0.05; done"
        process = self.start("get", self.queue, "--follow", "-x", command)
        until(self.file("begun").exists, "the command runs")
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        self.assertEqual(process.stderr.readline(), b"darner: stopping, when what runs has ended or after 30 s\n")
        self.file("go").touch()
        out, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, out), (143, b"1 done\n"))
        self.assertEqual(self.items(), [b"two"])

    def test_stopped_without_grace(self) -> None:
        self.put(b"one")
        command = f"touch {self.file('begun')}; exec sleep 60"
        process = self.start("get", self.queue, "--follow", "--grace", "0", "-x", command)
        until(self.file("begun").exists, "the command runs")
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, out), (143, b"0 done, 1 given back\n"))
        self.assertEqual(self.items(), [b"one"])

    def test_stopped_while_it_waits(self) -> None:
        """There is nothing to be given time for."""
        process = self.start("get", self.queue, "--follow", "--grace", "3600", "-x", "true")
        until(lambda: self.client.stats().figures.get(f"queue_{self.queue}_waiters") == "1", "it waits")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.communicate(timeout=PATIENCE), (b"", b""))
        self.assertEqual(process.returncode, 143)
