"""
Limits for clients: how many may connect, how long they may be silent, how many bytes are buffered for each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, Optional, Protocol

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from darner.values.stats import ServerStats

CLIENT_BYTES: Final = 64 * 1024
"""Approximate maximum of bytes buffered for one client: requests it sent ahead, and replies it gets in a turn."""
LEAST_CLIENT_BYTES: Final = 8 * 1024
"""The same if there are very many clients."""
ALL_CLIENTS_BYTES: Final = 256 * 2**20
"""The same for all clients together; if there are too many for L{CLIENT_BYTES}, each gets less."""

SWEEPS: Final = 4
"""The number of times that the clients are checked within the shortest time-out."""


@frozen
class Limits:
    """Limits and time-outs for clients: the settings of the same names (`darner.config.settings.Settings`)."""

    max_connections: int = 0
    idle_timeout: float = 0.0
    stall_timeout: float = 0.0
    keep_alive: float = 0.0


def client_bytes(clients: int) -> int:
    """@return: the maximum number of bytes to buffer for each of so many clients, in each direction."""
    return max(LEAST_CLIENT_BYTES, min(CLIENT_BYTES, ALL_CLIENTS_BYTES // max(1, clients)))


class Quiet(Protocol):
    """A client's connection, as L{ClientTimeouts} sees it."""

    active: bool
    """Whether bytes were received or sent since this was last set to false."""
    quiet_since: Optional[float]
    """When a check first found it silent, in seconds of the clock; C{None} if it is not silent."""
    connected_at: float
    """When the connection was made, in seconds of the clock."""

    @property
    def stalled(self) -> bool:
        """Whether the server waits for the client: to end a request, to read replies, to log in or to disconnect."""

    @property
    def anonymous(self) -> bool:
        """Whether the client still has to log in, and its password is not being checked."""

    @property
    def idle(self) -> bool:
        """Whether no request of the client is pending."""

    def close(self) -> None:
        """Send what was written and close the connection."""

    def abort(self) -> None:
        """Close the connection at once."""


class ClientTimeouts:
    """
    Disconnects clients that are silent for too long, and clients that do not log in, whatever else they send.

    A request only sets a flag; a timer checks all clients a few times within each time-out.  So the server disconnects
    a client between one and one and a half time-outs after it last sent or received bytes.
    """

    def __init__(
        self, limits: Limits, clock: IReactorTime, connections: Collection[Quiet], stats: ServerStats
    ) -> None:
        """@param connections: the open connections; its owner keeps it up to date."""
        self._idle = limits.idle_timeout
        self._stall = limits.stall_timeout
        self._clock = clock
        self._connections = connections
        self._stats = stats
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = clock
        times = [time for time in (self._idle, self._stall) if time]
        self._interval = min(times) / SWEEPS if times else 0.0

    def update(self) -> None:
        """Start or stop the timer, after a client has connected or disconnected."""
        wanted = bool(self._interval and self._connections)
        if wanted and not self._sweeping.running:
            self._sweeping.start(self._interval, now=False)
        elif not wanted and self._sweeping.running:
            self._sweeping.stop()

    def _sweep(self) -> None:
        now = self._clock.seconds()
        for connection in list(self._connections):
            if self._stall and now - connection.connected_at >= self._stall and connection.anonymous:
                self._kick(connection, connection.abort)
                continue
            if connection.active or connection.quiet_since is None:
                connection.active = False
                connection.quiet_since = now
                continue
            silence = now - connection.quiet_since
            if self._stall and silence >= self._stall and connection.stalled:
                self._kick(connection, connection.abort)
            elif self._idle and silence >= self._idle and connection.idle:
                self._kick(connection, connection.close)

    def _kick(self, connection: Quiet, end: Callable[[], None]) -> None:
        self._stats.idle_kicks += 1
        connection.quiet_since = None
        end()
