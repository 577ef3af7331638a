"""
Calls of applications that embed darner: the Deferreds behind `darner.service`.

Each call is an asker (`darner.queues.answers`), as a client's session is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, Optional, Union

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from darner.errors import DarnerError, ItemTooLarge, Stopped, StoreError
from darner.front.messages import Message, OpenMessage
from darner.queues.answers import Answers, Asker, Reader
from darner.queues.collection import Queues
from darner.queues.fifo import Fifo
from darner.queues.open_read import OpenRead
from darner.queues.streams import PayloadReader, PayloadWriter
from darner.queues.transfer import Transfer
from darner.queues.waiters import Waiter
from darner.values.items import Item, PutOptions

DONE: Final = b"done"
"""The reply on the answer sheet of a call without a result."""


class Call(Reader, Asker):
    """A call that is answered at the end of the turn."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues
        self.deferred: Deferred[Any] = Deferred(self._cancel)
        self._answers: Optional[Answers] = None

    def seal(self) -> None:
        self._answers = None

    def deliver(self, answers: Answers) -> None:
        if not answers.entries or self.deferred.called:
            return
        (reply,) = answers.entries
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
        """Called when the Deferred is cancelled.  A put, close, flush or deletion cannot be undone."""

    def answers(self) -> Answers:
        """@return: its answer sheet for this turn."""
        if self._answers is None:
            self._answers = self._queues.commit.answers_for(self)
        return self._answers


class Putting(Call):
    """Put an item."""

    def start(
        self, queue: bytes, payload: Union[bytes, memoryview], flags: int, expiry: int, sync: bool,
        options: Optional[PutOptions] = None,
    ) -> None:  # fmt: skip
        inflow = self._queues.puts.inflow()
        inflow.write(payload)
        self.put_flow(queue, inflow, flags, expiry, sync, options)

    def put_flow(
        self, queue: bytes, inflow: PayloadWriter, flags: int, expiry: int, sync: bool,
        options: Optional[PutOptions] = None,
    ) -> None:  # fmt: skip
        """Put an item whose payload came in pieces."""
        self._queues.puts.put_flow(self.answers(), DONE, queue, flags, expiry, inflow, sync, options)


class Consuming(Call):
    """Close an open read, flush or delete a queue."""

    def start(self, consume: Callable[[Answers, bytes], object]) -> None:
        """@param consume: does the work, with the answer sheet and the reply for success."""
        consume(self.answers(), DONE)


def consume(queues: Queues, work: Callable[[Answers, bytes], object]) -> Deferred[Any]:
    """@return: the Deferred of a L{Consuming} call."""
    call = Consuming(queues)
    call.start(work)
    return call.deferred


class Requeueing:
    """Move items of one queue to the end of another; its Deferred fires when all are written."""

    def __init__(self, queues: Queues, ended: Callable[[Requeueing], object]) -> None:
        """@param ended: called when it is done or cancelled."""
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
        """Stop moving items, as the service stops."""
        self._give_up()
        self.deferred.errback(Stopped())


class _Body:
    """The payload of a large item, which is read when the turn is written."""

    def __init__(self, outflow: PayloadReader) -> None:
        self.outflow = outflow

    def cancel(self) -> None:
        self.outflow.cancel()


