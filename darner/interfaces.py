"""
The public interfaces, for applications that embed darner.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Optional

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from darner.values.stats import Health


class IMessage(Interface):
    """An item, as applications see it."""

    queue = Attribute("The name of its queue, as C{bytes}.")
    payload = Attribute("Its payload, as C{bytes}.")
    flags = Attribute("The 32 bit number that was set with it, as C{int}.")


class IOpenRead(IMessage):
    """
    An item that was taken tentatively.

    Also an async context manager: a normal exit closes the read, an exception aborts it.
    """

    is_open = Attribute(
        "C{bool}: false once it is closed, aborted or open for too long, its queue is deleted, or the service stops."
    )

    def close() -> Deferred[None]:
        """
        Consume the item for good.  Fires once that is written.  Does nothing if the read is not open any more.

        Fails with L{darner.errors.Stopped} once the service has stopped: the item went back to its queue.
        """

    def abort() -> Deferred[None]:
        """
        Give the item back to the head of its queue, or as the queue's settings say.  Does nothing if the read is not
        open any more.
        """

    def touch() -> bool:
        """Restart the time for which the read may be open (C{open_timeout}).  @return: whether it is open."""


class IQueueService(Interface):
    """
    Queues by name, for applications (`docs/embedding.rst`).

    A queue name is bytes, as on the wire.  Every method that returns a Deferred may fail with a
    L{darner.errors.DarnerError}: L{darner.errors.ClientError} if the request was wrong, L{darner.errors.ServerError} if
    the server could not serve it.  A call that fails has changed nothing.
    """

    def put(
        queue: bytes,
        payload: bytes,
        flags: int = 0,
        expiry: int = 0,
        sync: bool = False,
        *,
        delay: Optional[float] = None,
        id: bytes = b"",
    ) -> Deferred[None]:
        """
        Put an item at the end of a queue.

        @param flags: a 32 bit number that is kept with the item.
        @param expiry: 0: never; up to 2,592,000 (30 days): seconds from now; else Unix time in seconds, from September
            2001 on.
        @param sync: fire only when the item is on stable storage.
        @param delay: seconds until the item becomes available; by default as the queue's settings say.
        @param id: an id for deduplication: 1 to 250 bytes as in the name of a queue.  Within the queue's
            C{dedupe_window} a second C{put} with the same id puts nothing, and fires like the first.
        @return: fires with C{None} once the item survives a crash of the process.  Fails with
            L{darner.errors.QueueFull} if the queue is at its limit and refuses the item.
        """

    def get(queue: bytes, timeout: Optional[float] = 0) -> Deferred[Optional[IMessage]]:
        """
        Take the item at the head of a queue.

        @param timeout: how long to wait for an item, in seconds; C{None}: for ever.
        @return: fires with an L{IMessage}, or with C{None} if no item became available.  Cancelling it loses no item.
        """

    def open(queue: bytes, timeout: Optional[float] = 0) -> Deferred[Optional[IOpenRead]]:
        """As L{get}, but tentatively: fires with an L{IOpenRead} or C{None}."""

    def peek(queue: bytes, timeout: Optional[float] = 0) -> Deferred[Optional[IMessage]]:
        """As L{get}, but the item stays in its queue."""

    def items(queue: bytes) -> AsyncIterator[IOpenRead]:
        """
        Iterate over a queue, waiting for items.  Each is an open read: closed when the loop asks for the next item,
        aborted when an error leaves the loop.
        """

    def flush(queue: bytes) -> Deferred[None]:
        """Consume all items of a queue except the open ones."""

    def delete(queue: bytes) -> Deferred[None]:
        """Delete a queue and all its items, the open ones too.  Succeeds if there is no such queue."""

    def requeue(origin: bytes, target: bytes, count: Optional[int] = None) -> Deferred[int]:
        """
        Move items from one queue to the end of another, in order.  At any time each item is in exactly one of the two.

        @param count: the maximum number; by default all items that are there when it begins.
        @return: fires with the number of items moved.  Cancelling it leaves the rest where they are.
        """

    def health() -> Health:
        """@return: whether the service accepts items, and if not, why and since when."""

    def count(queue: bytes) -> int:
        """@return: the number of available items; 0 if there is no such queue."""

    def names() -> list[bytes]:
        """@return: the names of all queues, sorted."""
