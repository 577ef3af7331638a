"""
L{darner.net.processors}: how many processors there are for this process.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from darner.net.processors import processors


class ProcessorsTests(SynchronousTestCase):
    """Of eight, by the files of control groups."""

    def setUp(self) -> None:
        self.patch(os, "sched_getaffinity", lambda _: set(range(8)))
        self.base = Path(self.mktemp()).absolute()
        self.groups = self.base / "groups"
        self.own = self.base / "own"
        (self.groups / "system.slice" / "darner.service").mkdir(parents=True)
        self.own.write_text("0::/system.slice/darner.service\n")

    def count(self) -> float:
        return processors(self.groups, self.own)

    def quota(self, group: str, text: str) -> None:
        (self.groups / group / "cpu.max").write_text(text)

    def test_no_quota(self) -> None:
        self.assertEqual(self.count(), 8)
        self.quota("system.slice", "max 100000\n")
        self.assertEqual(self.count(), 8)

    def test_quota(self) -> None:
        self.quota("system.slice/darner.service", "150000 100000\n")
        self.assertEqual(self.count(), 1.5)

    def test_the_smallest_quota_counts(self) -> None:
        self.quota("system.slice/darner.service", "400000 100000\n")
        self.quota("system.slice", "200000 100000\n")
        self.assertEqual(self.count(), 2)

    def test_in_a_container(self) -> None:
        """Its own group is the root that it sees."""
        self.own.write_text("0::/\n")
        self.quota("", "50000 100000\n")
        self.assertEqual(self.count(), 0.5)

    def test_older_groups(self) -> None:
        """Those of version 1 have lines of their own beside that of version 2, or alone."""
        self.own.write_text("4:cpu,cpuacct:/elsewhere\n1:name=systemd:/x\n0::/system.slice\n")
        self.quota("system.slice", "200000 100000\n")
        self.assertEqual(self.count(), 2)
        self.own.write_text("4:cpu,cpuacct:/elsewhere\n")
        self.assertEqual(self.count(), 8)

    def test_not_to_be_known(self) -> None:
        self.own.unlink()
        self.assertEqual(self.count(), 8)
        self.own.write_text("0::/../../outside\n")
        self.assertEqual(self.count(), 8)
        self.own.write_text("0::/\n")
        for text in "", "much\n", "1 0 0\n", "a b\n":
            self.quota("", text)
            self.assertEqual(self.count(), 8)

    def test_of_this_process(self) -> None:
        self.assertTrue(0 < processors() <= 8)
