"""
A writer of Kestrel's journals, as its C{docs/journal_format.md} and C{Journal.scala} describe them.
"""

from __future__ import annotations

from struct import pack

TIME = 1_300_000_000_123
"""When items were added, in ms since the epoch."""


def add(payload: bytes, expiry: int = 0) -> bytes:
    """@param expiry: in s since the epoch."""
    return pack("<BiI", 0, len(payload) + 4, expiry) + payload


def remove() -> bytes:
    return b"\1"


def addx(payload: bytes, expiry: int = 0, time: int = TIME) -> bytes:
    """@param expiry: in ms since the epoch, as the time is."""
    return pack("<Biqq", 2, len(payload) + 16, time, expiry) + payload


def remove_tentative() -> bytes:
    return b"\3"


def save_xid(xid: int) -> bytes:
    return pack("<Bi", 4, xid)


def unremove(xid: int) -> bytes:
    return pack("<Bi", 5, xid)


def confirm_remove(xid: int) -> bytes:
    return pack("<Bi", 6, xid)


def add_xid(xid: int, payload: bytes) -> bytes:
    return pack("<Biiqq", 7, xid, len(payload) + 16, TIME, 0) + payload


def continue_(xid: int, payload: bytes) -> bytes:
    return pack("<Biiqq", 8, xid, len(payload) + 16, TIME, 0) + payload


def state_dump(xid: int, count: int) -> bytes:
    return pack("<Bii", 8, xid, count)


def remove_tentative_xid(xid: int) -> bytes:
    return pack("<Bi", 9, xid)


def packed(xid: int, opened: dict[int, bytes], items: list[bytes]) -> bytes:
    """@return: a journal as Kestrel 1 rewrites it: the last xid, the open items, and the others."""
    parts = [save_xid(xid)]
    parts += [add_xid(xid, payload) + remove_tentative() for xid, payload in opened.items()]
    return b"".join([*parts, *map(addx, items)])
