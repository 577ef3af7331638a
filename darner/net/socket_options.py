"""
The options of a client's socket: small replies leave at once, and TCP finds out when the client's machine is gone.

All of it is optional.  Kernels and transports differ in what they take, so nothing is raised from here: what cannot be
set is logged once, and the client is served without it.
"""

from __future__ import annotations

import socket
from typing import Any, ClassVar, Final, Optional

from twisted.logger import Logger

from darner.net.limits import Limits

PROBE_INTERVAL: Final = 15
"""Seconds between two questions of TCP to a silent client."""
PROBES: Final = 4
"""After so many questions without an answer a client is gone."""
MAX_KEEP_ALIVE: Final = 32767
"""Seconds of silence after which TCP asks for the first time, at most: Linux takes no more (tcp(7))."""


def socket_of(transport: Any) -> Optional[socket.socket]:
    """
    @return: the socket below a transport, through TLS and other wrappers; C{None} where there is none.
    """
    while transport is not None:
        handle = transport.getHandle() if hasattr(transport, "getHandle") else None
        if isinstance(handle, socket.socket):
            return handle
        transport = getattr(transport, "transport", None)
    return None


class SocketOptions:
    """Sets the options of clients' sockets."""

    _log: ClassVar[Logger] = Logger()

    def __init__(self, limits: Limits) -> None:
        """
        @param limits: its C{keep_alive} is after how many seconds of silence TCP asks for a client; 0 is never.

        Keep-alive does not run while sent data is not acknowledged, and a kernel left alone sends that again and again
        for a quarter of an hour.  So the time for that is bounded too, by the time in which keep-alive finds out.  The
        same bound holds for a client that is there and does not read; so it is not below C{stall_timeout}, and where
        that is 0 (never), it is not set.
        """
        options: list[tuple[str, int, int]] = [("TCP_NODELAY", socket.IPPROTO_TCP, 1)]
        if limits.keep_alive:
            silence = min(MAX_KEEP_ALIVE, max(1, round(limits.keep_alive)))
            options += [
                ("SO_KEEPALIVE", socket.SOL_SOCKET, 1),
                ("TCP_KEEPIDLE", socket.IPPROTO_TCP, silence),
                ("TCP_KEEPINTVL", socket.IPPROTO_TCP, PROBE_INTERVAL),
                ("TCP_KEEPCNT", socket.IPPROTO_TCP, PROBES),
            ]
            if limits.stall_timeout:
                # A client that stalls is disconnected after one and a half time-outs at the latest.
                longest = max(silence + PROBE_INTERVAL * PROBES, round(limits.stall_timeout * 2))
                options.append(("TCP_USER_TIMEOUT", socket.IPPROTO_TCP, min(longest * 1000, 2**31 - 1)))
        self._options = [
            (name, level, int(getattr(socket, name)), number)
            for name, level, number in options
            if hasattr(socket, name)
        ]
        self._failed: set[str] = set()

    def apply(self, transport: Any) -> None:
        """
        Set the options of a client that has just connected.  Nothing is done where it does not come by TCP.

        @param transport: the client's, of any kind.
        """
        try:
            sock = socket_of(transport)
            if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
                return
        except Exception as error:
            self._cannot("any option", error)
            return
        for name, level, option, number in self._options:
            try:
                sock.setsockopt(level, option, number)
            except (OSError, OverflowError) as error:
                self._cannot(name, error)

    def _cannot(self, name: str, error: Exception) -> None:
        if name not in self._failed:
            self._failed.add(name)
            self._log.warn(
                "cannot set {name} on clients' sockets; serving them without it: {error}", name=name, error=error
            )
