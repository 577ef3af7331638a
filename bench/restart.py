"""Starting and stopping with a backlog."""

from __future__ import annotations

from typing import Any

from bench.conditions import Conditions, mib
from bench.outcome import Outcome, Table
from bench.servers import Server


def restart(conditions: Conditions) -> Outcome:
    """
    The time from the start of the process to its first reply, after a clean stop and after a kill, and from the signal
    to the end of the process, with a million items of 1 KiB in a queue.
    """
    outcome = Outcome()
    count = conditions.choose(1_000_000, 1000)
    rows = []
    with conditions.servers("darner", "cpp", "redis", "beanstalkd") as servers:
        for server in servers:
            try:
                empty, stop, start, crashed, resident = restarted(conditions, server, count)
            except OSError as error:
                conditions.note(f"{server.name} failed: {error}")
                continue
            times = [f"{seconds:.2f}" for seconds in (empty, stop, start, crashed)]
            rows.append([server.name, *times, mib(resident)])
            if server.name == "darner" and not conditions.quick:
                outcome.at_most("start with 1,000,000 items", 1, "s", start)
                outcome.at_most("clean stop with 1,000,000 items", 5, "s", stop)
    head = [
        "server", "start when empty, s", "clean stop, s", "start, s", "start after a crash, s",
        "resident after that, MiB",
    ]  # fmt: skip
    outcome.tables.append(Table(f"{count:,} items of 1 KiB", head, rows))
    return outcome


def restarted(conditions: Conditions, server: Server, count: int) -> tuple[Any, ...]:
    """@return: the seconds of an empty start, a stop, a start, a start after a crash, and the resident memory then."""
    server.stop()
    empty = server.start()
    conditions.measure(server, queue="backlog", sets=count, gets=0, item_bytes=1024, in_flight=16)
    stop = server.stop()
    start = server.start()
    server.kill()
    crashed = server.start()
    return empty, stop, start, crashed, server.memory().resident
