"""
Turnover: queues through which items pass cost next to nothing, whatever passes through them.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from bench import turnover
from bench.servers import Darner
from test.servers import ROOT

MORE: Final = 128 * 2**20
"""
Bytes on disk beyond what is promised for a long run: at 200 MB/s a machine puts some 50 MB more while what is to be
deleted is synced.  Without the deletion it is all that passes.
"""


class BoundsTests(SynchronousTestCase):
    """
    What holds for as long as one likes, for some seconds.

    Bytes are counted where the server gives them to the kernel: not every file system tells what reaches a disk.
    """

    def check(self, load: turnover.Load) -> turnover.Result:
        result = turnover.measure(load, Darner, 1.5)
        self.assertEqual(result.notes, [])
        self.assertLessEqual(result.disk.beyond, MORE)
        self.assertLessEqual(result.passed, turnover.WRITTEN)
        self.assertLess(result.disk.log + result.disk.manifest, 4_000_000)
        return result

    def test_small_items(self) -> None:
        self.check(turnover.Load("3 kB", 3000))

    def test_burst(self) -> None:
        self.check(turnover.Load("burst of 20 kB", 20_000, rate=5 * 2**20, burst=True))

    def test_many_queues_with_items_that_stay(self) -> None:
        self.check(turnover.Load("20 kB", 20_000, 300, held=True))

    def test_sets_and_gets_in_one_go(self) -> None:
        """What is read by the time it would be written is not written."""
        result = self.check(turnover.Load("20 kB", 20_000, together=True))
        self.assertLess(result.passed, 0.5)


class CommandTests(SynchronousTestCase):
    """C{python -m bench.turnover}."""

    def run_it(self, *arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "bench.turnover", *arguments],
            cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def test_table(self) -> None:
        """Each load has a line, and each bound is met or not."""
        status, out, err = self.run_it("--seconds=0.2", "--no-peers", "4 MB, one client", "burst of 200 B")
        self.assertIn(status, (0, 1), err)
        self.assertIn("\n4 MB, one client  darner  ", out)
        self.assertRegex(out, r"(met |MISS)  burst of 200 B: longest request: [\d.]+ ms \(at most 100 ms\)")

    def test_backlog(self) -> None:
        """It is put first, and comes out whole in the end."""
        status, _, err = self.run_it("--seconds=0.2", "--no-peers", "--backlog=0.002", "backlog of 200 B")
        self.assertIn(status, (0, 1), err)
        self.assertRegex(err, r"filling, .* for [1-9][\d.]* MiB\n")
        self.assertRegex(err, r"draining, .* for 0\.\d MiB\n")

    def test_unknown_load(self) -> None:
        status, _, err = self.run_it("a cup of tea")
        self.assertEqual(status, 2)
        self.assertIn("'a cup of tea' is none of '10 B'", err)

    def test_names(self) -> None:
        names = [load.name for load in turnover.LOADS]
        self.assertEqual(len(names), len(set(names)))