class Reading(Call):
    """Take an item, or wait for one.  Subclasses open or peek instead."""

    def __init__(
        self, queues: Queues, name: bytes, ended: Callable[[Reading], object], max_bytes: Optional[int] = None
    ) -> None:
        """
        @param ended: called when it waits no longer, if ever it did.
        @param max_bytes: of the largest item that is wanted; a larger one goes back, and is an L{ItemTooLarge}.
        """
        super().__init__(queues)
        self._max_bytes = max_bytes
        self._name = name
        self._ended = ended
        self._fifo: Optional[Fifo] = None
        self._number: Optional[int] = None
        self._item: Optional[Item] = None
        self._body: Optional[_Body] = None
        self._waiter: Optional[Waiter] = None
        self._timer: Optional[IDelayedCall] = None

    def start(self, timeout: Optional[float]) -> bool:
        """
        @param timeout: how long to wait, in seconds; C{None} for ever.
        @return: whether it waits now.
        """
        queues = self._queues
        fifo = queues.find(self._name)
        if fifo is not None and self._fetch(fifo):
            return False
        # Even without a timeout it waits until all expired items at the head are dropped.
        even_if_empty = timeout is not None and timeout <= 0
        if even_if_empty and (fifo is None or not fifo.sweeping):
            queues.reads.nothing(self.answers(), None, (self._name,))
            return False
        queues.reads.expect((self._name,), self._break_off)
        fifo = self._fifo = queues.make(self._name)
        self._waiter = fifo.wait(self._serve, even_if_empty)
        if timeout is not None and not even_if_empty:
            self._timer = queues.clock.callLater(timeout, self._give_up)
        return True

    def _fetch(self, fifo: Fifo) -> bool:
        """@return: whether there was an item."""
        self._fifo = fifo
        return self._read(fifo)

    def _read(self, fifo: Fifo) -> bool:
        return self._queues.reads.take(fifo, self.answers(), self, self._name)

    def hand_out(self, item: Item, key: bytes, whole: bool) -> Any:
        assert self._fifo is not None
        self._number = self._fifo.number
        self._item = item
        item.returnable = True  # this may be cancelled while it is being written that the item is consumed
        if item.stream:
            self._body = _Body(self._queues.reads.outflow(item, lambda: None))
            return self._body
        return item.payload

    def _untake(self, fifo: Fifo, item: Item) -> None:
        """Put back an item that is not delivered, unless its queue was deleted since."""
        fifo.unread(item, self._number)

    def _put_back(self) -> None:
        """Undo L{_fetch}."""
        assert self._fifo is not None
        assert self._item is not None
        if self._body is not None:
            self._body.cancel()
        self._untake(self._fifo, self._item)

    def _result(self, reply: Union[bytes, _Body, None]) -> Any:
        if reply is None:
            return None
        assert self._item is not None
        if self._max_bytes is not None and self._item.size > self._max_bytes:
            self._put_back()
            raise ItemTooLarge()
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
                self.answers().add(None)
        except DarnerError as error:
            self.answers().add(error)

    def _give_up(self) -> None:
        self._timer = None
        assert self._fifo is not None
        assert self._waiter is not None
        if self._fifo.sweeping:
            self._waiter.even_if_empty = True
        else:
            self._stop_waiting()
            self.answers().add(None)

    def _break_off(self, error: StoreError) -> None:
        """End the wait with an error: the child it waits on could not be created."""
        if self._waiter is not None:
            self._stop_waiting()
            self.answers().add(error)

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
        """Stop waiting, as the service stops."""
        self._stop_waiting()
        self.deferred.errback(Stopped())

    def _cancel(self, deferred: Deferred[Any]) -> None:
        if self._waiter is not None:
            self._stop_waiting()
        elif self._item is not None:
            self._put_back()


class Peeking(Reading):
    """Look at an item."""

    def _read(self, fifo: Fifo) -> bool:
        return self._queues.reads.peek(fifo, self.answers(), self, self._name)

    def _untake(self, fifo: Fifo, item: Item) -> None:
        pass


class Opening(Reading):
    """Open an item."""

    def __init__(
        self, queues: Queues, name: bytes, ended: Callable[[Reading], object], max_bytes: Optional[int] = None
    ) -> None:
        super().__init__(queues, name, ended, max_bytes)
        self._opened: Optional[OpenRead] = None

    def _read(self, fifo: Fifo) -> bool:
        self._opened = self._queues.reads.open(fifo, self.answers(), self, self._name)
        return self._opened is not None

    def _untake(self, fifo: Fifo, item: Item) -> None:
        assert self._opened is not None
        self._opened.abort()

    def _wrap(self, message: Message) -> OpenMessage:
        assert self._opened is not None
        return OpenMessage(self._queues, self._opened, message, partial(consume, self._queues))
