"""
Calls of an application on the queues: the Deferreds behind `darner.service`.

To the turn (`darner.queues.commit`) each call is somebody who is to be answered, as a client's session is.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Optional, Union

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer

from darner.errors import DarnerError, Stopped, StoreError
from darner.interfaces import IMessage, IOpenRead
from darner.queues.collection import Queues
from darner.queues.commit import Replies
from darner.queues.fifo import Fifo
from darner.queues.open_read import OpenRead
from darner.queues.streams import PayloadReader
from darner.queues.transfer import Transfer
from darner.queues.waiters import Waiter
from darner.values.items import Item, PutOptions


@implementer(IMessage)
@frozen
class Message:
    """An item that an application has taken or looked at."""

    queue: bytes
    payload: bytes
    flags: int


class Call:
    """A call that is answered at the end of the turn."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues
        self.deferred: Deferred[Any] = Deferred(self._cancel)
        self._replies: Replies = []

    def seal(self) -> Replies:
        return self._replies

    def deliver(self, replies: Replies) -> None:
        (reply,) = replies
        if self.deferred.called:
            return
        if not isinstance(reply, DarnerError):
            try:
                reply = self._result(reply)
            except DarnerError as error:
                reply = error
        if isinstance(reply, DarnerError):
            self.deferred.errback(reply)
        else:
            self.deferred.callback(reply)

    def _result(self, reply: Any) -> Any:
        return None

    def _cancel(self, deferred: Deferred[Any]) -> None:
        """What was put, closed, flushed or deleted stays so."""

    def _answer(self, reply: Any) -> None:
        self._replies.append(reply)
        self._queues.commit.answers(self)


class Putting(Call):
    """Put an item."""

    def start(
        self, queue: bytes, payload: bytes, flags: int, expiry: int, sync: bool, options: Optional[PutOptions] = None
    ) -> None:
        inflow = self._queues.inflow()
        inflow.write(payload)
        retry = self._queues.put_flow(queue, flags, expiry, inflow, options)
        if sync:
            self._queues.commit.sync()
        self._answer(b"")
        if retry is None or sync:
            self._queues.commit.put(self._replies, 0)
        if retry is not None:
            retry.answered(self._queues.commit, self._replies, 0)


class Consuming(Call):
    """Close an open read, flush or delete a queue."""

    def start(self, consume: Callable[[], object]) -> None:
        consume()
        self._answer(b"")
        self._queues.commit.consumed(self._replies, 0)


class Requeueing:
    """Send items of one queue to the end of another; answered when all are written."""

    def __init__(self, queues: Queues, ended: Callable[[Requeueing], object]) -> None:
        """@param ended: called when it is done or has been given up."""
        self._queues = queues
        self._ended = ended
        self._requeue: Optional[Transfer] = None
        self.deferred: Deferred[Any] = Deferred(lambda _: self._give_up())

    def start(self, origin: bytes, target: bytes, count: Optional[int]) -> None:
        self._requeue = Transfer(self._queues, origin, target, count, self._done)
        self._requeue.go_on()

    def _done(self, error: Optional[DarnerError]) -> None:
        assert self._requeue is not None
        self._ended(self)
        if error is None:
            self.deferred.callback(self._requeue.moved)
        else:
            self.deferred.errback(error)

    def _give_up(self) -> None:
        assert self._requeue is not None
        self._requeue.stop()
        self._ended(self)

    def stop(self) -> None:
        """The service stops: move no more."""
        self._give_up()
        self.deferred.errback(Stopped())


class _Body:
    """The payload of a large item, which is read when the turn is written."""

    def __init__(self, outflow: PayloadReader) -> None:
        self.outflow = outflow

    def cancel(self) -> None:
        self.outflow.cancel()


