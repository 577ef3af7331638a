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


FAULTS: Final[dict[str, Callable[[Torture], None]]] = {"partition": partition}
"""What does it, by the name of its kind."""
