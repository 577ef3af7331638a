"""
How fast a cluster of three nodes is, against this server alone with ``/sync``.

It starts three etcds and three nodes on the loopback interface, and a server alone, all on this machine, and puts the
same load on the leader and on the server alone in turn, so that both have the same conditions::

    python -m bench.cluster_throughput
    python -m bench.cluster_throughput --loads=10,50,10x32 --seconds=5 --rounds=5
    python -m bench.cluster_throughput --loads=10 --bytes=1048576

A load is a number of clients, and, behind an C{x}, how many requests each has in flight.  For each it prints the median
of the rounds: requests in a second, sets and gets in equal parts, and how many of them went into one record of the log.
The nodes, the etcds and the load share the processors.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median

from bench.cluster_torture import Torture
from darner.cli.bench import Running
from darner.cli.workload import Workload
from test.cluster.etcd_servers import ETCD
from test.servers import Server


def run(port: int, load: str, size: int, seconds: float) -> float:
    """
    Put a load on a server.

    @return: requests in a second.
    @raise AssertionError: a reply was wrong.
    """
    clients, _, in_flight = load.partition("x")
    result = Running(
        Workload(
            port=port, sets=1, gets=1, item_bytes=size, clients=int(clients), in_flight=int(in_flight or 1), sync=True,
            seconds=seconds,
        )
    ).wait()  # fmt: skip
    if result.tally.errors:
        raise AssertionError(f"wrong replies: {result.tally.errors}")
    return result.rate


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster_throughput")
    parser.add_argument("--loads", default="1,10,50,10x32", help="comma-separated")
    parser.add_argument("--bytes", type=int, default=64, help="the size of an item")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each load is")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    if ETCD is None:
        sys.exit("there is no etcd: apt-get install etcd-server")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        torture = Torture(0, 0)
        stack.callback(torture.remove)
        stack.callback(torture.end)
        alone = Server(Owner(stack))
        torture.leader()
        print(f"load of the machine: {os.getloadavg()[0]:.1f}", flush=True)
        for load in options.loads.split(","):
            rates: tuple[list[float], list[float]] = ([], [])
            shares: list[float] = []
            for _ in range(options.rounds):
                rates[0].append(run(alone.address[1], load, options.bytes, options.seconds))
                leader = torture.leader()
                before = leader.metric("appended") or 0
                rates[1].append(run(leader.port, load, options.bytes, options.seconds))
                records = (leader.metric("appended") or 0) - before
                shares.append(rates[1][-1] * options.seconds / max(1, records))
            one, cluster = median(rates[0]), median(rates[1])
            line = f"{load}: alone {one:.0f}/s, cluster {cluster:.0f}/s, {cluster / one:.2f}"
            if options.bytes >= 1 << 16:
                line += f"; {cluster * options.bytes / 2e6:.1f} MB/s put"
            print(f"{line}; {median(shares):.1f} requests in a record", flush=True)
        ended = [node.exits for node in torture.nodes if node.exits]
        if ended:
            print(f"statuses of nodes that ended meanwhile: {ended}")


class Owner:
    """Ends a server when the stack does."""

    def __init__(self, stack: ExitStack) -> None:
        self.addCleanup = stack.callback


if __name__ == "__main__":
    main(sys.argv[1:])
