"""
What is wrong with a file, and what is lost by it.
"""

from __future__ import annotations

from typing import NamedTuple, Optional


class BadFile(Exception):
    """A file, or a part of it, is not as LevelDB writes it.  The text says how."""


class Lost(NamedTuple):
    """A part of a file that cannot be read, and the keys that may have been in it."""

    reason: str
    start: bytes = b""
    """No key below this one is in it."""
    stop: Optional[bytes] = None
    """No key above this one is in it; C{None} where any may be."""


class Damage(NamedTuple):
    """What is wrong with a file."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"
