"""
What load balancers and monitoring ask beside the API: C{/ping}, C{/health}, C{/stats.json}, C{/metrics}.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

from attrs import frozen

import darner
from darner.queues.figures import Totals
from darner.web.answers import Answer, encode
from darner.web.health import health
from darner.web.metrics import OPENMETRICS, TEXT, metrics
from darner.web.pacing import Pace
from darner.web.served import Served
from darner.web.visitors import Visitor

QUEUES_AT_ONCE: Final = 16


@frozen
class Probe:
    """
    One path.

    @ivar for_all: whether also for those who are not logged in.
    """

    answer: Callable[[Served, Any, Visitor], Awaitable[Answer]]
    for_all: bool = False


async def ping(served: Served, request: Any, visitor: Visitor) -> Answer:
    return Answer(b"pong\n", kind=b"text/plain")


async def tell_health(served: Served, request: Any, visitor: Visitor) -> Answer:
    """With C{?live}: whether the process answers, whatever else is wrong."""
    if b"live" in request.uri.partition(b"?")[2].split(b"&"):
        return Answer(encode({"ok": True, "reasons": []}))
    found = health(served.queues)
    return Answer(encode(found), 200 if found["ok"] else 503)


async def stats(served: Served, request: Any, visitor: Visitor) -> Answer:
    return Answer(_stats(served, visitor))


async def _stats(served: Served, visitor: Visitor) -> AsyncGenerator[bytes, None]:
    """
    As Kestrel's C{/stats.json}: counters and gauges, those of a queue as C{q/NAME/FIGURE}.  What the protocol's
    C{stats} calls C{items} is a gauge there, what it counts is a counter.
    """
    queues, pace = served.queues, Pace(served.queues)
    names = queues.walks.names
    totals = Totals()
    last = b""
    while some := names.after(last, QUEUES_AT_ONCE):
        queues.add_up(totals, some)
        last = some[-1]
        await pace.ease()
    counters: dict[str, Any] = {}
    gauges: dict[str, Any] = {}
    labels: dict[str, Any] = {}
    for name, figure in queues.figures(darner.__version__, totals).items():
        _sort(name, name, figure, counters, gauges, labels)
    yield b'{"labels":%b,"metrics":{},"counters":%b' % (encode(labels), encode(counters)[:-1])
    async for piece in _of_queues(served, visitor, pace, False):
        yield piece
    yield b'},"gauges":%b' % encode(gauges)[:-1]
    async for piece in _of_queues(served, visitor, pace, True):  # a second time, and nothing is kept for it
        yield piece
    yield b"}}\n"


async def _of_queues(served: Served, visitor: Visitor, pace: Pace, gauges: bool) -> AsyncGenerator[bytes, None]:
    queues, last = served.queues, b""
    while some := queues.walks.names.after(last, QUEUES_AT_ONCE):
        last = some[-1]
        told = {
            f"q/{queue.decode()}/{name}": figure
            for queue in some
            if visitor.may_see(queue)
            for name, figure in queues.queue_figures(queue).items()
            if (name in _GAUGES) is gauges
        }
        if told:
            yield b"," + encode(told)[1:-1]
        await pace.ease()


_GAUGES: Final = frozenset([
    "items", "bytes", "waiters", "open_transactions", "set_aside", "delayed", "age", "age_msec", "oldest_msec",
    "create_time", "curr_items", "curr_connections", "uptime", "time", "store_writable", "store_refuses_since",
])  # fmt: skip


def _sort(
    label: str, name: str, figure: Any, counters: dict[str, Any], gauges: dict[str, Any], labels: dict[str, Any]
) -> None:
    kind = labels if isinstance(figure, str) else gauges if name in _GAUGES else counters
    kind[label] = figure


async def tell_metrics(served: Served, request: Any, visitor: Visitor) -> Answer:
    openmetrics = b"application/openmetrics-text" in (request.getHeader(b"accept") or b"")
    kind = OPENMETRICS if openmetrics else TEXT
    return Answer(metrics(served, visitor, openmetrics), kind=kind.encode())


PROBES: Final[dict[bytes, Probe]] = {
    b"/ping": Probe(ping, True),
    b"/health": Probe(tell_health, True),
    b"/stats.json": Probe(stats),
    b"/metrics": Probe(tell_metrics),
}
"""By path."""
