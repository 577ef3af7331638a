"""
Items as applications that embed darner get them.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Optional

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from darner.errors import Stopped
from darner.interfaces import IMessage, IOpenRead
from darner.queues.answers import Answers
from darner.queues.collection import Queues
from darner.queues.open_read import OpenRead

Consume = Callable[[Callable[[Answers, bytes], object]], Deferred[Any]]


@implementer(IMessage)
@frozen
class Message:
    """An item that an application has taken or peeked at."""

    queue: bytes
    payload: bytes
    flags: int


@implementer(IOpenRead)
class OpenMessage:
    """
    An item that an application has opened.

    As an async context manager it is closed on a normal exit and aborted when an exception leaves the block.
    """

    def __init__(self, queues: Queues, read: OpenRead, message: Message, consume: Consume) -> None:
        """@param consume: makes the call that ends the read; fires when that is written."""
        self._queues = queues
        self._read = read
        self._consume = consume
        self.queue = message.queue
        self.payload = message.payload
        self.flags = message.flags

    @property
    def open_read(self) -> OpenRead:
        """The open read in its queue."""
        return self._read

    @property
    def is_open(self) -> bool:
        """
        False once it is closed, aborted or open for too long, its queue is deleted, or the service is stopped.
        """
        return self._read.is_open and not self._queues.stopped

    def close(self) -> Deferred[None]:
        if self._queues.stopped:
            return fail(Stopped())
        return self._consume(lambda answers, done: self._queues.reads.close(answers, done, (self._read,)))

    def abort(self) -> Deferred[None]:
        if self._queues.stopped:
            return succeed(None)
        return self._consume(lambda answers, done: self._queues.reads.abort(answers, done, self._read))

    def touch(self) -> bool:
        return not self._queues.stopped and self._read.touch()

    async def __aenter__(self) -> OpenMessage:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await (self.close() if kind is None else self.abort())
