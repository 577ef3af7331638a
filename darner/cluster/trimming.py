"""
How far the log may be trimmed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from darner.cluster.notes import Note

ALIVE: Final = 600.0
"""Seconds without a note after which the log is not kept for a node any more."""
KEPT_BYTES: Final = 128 << 20
"""Bytes in the log from which it is kept for a majority alone."""
HELD: Final = 10.0
"""Seconds without a note after which the log is not kept for a node that takes a snapshot, or has just taken one."""
HELD_BYTES: Final = 1 << 30
"""Bytes in the log from which it is not kept for such nodes any more: they start again with a newer snapshot."""


def trim_to(notes: Mapping[str, Note], size: int, kept_bytes: int) -> int:
    """
    @param notes: of all nodes, also of those that do not run.
    @param size: how many nodes the cluster has at least.
    @param kept_bytes: about how many bytes the log has.
    @return: the last record that can be dropped: a majority has it on stable storage, and so have all that are alive,
        as long as the log is small, or need it behind their snapshot; 0 for none.
    """
    durable = sorted((note.durable for note in notes.values()), reverse=True)
    majority = max(size, len(durable)) // 2 + 1
    if len(durable) < majority:
        return 0
    if kept_bytes > KEPT_BYTES:
        held = [note.holding for note in notes.values() if note.holding and note.age < HELD]
        return min([durable[majority - 1]] + (held if kept_bytes <= HELD_BYTES else []))
    return min([durable[majority - 1], *(note.durable for note in notes.values() if note.age < ALIVE)])
