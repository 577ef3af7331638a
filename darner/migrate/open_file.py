"""
Payloads in files of a source: each is read from its offset when it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Optional

from darner.migrate.sources import Unreadable

PIECE: Final = 64 * 1024
"""Bytes of a payload that are in memory at a time."""


class OpenFile:
    """The file that was read last, kept open: the next payload is mostly in the same one."""

    def __init__(self) -> None:
        self._path: Optional[Path] = None
        self._file = -1

    def read(self, path: Path, offset: int, size: int) -> Iterator[bytes]:
        """
        @return: the payload of C{size} bytes at an offset, in pieces.
        @raise Unreadable: while it is iterated, where it cannot be read.
        """
        try:
            if path != self._path:
                self.close()
                self._file = os.open(path, os.O_RDONLY)
                self._path = path
            while size:
                piece = os.pread(self._file, min(size, PIECE), offset)
                if not piece:
                    raise Unreadable(f"{path.name}, offset {offset}", f"{size} bytes are missing")
                offset += len(piece)
                size -= len(piece)
                yield piece
        except OSError as error:
            raise Unreadable(f"{path.name}, offset {offset}", str(error.strerror)) from error

    def close(self) -> None:
        """Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file, self._path = -1, None

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
