"""
Tests of a node's disk that loses its power.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.cluster_power import PowerlessDisk, follows_from, kill_traced
from bench.syscalls import missing
from test.servers import make_directory

_WRITE = """
import os, sys
file = os.open(sys.argv[1] + "/file", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
os.write(file, b"synced;")
os.fsync(file)
directory = os.open(sys.argv[1], os.O_RDONLY)
os.fsync(directory)
os.write(file, b"not synced;")
print(flush=True)
sys.stdin.read()
"""


class PowerlessDiskTests(SynchronousTestCase):
    """What was synced is there after each loss of power, and what was not may be lost."""

    skip = missing() and f"what a process writes cannot be recorded: {missing()}"

    def test_lives(self) -> None:
        path = make_directory(self) / "node"
        disk = PowerlessDisk(path, path.parent)
        chance = random.Random(3)
        found = set()
        whole = b""
        for _ in range(8):
            self.live(disk, path)
            before = whole
            disk.lose_power(chance)
            whole = (path / "file").read_bytes()
            self.assertTrue(whole.startswith(before + b"synced;"), whole)
            found.add(whole[len(before) :].rstrip(b"\0"))
        self.assertLessEqual({b"synced;", b"synced;not synced;"}, found)

    def test_killed(self) -> None:
        """Without a loss of power nothing is lost, and it may come later."""
        path = make_directory(self) / "node"
        disk = PowerlessDisk(path, path.parent)
        for lives in (1, 2):
            self.live(disk, path)
            self.assertEqual((path / "file").read_bytes(), b"synced;not synced;" * lives)
        disk.lose_power(random.Random(1))
        self.assertTrue((path / "file").read_bytes().startswith(b"synced;not synced;synced;"))

    def live(self, disk: PowerlessDisk, path: Path) -> None:
        """Start a process that writes, and kill it."""
        command = disk.command([sys.executable, "-c", _WRITE, str(path)])
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as strace:
            assert strace.stdout is not None
            strace.stdout.readline()
            kill_traced(strace)

    def test_follows_from(self) -> None:
        self.assertEqual(follows_from("[x] cluster: node a follows from record 17 on\nmore"), 17)
        self.assertIsNone(follows_from("[x] starting"))
