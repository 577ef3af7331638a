"""
twistd with a server whose clock stands still, but for what somebody says at a unix socket: the time-outs of a real
server can be tested to the second, however long the test and the server really take.

    python -m test.system.set_clock [OPTIONS OF TWISTD] darner [OPTIONS]
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from twisted.scripts.twistd import run

from darner import service
from darner.net.clock import MonotonicClock

PATH: Final = "clock"
"""The socket, in the directory where the server runs: a client sends seconds in a line, and gets one in return."""

_told = [0.0]
_clocks: list[SetClock] = []


class SetClock(MonotonicClock):
    """A clock that shows what was told."""

    def __init__(self, call_from_thread: Callable[..., object]) -> None:
        super().__init__(call_from_thread, lambda: _told[0])
        _clocks.append(self)

    def look(self) -> None:
        """Have its thread see how late it is, from whatever thread this is called."""
        self._call_from_thread(self._look)

    def _look(self) -> None:
        if self._pipe is not None:  # it is not stopped
            self._wake()


def advance(directory: Path, seconds: float) -> None:
    """Have the server that runs there find that it is so many seconds later.  Its calls that are due may still run."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(directory / PATH))
        with connection.makefile("rw") as stream:
            stream.write(f"{seconds}\n")
            stream.flush()
            stream.readline()


def _listen(listening: socket.socket) -> None:
    while True:
        connection, _ = listening.accept()
        with suppress(OSError), connection, connection.makefile("rw") as stream:
            _told[0] += float(stream.readline())
            for clock in _clocks:
                clock.look()
            stream.write("\n")


def main() -> None:
    with suppress(FileNotFoundError):
        os.unlink(PATH)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(PATH)
    listening.listen()
    threading.Thread(target=_listen, args=(listening,), daemon=True).start()
    service.MonotonicClock = SetClock  # type: ignore[attr-defined,misc]
    run()


if __name__ == "__main__":
    main()
