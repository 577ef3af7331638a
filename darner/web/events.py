"""
Server-sent events: what changes each second.

Nothing is kept for who listens: each gets what holds when its connection has room for it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Optional

from twisted.internet.defer import CancelledError, Deferred

from darner.web.answers import encode
from darner.web.health import health
from darner.web.pacing import Pace
from darner.web.process import memory
from darner.web.schemas import LIVE
from darner.web.visitors import Visitor

if TYPE_CHECKING:
    from darner.web.served import Served


def event(name: str, data: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encode(data))


class Events:
    """Tells those who listen."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.listening = 0

    async def listen(
        self, visitor: Visitor, names: list[bytes], hello: dict[str, Any]
    ) -> AsyncGenerator[bytes, None]:
        """
        @param names: the queues whose figures are wanted.
        @param hello: the first event.
        """
        served = self._served
        self.listening += 1
        status: Optional[str] = None
        trouble: Optional[dict[str, Any]] = None
        try:
            yield b"retry: 2000\n" + event("hello", hello)
            while True:
                told = b""
                if served.queues.status.name != status:
                    status = served.queues.status.name
                    told += event("status", {"status": status})
                found = health(served.queues)
                if found != trouble:
                    trouble = found
                    told += event("health", found)
                yield told + event("rates", await self._tick(visitor, names, found["ok"]))
                look: Deferred[None] = served.watch.next_look()
                await look
        except CancelledError:
            return  # the server stops
        finally:
            self.listening -= 1

    async def _tick(self, visitor: Visitor, names: list[bytes], healthy: bool) -> dict[str, Any]:
        served = self._served
        return {
            "time": served.now,
            "status": served.queues.status.name,
            "healthy": healthy,
            "connections": served.queues.stats.curr_connections,
            "totals": await served.watch.totals(visitor, Pace(served.queues)),
            "memory_bytes": memory(),
            "queues": {name.decode(): self._queue(name) for name in names},
        }

    def _queue(self, name: bytes) -> Optional[dict[str, Any]]:
        served = self._served
        served.watch.see(name)
        row = served.rows.describe(name)
        if row is None:
            return None
        seen = served.watch.rows[name]
        ages = {"age_p50_ms": seen.quantile(0.5), "age_p99_ms": seen.quantile(0.99)}
        return {**{figure: row[figure] for figure in LIVE}, **ages}
