"""
What may be given to a log.
"""

from __future__ import annotations

import re

MAX_NOTE_BYTES = 64 << 10
"""What the note of a node may have at most."""

_NAME = re.compile(r"[!-.0-~]{1,250}")


def check_name(name: str) -> None:
    """@raise ValueError: it is no name of a node or a log: 1 to 250 printable ASCII characters but C{/} and spaces."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"bad name: {name!r}")


def check_record(record: bytes, most: int) -> None:
    """@raise ValueError: the record has more than that many bytes."""
    if len(record) > most:
        raise ValueError(f"a record of {len(record)} bytes: at most {most} are allowed")


def check_note(value: bytes) -> None:
    """@raise ValueError: a note has more than L{MAX_NOTE_BYTES}."""
    if len(value) > MAX_NOTE_BYTES:
        raise ValueError(f"a note of {len(value)} bytes: at most {MAX_NOTE_BYTES} are allowed")
