"""
Metrics for Prometheus, in its text format and as OpenMetrics.  docs/metrics.rst says what each one means.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Iterator
from itertools import chain
from typing import Any, Final

from prometheus_client import CONTENT_TYPE_LATEST as TEXT
from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    StateSetMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

import darner
from darner.queues.timings import Histogram
from darner.values.stats import QueueStats, ServerStats
from darner.values.vocabulary import STATUSES
from darner.web.health import health
from darner.web.pacing import Pace
from darner.web.process import is_compiled, versions
from darner.web.served import Served
from darner.web.visitors import Visitor

__all__ = ["OPENMETRICS", "TEXT", "metrics"]

MOST_QUEUES: Final = 100
"""How many queues are named, those with most items first."""
OTHERS: Final = "other queues"
"""Stands for the rest together.  No queue can be called that."""
_EOF: Final = b"# EOF\n"

SERVER_COUNTERS: Final = {
    "total_items": ("darner_items_put", "Items that were put."),
    "total_connections": ("darner_connections_opened", "Connections of clients, without HTTP."),
    "rejected_connections": ("darner_connections_rejected", "Connections that were refused, as there were too many."),
    "idle_kicks": ("darner_connections_timed_out", "Connections that were ended, as the client was silent."),
    "auth_cmds": ("darner_logins", "Attempts of clients to log in, without HTTP."),
    "auth_errors": ("darner_login_failures", "Attempts to log in that failed, without HTTP."),
    "get_hits": ("darner_get_hits", "Reads that got an item."),
    "get_misses": ("darner_get_misses", "Reads that got none."),
    "bytes_read": ("darner_received_bytes", "Bytes from clients, without HTTP."),
    "bytes_written": ("darner_sent_bytes", "Bytes to clients, without HTTP."),
    "queue_creates": ("darner_queues_created", "Queues that were made."),
    "queue_deletes": ("darner_queues_deleted", "Queues that were deleted."),
    "queue_expires": ("darner_queues_expired", "Queues that were deleted by max_queue_age."),
    "expired_items": ("darner_items_expired", "Items that expired."),
    "discarded": ("darner_items_discarded", "Items that full queues dropped for new ones."),
}
"""Fields of L{ServerStats} that are counters, their names here without C{_total}, and what they say."""

TOTALS: Final = {
    "queues": ("darner_queues", "Queues, with those that clients only wait for."),
    "items": ("darner_items", "Items that are to be had now or after a retry delay."),
    "bytes": ("darner_payload_bytes", "Payload bytes of these items."),
    "open": ("darner_open_items", "Items that are open."),
    "delayed": ("darner_delayed_items", "Items that are not due yet."),
    "retrying": ("darner_retrying_items", "Items that wait for their next attempt."),
    "waiters": ("darner_waiters", "Reads that wait for an item."),
}

QUEUE_GAUGES: Final = {
    "items": ("darner_queue_items", "Items of a queue that are to be had now or after a retry delay."),
    "bytes": ("darner_queue_payload_bytes", "Payload bytes of these items."),
    "open": ("darner_queue_open_items", "Items of a queue that are open."),
    "delayed": ("darner_queue_delayed_items", "Items of a queue that are not due yet."),
    "retrying": ("darner_queue_retrying_items", "Items of a queue that wait for their next attempt."),
    "waiters": ("darner_queue_waiters", "Reads that wait for an item of a queue."),
}

QUEUE_COUNTERS: Final = {
    "total_items": ("darner_queue_items_put", "Items that were put on a queue."),
    "expired_items": ("darner_queue_items_expired", "Items of a queue that expired."),
    "discarded": ("darner_queue_items_discarded", "Items that a full queue dropped for new ones."),
    "duplicates": ("darner_queue_duplicates", "Puts that deduplication dropped."),
    "total_flushes": ("darner_queue_flushes", "How often a queue was flushed."),
    "transactions": ("darner_queue_opens", "How often an item of a queue was opened."),
    "canceled_transactions": ("darner_queue_aborts", "How often an item of a queue was given back."),
    "dead": ("darner_queue_dead_letters", "Items of a queue that became dead letters."),
}
"""Fields of L{QueueStats} that are counters, their names here without C{_total}, and what they say."""


class _Registry:
    """One family, for what writes registries."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return [self._family]


async def metrics(served: Served, visitor: Visitor, openmetrics: bool) -> AsyncGenerator[bytes, None]:
    """@return: the metrics, in pieces: of queues, those that the visitor may see."""
    pace = Pace(served.queues)
    totals = await served.watch.totals(visitor, pace)
    _, names = await served.rows.page(visitor, "", "items", True, 0, MOST_QUEUES, pace)
    for family in chain(_of_server(served, totals), _of_process(), _of_queues(served, names, totals)):
        yield _write(family, openmetrics)
        await pace.ease()
    if openmetrics:
        yield _EOF


def _write(family: Metric, openmetrics: bool) -> bytes:
    registry: Any = _Registry(family)
    if openmetrics:
        return bytes(generate_openmetrics(registry)).removesuffix(_EOF)
    return bytes(generate_latest(registry))


