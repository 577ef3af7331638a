"""
Several shards on the loopback interface: three etcds that they share, and three nodes of each.

Each three of nodes are as on one machine: of every shard there is one on each, and it is preferred for every third.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Optional

from bench.cluster_torture import Node
from test.cluster.etcd_servers import EtcdServers

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
            url = f"etcd://{','.join(self.etcd.endpoints)}/shard{number}"
            options = [f"--config={self.directory / 'settings.toml'}", "--log-level=info"]
            if count > 1:
                options.append(f"--cluster-shard={number}/{count}")
            nodes = []
            for machine in range(MACHINES):
                prefer = ["--cluster-prefer"] if machine == (number - 1) % MACHINES else []
                nodes.append(Node(self.directory, f"shard{number}-node{machine + 1}", url, [*options, *prefer]))
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

    def leader(self, number: int, patience: float = 60.0) -> Node:
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
