"""
Running the program ``darner``: in this process, which is fast, and as a person or a script does, at a terminal or in
pipes.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional
from unittest import mock

import pyte
from twisted.trial.unittest import SynchronousTestCase

from darner.client.blocking import Client
from darner.commands.entry import main
from test.servers import PATIENCE, ROOT, Server, lasting, make_directory, until

QUEUES = """
[queues."full_*"]
max_items = 2

[queues."once_*"]
dedupe_window = "1h"

[queues."timed_*"]
open_timeout = "2s"

[queues."timed8_*"]
open_timeout = "8s"

[queues."timed20_*"]
open_timeout = "20s"
"""
"""The settings of the server that tests share."""

PROGRAM = (sys.executable, "-m", "darner.commands.entry")

DEFAULTS = {"HOME": "/nonexistent", "DARNER_TIMEOUT": str(PATIENCE)}
"""Of the environment, in place of what this machine's user has set: a server is given time to answer."""


def environment(**more: str) -> dict[str, str]:
    """@return: that of a process of its own, without what this machine's user has set."""
    return {
        "PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "TERM": "xterm", "LC_ALL": "C.UTF-8", "PYTHONUNBUFFERED": "1",
        **DEFAULTS, **more,
    }  # fmt: skip


class Done:
    """
    A run that is over.

    @ivar status: its exit status.
    """

    def __init__(self, status: int, out: bytes, errors: str) -> None:
        self.status = status
        self.out = out
        self.errors = errors

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def __repr__(self) -> str:
        return f"<{self.status}: {self.out!r}, {self.errors!r}>"


def call(*arguments: str, given: bytes = b"", **variables: str) -> Done:
    """
    Run it in this process, with its output in pipes.

    @param given: its standard input.
    @param variables: of its environment.
    """
    out, errors = io.BytesIO(), io.BytesIO()
    streams = {
        name: io.TextIOWrapper(stream, "utf-8")
        for name, stream in (("stdin", io.BytesIO(given)), ("stdout", out), ("stderr", errors))
    }
    with contextlib.ExitStack() as stack:
        for name, stream in streams.items():
            stack.enter_context(mock.patch.object(sys, name, stream))
        stack.enter_context(mock.patch.dict(os.environ, {**DEFAULTS, **variables}))
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code  # type: ignore[assignment]
        streams["stdout"].flush()
        streams["stderr"].flush()
    return Done(status, out.getvalue(), errors.getvalue().decode())


@functools.cache
def shared_server() -> Server:
    """@return: a server that all tests of this process share."""
    directory = make_directory(lasting)
    (directory / "darner.toml").write_text(QUEUES)
    return Server(
        lasting, "--port=0", f"--data-dir={directory}/data", f"--config={directory}/darner.toml",
        directory=directory,
    )  # fmt: skip


