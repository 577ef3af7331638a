"""
The file in the data directory that keeps the server's status for the next start.
"""

from __future__ import annotations

import os
from pathlib import Path


class StatusFile:
    """The status file of a data directory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str:
        """
        @return: the contents, which need not be a valid status; empty if there is no file.
        @raise OSError: it cannot be read.
        """
        try:
            return self._path.read_bytes()[:64].decode("ascii", "replace").strip()
        except FileNotFoundError:
            return ""

    def write(self, status: str) -> None:
        """
        Replace the contents.  After a loss of power the file contains the old status or the new one.

        This syncs in the reactor's thread, while all clients wait: the status changes a few times a year.

        @raise OSError: it cannot be written.
        """
        new = self._path.with_name(f".{self._path.name}.new")
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(file, status.encode("ascii") + b"\n")
            os.fsync(file)
        finally:
            os.close(file)
        new.rename(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
