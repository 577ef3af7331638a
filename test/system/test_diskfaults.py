"""
Failing and full disks, with real processes.

C{python -m bench.diskfaults} lets every call fail; here it is a sample.
"""

from __future__ import annotations

import random
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Optional

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from bench.diskfaults import CALLS, Fault, differs, faults, run
from bench.powerloss import open_queues, payload, scratch
from bench.syscalls import attach, missing
from test.harness import Asker
from test.servers import FOREGROUND, ROOT, Client, Server, make_directory, until

MIB = 1024 * 1024
ON_A_SMALL_DISK = (
    "unshare", "--mount", "sh", "-c", 'mkdir data && mount -t tmpfs -o size=48m none data && exec "$@"', "sh",
)  # fmt: skip
"""Runs a program with a disk of its own for its data directory."""


def cannot_mount() -> Optional[str]:
    """@return: why there can be no small disk here; C{None} where there can."""
    probe = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False
    )
    return f"no small disk can be mounted here: {probe.stderr.strip()}" if probe.returncode else None


class FaultTests(SynchronousTestCase):
    """Calls to the files of the database fail, once, for a while and for ever."""

    skip = missing() and f"calls cannot be made to fail: {missing()}"

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="darner-diskfaults-", dir=scratch()))
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)

    def test_sample(self) -> None:
        plain = run(self.directory, None)
        self.assertEqual((plain.fault, plain.errors, plain.recovered), ("", {}, True))
        self.assertGreater(plain.calls["write"], 100)
        every = list(faults(plain.calls))
        chance = random.Random(1)
        told = 0
        for call in CALLS:
            if not plain.calls[call]:
                continue  # there are two names for making a link
            for lasting in (6, 0) if call in ("write", "fdatasync", "openat", "unlink", "fallocate") else (1,):
                fault = chance.choice([one for one in every if (one.call, one.lasting) == (call, lasting)])
                outcome = run(self.directory, fault)
                self.assertEqual(outcome.fault, "", str(fault))
                self.assertTrue(outcome.recovered or not fault.lasting, str(fault))
                told += bool(outcome.errors)
        self.assertGreater(told, 3)


SERVED = ("openat", "unlink", "rename", "fallocate", "fsync", "fdatasync", "link,linkat", "statfs,fstatfs", "mkdir")
"""Calls that fail for good while clients are served."""


class ServedTests(SynchronousTestCase):
    """A server whose disk fails for good still answers, and stops when it is told to."""

    skip = missing() and f"calls cannot be made to fail: {missing()}"

    def serve(self, server: Server, clients: list[Client]) -> None:
        """
        Send all kinds of requests.  Those that need the disk are refused, and every request is answered.
        """
        for _ in range(3):
            for client in clients:
                client.send_set(b"q", bytes(70_000))
                client.send_set(b"q/sync", b"synced")
                client.send(b"get q\r\nversion\r\n")
            for client in clients:
                for _set in range(2):
                    self.assertIn(client.line()[:12], (b"STORED", b"SERVER_ERROR"))
                line = client.line()
                if line.startswith(b"VALUE"):
                    self.assertEqual(len(client.read(int(line.split()[3]) + 2)), int(line.split()[3]) + 2)
                    self.assertEqual(client.line(), b"END")
                else:
                    self.assertIn(line[:12], (b"END", b"SERVER_ERROR"))
                self.assertEqual(client.line()[:8], b"VERSION ")
        with server.client() as late:
            self.assertEqual(late.ask(b"version")[:8], b"VERSION ")

    def test_served_meanwhile_and_stopped(self) -> None:
        for calls in SERVED:
            self.check(calls)

    def check(self, calls: str) -> None:
        server = Server(self)
        clients = [server.client() for _ in range(3)]
        for number in range(20):
            self.assertEqual(clients[0].set(b"q", b"%d" % number), b"STORED")
        for error in ("EIO", "EROFS"):
            strace = attach(server.pid, server.directory / "trace", calls, ["-e", f"inject={calls}:error={error}"])
            self.serve(server, clients)
            if error == "EIO":
                strace.terminate()
                strace.wait()
                until(lambda: clients[0].set(b"q", b"x") == b"STORED", f"sets after a time without {calls}")
        self.assertEqual(server.stop(), 0, calls)
        strace.wait()
        for client in clients:
            client.close()
        for name in ("Unhandled", "internal error"):
            self.assertNotIn(name, server.text, calls)

    def test_no_file_grows_any_more(self) -> None:
        """Every write to a file is refused, also to the log."""
        server = Server(self)
        clients = [server.client() for _ in range(3)]
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        self.serve(server, clients)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        until(lambda: clients[0].set(b"q", b"x") == b"STORED", "sets once files may grow again")
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        self.serve(server, clients)
        self.assertEqual(server.stop(), 0)
        for client in clients:
            client.close()


