"""
Tests of the wrong clocks of the torture of clusters.
"""

from __future__ import annotations

import subprocess
import sys
import time

from twisted.trial.unittest import SynchronousTestCase

from bench.cluster_clocks import Clocks
from test.servers import environment, make_directory

_TELL = """
import sys
from time import monotonic, time
for told in sys.stdin:
    print(time() - float(told), monotonic(), flush=True)
"""


class ClocksTests(SynchronousTestCase):
    """A process has the clock that it is given, and its monotonic clock is right."""

    def test_jumps(self) -> None:
        clocks = Clocks(make_directory(self))
        process = subprocess.Popen(
            [sys.executable, "-c", _TELL], env=clocks.environment("a", environment()), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.addCleanup(process.communicate)
        assert process.stdin is not None
        assert process.stdout is not None
        for by in (0, 3600, -3600):
            clocks.jump("a", by)
            began = time.monotonic()
            process.stdin.write(f"{time.time()}\n")
            process.stdin.flush()
            wrong, steady = map(float, process.stdout.readline().split())
            took = time.monotonic() - began
            self.assertTrue(by <= wrong <= by + took + 0.001, wrong)
            self.assertTrue(began <= steady <= began + took)
