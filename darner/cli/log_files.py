"""
twistd's log file, opened without setting the umask of the process.

To make a file that nobody else may read meanwhile, Twisted sets the umask to 0777 for an instant when it rotates the
log.  LevelDB's thread makes files as well; what it makes in that instant, nobody may read any more.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from twisted.python.logfile import BaseLogFile


def open_without_umask() -> None:
    """Have every log file of this process be opened without setting the umask."""
    BaseLogFile._openFile = _open_file  # type: ignore[method-assign]


def _open_file(log: Any) -> None:
    """Open a log file to be written on, as C{BaseLogFile} does."""
    log.closed = False
    file = os.open(log.path, os.O_RDWR | os.O_CREAT, 0o666 if log.defaultMode is None else 0)
    log._file = os.fdopen(file, "rb+", 0)
    log._file.seek(0, os.SEEK_END)
    if log.defaultMode is not None:
        with suppress(OSError):  # it may be /dev/null
            os.chmod(log.path, log.defaultMode)
