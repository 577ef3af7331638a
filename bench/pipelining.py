"""What it brings not to wait for each reply."""

from __future__ import annotations

from bench.conditions import Conditions, Grid, plot, ratio, tables
from bench.outcome import Outcome, Table
from bench.servers import CppDarner, Redis


def pipelining(conditions: Conditions) -> Outcome:
    """
    The same as flood, with several requests of each client in flight at a time.
    """
    outcome = Outcome()
    with conditions.servers("darner", "darner-source", "cpp", "redis", "beanstalkd", "memcached") as servers:
        for server in servers:
            conditions.measure(server, sets=4096, gets=0, in_flight=16)
        for clients in (1, 10):
            grid: Grid = {}
            for in_flight in conditions.choose((1, 4, 32, 128), (1, 32)):
                seconds = conditions.choose(3.0, 0.1)
                grid[in_flight] = conditions.compare(servers, clients=clients, in_flight=in_flight, seconds=seconds)
            who = f"{clients} client{'s' * (clients > 1)}"
            for table in tables(grid, "in flight"):
                outcome.tables.append(Table(f"{table.title}, {who}", table.head, table.rows))
            outcome.plots.append(plot(grid, f"pipelining_{clients}", f"Pipelining, {who}", "requests in flight"))
            work = f"32 requests in flight, {who}, relative to "
            outcome.at_least(work + "the C++ Darner", 4, ratio(grid[32], CppDarner))
            outcome.at_least(work + "Redis everysec", 0.7, ratio(grid[32], Redis))
    return outcome
