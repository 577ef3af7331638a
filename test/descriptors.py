"""
The descriptors that this process has open.
"""

from __future__ import annotations

import os
from contextlib import suppress


def descriptors() -> set[tuple[str, str]]:
    """
    @return: number and file of each.  Those of which earlier tests have left cycles of garbage may go at any time, so
        tests look whether there are new ones.
    """
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found
