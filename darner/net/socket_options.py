"""
The options of a client's socket: small replies are sent at once, and TCP notices when the client's machine is gone.

All of them are optional, as kernels and transports differ in what they support: an option that cannot be set is logged
once, and the client is served without it.
"""

from __future__ import annotations

import socket
from typing import Any, ClassVar, Final, Optional

from twisted.logger import Logger

from darner.net.limits import Limits

PROBE_INTERVAL: Final = 15
"""Seconds between TCP's keep-alive probes to a silent client."""
PROBES: Final = 4
"""The number of unanswered probes after which TCP ends the connection."""
MAX_KEEP_ALIVE: Final = 32767
"""The maximum number of seconds before the first probe: Linux accepts no more (tcp(7))."""


def socket_of(transport: Any) -> Optional[socket.socket]:
    """
    @return: the socket below a transport, through TLS and other wrappers; C{None} if there is none.
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
        @param limits: its C{keep_alive} is the number of seconds of silence before the first probe; 0: no probes.

        Keep-alive does not run while sent data is unacknowledged: by default the kernel resends it for 15 minutes.  So
        C{TCP_USER_TIMEOUT} limits that to the time in which keep-alive would end the connection.  It also applies to a
        client that is alive but does not read; so it is at least C{stall_timeout}, and not set if that is 0 (never).
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
        Set the options of a client that has just connected.  Does nothing if the client does not use TCP.

        @param transport: the client's transport, of any kind.
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
