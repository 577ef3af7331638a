"""
Letting go of what LevelDB has mapped into memory.

LevelDB reads its tables through memory maps, hundreds of them of some megabytes each.  All that was read of them counts
as the process's memory until the kernel needs it for something else, or the table is deleted.  So whoever reads much
says from time to time that it is not needed any more.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Final

_MADV_PAGEOUT: Final = 21
"""Linux 5.4 and later.  It changes no contents: harmless, also when LevelDB unmaps a table meanwhile."""

_MAPS: Final = Path("/proc/self/maps")


def let_go(directory: Path, maps: Path = _MAPS) -> int:
    """
    Give back the memory in which files of a directory are mapped.

    @return: how many maps there were; 0 as well where the system does not tell.
    """
    below = os.fsencode(os.path.realpath(directory) + os.sep)
    count = 0
    try:
        lines = maps.read_bytes().splitlines()
    except OSError:
        return 0
    madvise = ctypes.CDLL(None).madvise  # once: it makes a class of its own
    for line in lines:
        if below in line:
            start, stop = (int(address, 16) for address in line.split(None, 1)[0].split(b"-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), _MADV_PAGEOUT)
            count += 1
    return count
