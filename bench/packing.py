"""What a backlog costs."""

from __future__ import annotations

from bench.conditions import Conditions, Grid, plot, tables
from bench.outcome import Outcome


def packing(conditions: Conditions) -> Outcome:
    """
    As many sets as gets of 1 KiB by 10 clients, behind a backlog that does not fit in a cache.  The rate should not
    fall as the backlog grows.
    """
    grid: Grid = {}
    backlog = 0
    with conditions.servers("darner", "cpp", "redis", "beanstalkd") as servers:
        for size in conditions.choose((0, 1024, 16384, 65536, 262144, 1_000_000), (0, 1024, 4096)):
            for server in servers:
                conditions.measure(server, sets=size - backlog, gets=0, item_bytes=1024, in_flight=16)
            backlog = size
            seconds = conditions.choose(5.0, 0.2)
            grid[size] = conditions.compare(servers, item_bytes=1024, seconds=seconds)
    outcome = Outcome(tables(grid, "backlog"), [plot(grid, "packing", "Queue packing", "items in the backlog")])
    if 1_000_000 in grid and "darner" in grid[1_000_000]:
        own = grid[1_000_000]["darner"].rate / grid[0]["darner"].rate
        outcome.at_least("behind a backlog of 1,000,000 x 1 KiB, relative to our own empty queue", 0.8, own)
    return outcome
