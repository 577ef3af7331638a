"""Many clients."""

from __future__ import annotations

from bench.conditions import Conditions, Grid, plot, tables
from bench.outcome import Outcome
from bench.servers import allow_descriptors


def connections(conditions: Conditions) -> Outcome:
    """
    The same as flood, with thousands of clients.  The load comes from two processes, also with few clients.
    """
    limit = allow_descriptors()
    counts = conditions.choose((50, 1000, 2000, 4000, 8000), (50, 200))
    grid: Grid = {}
    with conditions.servers("darner", "cpp", "redis", "memcached") as servers:
        for server in servers:
            conditions.measure(server, sets=512, gets=0, in_flight=16)
        for clients in counts:
            if clients > limit - 500:
                conditions.note(f"{clients:,} clients are more than the {limit:,} descriptors that a process may have")
                continue
            seconds = conditions.choose(4.0, 0.2)
            grid[clients] = conditions.compare(servers, clients=clients, seconds=seconds, processes=2)
    outcome = Outcome(tables(grid, "clients"), [plot(grid, "connections", "Many clients", "clients")])
    if 8000 in grid and "darner" in grid[8000]:
        own = grid[8000]["darner"].rate / grid[50]["darner"].rate
        outcome.at_least("8,000 clients, relative to our own figure at 50", 0.6, own)
    return outcome
