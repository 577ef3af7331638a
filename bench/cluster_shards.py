"""
Several shards on the loopback interface: three etcds that they share, and three nodes of each.

Each three of nodes are as on one machine: of every shard there is one on each, and it is preferred for every third.

::

    python -m bench.cluster_shards --rounds=8

kills the leader of the first of two shards again and again, and prints how long a client waits for its next put there,
and for one in the other shard.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from bench.cluster_torture import Node
from darner.client import blocking
from test.cluster.etcd_servers import ETCD, EtcdServers

MACHINES = 3


class Shards:
    """
    All of it.

    @ivar directory: its data and logs.
    @ivar nodes: those of each shard, the first shard first.
    @ivar urls: the logs of the shards.
    """

    def __init__(self, count: int, settings: str = "") -> None:
        """
        @param count: how many shards; a single one has all queues.
        @param settings: of the configuration file that all nodes share.
        """
        self.directory = Path(tempfile.mkdtemp(prefix="darner-cluster-"))
        (self.directory / "etcd").mkdir()
        (self.directory / "settings.toml").write_text(settings)
        self.etcd = EtcdServers(None, MACHINES, directory=self.directory / "etcd")
        self.urls: list[str] = []
        self.nodes: list[list[Node]] = []
        for number in range(1, count + 1):
            log, prefix = (f"shard{number}", f"shard{number}-") if count > 1 else ("cluster", "")
            url = f"etcd://{','.join(self.etcd.endpoints)}/{log}"
            options = [f"--config={self.directory / 'settings.toml'}", "--log-level=info"]
            if count > 1:
                options.append(f"--cluster-shard={number}/{count}")
            nodes = []
            for machine in range(MACHINES):
                preferred = count > 1 and machine == (number - 1) % MACHINES
                prefer = ["--cluster-prefer"] if preferred else []
                nodes.append(Node(self.directory, f"{prefix}node{machine + 1}", url, [*options, *prefer]))
            self.urls.append(url)
            self.nodes.append(nodes)

    @property
    def places(self) -> list[list[str]]:
        """Where the nodes of each shard listen, for clients."""
        return [[f"{node.host}:{node.port}" for node in nodes] for nodes in self.nodes]

    def tend(self) -> None:
        """Start again what has ended."""
        for nodes in self.nodes:
            for node in nodes:
                node.start()

    def leader(self, number: int, patience: float = 120.0) -> Node:
        """@return: the node that leads a shard; waits for it."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            self.tend()
            leading: Optional[Node] = next((node for node in self.nodes[number - 1] if node.leads()), None)
            if leading is not None:
                return leading
            time.sleep(0.05)
        raise AssertionError(f"nobody leads shard {number}")

    def end(self) -> None:
        """Kill all, and remove the data."""
        for nodes in self.nodes:
            for node in nodes:
                node.kill()
        self.etcd.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


def put(client: blocking.Shards, queue: str) -> float:
    """@return: how many seconds it took, however often it was in doubt."""
    began = time.monotonic()
    while True:
        with contextlib.suppress(blocking.InDoubt):
            client.put(queue, b"x")
            return time.monotonic() - began


def main(arguments: Sequence[str]) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster_shards", description="Kill leaders of a shard.")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args(arguments)
    if ETCD is None:
        sys.exit("there is no etcd: apt-get install etcd-server")
    service = Shards(2)
    try:
        with blocking.Shards(service.places, timeout=60) as client:
            here, there = "photos", "jobs"  # in the first shard, and in the second one
            outages, others = [], []
            for _ in range(options.rounds):
                put(client, here), put(client, there)
                service.leader(1).kill()
                others.append(put(client, there))
                outages.append(others[-1] + put(client, here))
                service.leader(1)
                time.sleep(3)
        print(f"outage: median {statistics.median(outages):.1f} s, longest {max(outages):.1f} s")
        print(f"the other shard: longest {max(others) * 1e3:.0f} ms")
    finally:
        service.end()


if __name__ == "__main__":
    main(sys.argv[1:])
