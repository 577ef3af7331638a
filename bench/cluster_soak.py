"""
What a cluster keeps in memory and on disk while very many items go through it.

It starts three etcds and three nodes on the loopback interface, and has so many items set and taken at the leader, in
ten steps.  After each step it prints the rate and, for each etcd and node, resident memory and what is on disk::

    python -m bench.cluster_soak
    python -m bench.cluster_soak --items=1000000 --bytes=1024

What etcd keeps depends on how far the leader trims and compacts the log, so it should be flat from the first step on.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Optional

from bench.cluster_torture import Torture
from bench.remains import resident
from darner.cli.bench import Running
from darner.cli.workload import Workload
from test.cluster.etcd_servers import ETCD

STEPS = 10


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster_soak")
    parser.add_argument("--items", type=int, default=10_000_000, help="how many go through in all")
    parser.add_argument("--bytes", type=int, default=64, help="the size of an item")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--in-flight", type=int, default=32, help="requests of each client")
    options = parser.parse_args(arguments)
    if ETCD is None:
        sys.exit("there is no etcd: apt-get install etcd-server")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        torture = Torture(0, 0)
        stack.callback(torture.remove)
        stack.callback(torture.end)
        torture.leader()
        print(f"load of the machine: {os.getloadavg()[0]:.1f}", flush=True)
        share = options.items // STEPS
        for step in range(1, STEPS + 1):
            result = Running(
                Workload(
                    port=torture.leader().port, sets=share, gets=share, item_bytes=options.bytes,
                    clients=options.clients, in_flight=options.in_flight,
                )
            ).wait()  # fmt: skip
            if result.tally.errors:
                raise AssertionError(f"wrong replies: {result.tally.errors}, first {result.tally.first_error}")
            etcds = (sizes(server.process and server.process.pid, server.data) for server in torture.etcd.servers)
            nodes = (
                sizes(node.process and node.process.pid, torture.directory / node.name) for node in torture.nodes
            )
            print(
                f"{step * share:,} items, {result.rate:.0f} requests/s; etcd: {', '.join(etcds)}; nodes: "
                f"{', '.join(nodes)}",
                flush=True,
            )


def sizes(process: Optional[int], directory: Path) -> str:
    """@return: what a process has in memory and in its directory."""
    memory = resident(process) if process is not None else 0.0
    total = 0
    for path in directory.rglob("*"):
        with suppress(FileNotFoundError):  # deleted meanwhile
            total += os.lstat(path).st_blocks * 512
    return f"{memory:.0f} MiB and {total / 2**20:.0f} MiB on disk"


if __name__ == "__main__":
    main(sys.argv[1:])
