"""
How many processors there are for this process, for whoever wants to wait awake on one of them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

GROUPS: Final = Path("/sys/fs/cgroup")
"""Where control groups are mounted (cgroups(7), version 2)."""
OWN_GROUP: Final = Path("/proc/self/cgroup")


def processors(groups: Path = GROUPS, own_group: Path = OWN_GROUP) -> float:
    """
    @return: how many processors this process may keep busy: those it may run on, or fewer where it, or whatever holds
        it, has a quota of CPU time (C{CPUQuota=} of systemd, C{--cpus} of containers).
    """
    allowed = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    with suppress(OSError, ValueError):
        group = groups / own_group.read_text().partition("0::/")[2].partition("\n")[0]
        for holder in (group, *group.parents):
            allowed = min(allowed, _quota(holder / "cpu.max"))
            if holder == groups:
                break
    return allowed


def _quota(path: Path) -> float:
    """@return: the share of CPU time that a file C{cpu.max} says, which the root has not: 1 is one processor."""
    if not path.exists():
        return float("inf")
    quota, period = path.read_text().split()
    return float("inf") if quota == "max" else int(quota) / int(period)
