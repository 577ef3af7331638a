"""
What one client may cost: how many may come, how long they may be silent, how much is held for each.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final, Optional, Protocol

from attrs import frozen
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from darner.values.stats import ServerStats

CLIENT_BYTES: Final = 64 * 1024
"""Of what one client sends ahead, and of replies that gather for it in a turn, about how much is held at most."""
LEAST_CLIENT_BYTES: Final = 8 * 1024
"""The same where there are very many clients."""
ALL_CLIENTS_BYTES: Final = 256 * 2**20
"""What all clients together get of that; where they are too many for L{CLIENT_BYTES}, each gets less."""

SWEEPS: Final = 4
"""How often in the shortest time-out the clients are looked at."""


@frozen
class Limits:
    """What is asked of clients; the settings of the same names (`darner.config.settings.Settings`)."""

    max_connections: int = 0
    idle_timeout: float = 0.0
    stall_timeout: float = 0.0
    keep_alive: float = 0.0


def client_bytes(clients: int) -> int:
    """@return: how many bytes are held at most for each of so many clients, in each direction."""
    return max(LEAST_CLIENT_BYTES, min(CLIENT_BYTES, ALL_CLIENTS_BYTES // max(1, clients)))


class Quiet(Protocol):
    """A client's connection, as far as its silence goes."""

    active: bool
    """Whether anything was received or sent since somebody last set this to false."""
    quiet_since: Optional[float]
    """When it was found to be silent for the first time, in seconds of the clock; C{None} while it is not."""
    connected_at: float
    """When the connection was made, in seconds of the clock."""

    @property
    def stalled(self) -> bool:
        """Whether the client owes something: the rest of a request, the reading of its replies, its log-in."""

    @property
    def anonymous(self) -> bool:
        """Whether the client still has to log in, and nothing that it sent for that is being checked."""

    @property
    def idle(self) -> bool:
        """Whether the client has asked for nothing that it has not got."""

    def close(self) -> None:
        """Send what was written and end the connection."""

    def abort(self) -> None:
        """End the connection at once."""


class ClientTimeouts:
    """
    Disconnects those who are silent for too long, and those who do not log in, whatever else they send.

    Nothing is done for each request but to note that there was one; a sweep a few times in each time-out looks.  So a
    client goes between one and one and a half time-outs after its last sign of life.
    """

    def __init__(
        self, limits: Limits, clock: IReactorTime, connections: Collection[Quiet], stats: ServerStats
    ) -> None:
        """@param connections: those that are open, whenever it is looked at."""
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
        """A client has come or gone."""
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
