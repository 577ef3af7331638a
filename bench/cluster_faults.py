"""
Faults of the network, the clocks and the disks of a cluster under torture (L{bench.cluster_torture}).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bench.cluster_partitions import NO_QUORUM, SHAPES, Scene

if TYPE_CHECKING:
    from bench.cluster_torture import Torture


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


FAULTS: Final[dict[str, Callable[[Torture], None]]] = {"partition": partition, "skew": skew}
"""What does it, by the name of its kind."""
