"""
What the HTTP side works on: one server, its queues, its users, and what is known of them besides.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any, Optional

from darner.config.settings import Settings
from darner.front.access import Access
from darner.front.audit import AuditLog
from darner.front.calls import Reading
from darner.net.listeners import Listener
from darner.queues.collection import Queues
from darner.queues.timings import Histogram
from darner.web.events import Events
from darner.web.owners import Owners, Place
from darner.web.reads import OpenReads
from darner.web.rows import Rows
from darner.web.visitors import Reception
from darner.web.watch import Watch


class Served:
    """
    One server.

    @ivar timings: how long turns take, and how long items waited.
    @ivar http: how long requests took, by what they were for.
    @ivar waiting: those who wait for an item by HTTP.
    @ivar instance: another one after each start.
    @ivar connections: how many HTTP connections there are.
    """

    def __init__(
        self, queues: Queues, settings: Settings, access: Optional[Access],
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
        self.timings = queues.measure(time.perf_counter)
        self.watch = Watch(queues, wall, self.timings.take_ages)
        self.http: dict[str, Histogram] = {}
        self.rows = Rows(queues, self.watch)
        self.events = Events(self)
        self.reads = OpenReads(queues.clock)
        self.owners = Owners(self.places, self.reads, queues.clock, wall)
        self.waiting: set[Reading] = set()
        self.connections = 0

    def places(self) -> list[Place]:
        """@return: where it listens."""
        return [
            Place(listener, factory, listener.describe(port.getHost())) for listener, factory, port in self._places()
        ]

    def start(self) -> None:
        """The server serves."""
        self.watch.start()

    @property
    def now(self) -> int:
        """The time, in ms since the epoch."""
        return int(self.wall() * 1000)

    def close(self) -> None:
        """The server stops."""
        self.watch.stop()
        while self.waiting:
            self.waiting.pop().stop()
        self.reads.close()
        self.audit.close()
