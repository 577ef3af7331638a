"""
The seams: what one room of the house may expect of another, and what those who embed darner may rely on or replace.
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

    Also an async context manager: closed on a normal exit, aborted when an exception leaves the block.
    """

    is_open = Attribute(
        "Whether it is neither closed nor aborted nor open for too long, its queue not deleted, and the service not"
        " stopped, as C{bool}."
    )

    def close() -> Deferred[None]:
        """
        The work is done: the item is gone for good.  Fires once that is written; harmless when no longer open.

        Fails with L{darner.errors.Stopped} once the service has stopped: the item went back to its queue.
        """

    def abort() -> Deferred[None]:
        """
        Give the item back to the head of its queue, or as the queue's settings say.  Harmless when no longer open.
        """

    def touch() -> bool:
        """
        Have the time for which it may be open (C{open_timeout}) begin anew.

        @return: whether it is open.
        """


class IQueueService(Interface):
    """
    Queues by name, for applications (`docs/embedding.rst`).

    A queue name is bytes, as on the wire.  Every method that returns a Deferred may fail with a
    L{darner.errors.DarnerError}: L{darner.errors.ClientError} for what was asked, L{darner.errors.ServerError} for what
    could not be done; then nothing was changed.
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

        @param flags: a 32 bit number that is kept with it.
        @param expiry: when it expires, by memcache's rules: 0 never; up to 2,592,000 (30 days) seconds from now; else
            Unix time, from September 2001 on.
        @param sync: fire only when the item is on stable storage.
        @param delay: after how many seconds it is to be had; by default as the queue's settings say.
        @param id: what the item is called, so that it is put once only: 1 to 250 bytes as in the name of a queue.
            Within the queue's C{dedupe_window} a second C{put} under the same id puts nothing, and fires as the first.
        @return: fires with C{None} once the item outlives the process.  Fails with L{darner.errors.QueueFull} where the
            queue is at its limit and refuses it.
        """

    def get(queue: bytes, timeout: Optional[float] = 0) -> Deferred[Optional[IMessage]]:
        """
        Take the item at the head of a queue.

        @param timeout: how long to wait for one, in seconds; C{None} for ever.
        @return: fires with an L{IMessage}, or with C{None} where there is nothing.  Cancelling it loses no item.
        """

    def open(queue: bytes, timeout: Optional[float] = 0) -> Deferred[Optional[IOpenRead]]:
        """As L{get}, but tentatively: fires with an L{IOpenRead} or C{None}."""

    def peek(queue: bytes, timeout: Optional[float] = 0) -> Deferred[Optional[IMessage]]:
        """As L{get}, but the item stays where it is."""

    def items(queue: bytes) -> AsyncIterator[IOpenRead]:
        """
        Iterate over a queue as long as one likes, waiting for items: each is an open read, closed when the loop asks
        for the next one and aborted when the loop is left by an error.
        """

    def flush(queue: bytes) -> Deferred[None]:
        """Consume every item of a queue that is not open."""

    def delete(queue: bytes) -> Deferred[None]:
        """Forget a queue and all its items, the open ones too.  Not an error where there is no such queue."""

    def requeue(origin: bytes, target: bytes, count: Optional[int] = None) -> Deferred[int]:
        """
        Move items from one queue to the end of another, in their order; each is whole in one of the two at every
        instant.

        @param count: how many at most; by default all that there are when it begins.
        @return: fires with how many were moved.  Cancelling it leaves the rest where they are.
        """

    def health() -> Health:
        """@return: whether items can be put, and if not, why and since when."""

    def count(queue: bytes) -> int:
        """@return: how many items are to be had; 0 where there is no such queue."""

    def names() -> list[bytes]:
        """@return: the names of all queues, sorted."""
