"""
What the HTTP side works on: one server, its queues, its users, and what is known of them besides.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import Any, Optional

from attrs import frozen

from darner.config.settings import Settings
from darner.front.access import Access
from darner.front.audit import AuditLog
from darner.net.listeners import Listener
from darner.queues.front_end import IQueues
from darner.web.visitors import Reception


@frozen
class Place:
    """Where the server listens."""

    listener: Listener
    factory: Any
    """What serves the clients there: its C{connections} are those that are open."""
    address: str
    """For people."""


class Served:
    """
    One server.

    @ivar instance: another one after each start.
    @ivar connections: how many HTTP connections there are.
    """

    def __init__(
        self, queues: IQueues, settings: Settings, access: Optional[Access],
        places: Callable[[], Iterable[tuple[Listener, Any, Any]]],
        wall: Callable[[], float],
    ) -> None:  # fmt: skip
        """
        @param places: gives the listeners, what serves their clients, and their ports.
        @param wall: the time in seconds since the epoch.
        """
        self.queues = queues
        self.settings = settings
        self._places = places
        self.wall = wall
        self.clock = queues.clock
        self.audit = AuditLog(queues.clock, settings.debug)
        self.reception = Reception(access, self.audit, queues.clock, settings.trusted_network)
        self.instance = secrets.token_hex(8)
        self.started = wall()
        self.connections = 0

    def places(self) -> list[Place]:
        """@return: where it listens."""
        return [
            Place(listener, factory, listener.describe(port.getHost())) for listener, factory, port in self._places()
        ]

    @property
    def now(self) -> int:
        """The time, in ms since the epoch."""
        return int(self.wall() * 1000)

    def close(self) -> None:
        """The server stops."""
        self.audit.close()
