"""
One client: its open reads, its waits, its replies, and giving back what it held when it goes.

A session knows no transport.  A front end hands it requests and gives it an L{Outlet}; what the client is told comes
out there once the turn of the event loop is written (`darner.queues.commit`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, Final, Optional, Union

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

import darner
from darner.errors import DarnerError, ItemTooLarge, QueueFull, StoreError, TooManyOpenReads
from darner.front import memcache
from darner.front.open_reads import OpenReads
from darner.front.outbox import Outbox, Outlet, Value, discard
from darner.front.waiting import Monitoring, Pause, Wait
from darner.queues.collection import Queues
from darner.queues.commit import NOBODY, Replies
from darner.queues.fifo import Fifo
from darner.queues.open_read import OpenRead
from darner.queues.producer_ids import Deduplication
from darner.queues.streams import PayloadWriter
from darner.queues.transfer import Transfer
from darner.values import requests
from darner.values.items import Item

REPLY_OVERHEAD: Final = 256
"""
What a reply counts besides its bytes, of the L{Queues.client_bytes} that gather for one client in a turn before others
get theirs: so that some 256 small requests of one client are served in a turn.
"""
RELIEF: Final = 0.01
"""Seconds for which large payloads are held back when the store has fallen behind."""
RELIEFS: Final = 200
"""
How often in a row: a store that could not merge its tables, for lack of room, stays behind until something is written.
"""


class Session:
    """
    One client's dealings with the queues.

    @ivar busy: whether requests have to be held back.
    """

    _log: ClassVar[Logger] = Logger()

    nothing = memcache.END
    """The reply of a read where there is no item."""
    error_reply = staticmethod(memcache.error_reply)
    """Spells an error."""

    def __init__(self, queues: Queues, outlet: Outlet, whole_key: bool = False) -> None:
        """@param whole_key: whether replies name the key as it was sent, and not the bare queue."""
        self._queues = queues
        self._commit = queues.commit
        self._status = queues.status
        self._outlet = outlet
        self._whole_key = whole_key
        self._replies: Replies = []
        self._gathered = 0
        self._opens = OpenReads()
        self._waiter: Optional[Union[Wait, Pause, Monitoring]] = None
        self._flushing = False
        self._timer: Optional[IDelayedCall] = None
        self._relief: Optional[IDelayedCall] = None
        self._held_back = 0
        self._requeue: Optional[Transfer] = None
        self._streaming = 0
        self._outbox = Outbox(outlet, self._rest)
        self._resting = False
        self._hurried = False
        self._closing = False
        self._ended = False
        self.busy = False

    def _update_busy(self) -> None:
        """
        Find out whether requests have to be held back: the client waits for an item, for expired ones to be dropped or
        for many to be moved, a large one is on its way to it, it does not read, enough replies gathered for this turn,
        others have to be served first, or the connection is about to end.
        """
        self.busy = (
            self._waiter is not None
            or self._requeue is not None
            or self._flushing
            or self._streaming > 0
            or self._outbox.choked
            or self._gathered > self._queues.client_bytes
            or self._resting
            or self._closing
        )

    @property
    def choked(self) -> bool:
        """Whether the client does not read the replies it has coming."""
        return self._outbox.choked

    @property
    def anonymous(self) -> bool:
        """Whether the client still has to say who it is."""
        return False

    @property
    def congested(self) -> bool:
        """
        Whether more of a large payload has to be held back: what came before is still being written, or the store has
        fallen behind, so that others would have to wait.
        """
        return self._commit.busy or (self._held_back < RELIEFS and self._queues.store.pressed())

    def resume_when_relieved(self) -> None:
        """Have L{Outlet.proceed} called when more of a large payload may be taken, or a little later."""
        if self._commit.busy:
            self._commit.answers(self)
        elif self._relief is None:
            self._held_back += 1
            self._relief = self._queues.clock.callLater(RELIEF, self._relieved)

    def _relieved(self) -> None:
        self._relief = None
        self._outlet.proceed()

    # Requests

    def perform(self, request: requests.Request) -> None:
        """
        Do what a request asks for, and see to its reply.

        A L{wire.Set} has a payload and goes to L{put} or L{put_flow} instead.
        """
        try:
            if isinstance(request, requests.Get):
                self._get(request)  # nearly all of them are that
            else:
                _PERFORMERS[type(request)](self, request)
        except DarnerError as error:
            self._reply(self.error_reply(error))

    def _reply(self, reply: Union[bytes, Value]) -> int:
        """@return: the slot of the reply, for the turn."""
        if not self._replies:
            self._commit.answers(self)
        self._replies.append(reply)
        if isinstance(reply, bytes):
            self._gathered += len(reply) + REPLY_OVERHEAD
            if self._gathered > self._queues.client_bytes:
                self.busy = True
        return len(self._replies) - 1

    def reply(self, reply: bytes) -> None:
        """Tell the client something that depends on nothing, in its order among the other replies."""
        self._reply(reply)

    def takes(self, request: requests.Set) -> bool:
        """Whether to take the payload of a set at all: whether it may be put, and is within the limits."""
        return self._queues.fits(request.queue, request.size) and not self._status.refuses_writes

    def refuse(self, request: requests.Set) -> None:
        """The payload of a set that is not taken has been skipped."""
        try:
            self._status.check_writes()
        except DarnerError as error:
            self._not_stored(request, error)
        else:
            too_large = request.size > self._queues.item_limit(request.queue)
            self._not_stored(request, ItemTooLarge() if too_large else QueueFull())

    def inflow(self) -> PayloadWriter:
        """@return: where to L{receive} a payload that comes in pieces; give it to L{put_flow}, or abandon it."""
        return self._queues.inflow()

    def receive(self, inflow: PayloadWriter, data: bytes) -> None:
        """Take a piece of a payload."""
        self._held_back = 0
        inflow.write(data)
        if inflow.stream:
            self._commit.answers(self)  # with nothing but a call of `Outlet.proceed`

    def put(self, request: requests.Set, payload: bytes) -> None:
        """Put an item whose payload is here, at most a chunk of it."""
        try:
            retry = self._queues.put(request.queue, request.flags, request.expiry, payload, request.options)
        except DarnerError as error:
            self._not_stored(request, error)
        else:
            self._stored(request, retry)

    def put_flow(self, request: requests.Set, inflow: PayloadWriter) -> None:
        """Put an item whose payload came in pieces."""
        try:
            retry = self._queues.put_flow(request.queue, request.flags, request.expiry, inflow, request.options)
        except DarnerError as error:
            self._not_stored(request, error)
        else:
            self._stored(request, retry)

    def _not_stored(self, request: requests.Set, error: DarnerError) -> None:
        self._queues.stats.cmd_set += 1
        if not request.noreply:
            self._reply(self.error_reply(error))

    def _stored(self, request: requests.Set, retry: Optional[Deduplication]) -> None:
        self._queues.stats.cmd_set += 1
        if request.sync:
            self._commit.sync()
        if not request.noreply:
            slot = self._reply(memcache.STORED)
            if retry is None or request.sync:
                self._commit.put(self._replies, slot)
            if retry is not None:
                retry.answered(self._commit, self._replies, slot)

    def _get(self, request: requests.Get) -> None:
        if request.abort:
            self._opens.abort(request.queue)
            self._reply(memcache.END)
            return
        if request.close:
            self._opens.close(request.queue)
        if not request.fetches:
            self._commit.consumed(self._replies, self._reply(memcache.END))
            return
        if self._status.refuses_reads:
            self._status.check_reads()
        if request.peek:
            self._queues.stats.cmd_peek += 1
        elif not self._opens.allow(request.queue, request.open):
            raise TooManyOpenReads()
        else:
            self._queues.stats.cmd_get += 1
        fifo = self._queues.find(request.queue)
        if fifo is not None and self._fetch(fifo, request):
            return
        self._wait_or_miss((request,))

    def _get_first(self, request: requests.GetFirst) -> None:
        first = request.choices[0]
        if first.close:
            for choice in request.choices:
                self._opens.close(choice.queue)
        if not first.fetches:
            self._commit.consumed(self._replies, self._reply(memcache.END))
            return
        self._status.check_reads()
        if first.peek:
            self._queues.stats.cmd_peek += 1
        else:
            if not all(self._opens.allow(choice.queue, first.open) for choice in request.choices):
                raise TooManyOpenReads()
            self._queues.stats.cmd_get += 1
        if not self._fetch_first(request.choices):
            self._wait_or_miss(request.choices)

    def _fetch_first(self, requests: Sequence[requests.Get]) -> bool:
        """@return: whether there was an item, as far as is known: what is behind a sweep goes first."""
        for request in requests:
            fifo = self._queues.find(request.queue)
            if fifo is not None:
                if self._fetch(fifo, request):
                    return True
                if fifo.sweeping:
                    return False
        return False

    def _miss(self, request: requests.Get) -> int:
        if not request.peek:
            self._queues.stats.get_misses += 1
        return self._reply(self.nothing)

    def _fetch(self, fifo: Fifo, request: requests.Get) -> bool:
        """@return: whether there was an item; it is in the replies then."""
        open: Optional[OpenRead] = None
        if request.peek:
            item = fifo.peek()
        elif request.open:
            open = fifo.open()
            item = open.item if open else None
        else:
            item = fifo.take()
        if item is None:
            return False
        slot = self._hand_out(item, request.key if self._whole_key else request.queue, memcache.END)
        if not request.peek:
            self._queues.stats.get_hits += 1
        self._commit.read(fifo, item, request.open or request.peek, self._replies, slot)
        if open is not None:
            self._opens.add(request.queue, open)
        return True

    def _hand_out(self, item: Item, key: bytes, end: bytes) -> int:
        if not item.stream:
            return self._reply(memcache.value(key, item.flags, item.payload, end))
        header = memcache.value_header(key, item.flags, item.size)
        return self._hand_out_stream(item, header, memcache.AFTER_PAYLOAD + end)

    def _hand_out_stream(self, item: Item, before: bytes, after: bytes) -> int:
        self._streaming += 1
        self._update_busy()
        return self._reply(Value(before, self._queues.outflow(item, self._streamed), after))

    def _streamed(self) -> None:
        self._streaming -= 1
        self._update_busy()

    def _get_many(self, request: requests.GetMany) -> None:
        self._status.check_reads()
        names = dict.fromkeys(request.queues)
        if not all(self._opens.allow(name, False) for name in names):
            raise TooManyOpenReads()
        for name in names:
            fifo = self._queues.find(name)
            if fifo is not None and fifo.perishable and self._is_sweeping(fifo):
                self._waiter = Pause(self._queues, fifo, partial(self._go_on_with_many, request))
                self._update_busy()
                return
        taken: list[tuple[Fifo, Item, int]] = []
        end = memcache.END
        born = False
        try:
            for name in names:
                self._queues.stats.cmd_get += 1
                fifo = self._queues.find(name)
                item = fifo.take() if fifo is not None else None
                if fifo is None or item is None:
                    self._queues.stats.get_misses += 1
                    born |= self._queues.refer(name)
                    continue
                self._queues.stats.get_hits += 1
                taken.append((fifo, item, self._hand_out(item, name, b"")))
        except StoreError as error:
            end = memcache.error_reply(error)
        last = self._reply(end)
        if born:
            self._commit.put(self._replies, last)
        for fifo, item, slot in taken:
            self._commit.read(fifo, item, False, self._replies, slot, last)

    @staticmethod
    def _is_sweeping(fifo: Fifo) -> bool:
        """@return: whether nobody knows yet if there is an item."""
        with suppress(StoreError):  # it will be told in its place
            return fifo.peek() is None and fifo.sweeping
        return False

    def _go_on_with_many(self, request: requests.GetMany) -> None:
        self.stop_waiting()
        try:
            self._get_many(request)
        except DarnerError as error:
            self._reply(self.error_reply(error))

    def _monitor(self, request: requests.Monitor) -> None:
        self._status.check_reads()
        born = self._queues.refer(request.queue)
        over = not request.seconds or self._hurried
        monitor = Monitoring(self._queues, self, request.queue, request.maximum, over)
        self._waiter = monitor
        self._update_busy()
        if not over:
            self._timer = self._queues.clock.callLater(request.seconds, self._time_out)
        self._go_on_waiting(monitor)
        if not born:
            return
        if self._waits_by(monitor):
            self._commit.unless_put(lambda error: self._break_off(monitor, error))
        else:
            self._commit.put(self._replies, len(self._replies) - 1)

    @property
    def sated(self) -> bool:
        """Whether what is on its way to the client is enough for now."""
        return (
            self._streaming > 0
            or self._outbox.choked
            or self._resting
            or self._gathered > self._queues.client_bytes
        )

    def open_for_monitor(self, fifo: Fifo) -> bool:
        """
        Open an item for a client that monitors its queue.

        @return: whether there was one.
        """
        open = fifo.open()
        if open is None:
            return False
        slot = self._hand_out(open.item, fifo.name, b"")
        self._queues.stats.get_hits += 1
        self._commit.read(fifo, open.item, True, self._replies, slot, NOBODY)
        self._opens.add(fifo.name, open)
        return True

    def may_open(self, queue: bytes) -> bool:
        """Whether the client may have one open read of the queue more."""
        return self._opens.allow(queue, True)

    def monitored(self, monitor: Monitoring) -> None:
        """A monitor has all that it may have."""
        self.stop_waiting()
        self._reply(self.nothing)

    def broken_off(self, monitor: Monitoring, error: StoreError) -> None:
        """A monitor cannot read its queue."""
        self._break_off(monitor, error)

    def _confirm(self, request: requests.Confirm) -> None:
        if self._opens.confirm(request.queue, request.count):
            self._commit.consumed(self._replies, self._reply(memcache.END))
        else:
            self._reply(memcache.ERROR)

    def _delete(self, request: requests.Delete) -> None:
        self._status.check_writes()
        self._queues.delete(request.queue)
        if not request.noreply:
            self._commit.consumed(self._replies, self._reply(memcache.DELETED))

    def _flush(self, request: requests.Flush) -> None:
        self._status.check_writes()
        self._queues.flush(request.queue)
        self._commit.consumed(self._replies, self._reply(memcache.END))

    def _flush_expired(self, request: Union[requests.FlushExpired, requests.FlushAllExpired]) -> None:
        self._status.check_writes()
        self._flushing = True
        self._update_busy()
        name = request.queue if isinstance(request, requests.FlushExpired) else None
        self._queues.flush_expired(name).addCallbacks(self._expired, self._not_expired)

    def _expired(self, count: int) -> None:
        self._flushing = False
        self._update_busy()
        self._commit.consumed(self._replies, self._reply(memcache.count(count)))

    def _not_expired(self, failure: Failure) -> None:
        self._flushing = False
        self._update_busy()
        assert failure.value is not None
        self._reply(memcache.error_reply(failure.value))

    def _flush_all(self, request: requests.FlushAll) -> None:
        self._status.check_writes()
        self._queues.flush_all()
        if not request.noreply:
            reply = memcache.OK if request.delayed else memcache.FLUSHED_ALL
            self._commit.consumed(self._replies, self._reply(reply))

    def _touch(self, request: requests.Touch) -> None:
        touched = self._opens.touch(request.queue)
        if not request.noreply:
            self._reply(memcache.TOUCHED if touched else memcache.NOT_FOUND)

    def _start_requeue(self, request: requests.Requeue) -> None:
        self._status.check_reads()
        self._status.check_writes()
        self._queues.check_queue(request.target)
        requeue = Transfer(self._queues, request.origin, request.target, request.count, self._requeued)
        self._requeue = requeue
        self._update_busy()
        requeue.go_on()

    def _requeued(self, error: Optional[DarnerError]) -> None:
        assert self._requeue is not None
        moved = self._requeue.moved
        self._requeue = None
        self._update_busy()
        self._reply(memcache.count(moved) if error is None else memcache.error_reply(error))

    def _stats(self, request: requests.Stats) -> None:
        lines = [memcache.stat(name, figure) for name, figure in self._queues.figures(darner.__version__).items()]
        for queue in self._names():
            figures = self._queues.queue_figures(queue)
            lines += [memcache.queue_stat(queue, name, figure) for name, figure in figures.items()]
        self._reply(b"".join(lines) + memcache.END)

    def _names(self) -> list[bytes]:
        """@return: the queues whose figures are told when all are asked for."""
        return self._queues.names()

    def _dump_stats(self, request: requests.DumpStats) -> None:
        blocks = []
        for queue in request.queues or self._names():
            figures = self._queues.queue_figures(queue)
            if figures:
                blocks.append(memcache.queue_dump(queue, figures))
        self._reply(b"".join(blocks) + memcache.END)

    def _dump_config(self, request: requests.DumpConfig) -> None:
        blocks = [
            memcache.queue_dump(queue, self._queues.policy(queue).as_text())
            for queue in request.queues or self._names()
        ]
        self._reply(b"".join(blocks) + memcache.END)

    def _tell_status(self, request: requests.Status) -> None:
        self._reply(memcache.status(self._status.name))

    def _set_status(self, request: requests.SetStatus) -> None:
        self._status.change(request.status)
        self._reply(memcache.END)

    def _reload(self, request: requests.Reload) -> None:
        self._queues.control.reload()
        self._reply(memcache.RELOADED)

    def _shutdown(self, request: requests.Shutdown) -> None:
        self._queues.control.shut_down()
        self._reply(b"")
        self._closing = True
        self._update_busy()

    def _version(self, request: requests.Version) -> None:
        self._reply(memcache.version(darner.__version__))

    def _quit(self, request: requests.Quit) -> None:
        self._reply(b"")
        self._closing = True
        self._update_busy()

    def _refused(self, request: requests.Refused) -> None:
        self._reply(request.reply)
        self._closing = self._closing or request.close
        self._update_busy()

    # Waiting

    def _wait_or_miss(self, requests: Sequence[requests.Get]) -> None:
        """There is nothing to be had: wait, if the client wants to or nobody knows yet what will be found."""
        born = False
        for request in requests:
            born |= self._queues.refer(request.queue)
        over = not requests[0].wait or self._hurried
        if over and not self._is_one_sweeping(requests):
            slot = self._miss(requests[0])
            if born:
                self._commit.put(self._replies, slot)
            return
        wait = self._waiter = Wait(self._queues, requests, self._serve, over)
        wait.stand()
        self._update_busy()
        if not over:
            self._timer = self._queues.clock.callLater(requests[0].wait / 1000, self._time_out)
        if born:
            self._commit.unless_put(lambda error: self._break_off(wait, error))

    def _is_one_sweeping(self, requests: Sequence[requests.Get]) -> bool:
        """@return: whether it is not known of one of the queues if there is an item."""
        for request in requests:
            fifo = self._queues.find(request.queue)
            if fifo is not None and fifo.sweeping:
                return True
        return False

    def _serve(self, wait: Wait) -> None:
        try:
            found = self._fetch_first(wait.requests)
        except DarnerError as error:
            self.stop_waiting()
            self._reply(self.error_reply(error))
            return
        if found:
            self.stop_waiting()
        elif wait.over and not self._is_one_sweeping(wait.requests):
            self.stop_waiting()
            self._miss(wait.requests[0])
        else:
            wait.stand()

    def _waits_by(self, wait: Union[Wait, Pause, Monitoring]) -> bool:
        return self._waiter is wait

    def _break_off(self, wait: Union[Wait, Pause, Monitoring], error: StoreError) -> None:
        """What the client waits for cannot be."""
        if self._waits_by(wait):
            self.stop_waiting()
            self._reply(self.error_reply(error))

    def _time_out(self) -> None:
        self._timer = None
        self._give_up()

    def _give_up(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.hasten():
            self.stop_waiting()
            if isinstance(waiter, Wait):
                self._miss(waiter.requests[0])
            else:
                self._reply(self.nothing)

    def hurry(self) -> None:
        """
        The client will send nothing more and may well be gone: it waits for an item neither now nor later, but until it
        is known whether there is one.
        """
        self._hurried = True
        self._give_up()

    def stop_waiting(self) -> None:
        """Wait for an item no longer; nothing is said of it."""
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            self._update_busy()
            waiter.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def finish(self) -> None:
        """Send the replies there are, and end the connection."""
        if not self._closing:
            self._closing = True
            self._update_busy()
            self._commit.answers(self)

    def end(self) -> None:
        """The client has gone: its open reads go back to their queues, ahead of what came after them.  Idempotent."""
        if self._ended:
            return
        self._ended = True
        self.stop_waiting()
        if self._requeue is not None:
            self._requeue.stop()
        if self._relief is not None:
            self._relief.cancel()
            self._relief = None
        self.give_back()
        self._outbox.clear()

    def give_back(self) -> None:
        """The client can close nothing any more: its open reads go back, ahead of what came after them."""
        self._opens.give_back()

    # Replies

    def seal(self) -> Replies:
        replies, self._replies = self._replies, []
        if self._gathered > self._queues.client_bytes:
            self._rest()
        self._gathered = 0
        if self.busy:
            self._update_busy()
        return replies

    def deliver(self, replies: Replies) -> None:
        if self._ended:
            discard(replies)
        elif self._outbox.send(replies):
            self._idle()

    def _rest(self) -> None:
        """That is enough for one turn."""
        self._resting = True
        self._commit.rest(self)

    def go_on(self) -> None:
        """The others have been served."""
        self._resting = False
        self._update_busy()
        if not self._ended and self._outbox.pump():
            self._idle()

    def choke(self) -> None:
        """The client does not read: send it no more."""
        self._outbox.choked = True
        self._update_busy()

    def unchoke(self) -> None:
        """The client reads again."""
        self._outbox.choked = False
        self._update_busy()
        if not self._ended and self._outbox.pump():
            self._idle()

    def _idle(self) -> None:
        if self._resting:
            return
        if self._closing:
            self._outlet.close()
        else:
            if self._waiter is not None:
                self._go_on_waiting(self._waiter)
            self._outlet.proceed()

    def _go_on_waiting(self, waiter: Union[Wait, Pause, Monitoring]) -> None:
        try:
            waiter.go_on()
        except StoreError as error:
            self._break_off(waiter, error)


_PERFORMERS: Final[dict[type, Callable[[Session, Any], None]]] = {
    requests.GetMany: Session._get_many,
    requests.GetFirst: Session._get_first,
    requests.Monitor: Session._monitor,
    requests.Confirm: Session._confirm,
    requests.Delete: Session._delete,
    requests.Flush: Session._flush,
    requests.FlushAll: Session._flush_all,
    requests.Touch: Session._touch,
    requests.Requeue: Session._start_requeue,
    requests.FlushExpired: Session._flush_expired,
    requests.FlushAllExpired: Session._flush_expired,
    requests.Stats: Session._stats,
    requests.DumpStats: Session._dump_stats,
    requests.DumpConfig: Session._dump_config,
    requests.Reload: Session._reload,
    requests.Shutdown: Session._shutdown,
    requests.Status: Session._tell_status,
    requests.SetStatus: Session._set_status,
    requests.Version: Session._version,
    requests.Quit: Session._quit,
    requests.Refused: Session._refused,
}
