"""
The entries of logs and tables.
"""

from __future__ import annotations

from typing import NamedTuple, Optional


class Entry(NamedTuple):
    """A write or a deletion of a key.  Of several entries of a key the one with the highest sequence number counts."""

    key: bytes
    sequence: int
    value: Optional[bytes]
    """C{None} for a deletion."""
