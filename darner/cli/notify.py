"""
Telling systemd, or another service manager, what the server does: the protocol of sd_notify(3).

Where C{NOTIFY_SOCKET} is in the environment, the server says there when it serves, reloads and stops.  Where
C{WATCHDOG_USEC} is there too, it says again and again that its event loop turns: a server that hangs is started anew.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any, Final, Optional

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from darner.queues.collection import Queues

_SOCKET: Final = "NOTIFY_SOCKET"


class Notifier:
    """What the server tells its service manager; nothing, where there is none."""

    _log = Logger()

    def __init__(self, environment: Optional[Mapping[str, str]] = None) -> None:
        """@param environment: in place of that of the process."""
        self._environment = os.environ if environment is None else environment
        self._queues: Optional[Queues] = None
        self._beat: Optional[IDelayedCall] = None
        self._reported = False

    @property
    def wanted(self) -> bool:
        """Whether anybody wants to be told."""
        return bool(self._environment.get(_SOCKET))

    def ready(self, queues: Queues) -> None:
        """
        The server serves, from now on.

        @param queues: those that it serves; their clock, which is never set back, is that of the watchdog.
        """
        self._queues = queues
        self._send("READY=1", self._status())
        interval = self._watchdog()
        if interval is not None:
            self._beat = queues.clock.callLater(interval, self._tell_watchdog, queues, interval)

    def reloading(self) -> None:
        """The server reads its settings again; L{reloaded} follows."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def reloaded(self, error: str = "") -> None:
        """
        The server serves as before.

        @param error: why it could not take the new settings.
        """
        self._send("READY=1", f"STATUS=cannot reload the settings: {error}" if error else self._status())

    def stopping(self) -> None:
        """The server has begun to stop."""
        if self._beat is not None and self._beat.active():
            self._beat.cancel()
        self._send("STOPPING=1", "STATUS=stopping: finishing running requests")

    def _watchdog(self) -> Optional[float]:
        """@return: how often the watchdog is to be told, in seconds; C{None}: there is no watchdog for this process."""
        if self._environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return None
        try:
            limit = int(self._environment.get("WATCHDOG_USEC", "0"))
        except ValueError:
            return None
        return limit / 2_000_000 if limit > 0 else None

    def _tell_watchdog(self, queues: Queues, interval: float) -> None:
        self._beat = queues.clock.callLater(interval, self._tell_watchdog, queues, interval)
        self._send("WATCHDOG=1", self._status())

    def _status(self) -> str:
        """@return: how the server is, in a line for C{systemctl status}."""
        queues = self._queues
        if queues is None:
            return "STATUS=starting"
        health = queues.health()
        refuses = "" if health.writable else f", refuses sets: {health.reason}"
        return f"STATUS={queues.status.name}{refuses}; {queues.stats.curr_connections} clients"

    def _send(self, *lines: str) -> None:
        """Send one message, if it can be sent at once: clients must not wait for it."""
        if not self.wanted:
            return
        path = self._environment[_SOCKET]
        address: Any = "\0" + path[1:] if path.startswith("@") else path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(" ".join(line.splitlines()) for line in lines).encode(), address)
        except OSError as error:
            if not self._reported:
                self._reported = True
                self._log.warn("cannot notify the service manager at {path}: {error}", path=path, error=error)
