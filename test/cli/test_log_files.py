"""Tests of `darner.cli.log_files`."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from twisted.python.logfile import BaseLogFile, LogFile
from twisted.trial.unittest import SynchronousTestCase

from darner.cli.log_files import open_without_umask


class LogFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(BaseLogFile, "_openFile", BaseLogFile._openFile)
        open_without_umask()
        self.path = Path(self.mktemp()).absolute()
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def mode(self) -> int:
        return stat.S_IMODE(self.path.stat().st_mode)

    def test_rotation_sets_no_umask(self) -> None:
        self.path.touch()
        self.path.chmod(0o640)
        log = LogFile.fromFullPath(str(self.path))
        self.addCleanup(log.close)
        log.write("one\n")

        def fails(_: int) -> int:
            raise AssertionError("the umask is the whole process's")

        self.patch(os, "umask", fails)
        log.rotate()
        log.write("two\n")
        self.assertEqual((self.path.read_text(), self.mode()), ("two\n", 0o640))
        self.assertEqual(Path(f"{self.path}.1").read_text(), "one\n")

    def test_appends(self) -> None:
        for _ in range(2):
            log = LogFile.fromFullPath(str(self.path))
            log.write("more\n")
            log.close()
        self.assertEqual(self.path.read_text(), "more\nmore\n")

    def test_no_file(self) -> None:
        self.patch(os, "chmod", lambda *_: os.stat("/nowhere"))
        log = BaseLogFile("null", "/dev", 0o600)
        log.close()
