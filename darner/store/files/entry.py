"""
What a log or a table holds.
"""

from __future__ import annotations

from typing import NamedTuple, Optional


class Entry(NamedTuple):
    """What was done to a key; of several entries of one key that of the highest sequence number holds."""

    key: bytes
    sequence: int
    value: Optional[bytes]
    """C{None} where it was deleted."""
