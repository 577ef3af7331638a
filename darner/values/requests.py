"""
What clients ask for, as frozen values, whatever protocol they speak.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Union

from darner.values.items import PutOptions


@dataclass(frozen=True)
class Set:
    """Put an item on a queue; C{size} payload bytes and CR LF follow the line."""

    queue: bytes
    flags: int
    expiry: int
    """As in memcache: 0 never; below 1,000,000 seconds from now; else Unix seconds; below 0 at once."""
    size: int
    noreply: bool = False
    sync: bool = False
    options: Optional[PutOptions] = None
    """What else is asked for; C{None} is nothing."""


@dataclass(frozen=True)
class Get:
    """Read one queue."""

    queue: bytes
    key: bytes
    """The target as the client sent it, options and all."""
    wait: int = 0
    """How long to wait for an item, in ms."""
    open: bool = False
    close: bool = False
    abort: bool = False
    peek: bool = False

    @property
    def fetches(self) -> bool:
        """Whether this read wants an item (a lone close or abort wants none)."""
        return not self.abort and (self.open or not self.close)


@dataclass(frozen=True)
class GetMany:
    """At most one item of each of several queues."""

    queues: tuple[bytes, ...]


@dataclass(frozen=True)
class GetFirst:
    """One item of the first of several queues that has any."""

    choices: tuple[Get, ...]
    """The reads, of which one is done: of different queues, and else the same."""


@dataclass(frozen=True)
class Monitor:
    """Open the items of a queue as they come."""

    queue: bytes
    seconds: float
    maximum: Optional[int] = None
    """After how many items it is over; C{None}: when no more may be open."""


@dataclass(frozen=True)
class Confirm:
    """Close the oldest open reads of a queue."""

    queue: bytes
    count: int


@dataclass(frozen=True)
class Delete:
    queue: bytes
    noreply: bool = False


@dataclass(frozen=True)
class Flush:
    queue: bytes


@dataclass(frozen=True)
class FlushAll:
    noreply: bool = False
    delayed: bool = False
    """Whether memcached's delay argument was given (as 0), which changes the reply."""


@dataclass(frozen=True)
class Touch:
    """Have the time of the client's open reads of a queue begin anew."""

    queue: bytes
    noreply: bool = False


@dataclass(frozen=True)
class Requeue:
    """Move items from one queue to the end of another."""

    origin: bytes
    target: bytes
    count: Optional[int] = None
    """How many at most; C{None} is all that there are."""


@dataclass(frozen=True)
class FlushExpired:
    queue: bytes


@dataclass(frozen=True)
class FlushAllExpired:
    pass


@dataclass(frozen=True)
class Stats:
    pass


@dataclass(frozen=True)
class DumpStats:
    queues: tuple[bytes, ...] = ()
    """The queues asked for; none means all."""


@dataclass(frozen=True)
class DumpConfig:
    queues: tuple[bytes, ...] = ()
    """The queues asked for; none means all."""


@dataclass(frozen=True)
class Reload:
    pass


@dataclass(frozen=True)
class Shutdown:
    pass


@dataclass(frozen=True)
class Status:
    """Ask for the server's status."""


@dataclass(frozen=True)
class SetStatus:
    status: str
    """One of L{STATUSES}."""


@dataclass(frozen=True)
class Version:
    pass


@dataclass(frozen=True)
class Quit:
    pass


@dataclass(frozen=True)
class Refused:
    """
    A line that is not served.

    The stream stays in step where it can: C{payload} bytes and CR LF that follow are to be skipped before the reply
    goes out (C{None}: nothing follows).  Where it cannot, C{close} is true: reply, then end the connection.
    """

    reply: bytes
    payload: Optional[int] = None
    close: bool = False


Request = Union[
    Set, Get, GetMany, GetFirst, Monitor, Confirm, Delete, Flush, FlushAll, FlushExpired, FlushAllExpired, Touch,
    Requeue, Stats, DumpStats, DumpConfig, Reload, Shutdown, Status, SetStatus, Version, Quit, Refused,
]  # fmt: skip
