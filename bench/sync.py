"""What it costs to be safe from the loss of power."""

from __future__ import annotations

from bench.conditions import Conditions, Grid, plot, ratio, tables
from bench.outcome import Outcome
from bench.servers import CppDarner


def sync(conditions: Conditions) -> Outcome:
    """
    Sets of 64 bytes.  The server replies when the item is on stable storage.
    """
    grid: Grid = {}
    with conditions.servers("darner", "cpp", "redis-always", "beanstalkd-always") as servers:
        for clients in conditions.choose((1, 10, 50, 200), (1, 50)):
            seconds = conditions.choose(3.0, 0.1)
            grid[clients] = conditions.compare(servers, clients=clients, sets=1, gets=0, sync=True, seconds=seconds)
    outcome = Outcome(tables(grid, "clients"), [plot(grid, "sync", "Sets to stable storage", "clients")])
    outcome.at_least("/sync sets, 50 clients, relative to the C++ Darner", 4, ratio(grid[50], CppDarner))
    return outcome
