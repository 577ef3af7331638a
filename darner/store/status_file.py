"""
The file in the data directory that keeps the server's status for the next start.
"""

from __future__ import annotations

import os
from pathlib import Path


class StatusFile:
    """The file that tells the next start which status the server has."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str:
        """
        @return: what was kept, which need not be a status; empty where nothing was.
        @raise OSError: it cannot be read.
        """
        try:
            return self._path.read_bytes()[:64].decode("ascii", "replace").strip()
        except FileNotFoundError:
            return ""

    def write(self, status: str) -> None:
        """
        Keep a status: the file holds the old one or the new, also after a loss of power.

        It is synced at once, while everybody waits: this is asked for some few times a year.

        @raise OSError: it cannot be kept.
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
