"""How quickly items go through an empty queue."""

from __future__ import annotations

from bench.conditions import Conditions, Grid, plot, ratio, tables
from bench.outcome import Outcome
from bench.servers import CppDarner, Redis


def flood(conditions: Conditions) -> Outcome:
    """
    As many sets as gets of 64 bytes through a queue that is nearly empty.  Each client has one request in flight.

    memcached is the upper bound: its clients set and read one value again and again, so it spends its time on receiving
    and sending.  A get from beanstalkd takes two round trips, since the client has to delete the job that it received.
    """
    grid: Grid = {}
    names = "darner", "darner-source", "cpp", "redis", "redis-always", "beanstalkd", "memcached"
    with conditions.servers(*names) as servers:
        for server in servers:
            conditions.measure(server, sets=512, gets=0, in_flight=16)
        for clients in conditions.choose((1, 2, 5, 10, 50, 100, 200, 400, 1000, 2000), (1, 10)):
            seconds = conditions.choose(3.0, 0.1)
            grid[clients] = conditions.compare(servers, clients=clients, seconds=seconds)
    outcome = Outcome(tables(grid, "clients"), [plot(grid, "flood", "Queue flooding", "clients")])
    for clients, reach in ((1, 0.8), (10, 1.0), (50, 1.2), (200, 1.2)):
        if clients in grid:
            work = f"flood, {clients} client{'s' * (clients > 1)}, relative to the C++ Darner"
            outcome.at_least(work, reach, ratio(grid[clients], CppDarner))
    outcome.at_least("flood, 50 clients, relative to Redis everysec", 0.6, ratio(grid.get(50, {}), Redis))
    return outcome
