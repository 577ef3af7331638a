"""
A log on standard output that may be a pipe, written so that nobody waits for who reads it.

A pipe takes 64 KiB more than is read of it; then whoever writes to it waits, and that must not be the thread that
serves clients.  A thread of its own writes, and what it has not written yet is bounded: lines beyond that are lost,
and counted.
"""

from __future__ import annotations

import atexit
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Optional

from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEventAsClassicLogText,
    textFileLogObserver,
)

HELD: Final = 1024 * 1024
"""How many bytes of lines may wait to be written."""
LINE_OVERHEAD: Final = 64
"""What a line counts besides its bytes."""
PATIENCE: Final = 1.0
"""For how many seconds the end of the process waits for a reader that takes nothing."""


def log_observer(
    options: Any, stdout: Any, make: Callable[[Any], Any] = textFileLogObserver
) -> Optional[ILogObserver]:
    """
    @param options: those of twistd.
    @param stdout: the standard output of the process.
    @param make: makes an observer that writes to a file.
    @return: what twistd should log by; C{None} where it does not log to standard output, or that is a file.
    """
    to_stdout = options["nodaemon"] and options["logfile"] in (None, "", "-")
    if not to_stdout or options["syslog"] or options["logger"]:
        return None
    try:
        number = stdout.fileno()
        is_file = stat.S_ISREG(os.fstat(number).st_mode)
    except (AttributeError, OSError, ValueError):
        return None  # there is none
    if is_file:
        return None
    file: Any = PatientFile(number)
    observer: ILogObserver = make(file)
    return observer


class PatientFile:
    """
    A file of text that is written to by a thread of its own, so that nobody else waits for that.

    Once lines are lost, all further ones are until what is held has been written; then one line says how many.
    """

    encoding = "utf-8"

    def __init__(self, number: int, held: int = HELD) -> None:
        """
        @param number: the descriptor to write to.  It is not closed.
        @param held: how many bytes of lines may wait to be written, at most.
        """
        self._number = number
        self._most = held
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._written = 0
        self._broken = False
        self._changed = threading.Condition()
        self._thread: Optional[threading.Thread] = None

    def write(self, text: str) -> None:
        """Write a line, soon, or lose it."""
        line = text.encode(self.encoding, "backslashreplace")
        size = len(line) + LINE_OVERHEAD
        with self._changed:
            if self._broken:
                return
            if self._lost or self._size + size > self._most:
                self._lost += 1
                return
            self._lines.append(line)
            self._size += size
            if self._thread is None:
                # Not before: a thread does not survive the fork by which a process becomes a daemon.
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
                atexit.register(self.close)
            self._changed.notify_all()

    def flush(self) -> None:
        """Nothing is to be done for that."""

    def close(self, patience: float = PATIENCE) -> None:
        """
        Wait until all lines are written.

        @param patience: for how many seconds to wait while nothing is read.
        """
        with self._changed:
            while (self._lines or self._lost) and not self._broken:
                written = self._written
                until = time.monotonic() + patience
                while written == self._written and (self._lines or self._lost) and not self._broken:
                    if not self._changed.wait(max(0, until - time.monotonic())) and time.monotonic() >= until:
                        return

    # In the thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._lines:
                    self._changed.wait()
                line = self._lines[0]
            try:
                self._write_out(line)
            except OSError:
                with self._changed:  # nobody will ever read it
                    self._broken = True
                    self._lines.clear()
                    self._changed.notify_all()
                return
            with self._changed:
                self._lines.popleft()
                self._size -= len(line) + LINE_OVERHEAD
                if self._lost and not self._lines:
                    self._tell_lost()
                self._changed.notify_all()

    def _write_out(self, data: bytes) -> None:
        while data:
            try:
                count = os.write(self._number, data)
            except BlockingIOError:  # somebody has set it so
                poll = select.poll()
                poll.register(self._number, select.POLLOUT)
                poll.poll()
                continue
            data = data[count:]
            with self._changed:
                self._written += count
                self._changed.notify_all()

    def _tell_lost(self) -> None:
        event: LogEvent = {
            "log_level": LogLevel.warn,
            "log_namespace": __name__,
            "log_format": "{count} lines of the log are lost: nobody has read it",
            "log_time": time.time(),
            "log_system": f"{__name__}#warn",
            "count": self._lost,
        }
        line = (formatEventAsClassicLogText(event) or "").encode(self.encoding)
        self._lost = 0
        self._lines.append(line)
        self._size += len(line) + LINE_OVERHEAD
