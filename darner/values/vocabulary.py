"""
Names, limits and server statuses that all packages share.
"""

from __future__ import annotations

import re
from typing import Final

from darner.errors import BadQueueName, ClientError

MAX_FLAGS: Final = 2**32 - 1

MAX_WAIT: Final = 2**31 - 1
"""The longest wait, in ms (24 days).  Longer ones are shortened to it."""

MAX_DELAY: Final = 100 * 365 * 24 * 3600 * 1000
"""The longest delay, in ms (100 years).  Longer ones are shortened to it."""

DIALECTS: Final = ("kestrel", "memcache")
"""The dialects of the memcache protocol, named after the server whose clients understand them."""

MAX_RELATIVE_EXPIRY: Final = 30 * 24 * 3600
"""An expiry up to this, in seconds, counts from now; a later one is Unix time."""

FIRST_EXPIRY_DATE: Final = 1_000_000_000
"""
The earliest Unix time that is accepted as an expiry (September 2001).  A client that sends less means a relative time
beyond the protocol's limit; as a date it would lose the item at once.
"""

STATUSES: Final = ("up", "readonly", "quiescent")
"""The statuses of a server.  Each refuses more requests than the one before."""

CHUNK_BYTES: Final = 64 * 1024
"""Length of a chunk.  A run contains items up to this size whole; a larger item is a stream of chunks."""

_QUEUE_NAME: Final = re.compile(rb"[!-.0-~]{1,250}")


def check_queue_name(name: bytes) -> bytes:
    """
    @return: C{name}
    @raise BadQueueName: the name is not 1 to 250 printable ASCII bytes without ``/`` and white space.
    """
    if not _QUEUE_NAME.fullmatch(name):
        raise BadQueueName()
    return name


def check_id(id: bytes) -> bytes:
    """
    @return: C{id}
    @raise ClientError: the id would not be valid as the name of a queue.
    """
    if not _QUEUE_NAME.fullmatch(id):
        raise ClientError("bad id")
    return id


def check_expiry(expiry: int, longest: int = MAX_RELATIVE_EXPIRY) -> int:
    """
    @param longest: the longest expiry, in seconds, that counts from now.
    @return: C{expiry}
    @raise ClientError: it would be a date decades in the past.
    """
    if longest < expiry < FIRST_EXPIRY_DATE:
        raise ClientError(f"expiry is over {longest} s, and too early for a date")
    return expiry


def chunk_count(size: int) -> int:
    """@return: how many chunks a stream of C{size} bytes has."""
    return -(-size // CHUNK_BYTES)
