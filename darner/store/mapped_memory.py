"""
Release of the memory into which LevelDB maps its tables.

LevelDB reads its tables through hundreds of memory maps of some megabytes each.  The pages that it has read count as
the process's memory until the kernel needs them or the table is deleted.  So code that reads much releases them from
time to time, and L{MappedMemory} does so while something is written, as LevelDB merges tables in its own thread.
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
"""Linux 5.4 and later.  It does not change contents, so it is harmless even if LevelDB unmaps a table meanwhile."""

_MAPS: Final = Path("/proc/self/maps")
_STATM: Final = Path("/proc/self/statm")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@functools.cache
def _madvise() -> Any:
    return ctypes.CDLL(None).madvise  # cached, as each CDLL creates a class


def mapped() -> int:
    """@return: bytes of mapped files in this process's memory; 0 if the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[2]) * _PAGE
    except OSError:
        return 0


def page_out(directory: Path, maps: Path = _MAPS) -> int:
    """
    Release the memory in which files of a directory are mapped.

    @return: the number of maps; 0 if the system does not tell.
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
            # A thread that is reading a table faults next.  Without this advice the kernel would then also read back
            # megabytes that were just released: 475 MB instead of 37 MB while 400 MB of large items were put.
            madvise(at, size, _MADV_SEQUENTIAL)
            madvise(at, size, _MADV_PAGEOUT)
            count += 1
    return count


class MappedMemory:
    """
    Limits the memory of a directory's mapped files while something is written to them.

    A merge in LevelDB reads tens of megabytes in a tenth of a second, so the memory must be checked more often.  The
    writing thread checks; while none writes, a thread of this object does, because merges continue after the last
    write and the next writes wait for them.  (A busy server was 10 % slower with the second thread alone, as that
    needs the interpreter's lock each time.)  The second thread ends when it has nothing to do; the next write starts
    it again.
    """

    EVERY: Final = 0.005
    """Seconds between two checks of about 10 us.  With 10 ms the peak is 2 to 8 MB higher, and nothing is cheaper."""
    AWAY: Final = 0.02
    """Seconds between two looks of the thread whether others still write."""
    READ: Final = 8 * 1024 * 1024
    """Bytes read between two checks."""
    MOST: Final = 5 * 1024 * 1024
    """Bytes above the minimum that may be mapped."""
    QUIET: Final = 40
    """The number of checks without effect after which the thread ends.  A merge has begun by then."""

    def __init__(
        self,
        directory: Path,
        size: Callable[[], int] = mapped,
        give_back: Callable[[Path], object] = page_out,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        @param size: returns the mapped bytes.
        @param give_back: releases them.
        @param seconds: a monotonic clock.
        """
        self._directory = directory
        self._size = size
        self._give_back = give_back
        self._least = size()
        self._seconds = seconds
        self._look_at = 0.0
        self._read_bytes = 0
        self._active = False
        self._lock = threading.Lock()
        self._thread: Optional[threading.Thread] = None
        self._stopping = threading.Event()
        if not self._least:
            self._stopping.set()  # the system does not tell

    def written(self) -> None:
        """Called for every write, in any thread."""
        self._active = True
        now = self._seconds()
        if now >= self._look_at:
            self._look_at = now + self.EVERY
            self.check()
        if self._thread is None:
            self._start()

    def read(self, size: int) -> None:
        """Called for every read of this many bytes, in any thread."""
        self._read_bytes += size
        if self._read_bytes > self.READ:
            self._read_bytes = 0
            self.check()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._stopping.is_set():
                thread = threading.Thread(target=self._run, name="darner-maps", daemon=True)
                with suppress(RuntimeError):  # if no thread can be started, write all the same
                    self._thread = thread
                    thread.start()
                    return
                self._thread = None

    def stop(self) -> None:
        """Stop the thread for good."""
        self._stopping.set()
        with self._lock:
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        quiet = 0
        pause = self.AWAY
        while quiet < self.QUIET:
            # If the wait depends on the wall clock (`darner.net.clock`) and that is set back, this runs late.
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
        Release the mapped memory if there is much of it.

        @return: whether there was.
        """
        size = self._size()
        if size <= self._least + self.MOST:
            self._least = min(self._least, size)
            return False
        self.page_out()
        return True

    def page_out(self) -> None:
        """Release all mapped memory of the directory."""
        self._give_back(self._directory)
        # The rest belongs to other files.
        self._least = self._size()