class Reading(Call):
    """Take, open or peek at an item, or wait for one."""

    def __init__(self, queues: Queues, name: bytes, ended: Callable[[Reading], object]) -> None:
        """@param ended: called when it waits no longer, if ever it did."""
        super().__init__(queues)
        self._name = name
        self._ended = ended
        self._fifo: Optional[Fifo] = None
        self._number: Optional[int] = None
        self._item: Optional[Item] = None
        self._waiter: Optional[Waiter] = None
        self._timer: Optional[IDelayedCall] = None

    def start(self, timeout: Optional[float]) -> bool:
        """
        @param timeout: how long to wait, in seconds; C{None} for ever.
        @return: whether it waits now.
        """
        fifo = self._queues.find(self._name)
        if fifo is not None and self._fetch(fifo):
            return False
        born = self._queues.refer(self._name)
        # Who does not want to wait does until all that has expired is dropped.
        hasty = timeout is not None and timeout <= 0
        if hasty and (fifo is None or not fifo.sweeping):
            self._answer(None)
            if born:
                self._queues.commit.put(self._replies, 0)
            return False
        fifo = self._fifo = self._queues.make(self._name)
        self._waiter = fifo.wait(self._serve, hasty)
        if timeout is not None and not hasty:
            self._timer = self._queues.clock.callLater(timeout, self._give_up)
        if born:
            self._queues.commit.unless_put(self._break_off)
        return True

    def _fetch(self, fifo: Fifo) -> bool:
        """@return: whether there was an item."""
        item = self._take(fifo)
        if item is None:
            return False
        self._fifo = fifo
        self._number = fifo.number
        self._item = item
        if item.stream:
            self._answer(_Body(self._queues.outflow(item, lambda: None)))
        else:
            self._answer(item.payload)
        self._account(fifo, item)
        return True

    def _take(self, fifo: Fifo) -> Optional[Item]:
        return fifo.take()

    def _account(self, fifo: Fifo, item: Item) -> None:
        self._queues.commit.read(fifo, item, False, self._replies, 0)

    def _untake(self, fifo: Fifo, item: Item) -> None:
        """The item reaches nobody: it goes back, unless its queue was deleted since."""
        fifo.unread(item, self._number)

    def _put_back(self) -> None:
        """Undo L{_fetch}."""
        assert self._fifo is not None
        assert self._item is not None
        if isinstance(self._replies[0], _Body):
            self._replies[0].cancel()
        self._untake(self._fifo, self._item)

    def _result(self, reply: Union[bytes, _Body, None]) -> Any:
        if reply is None:
            return None
        assert self._item is not None
        try:
            payload = b"".join(reply.outflow) if isinstance(reply, _Body) else reply
        except DarnerError:
            self._put_back()
            raise
        return self._wrap(Message(self._name, payload, self._item.flags))

    def _wrap(self, message: Message) -> Any:
        return message

    def _serve(self) -> None:
        fifo = self._stop_waiting()
        try:
            if not self._fetch(fifo):
                self._answer(None)
        except DarnerError as error:
            self._answer(error)

    def _give_up(self) -> None:
        self._timer = None
        assert self._fifo is not None
        assert self._waiter is not None
        if self._fifo.sweeping:
            self._waiter.even_if_empty = True
        else:
            self._stop_waiting()
            self._answer(None)

    def _break_off(self, error: StoreError) -> None:
        """The queue on which it waits could not be made."""
        if self._waiter is not None:
            self._stop_waiting()
            self._answer(error)

    def _stop_waiting(self) -> Fifo:
        assert self._fifo is not None
        assert self._waiter is not None
        self._fifo.leave(self._waiter)
        self._waiter = None
        self._queues.release(self._fifo)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._ended(self)
        return self._fifo

    def stop(self) -> None:
        """The service stops: wait no longer."""
        self._stop_waiting()
        self.deferred.errback(Stopped())

    def _cancel(self, deferred: Deferred[Any]) -> None:
        if self._waiter is not None:
            self._stop_waiting()
        elif self._item is not None:
            self._put_back()


class Peeking(Reading):
    """Look at an item."""

    def _take(self, fifo: Fifo) -> Optional[Item]:
        return fifo.peek()

    def _account(self, fifo: Fifo, item: Item) -> None:
        self._queues.commit.read(fifo, item, True, self._replies, 0)

    def _untake(self, fifo: Fifo, item: Item) -> None:
        pass


class Opening(Reading):
    """Open an item."""

    _read: Optional[OpenRead] = None

    def _take(self, fifo: Fifo) -> Optional[Item]:
        self._read = fifo.open()
        return self._read.item if self._read is not None else None

    def _account(self, fifo: Fifo, item: Item) -> None:
        self._queues.commit.read(fifo, item, True, self._replies, 0)

    def _untake(self, fifo: Fifo, item: Item) -> None:
        assert self._read is not None
        self._read.abort()

    def _wrap(self, message: Message) -> OpenMessage:
        assert self._read is not None
        return OpenMessage(self._queues, self._read, message)


@implementer(IOpenRead)
class OpenMessage:
    """
    An item that an application has taken tentatively.

    As an async context manager it is closed on a normal exit and aborted when an exception leaves the block.
    """

    def __init__(self, queues: Queues, read: OpenRead, message: Message) -> None:
        self._queues = queues
        self._read = read
        self.queue = message.queue
        self.payload = message.payload
        self.flags = message.flags

    @property
    def is_open(self) -> bool:
        """
        Whether it is neither closed nor aborted nor open for too long, its queue not deleted, and the service not
        stopped.
        """
        return self._read.is_open and not self._queues.stopped

    def close(self) -> Deferred[None]:
        if self._queues.stopped:
            return fail(Stopped())
        return self._consume(self._read.close)

    def abort(self) -> Deferred[None]:
        if self._queues.stopped:
            return succeed(None)
        return self._consume(self._read.abort)

    def touch(self) -> bool:
        return not self._queues.stopped and self._read.touch()

    def _consume(self, end: Callable[[], object]) -> Deferred[None]:
        call = Consuming(self._queues)
        call.start(end)
        return call.deferred

    async def __aenter__(self) -> OpenMessage:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await (self.close() if kind is None else self.abort())