class CheckTests(SynchronousTestCase):
    """Faults that the runs above would detect."""

    def test_spelling(self) -> None:
        self.assertEqual(Fault("write", "EIO", 3, 0).option, "inject=write:error=EIO:when=3+")
        self.assertEqual(Fault("write", "EIO", 3, 6).option, "inject=write:error=EIO:when=3..8")
        self.assertEqual(str(Fault("write", "EIO", 3, 6)), "write 3 to 8: EIO")

    def test_differences(self) -> None:
        path = Path(self.mktemp())
        clock = Clock()
        queues = open_queues(path, clock)
        for number in (1, 2):
            Asker(queues).put(b"a", payload(number, 20))
        Asker(queues).put(b"b", b"00000003 garbled")
        clock.advance(0)
        queues.store.close()

        def check(items: list[int], unclear: list[int], more: list[int]) -> str:
            queues = {"a": [items, unclear], "b": [more, []]}
            return differs(path, {"queues": queues, "sizes": {"1": 20, "2": 20, "3": 16}})

        self.assertIn("garbled", check([1, 2], [], [3]))
        queues = open_queues(path, clock)
        queues.forget(b"b")
        clock.advance(0)
        queues.store.close()
        self.assertEqual(check([1, 2], [], []), "")
        self.assertEqual(check([1], [2], []), "")
        self.assertEqual(check([1, 2], [4], []), "")
        for items, more in (([1], []), ([2, 1], []), ([1, 2, 4], []), ([1, 2], [3])):
            self.assertIn("holds", check(items, [], more))


class MemoryTests(SynchronousTestCase):
    """A disk that refuses all writes, and clients that keep sending large items."""

    def test_bounded(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "bench.diskfaults", "--bounded", str(make_directory(self) / "data")],
            cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        sizes = [int(size) for size in done.stdout.split()]
        self.assertEqual(len(sizes), 16)
        # 80 MB were refused in between.
        self.assertLess(sizes[-1], sizes[7] + 16 * MIB)


class SmallDiskTests(SynchronousTestCase):
    """A server on a disk of 48 MiB."""

    skip = cannot_mount()

    def start(self, *options: str) -> Client:
        directory = make_directory(self)
        server = Server(
            self, "--port=0", f"--data-dir={directory / 'data'}", *options,
            program=(*ON_A_SMALL_DISK, *FOREGROUND), directory=directory,
        )  # fmt: skip
        client = server.client()
        self.addCleanup(client.close)
        return client

    def fill(self, client: Client) -> tuple[int, bytes]:
        """@return: how many items were taken, and what was said of the first that was not."""
        for number in range(1000):
            reply = client.set(b"q", b"%08d" % number + bytes(100_000))
            if reply != b"STORED":
                return number, reply
        raise AssertionError("the disk is not full")

    def drain(self, client: Client, count: int) -> None:
        for number in range(count):
            self.assertEqual((client.get(b"q") or b"")[:8], b"%08d" % number)
        self.assertIsNone(client.get(b"q"))

    def until_stored(self, client: Client) -> None:
        until(lambda: client.set(b"q", bytes(100_000)) == b"STORED", "a set that works")
        self.assertEqual(client.stats()[b"store_writable"], b"1")

    def test_almost_full(self) -> None:
        client = self.start("--min-free-bytes=20MiB")
        count, reply = self.fill(client)
        self.assertGreater(count, 50)
        self.assertEqual(reply[:30], b"SERVER_ERROR disk almost full:")
        self.assertEqual(client.stats()[b"store_writable"], b"0")
        self.assertEqual(client.stats()[b"store_refuses"], reply[13:])
        self.drain(client, count)
        self.until_stored(client)

    def test_full(self) -> None:
        client = self.start("--min-free-bytes=0")
        count, reply = self.fill(client)
        self.assertEqual(reply, b"SERVER_ERROR cannot write: No space left on device")
        self.drain(client, count)
        self.until_stored(client)

    def test_in_the_middle_of_a_large_item(self) -> None:
        for options in (("--min-free-bytes=20MiB",), ("--min-free-bytes=0",)):
            client = self.start(*options)
            client.send_set(b"q", bytes(60 * MIB))
            self.assertEqual(client.line()[:13], b"SERVER_ERROR ")
            self.assertEqual(client.ask(b"get q"), b"END")
            self.until_stored(client)
