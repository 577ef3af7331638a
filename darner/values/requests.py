"""
Clients' requests as frozen values, independent of the protocol, and the rights that each request needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Protocol

from darner.values.items import PutOptions


class Permissions(Protocol):
    """The rights of one user."""

    everything: bool
    """Whether the user may administrate all queues, and so the server."""

    def may_read(self, queue: bytes) -> bool: ...

    def may_write(self, queue: bytes) -> bool: ...

    def may_administrate(self, queue: bytes) -> bool: ...

    def may_see(self, queue: bytes) -> bool:
        """Whether the user may see the queue's name and figures."""


class Request:
    """A request.  Each class says which rights it needs."""

    def for_all(self) -> bool:
        """@return: whether the server serves this request before the client has logged in."""
        return False

    def allowed(self, user: Permissions) -> bool:
        """@return: whether this user may make this request."""
        raise NotImplementedError


@dataclass(frozen=True)
class Set(Request):
    """Put an item on a queue; C{size} payload bytes and CR LF follow the line."""

    queue: bytes
    flags: int
    expiry: int
    """0: never; below 0: at once; up to L{darner.values.vocabulary.MAX_RELATIVE_EXPIRY} s from now; else Unix time."""
    size: int
    noreply: bool = False
    sync: bool = False
    options: Optional[PutOptions] = None

    def allowed(self, user: Permissions) -> bool:
        return user.may_write(self.queue)


@dataclass(frozen=True)
class PutItems(Request):
    """Put items on a queue, in order, until one is refused."""

    queue: bytes
    expiry: int = 0
    """In ms from now; 0: never; negative: at once."""
    refusal: bytes = b""
    """The reply if the request is refused.  The items follow all the same."""

    def allowed(self, user: Permissions) -> bool:
        return user.may_write(self.queue)


@dataclass(frozen=True)
class Get(Request):
    """Read one queue."""

    queue: bytes
    key: bytes
    """The target as the client sent it, with its options."""
    wait: int = 0
    """How long to wait for an item, in ms."""
    open: bool = False
    close: bool = False
    abort: bool = False
    peek: bool = False
    close_all: bool = False
    """Whether to close every open read of the queue first."""
    numbered: bool = False
    """Whether the reply has a number that identifies the item, if the dialect has one."""

    @property
    def fetches(self) -> bool:
        """Whether this read asks for an item; a close or abort alone does not."""
        return not self.abort and (self.open or not self.close)

    def allowed(self, user: Permissions) -> bool:
        return user.may_read(self.queue)


@dataclass(frozen=True)
class GetMany(Request):
    """Take at most one item from each of several queues."""

    queues: tuple[bytes, ...]
    numbered: bool = False
    """As L{Get.numbered}."""

    def allowed(self, user: Permissions) -> bool:
        return all(user.may_read(queue) for queue in self.queues)


@dataclass(frozen=True)
class GetFirst(Request):
    """Take one item from the first of several queues that has one."""

    choices: tuple[Get, ...]
    """One read for each queue, with the same options; the server does one of them."""

    def allowed(self, user: Permissions) -> bool:
        return all(user.may_read(choice.queue) for choice in self.choices)


@dataclass(frozen=True)
class Monitor(Request):
    """Open items of a queue as they become available."""

    queue: bytes
    seconds: float
    maximum: Optional[int] = None
    """The number of items after which it ends; C{None}: when the client may have no more open."""
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
    """Restart the timeout of the client's open reads of a queue."""

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
    """The maximum number of items; C{None} is all."""

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
        return True  # the reply leaves out the queues that the user may not see


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
    A line that the server refuses.

    C{payload} bytes and CR LF follow the line; the server skips them before it replies (C{None}: nothing follows).  If
    it cannot know where the next request begins, C{close} is true: it replies, then closes the connection.
    """

    reply: bytes
    payload: Optional[int] = None
    close: bool = False
    noreply: bool = False
    """Whether the client asked for no reply; then the reply is logged."""
    warning: str = ""
    """A warning for the operator, if no client of a queue server sends such a line."""

    def for_all(self) -> bool:
        return True
