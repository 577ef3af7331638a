"""What stays in memory and on disk."""

from __future__ import annotations

import time
from typing import Any, Optional

from bench.conditions import Conditions, mib
from bench.outcome import Outcome, Plot, Table
from bench.servers import Server
from darner.cli.bench import Result, run

LARGE = 8 * 2**20


def memory(conditions: Conditions) -> Outcome:
    """
    The first table has the resident memory after a queue of items of 1 KiB has grown and shrunk again.  The second has,
    for a million sets and a million gets, the peak of resident memory, the longest request, and what is on disk ten
    seconds after the queue was emptied.  The third has, with servers started anew, the peak of resident memory while 10
    clients set and get items of 8 MiB.
    """
    outcome = Outcome()
    sizes = conditions.choose((0, 1024, 16384, 131072, 1_000_000), (0, 1024))
    lines: dict[str, list[tuple[float, float]]] = {}
    summary = []
    with conditions.servers("darner", "cpp", "redis", "beanstalkd") as servers:
        for server in servers:
            conditions.log(f"  {server.name}")
            figures = _grow_and_shrink(conditions, server, sizes)
            if figures is not None:
                resident, row, goals = figures
                lines[server.name] = [(size, figure / 2**20) for size, figure in zip(sizes, resident, strict=True)]
                summary.append([server.name, *row])
                if server.name == "darner":
                    _judge(conditions, outcome, *goals)
        head = ["items in and out", *lines]
        rows = [
            [f"{size:,}", *(f"{line[index][1]:.1f}" for line in lines.values())] for index, size in enumerate(sizes)
        ]
        outcome.tables.append(Table("Resident memory, in MiB", head, rows))
        count = f"{sizes[-1]:,}"
        head = [
            f"{count} items", "idle, MiB", "peak, MiB", "after, MiB", "of that anonymous, MiB", "longest request, ms",
            "disk when full, MiB", "disk 10 s after, MiB",
        ]  # fmt: skip
        outcome.tables.append(Table(f"{count} items of 1 KiB in and out", head, summary))
    outcome.plots.append(Plot("memory", "Resident memory", "items in and out", "MiB", lines))
    _large_items(conditions, outcome)
    return outcome


def _judge(conditions: Conditions, outcome: Outcome, idle: float, growth: float, longest: float, disk: float) -> None:
    outcome.at_most("resident memory when idle", 48, "MB", idle / 1e6)
    if not conditions.quick:
        what = "1,000,000 x 1 KiB in and out"
        outcome.at_most(f"growth of resident memory with {what}", 24, "MB", growth / 1e6)
        outcome.at_most(f"longest request with {what}", 60, "ms", longest)
        outcome.at_most("disk 10 s after 1 GB has gone through", 24, "MB", disk / 1e6)


def _make(conditions: Conditions, server: Server, **load: Any) -> Optional[Result]:
    try:
        result = run(server.load(**load))
    except OSError as error:
        conditions.note(f"{server.name} failed: {error}")
        return None
    if result.tally.errors:
        conditions.note(f"{server.name} gave {result.tally.errors} wrong replies, first {result.tally.first_error}")
    if result.tally.misses and not load["sets"]:
        conditions.note(f"{server.name} did not give back {result.tally.misses} items")
    return result


def _grow_and_shrink(conditions: Conditions, server: Server, sizes: tuple[int, ...]) -> Any:
    idle = server.memory().resident
    resident = []
    longest = 0.0
    disk = server.disk()
    for size in sizes:
        grown = _make(conditions, server, sets=size, gets=0, item_bytes=1024)
        disk = max(disk, server.disk())
        shrunk = _make(conditions, server, sets=0, gets=size, item_bytes=1024)
        if grown is None or shrunk is None:
            return None
        resident.append(server.memory().resident)
        if size:
            longest = max(grown.percentile(100), shrunk.percentile(100)) / 1000
    time.sleep(conditions.choose(10.0, 0.5))
    left = server.disk()
    after = server.memory()
    row = [
        mib(idle), mib(after.peak), mib(after.resident), mib(after.anonymous), f"{longest:.1f}", mib(disk), mib(left)
    ]  # fmt: skip
    return resident, row, (idle, after.peak - idle, longest, left)


def _large_items(conditions: Conditions, outcome: Outcome) -> None:
    count = conditions.choose(100, 4)
    rows = []
    with conditions.servers("darner", "cpp", "redis", "beanstalkd") as servers:
        for server in servers:
            idle = server.memory().resident
            pushed = _make(conditions, server, sets=count, gets=0, item_bytes=LARGE)
            sets = server.memory()
            mixed = _make(conditions, server, sets=count, gets=2 * count, item_bytes=LARGE)
            if pushed is None or mixed is None:
                continue
            both = server.memory()
            rows.append([server.name, mib(idle), mib(sets.peak), mib(both.peak), mib(both.resident)])
            if server.name == "darner":
                what = "growth of resident memory with 10 clients and items of 8 MiB, both ways"
                outcome.at_most(what, 64, "MB", (both.peak - idle) / 1e6)
    head = [f"{count} items of 8 MiB", "idle, MiB", "peak, sets, MiB", "peak, sets and gets, MiB", "after, MiB"]
    outcome.tables.append(Table("Items of 8 MiB, 10 clients", head, rows))