def _gauge(name: str, doc: str, value: float) -> Metric:
    return GaugeMetricFamily(name, doc, value=value)


def _of_server(served: Served, totals: dict[str, Any]) -> Iterator[Metric]:
    queues = served.queues
    stats: ServerStats = queues.stats
    for figure, (name, doc) in SERVER_COUNTERS.items():
        yield CounterMetricFamily(name, doc, value=getattr(stats, figure))
    requests = CounterMetricFamily("darner_requests", "Requests for items, by command.", labels=["command"])
    for command, count in (("get", stats.cmd_get), ("set", stats.cmd_set), ("peek", stats.cmd_peek)):
        requests.add_metric([command], count)
    yield requests
    for figure, (name, doc) in TOTALS.items():
        yield _gauge(name, doc, totals[figure])
    yield _gauge("darner_connections", "Clients that are connected, without HTTP.", stats.curr_connections)
    yield _gauge("darner_http_connections", "HTTP connections that are open.", served.connections)
    found = health(queues)
    yield _gauge("darner_healthy", "1 if /health says so, else 0.", float(found["ok"]))
    writable = queues.commit.health.writable and queues.space.health.writable
    yield _gauge("darner_store_writable", "1 if items can be put, else 0.", float(writable))
    status = StateSetMetricFamily("darner_status", "The status that was set.", labels=[])
    status.add_metric([], {name: name == queues.status.name for name in STATUSES})
    yield status
    space = queues.space.room()
    if space is not None:
        yield _gauge("darner_disk_free_bytes", "Free bytes of the data directory's file system.", space[0])
        yield _gauge("darner_disk_size_bytes", "All bytes of the data directory's file system.", space[1])
    yield from _histograms(served)


def _histograms(served: Served) -> Iterator[Metric]:
    timings = served.timings
    for name, doc, histogram in (
        ("darner_commit_seconds", "Time that writing a turn takes, without a sync.", timings.commits),
        ("darner_fsync_seconds", "Time that writing a turn takes with a sync.", timings.syncs),
        ("darner_item_wait_seconds", "Age of items when they are taken or opened, by samples.", timings.ages),
        ("darner_item_size_bytes", "Size of items that are put, by samples.", timings.sizes),
    ):
        yield _histogram(name, doc, [], {(): histogram})
    commands: dict[tuple[str, ...], Histogram] = {
        ("get",): timings.gets, ("set",): timings.sets, ("peek",): timings.peeks,
    }  # fmt: skip
    yield _histogram(
        "darner_request_seconds", "Time from the beginning of a request's turn until its reply is sent.", ["command"],
        commands,
    )  # fmt: skip
    http: dict[tuple[str, ...], Histogram] = {(name,): histogram for name, histogram in served.http.items()}
    yield _histogram("darner_http_request_seconds", "Time until an HTTP request is answered.", ["endpoint"], http)


def _histogram(
    name: str, doc: str, labels: list[str], histograms: dict[tuple[str, ...], Histogram]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, doc, labels=labels)
    for values, histogram in histograms.items():
        buckets: list[Any] = []
        below = 0
        for bound, count in zip([*map(_bound, histogram.bounds), "+Inf"], histogram.counts, strict=True):
            below += count
            buckets.append((bound, below))
        family.add_metric(list(values), buckets, histogram.total)
    return family


def _bound(value: float) -> str:
    return repr(float(value))


def _of_process() -> Iterator[Metric]:
    python, twisted = versions()
    info = {
        "version": darner.__version__, "compiled": str(is_compiled()).lower(), "python": python, "twisted": twisted,
    }  # fmt: skip
    yield InfoMetricFamily("darner_build", "What runs.", value=info)
    nowhere: Any = None
    yield from ProcessCollector(registry=nowhere).collect()


def _of_queues(served: Served, names: list[bytes], totals: dict[str, Any]) -> Iterator[Metric]:
    queues, rows = served.queues, served.watch.rows
    there = [(name, name.decode(), row) for name in names for row in [served.watch.see(name) or rows.get(name)] if row]
    for figure, (metric, doc) in QUEUE_GAUGES.items():
        gauge = GaugeMetricFamily(metric, doc, labels=["queue"])
        named = 0
        for _, label, row in there:
            value = getattr(row, figure)
            named += value
            gauge.add_metric([label], value)
        if totals["queues"] > len(there):
            gauge.add_metric([OTHERS], max(0, totals[figure] - named))
        yield gauge
    ages = GaugeMetricFamily(
        "darner_queue_oldest_item_age_seconds", "Age of the item at the head of a queue.", labels=["queue"]
    )
    fifos = [(label, fifo) for name, label, _ in there for fifo in [queues.find(name)] if fifo is not None]
    for label, fifo in fifos:
        ages.add_metric([label], fifo.oldest_age / 1000)
    yield ages
    for figure, (metric, doc) in QUEUE_COUNTERS.items():
        counter = CounterMetricFamily(metric, doc, labels=["queue"])
        for label, fifo in fifos:
            stats: QueueStats = fifo.stats
            counter.add_metric([label], getattr(stats, figure))
        yield counter
