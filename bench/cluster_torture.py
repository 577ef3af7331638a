"""
Three etcds and three nodes on the loopback interface, whose processes are killed and paused while clients work.

Each client has queues of its own and a model of each (`test.cluster.checker`): what the server answers must be possible
(L{bench.cluster_client}).  In the end all nodes are killed at the same position, and must have the same keys and
values; once with what is left in the queues, and once when these have been emptied::

    python -m bench.cluster_torture --rounds=20
    python -m bench.cluster_torture --rounds=10 --faults=pause,quorum,all

Faults: C{kill} the leader or a follower (kill -9), C{pause} the leader (SIGSTOP), C{quorum}: two etcds are paused,
C{all}: all six processes are killed; and those of L{bench.cluster_faults}: C{disk}, a node loses its data directory,
C{partition}, the network is cut for 3 to 10 s, C{skew}, the clocks of nodes jump by hours, C{power}, all six processes
are killed, and nodes lose what they have not synced.

It prints how long each outage was, for clients that wait, and for one that asks all nodes all the time
(L{bench.cluster_probe}).
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Final, Optional

from bench.cluster_client import LARGE, LESS_LARGE, Client, settings
from bench.cluster_clocks import Clocks
from bench.cluster_faults import FAULTS
from bench.cluster_network import HERE, Network, Place, missing
from bench.cluster_power import PowerlessDisk, kill_traced
from bench.cluster_probe import Probe
from bench.ports import reserve_port
from darner.cluster.replicated_store import ReplicatedStore
from test.cluster.etcd_servers import EtcdServers
from test.servers import FOREGROUND, environment

PATIENCE = 120.0
"""Seconds within which the clients and nodes must be done, when no faults come any more."""
_CLAIM: Final = re.compile(r"cluster: \S+ leads from record (\d+) on")


class Node:
    """The process of a node, and who starts it again."""

    def __init__(
        self, directory: Path, name: str, url: str, options: Sequence[str], place: Place = HERE,
        clocks: Optional[Clocks] = None, disk: Optional[PowerlessDisk] = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.disk = disk
        self._environment = environment() if clocks is None else clocks.environment(name, environment())
        self.host = place.address
        self.port, self.http = reserve_port(), reserve_port()
        self.output = directory / f"{name}.log"
        self._command = [
            *place.prefix, *FOREGROUND, f"--interface={self.host}", f"--http-interface={self.host}",
            f"--port={self.port}", f"--data-dir={directory / name}", f"--cluster={url}",
            f"--cluster-node={name}", f"--cluster-http-port={self.http}", *options,
        ]  # fmt: skip
        self.process: Optional[subprocess.Popen[bytes]] = None
        self.exits: list[int] = []
        self.start()

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.process is not None:
            if self.process.poll() is None:
                return
            self.exits.append(self.process.returncode)
        command = self._command if self.disk is None else self.disk.command(self._command)
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=self._environment)

    @property
    def life(self) -> str:
        """What tells this process from those before it."""
        return f"{self.name}, start {len(self.exits) + 1}"

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        assert self.process is not None
        if self.disk is None:
            self.process.kill()
        else:
            kill_traced(self.process)
        self.process.wait()

    def position(self) -> Optional[int]:
        """@return: the record that it has applied last; C{None} if it does not say."""
        return self.metric("position")

    def metric(self, name: str) -> Optional[int]:
        """@return: one of the figures of its status site; C{None} if it does not say."""
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.http}/metrics", timeout=2) as answer:
                lines = answer.read().decode().splitlines()
        except (OSError, HTTPException):  # also where it ends while it answers
            return None
        wanted = (f"darner_cluster_{name} ", f"darner_cluster_{name}_total ")
        return next(int(float(line.split()[1])) for line in lines if line.startswith(wanted))

    def leads(self) -> bool:
        """@return: whether it listens for clients."""
        with socket.socket() as trying:
            trying.settimeout(1)
            return trying.connect_ex((self.host, self.port)) == 0


def claims(nodes: Sequence[Node]) -> set[int]:
    """@return: the records from which one of these nodes has led, as they say."""
    return {int(number) for node in nodes for number in _CLAIM.findall(node.output.read_text())}


def differences(directories: Sequence[Path]) -> tuple[set[int], list[str]]:
    """
    Compare the stores of nodes that have ended.

    @return: their positions, and the keys that they do not agree on; none if the positions are not the same.
    """
    stores = []
    for directory in directories:
        store = ReplicatedStore(directory)
        stores.append((store.position, store.shared()))
        store.close()
    positions = {position for position, _ in stores}
    if len(positions) > 1:
        return positions, []
    keys = sorted(set().union(*(shared for _, shared in stores)))
    return positions, [
        f"{key!r}: {[shared.get(key, b'no such key')[:60] for _, shared in stores]}"
        for key in keys
        if len({shared.get(key) for _, shared in stores}) > 1
    ]


class Torture:
    """
    All of it.

    @ivar compared: how many times the stores of all nodes were compared.
    @ivar lost_while_joining: how many nodes were killed once more, soon after they had lost their disk.
    @ivar lost: for each loss of a node's power, how many records it had applied a moment before and were not on its
        disk.
    @ivar named: how many faults have a name of their own within their kind.
    """

    def __init__(
        self, clients: int, seed: int, say: Callable[[str], object] = lambda _: None,
        network: Optional[Network] = None, skewed: bool = False, powerless: bool = False,
    ) -> None:  # fmt: skip
        """
        @param say: is told of each round.
        @param network: where it all is, and that it removes; by default it is on the loopback interface.
        @param skewed: whether each node has a clock of its own.
        @param powerless: whether what nodes write is recorded, for faults of power.
        """
        self.network = network
        self._say = say
        self.seed = seed
        self.chance = random.Random(seed)
        self.directory = Path(tempfile.mkdtemp(prefix="darner-cluster-"))
        (self.directory / "settings.toml").write_text(settings(clients))
        (self.directory / "etcd").mkdir()
        (self.directory / "clocks").mkdir()
        (self.directory / "traces").mkdir()
        self.clocks = Clocks(self.directory / "clocks") if skewed else None
        etcds, nodes = ((HERE,) * 3, (HERE,) * 3) if network is None else (network.etcds, network.nodes)
        self.etcd = EtcdServers(None, 3, directory=self.directory / "etcd", places=etcds)
        url = f"etcd://{','.join(self.etcd.endpoints)}/torture"
        options = [f"--config={self.directory / 'settings.toml'}", "--log-level=info"]
        self.nodes = [
            Node(
                self.directory, f"node{number}", url, options, place, self.clocks,
                PowerlessDisk(self.directory / f"node{number}", self.directory / "traces") if powerless else None,
            )
            for number, place in enumerate(nodes)
        ]
        addresses = [(node.host, node.port) for node in self.nodes]
        self.clients = [
            Client(
                addresses, f"{seed} {number}", number, delays=not skewed, large=LESS_LARGE if powerless else LARGE
            )
            for number in range(clients)
        ]
        self.probe = Probe(addresses, lambda number: self.nodes[number].life)
        self.compared = 0
        self.lost_while_joining = 0
        self._faults: list[tuple[float, str]] = []
        self.named = 0
        self.lost: list[int] = []

    def leader(self, patience: float = PATIENCE) -> Node:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            self.tend()
            for node in self.nodes:
                if node.leads():
                    return node
            time.sleep(0.05)
        raise AssertionError("nobody leads")

    def tend(self) -> None:
        """Start again what has ended."""
        for node in self.nodes:
            node.start()

    def fault(self, kind: str) -> None:
        leader = self.leader()
        self._faults.append((time.monotonic(), kind))
        if kind == "kill":
            node = leader if self.chance.random() < 0.7 else self.chance.choice(self.nodes)
            node.kill()
            time.sleep(self.chance.random())
        elif kind == "pause":
            leader.signal(signal.SIGSTOP)
            time.sleep(5 + 3 * self.chance.random())
            leader.signal(signal.SIGCONT)
        elif kind == "quorum":
            stopped = self.chance.sample(self.etcd.servers, 2)
            for server in stopped:
                server.pause()
            time.sleep(4)
            for server in stopped:
                server.resume()
        elif kind == "all":
            for node in self.nodes:
                node.kill()
            self.etcd.kill()
            self.etcd.start()
        elif kind in FAULTS:
            FAULTS[kind](self)
        self.tend()

    def name_fault(self, name: str) -> None:
        """Say more of the fault that has begun."""
        began, kind = self._faults[-1]
        self._faults[-1] = (began, f"{kind}, {name}")
        self.named += 1

    def run(self, rounds: int, faults: Sequence[str], between: float) -> None:
        """@raise AssertionError: a client was told what cannot be."""
        self.leader()
        self.probe.start()
        for client in self.clients:
            client.thread.start()
        for number in range(rounds):
            time.sleep(between * (0.5 + self.chance.random()))
            kind = faults[number % len(faults)]
            self.fault(kind)
            self.leader()
            self.check()
            self._say(f"{number + 1}: {kind}; {sum(client.answers for client in self.clients)} answers")
        time.sleep(between)
        # It asks no more when nodes are compared, as each answer is a record.
        self.probe.stop()
        self._stopped_at = time.monotonic()
        for client in self.clients:
            client.pause()
        self._wait(lambda client: client.idle.is_set(), "works")
        self.compare()
        for client in self.clients:
            client.drain()
        self._wait(lambda client: not client.thread.is_alive(), "empties its queues")
        self.compare()

    def _wait(self, done: Callable[[Client], bool], what: str) -> None:
        """@raise AssertionError: a client is not done in time, or was told what cannot be."""
        deadline = time.monotonic() + PATIENCE
        for client in self.clients:
            while not done(client):
                if time.monotonic() > deadline:
                    raise AssertionError(f"{client.jobs.name} still {what}")
                self.tend()
                time.sleep(0.1)
        self.check()

    def compare(self) -> None:
        """
        Kill all nodes, while no client asks for anything, and compare their keys and values at the same position.

        @raise AssertionError: they are not the same.
        """
        deadline = time.monotonic() + PATIENCE
        before: object = None
        leader = self.leader()
        while time.monotonic() < deadline:
            self.tend()
            positions = {node.position() for node in self.nodes}
            if len(positions) > 1 or None in positions or positions != before:
                before = positions
                time.sleep(0.5)
                continue
            # What it has appended last must reach the others.
            leader.kill()
            time.sleep(0.5)
            for node in self.nodes:
                node.kill()
            at, different = differences([self.directory / node.name for node in self.nodes])
            if different:
                raise AssertionError("\n".join(["nodes at the same position differ", *different[:20]]))
            if len(at) == 1:
                self.compared += 1
                return
            leader = self.leader()
        raise AssertionError(
            f"the nodes do not come to the same position: {[(node.position(), node.exits) for node in self.nodes]}"
        )

    def check(self) -> None:
        self.probe.check()
        for client in self.clients:
            if client.error is not None:
                raise client.error

    def outages(self) -> dict[str, list[float]]:
        """@return: for each kind of fault how long clients had no answer, in seconds, the shortest first."""
        found: dict[str, list[float]] = {}
        for began, ended in (outage for client in self.clients for outage in client.outages):
            kinds = [kind for at, kind in self._faults if at <= began]
            found.setdefault(kinds[-1] if kinds else "none", []).append(ended - began)
        return {kind: sorted(outages) for kind, outages in found.items()}

    def silences(self) -> dict[str, list[float]]:
        """@return: for each kind of fault how long no node answered anybody, in seconds, the shortest first."""
        found: dict[str, list[float]] = {}
        ends = [began for began, _ in self._faults[1:]] + [self._stopped_at]
        for (began, kind), ended in zip(self._faults, ends, strict=True):
            found.setdefault(kind, []).append(self.probe.outage(began, ended))
        return {kind: sorted(silences) for kind, silences in found.items()}

    def end(self) -> None:
        for node in self.nodes:
            node.signal(signal.SIGCONT)
            node.kill()
        self.etcd.end()
        if self.network is not None:
            self.network.end()

    def remove(self) -> None:
        """Remove logs and data."""
        shutil.rmtree(self.directory)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster_torture")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument(
        "--faults", default="kill",
        help="comma-separated, taken in turn: kill, pause, quorum, all, disk, partition, skew, power",
    )  # fmt: skip
    parser.add_argument("--between", type=float, default=2.0, help="seconds between two faults, on average")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    faults = options.faults.split(",")
    if {"disk", "power"} <= set(faults):
        parser.error("disk and power are not for one run: what removes a disk is not among the recorded writes")
    network = None
    if "partition" in faults:
        reason = missing()
        if reason is not None:
            parser.error(reason)
        network = Network()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        torture = Torture(
            options.clients, options.seed, lambda text: print(text, flush=True), network, "skew" in faults,
            "power" in faults,
        )  # fmt: skip
    except BaseException:
        if network is not None:
            network.end()
        raise
    try:
        torture.run(options.rounds, faults, options.between)
    except BaseException:
        torture.end()
        print(f"logs and data are in {torture.directory}", file=sys.stderr)
        raise
    torture.end()
    for what, found in (("as clients saw them", torture.outages()), ("of all nodes", torture.silences())):
        for kind, outages in sorted(found.items()):
            print(
                f"outages {what}, {kind}: {len(outages)}, median {statistics.median(outages):.1f} s, "
                f"longest {outages[-1]:.1f} s"
            )
    print(f"statuses of nodes that ended: {[node.exits for node in torture.nodes]}")
    done = sum((client.done for client in torture.clients), Counter[str]())
    print(f"items: {', '.join(f'{count} {what}' for what, count in sorted(done.items()))}")
    print(f"requests without an answer: {sum(client.in_doubt for client in torture.clients)}")
    if torture.lost:
        print(f"records that nodes had applied and not on their disks, by loss of power: {sorted(torture.lost)}")
    print(f"keys and values of all nodes were compared {torture.compared} times, and are equal")
    taken = sum(node.output.read_text().count("took a snapshot of") for node in torture.nodes)
    print(f"snapshots taken: {taken}; killed soon after their disk was lost: {torture.lost_while_joining}")
    print("nothing lost, nothing twice, order kept")
    torture.remove()


if __name__ == "__main__":
    main(sys.argv[1:])
