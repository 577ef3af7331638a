"""
Damage of a file, and the keys that are lost by it.
"""

from __future__ import annotations

from typing import NamedTuple, Optional


class BadFile(Exception):
    """A file, or a part of it, is malformed.  The text says how."""


class Lost(NamedTuple):
    """An unreadable part of a file, and the range of keys that it may have contained."""

    reason: str
    start: bytes = b""
    """It contained no key below this one."""
    stop: Optional[bytes] = None
    """It contained no key above this one; C{None}: no upper bound."""


class Damage(NamedTuple):
    """The damage of one file."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"
