"""Tests of `darner.cli.log_pipe`."""

from __future__ import annotations

import fcntl
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

from twisted.application.service import Application, IService
from twisted.logger import ILogObserver
from twisted.python.logfile import BaseLogFile
from twisted.scripts.twistd import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from darner.cli.log_pipe import LINE_OVERHEAD, PatientFile, log_observer
from darner.cli.plugin import Options, makeService
from test.servers import PATIENCE, until

LINE = "a line of the log\n"
ROOM = len(LINE) + LINE_OVERHEAD


class PipeTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.reader, self.writer = os.pipe()
        self.addCleanup(os.close, self.writer)
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)
        self.open = True
        self.addCleanup(self.close_reader)

    def close_reader(self) -> None:
        if self.open:
            self.open = False
            os.close(self.reader)

    def read_until(self, end: bytes) -> bytes:
        """@return: all that is read up to this."""
        said = b""
        while not said.endswith(end):
            said += os.read(self.reader, 65536)
        return said


class PatientFileTests(PipeTestCase):
    def test_lines(self) -> None:
        """They come in order, and the end waits for the last one."""
        file = PatientFile(self.writer)
        for number in range(20):
            file.write(f"{number}: \xe9\ud800\n")
            file.flush()
        file.close(PATIENCE)
        expected = b"".join(b"%d: \xc3\xa9\\ud800\n" % number for number in range(20))
        self.assertEqual(os.read(self.reader, 65536), expected)

    def test_nobody_reads(self) -> None:
        """What is held is bounded, and what is lost is counted where it is missing."""
        full = b"x" * 4095 + b"\n"
        self.assertEqual(os.write(self.writer, full), len(full))
        file = PatientFile(self.writer, 100 * ROOM)
        for _ in range(1000):
            file.write(LINE)
            self.assertLessEqual(file._size, 100 * ROOM)
        file.close(0.01)
        said = self.read_until(b"nobody has read it\n").removeprefix(full)
        *lines, last = said.decode().splitlines(keepends=True)
        self.assertEqual(lines, [LINE] * 100)
        lost = re.search(r" \[darner\.cli\.log_pipe#warn\] ([0-9]+) lines of the log are lost: ", last)
        assert lost is not None
        self.assertEqual(len(lines) + int(lost[1]), 1000)
        file.write("on\n")
        self.assertEqual(self.read_until(b"on\n"), b"on\n")
        file.close()

    def test_closed_pipe(self) -> None:
        """Nobody will ever read it: nothing is kept for that."""
        self.close_reader()
        file = PatientFile(self.writer)
        file.write(LINE)
        until(lambda: file._broken, "the end of the pipe")
        file.write(LINE)
        self.assertFalse(file._lines)
        file.close()

    def test_closed_while_it_is_full(self) -> None:
        file = PatientFile(self.writer)
        for _ in range(1000):
            file.write(LINE)
        self.close_reader()
        file.close(PATIENCE)
        self.assertTrue(file._broken)

    def test_not_blocking(self) -> None:
        """Whoever started the process may have set it so."""
        os.set_blocking(self.writer, False)
        file = PatientFile(self.writer)
        for _ in range(1000):
            file.write(LINE)
        file.write("end\n")
        self.assertEqual(self.read_until(b"end\n"), (LINE * 1000 + "end\n").encode())
        file.close()


class LogObserverTests(PipeTestCase):
    def options(self, *arguments: str) -> ServerOptions:
        options = ServerOptions()
        options.parseOptions([*arguments, "darner"])
        return options

    def stdout(self) -> Any:
        return os.fdopen(os.dup(self.writer), "w")

    def test_where_it_writes(self) -> None:
        with self.stdout() as stdout:
            observer = log_observer(self.options("--nodaemon"), stdout)
        assert observer is not None
        self.assertTrue(ILogObserver.providedBy(observer))

    def test_not_where_twistd_logs_elsewhere(self) -> None:
        with self.stdout() as stdout:
            for arguments in (
                (), ("--nodaemon", "--logfile=log"), ("--nodaemon", "--syslog"),
                ("--nodaemon", "--logger=twisted.logger.textFileLogObserver"),
            ):  # fmt: skip
                self.assertIsNone(log_observer(self.options(*arguments), stdout), arguments)
            self.assertIsNotNone(log_observer(self.options("--nodaemon", "--logfile=-"), stdout))

    def test_not_to_a_file(self) -> None:
        options = self.options("--nodaemon")
        with Path(self.mktemp()).open("w") as file:
            self.assertIsNone(log_observer(options, file))
        self.assertIsNone(log_observer(options, None))
        self.assertIsNone(log_observer(options, io.StringIO()))

    def test_plugin(self) -> None:
        """It is what twistd takes for its log."""
        self.patch(BaseLogFile, "_openFile", BaseLogFile._openFile)
        for parent, logs in ((self.options("--nodaemon"), True), (None, False)):
            options = Options()
            options.parseOptions([f"--data-dir={self.mktemp()}", "--listen=tcp:0"])
            options.parent = parent
            with self.stdout() as stdout:
                self.patch(sys, "stdout", stdout)
                server = makeService(options)
            application = Application("darner")
            server.setServiceParent(application)
            self.assertEqual(application.getComponent(ILogObserver, None) is not None, logs)
            self.assertIn(server, list(IService(application)))  # type: ignore[call-overload]
