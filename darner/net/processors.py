"""
The number of processors for this process: with one alone, polling without sleep would keep clients from running.
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
    @return: the number of processors that this process may keep busy: those it may run on, or fewer if a control group
        of it has a quota of CPU time (C{CPUQuota=} of systemd, C{--cpus} of containers).
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
    """@return: the quota in a file C{cpu.max}, in processors; the root group has no such file, and no quota."""
    if not path.exists():
        return float("inf")
    quota, period = path.read_text().split()
    return float("inf") if quota == "max" else int(quota) / int(period)
