"""
twistd's log file, opened without setting the umask of the process.

When Twisted rotates the log, it sets the umask of the process to 0777 for an instant, so that the new file is protected
from the start.  A file that LevelDB's thread creates in that instant could not be read by anyone.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from twisted.python.logfile import BaseLogFile


def open_without_umask() -> None:
    """Open all log files of this process without setting the umask."""
    BaseLogFile._openFile = _open_file  # type: ignore[method-assign]


def _open_file(log: Any) -> None:
    """Open a log file for appending, as C{BaseLogFile} does."""
    log.closed = False
    file = os.open(log.path, os.O_RDWR | os.O_CREAT, 0o666 if log.defaultMode is None else 0)
    log._file = os.fdopen(file, "rb+", 0)
    log._file.seek(0, os.SEEK_END)
    if log.defaultMode is not None:
        with suppress(OSError):  # it may be /dev/null
            os.chmod(log.path, log.defaultMode)