class ProgramTestCase(SynchronousTestCase):
    """
    Tests of commands with a server that all share; each has a queue of its own.

    @ivar address: of the server.
    @ivar client: a client of it.
    """

    def setUp(self) -> None:
        self.server = shared_server()
        self.addCleanup(self.server.check_log)
        self.address = "{}:{}".format(*self.server.address)
        self.directory = make_directory(self)
        self.client = Client(self.address, timeout=PATIENCE)
        self.addCleanup(self.client.close)
        self.queue = "_".join(self.id().split(".")[-2:])

    def call(self, *arguments: str, given: bytes = b"", **variables: str) -> Done:
        """Run the program on this server."""
        return call("--servers", self.address, *arguments, given=given, **variables)

    def well(self, *arguments: str, given: bytes = b"") -> str:
        """@return: what it wrote; it ended well, and said nothing on standard error."""
        done = self.call(*arguments, given=given)
        self.assertEqual((done.status, done.errors), (0, ""), done)
        return done.text

    def fails(self, status: int, text: str, *arguments: str, given: bytes = b"") -> Done:
        """It says so, in one line, and ends with this status."""
        done = self.call(*arguments, given=given)
        self.assertEqual(done.status, status, done)
        lines = done.errors.splitlines()
        self.assertEqual(len(lines), 1, done)
        self.assertTrue(lines[0].startswith("darner: "), done)
        self.assertIn(text, lines[0])
        return done

    def items(self, queue: Optional[str] = None) -> list[bytes]:
        """@return: the payloads in a queue, which is empty then."""
        return [item.payload for item in self.client.get_many(queue or self.queue, 1_000_000)]

    def start(self, *arguments: str, shell: str = "", **options: Any) -> subprocess.Popen[bytes]:
        """Run it in a process of its own.  @param shell: what follows it in the shell's command line."""
        variables = options.pop("variables", {})
        command: Any = [*PROGRAM, "--servers", self.address, *arguments]
        if shell:
            command = ["bash", "-o", "pipefail", "-c", shlex.join(command) + shell]
        for stream in ("stdin", "stdout", "stderr"):
            options.setdefault(stream, subprocess.PIPE)
        process = subprocess.Popen(
            command, env=environment(**variables), cwd=self.directory, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None, **options,
        )  # fmt: skip
        self.addCleanup(self._end, process)
        return process

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()

    def has_heard(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until a process that waits for more has read what the server has sent it, and done what follows."""
        # The second answer comes when all of the turn before the first one is sent.
        for _ in range(2):
            self.client.stats()
        stat = Path(f"/proc/{process.pid}/stat")
        until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S", "it sleeps")

    def terminal(self, *arguments: str, columns: int = 80, rows: int = 24) -> Terminal:
        """Run it at a terminal."""
        terminal = Terminal([*PROGRAM, "--servers", self.address, *arguments], self.directory, columns, rows)
        self.addCleanup(terminal.end)
        return terminal


class Terminal:
    """A program at a terminal, and what is seen there."""

    def __init__(self, command: list[str], directory: Path, columns: int, rows: int) -> None:
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.status: Optional[int] = None
        self.pid, self._number = pty.fork()
        if not self.pid:
            os.chdir(directory)
            os.execve(command[0], command, environment(COLUMNS=str(columns), LINES=str(rows)))

    @property
    def lines(self) -> list[str]:
        """What is seen, without blanks at the ends."""
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def _look(self, seconds: float) -> bool:
        """@return: whether it goes on."""
        if select.select([self._number], [], [], seconds)[0]:
            try:
                data = os.read(self._number, 65536)
            except OSError:
                data = b""
            if not data:
                return False
            self.raw += data
            self._stream.feed(data)
        return True

    def sees(self, condition: Callable[[list[str]], object]) -> list[str]:
        """@return: what is seen once a condition holds of it."""
        deadline = time.monotonic() + PATIENCE
        while not condition(self.lines):
            if time.monotonic() > deadline or not self._look(0.1):
                if condition(self.lines):
                    break
                raise AssertionError("\n".join(["it is not seen:", *self.lines]))
        return self.lines

    def type(self, text: str) -> None:
        os.write(self._number, text.encode())

    def wait(self) -> int:
        """@return: its exit status."""
        deadline = time.monotonic() + PATIENCE
        while self._look(0.1):
            if time.monotonic() > deadline:
                raise AssertionError("\n".join(["it does not end:", *self.lines]))
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def end(self) -> None:
        if self.status is None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        os.close(self._number)


@contextlib.contextmanager
def program_on_path(directory: Path) -> Iterator[str]:
    """@return: a PATH on which ``darner`` is found."""
    program = directory / "bin" / "darner"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec {shlex.join(PROGRAM)} "$@"\n')
    program.chmod(0o755)
    yield f"{program.parent}:/usr/bin:/bin"


__all__ = ["Done", "ProgramTestCase", "Terminal", "call", "environment", "lasting", "program_on_path", "until"]
