"""
Faults of the network, the clocks and the disks of a cluster under torture (L{bench.cluster_torture}).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Optional

from bench.cluster_partitions import NO_QUORUM, SHAPES, Scene
from bench.cluster_power import follows_from

if TYPE_CHECKING:
    from bench.cluster_torture import Node, Torture

PATIENCE: Final = 120.0
"""Seconds within which a node must have started, or joined."""


def _wait(torture: Torture, seconds: float) -> None:
    """Let time pass; what ends meanwhile is started again."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        torture.tend()
        time.sleep(0.1)


def partition(torture: Torture) -> None:
    """Cut the network in the next shape, for 3 to 10 s."""
    assert torture.network is not None
    shape = list(SHAPES)[torture.named % len(SHAPES)]
    etcd = torture.etcd.servers.index(torture.etcd.leader())
    SHAPES[shape](Scene(torture.network, torture.probe.leader(), etcd))
    began = time.monotonic()
    torture.name_fault(shape)
    _wait(torture, 3 + 7 * torture.chance.random())
    if shape == NO_QUORUM:
        answered = torture.probe.within(began, time.monotonic())
        if answered:
            raise AssertionError(f"{answered} requests were answered while no machine reached another one")
    torture.network.heal()


def skew(torture: Torture) -> None:
    """The clocks of nodes jump, up to an hour forth or back; two times of three the leader dies, too."""
    assert torture.clocks is not None
    for node in torture.nodes:
        torture.clocks.jump(node.name, torture.chance.choice((-3600, -60, 0, 60, 3600)))
    if torture.chance.random() < 0.67:
        torture.nodes[torture.probe.leader()].kill()
        torture.name_fault("the leader dies")
    else:
        torture.name_fault("nobody dies")


def power(torture: Torture) -> None:
    """
    All machines lose their power, or only two of them: what nodes have not synced may be lost, in part or in whole.

    @raise AssertionError: a node has lost what it had told others is safe.
    """
    numbers = torture.chance.choice(((0, 1, 2), (0, 1, 2), torture.chance.sample(range(3), 2)))
    torture.name_fault(f"{len(numbers)} machines")
    nodes = [torture.nodes[number] for number in numbers]
    told = [(node.metric("durable"), node.position()) for node in nodes]
    for number, node in zip(numbers, nodes, strict=True):
        node.kill()
        torture.etcd.servers[number].kill()
    for node in nodes:
        assert node.disk is not None
        node.disk.lose_power(torture.chance)
    said = [len(node.output.read_bytes()) for node in nodes]
    for number in numbers:
        torture.etcd.servers[number].start()
    for node, (durable, position), before in zip(nodes, told, said, strict=True):
        found = _follows_from(torture, node, before)
        if durable is None or position is None:
            continue  # it was about to start
        if found < durable:
            raise AssertionError(f"{node.name} has records up to {found}, and had said that {durable} is safe")
        torture.lost.append(max(0, position - found))


def _follows_from(torture: Torture, node: Node, before: int) -> int:
    """
    Start what has ended.

    @param before: the length of the node's log before that.
    @return: the record from which the node follows.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        torture.tend()
        found = follows_from(node.output.read_bytes()[before:].decode())
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{node.name} does not follow")
        time.sleep(0.05)


def disk(torture: Torture) -> None:
    """A node loses its data directory, and may be killed again while it takes a snapshot.  Wait until it has joined."""
    node = torture.leader() if torture.chance.random() < 0.4 else torture.chance.choice(torture.nodes)
    node.kill()
    shutil.rmtree(torture.directory / node.name)
    node.start()
    if torture.chance.random() < 0.5:
        time.sleep(torture.chance.random() * 2)
        node.kill()
        torture.lost_while_joining += 1
    # No other disk may be lost before it has on its own what the others have.
    deadline = time.monotonic() + PATIENCE
    reached: Optional[int] = None
    while reached is None or (node.metric("durable") or 0) < reached:
        torture.tend()
        if time.monotonic() > deadline:
            raise AssertionError(f"{node.name} does not join")
        reached = reached or torture.leader().position()
        time.sleep(0.1)


FAULTS: Final[dict[str, Callable[[Torture], None]]] = {
    "partition": partition, "skew": skew, "power": power, "disk": disk,
}  # fmt: skip
"""What does it, by the name of its kind."""
