"""
What clients ask for, as frozen values, whatever protocol they speak, and which rights each of them needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Protocol

from darner.values.items import PutOptions


class Permissions(Protocol):
    """What one user may do."""

    everything: bool
    """Whether that is to administrate all queues, and so the server."""

    def may_read(self, queue: bytes) -> bool: ...

    def may_write(self, queue: bytes) -> bool: ...

    def may_administrate(self, queue: bytes) -> bool: ...

    def may_see(self, queue: bytes) -> bool:
        """Whether its name and figures are the user's business."""


class Request:
    """A request.  Each kind says for itself what it needs."""

    def for_all(self) -> bool:
        """@return: whether it is served before the client has logged in."""
        return False

    def allowed(self, user: Permissions) -> bool:
        """@return: whether a user may ask for this."""
        raise NotImplementedError


@dataclass(frozen=True)
class Set(Request):
    """Put an item on a queue; C{size} payload bytes and CR LF follow the line."""

    queue: bytes
    flags: int
    expiry: int
    """0 never; below 0 at once; up to L{darner.values.vocabulary.MAX_RELATIVE_EXPIRY} s from now; else Unix time."""
    size: int
    noreply: bool = False
    sync: bool = False
    options: Optional[PutOptions] = None
    """What else is asked for; C{None} is nothing."""

    def allowed(self, user: Permissions) -> bool:
        return user.may_write(self.queue)


@dataclass(frozen=True)
class PutItems(Request):
    """Put items on a queue, in order, up to the first that is refused."""

    queue: bytes
    expiry: int = 0
    """In ms from now; 0 never; below 0 at once."""
    refusal: bytes = b""
    """The reply where it cannot be done; the items follow all the same."""

    def allowed(self, user: Permissions) -> bool:
        return user.may_write(self.queue)


@dataclass(frozen=True)
class Get(Request):
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
    close_all: bool = False
    """Whether to close every open read of the queue first."""
    numbered: bool = False
    """Whether the client wants a number that identifies the item, in those dialects that have one."""

    @property
    def fetches(self) -> bool:
        """Whether this read wants an item (a lone close or abort wants none)."""
        return not self.abort and (self.open or not self.close)

    def allowed(self, user: Permissions) -> bool:
        return user.may_read(self.queue)


@dataclass(frozen=True)
class GetMany(Request):
    """At most one item of each of several queues."""

    queues: tuple[bytes, ...]
    numbered: bool = False
    """As L{Get.numbered}."""

    def allowed(self, user: Permissions) -> bool:
        return all(user.may_read(queue) for queue in self.queues)


@dataclass(frozen=True)
class GetFirst(Request):
    """One item of the first of several queues that has any."""

    choices: tuple[Get, ...]
    """The reads, of which one is done: of different queues, and else the same."""

    def allowed(self, user: Permissions) -> bool:
        return all(user.may_read(choice.queue) for choice in self.choices)


@dataclass(frozen=True)
class Monitor(Request):
    """Open the items of a queue as they come."""

    queue: bytes
    seconds: float
    maximum: Optional[int] = None
    """After how many items it is over; C{None}: when no more may be open."""
    close_all: bool = False
    """As L{Get.close_all}."""

    def allowed(self, user: Permissions) -> bool:
        return user.may_read(self.queue)


@dataclass(frozen=True)
class Confirm(Request):
    """Close the oldest open reads of a queue."""

    queue: bytes
    count: int

    def allowed(self, user: Permissions) -> bool:
        return user.may_read(self.queue)


@dataclass(frozen=True)
class Delete(Request):
    queue: bytes
    noreply: bool = False

    def allowed(self, user: Permissions) -> bool:
        return user.may_administrate(self.queue)


@dataclass(frozen=True)
class Flush(Request):
    queue: bytes

    def allowed(self, user: Permissions) -> bool:
        return user.may_administrate(self.queue)


@dataclass(frozen=True)
class FlushAll(Request):
    noreply: bool = False
    delayed: bool = False
    """Whether memcached's delay argument was given (as 0), which changes the reply."""

    def allowed(self, user: Permissions) -> bool:
        return user.everything


@dataclass(frozen=True)
class Touch(Request):
    """Have the time of the client's open reads of a queue begin anew."""

    queue: bytes
    noreply: bool = False

    def allowed(self, user: Permissions) -> bool:
        return user.may_read(self.queue)


@dataclass(frozen=True)
class Requeue(Request):
    """Move items from one queue to the end of another."""

    origin: bytes
    target: bytes
    count: Optional[int] = None
    """How many at most; C{None} is all that there are."""

    def allowed(self, user: Permissions) -> bool:
        return user.may_read(self.origin) and user.may_write(self.target)


@dataclass(frozen=True)
class FlushExpired(Request):
    queue: bytes

    def allowed(self, user: Permissions) -> bool:
        return user.may_administrate(self.queue)


@dataclass(frozen=True)
class FlushAllExpired(Request):
    def allowed(self, user: Permissions) -> bool:
        return user.everything


@dataclass(frozen=True)
class Stats(Request):
    def allowed(self, user: Permissions) -> bool:
        return True  # of those queues that may be seen


@dataclass(frozen=True)
class DumpStats(Request):
    queues: tuple[bytes, ...] = ()
    """The queues asked for; none means all."""

    def allowed(self, user: Permissions) -> bool:
        return all(user.may_see(queue) for queue in self.queues)


@dataclass(frozen=True)
class DumpConfig(Request):
    queues: tuple[bytes, ...] = ()
    """The queues asked for; none means all."""

    def allowed(self, user: Permissions) -> bool:
        return all(user.may_see(queue) for queue in self.queues)


@dataclass(frozen=True)
class Reload(Request):
    def allowed(self, user: Permissions) -> bool:
        return user.everything


@dataclass(frozen=True)
class Shutdown(Request):
    def allowed(self, user: Permissions) -> bool:
        return user.everything


@dataclass(frozen=True)
class Status(Request):
    """Ask for the server's status."""

    def allowed(self, user: Permissions) -> bool:
        return True


@dataclass(frozen=True)
class SetStatus(Request):
    status: str
    """One of L{STATUSES}."""

    def allowed(self, user: Permissions) -> bool:
        return user.everything


@dataclass(frozen=True)
class Version(Request):
    def for_all(self) -> bool:
        return True


@dataclass(frozen=True)
class Quit(Request):
    def for_all(self) -> bool:
        return True


@dataclass(frozen=True)
class Refused(Request):
    """
    A line that is not served.

    The stream stays in step where it can: C{payload} bytes and CR LF that follow are to be skipped before the reply
    goes out (C{None}: nothing follows).  Where it cannot, C{close} is true: reply, then end the connection.
    """

    reply: bytes
    payload: Optional[int] = None
    close: bool = False
    noreply: bool = False
    """Whether the client asked for no reply: what it would have been is logged."""
    warning: str = ""
    """What the operator is told, where no client of a queue server sends that."""

    def for_all(self) -> bool:
        return True
