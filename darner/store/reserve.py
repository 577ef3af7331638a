"""
Disk space that is reserved for a full disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path


class Reserve:
    """
    Disk space that is reserved for a full disk.

    Clients must be able to consume items when the disk is full, and consuming writes records.

    @ivar held: whether the space is reserved.
    @ivar reason: the operating system's reason why L{take} failed last.
    """

    def __init__(self, path: Path, size: int) -> None:
        """@param size: in bytes."""
        self._path = path
        self._size = size
        self.held = False
        self.reason = ""

    def take(self) -> bool:
        """
        Reserve the space, unless that would use up the disk.

        It raises no errors, as it is called while clients are served from a failing disk.

        @return: whether the space is reserved now; if not, C{reason} says why.
        """
        if not self.held:
            try:
                self._allocate()
            except OSError as error:
                self.reason = os.strerror(error.errno or errno.EIO)
                self.give_up()
        return self.held

    def _allocate(self) -> None:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            space = os.fstatvfs(file)
            missing = self._size - os.fstat(file).st_blocks * 512
            if missing > 0 and space.f_bavail * space.f_frsize < missing + self._size // 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.posix_fallocate(file, 0, self._size)
            self.held = True
        finally:
            os.close(file)

    def give_up(self) -> None:
        """Release the space, if the disk allows that.  It raises no errors."""
        self.held = False
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            # If the file cannot be removed, it may still be possible to truncate it.
            with contextlib.suppress(OSError):
                os.truncate(self._path, 0)
