"""
Giving back the memory into which LevelDB maps its tables.

LevelDB reads its tables through memory maps, hundreds of them of some megabytes each.  All that was read of them counts
as the process's memory until the kernel needs it for something else, or the table is deleted.  So whoever reads much
says from time to time that it is not needed any more; and while something is written, a L{MappedMemory} does, as
LevelDB merges tables in a thread of its own.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Optional

_MADV_SEQUENTIAL: Final = 2
_MADV_PAGEOUT: Final = 21
"""Linux 5.4 and later.  It changes no contents: harmless, also when LevelDB unmaps a table meanwhile."""

_MAPS: Final = Path("/proc/self/maps")
_STATM: Final = Path("/proc/self/statm")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@functools.cache
def _madvise() -> Any:
    return ctypes.CDLL(None).madvise  # once: it makes a class of its own


def mapped() -> int:
    """@return: how many bytes of files this process has mapped into memory; 0 where the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[2]) * _PAGE
    except OSError:
        return 0


def page_out(directory: Path, maps: Path = _MAPS) -> int:
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
    madvise = _madvise()
    for line in lines:
        if below in line:
            start, stop = (int(address, 16) for address in line.split(None, 1)[0].split(b"-"))
            at, size = ctypes.c_void_p(start), ctypes.c_size_t(stop - start)
            # Whoever is in the middle of a table faults next, and the kernel would read the disk also for megabytes
            # behind him, which were just given back: 475 MB while 400 MB of large items were set, and 37 MB with this.
            madvise(at, size, _MADV_SEQUENTIAL)
            madvise(at, size, _MADV_PAGEOUT)
            count += 1
    return count


class MappedMemory:
    """
    Keeps small what is mapped of a directory's files while something is written to them.

    A merge of LevelDB's reads tens of megabytes in a tenth of a second.  So it is looked more often than that whether
    much has come to be in memory, and it is given back then: by the thread that writes, and by one of its own while
    nobody does, as merges go on behind the last write, and writes wait for them.  (By the thread alone a busy server
    was a tenth slower, for it has to have the interpreter's lock each time.)  The thread ends when there is nothing to
    do, and is there again with the next write.
    """

    EVERY: Final = 0.005
    """
    Seconds between two looks, each of some 10 us.  With 10 ms the peak is 2 to 8 MB higher, and nothing is cheaper.
    """
    AWAY: Final = 0.02
    """Seconds for which the thread leaves it to those who write, as long as they do."""
    MOST: Final = 5 * 1024 * 1024
    """How many bytes more than at least may be mapped."""
    QUIET: Final = 40
    """After how many looks at which there was nothing to do the thread ends: a merge has begun by then."""

    def __init__(
        self,
        directory: Path,
        size: Callable[[], int] = mapped,
        give_back: Callable[[Path], object] = page_out,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        @param size: how much is mapped.
        @param give_back: gives it back.
        @param seconds: a monotonic clock.
        """
        self._directory = directory
        self._size = size
        self._give_back = give_back
        self._least = size()
        self._seconds = seconds
        self._look_at = 0.0
        self._active = False
        self._lock = threading.Lock()
        self._thread: Optional[threading.Thread] = None
        self._stopping = threading.Event()
        if not self._least:
            self._stopping.set()  # the system does not tell

    def written(self) -> None:
        """Something is written.  May be called in any thread, and is called with every write."""
        self._active = True
        now = self._seconds()
        if now >= self._look_at:
            self._look_at = now + self.EVERY
            self.check()
        if self._thread is None:
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._stopping.is_set():
                thread = threading.Thread(target=self._run, name="darner-maps", daemon=True)
                with suppress(RuntimeError):  # there may be no more threads: that is no reason not to write
                    self._thread = thread
                    thread.start()
                    return
                self._thread = None

    def stop(self) -> None:
        """End the thread, for good."""
        self._stopping.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        quiet = 0
        pause = self.AWAY
        while quiet < self.QUIET:
            # Where that goes by the wall clock (`darner.net.clock`) and it is set back, memory is given back later.
            if self._stopping.wait(pause):
                break
            if self._active:
                self._active = False
                quiet = 0
                pause = self.AWAY
            else:
                quiet = 0 if self.check() else quiet + 1
                pause = self.EVERY
        self._thread = None

    def check(self) -> bool:
        """
        See whether much is mapped, and give it back.

        @return: whether it was.
        """
        size = self._size()
        if size <= self._least + self.MOST:
            self._least = min(self._least, size)
            return False
        self.page_out()
        return True

    def page_out(self) -> None:
        """Give back all that is mapped."""
        self._give_back(self._directory)
        # The rest is somebody else's.
        self._least = self._size()
