"""
The reads of one client: at once, after waiting for an item, or as a monitor.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Optional, Union

from twisted.internet.interfaces import IDelayedCall

from darner.config.policies import parent_of
from darner.errors import DarnerError, StoreError, TooManyOpenReads
from darner.front.open_reads import OpenReads
from darner.front.waits import ItemWait, MonitorWait, SweepWait
from darner.queues.collection import Queues
from darner.queues.fifo import Fifo
from darner.values import requests

if TYPE_CHECKING:
    from darner.front.session import Session

Wait = Union[ItemWait, SweepWait, MonitorWait]


class ClientReads:
    """
    The reads of one client.

    @ivar opens: its open reads.
    """

    def __init__(self, session: Session, queues: Queues) -> None:
        self._session = session
        self._queues = queues
        self._reads = queues.reads
        self._status = queues.status
        self._whole_key = session.spelling.whole_key
        self.opens = OpenReads()
        self._wait: Optional[Wait] = None
        self._timer: Optional[IDelayedCall] = None
        self._hurried = False
        self._beginning = False  # whether a monitor has begun and has not waited yet

    @property
    def waiting(self) -> bool:
        """Whether the client waits for an item."""
        return self._wait is not None

    @property
    def waits_for(self) -> list[bytes]:
        """The queues of which the client waits for an item."""
        wait = self._wait
        if isinstance(wait, ItemWait):
            return [choice.queue for choice in wait.choices]
        return [] if wait is None else [wait.queue]

    # At once

    def get(self, request: requests.Get) -> None:
        """Read one queue."""
        session = self._session
        if request.close_all:
            self._reads.close(session.answers(), b"", self.opens.all(request.queue))
        if request.abort:
            self.opens.abort(request.queue)
            session.reply(session.spelling.closed)
            return
        if request.close:
            fetches = request.fetches
            reads = self.opens.oldest(request.queue)
            self._reads.close(session.answers(), b"" if fetches else session.spelling.closed, reads)
            if not fetches:
                return
        if self._status.refuses_reads:
            self._status.check_reads()
        if request.peek:
            self._queues.stats.cmd_peek += 1
        elif not self.opens.allow(request.queue, request.open):
            raise TooManyOpenReads()
        else:
            self._queues.stats.cmd_get += 1
        fifo = self._queues.find(request.queue)
        if fifo is not None and self._fetch(fifo, request):
            return
        self._wait_or_miss((request,))

    def _fetch(self, fifo: Fifo, request: requests.Get) -> bool:
        """@return: whether there was an item; then the answers have the reply."""
        session = self._session
        session.numbered = request.numbered
        key = request.key if self._whole_key else request.queue
        if request.peek:
            return self._reads.peek(fifo, session.answers(), session, key)
        if request.open:
            open = self._reads.open(fifo, session.answers(), session, key)
            if open is None:
                return False
            self.opens.add(request.queue, open)
        elif not self._reads.take(fifo, session.answers(), session, key):
            return False
        self._queues.stats.get_hits += 1
        return True

    def get_first(self, request: requests.GetFirst) -> None:
        """Read the first of several queues that has an item."""
        session = self._session
        first = request.choices[0]
        if first.close:
            reads = [read for choice in request.choices for read in self.opens.oldest(choice.queue)]
            self._reads.close(session.answers(), b"" if first.fetches else session.spelling.closed, reads)
            if not first.fetches:
                return
        self._status.check_reads()
        if first.peek:
            self._queues.stats.cmd_peek += 1
        else:
            if not all(self.opens.allow(choice.queue, first.open) for choice in request.choices):
                raise TooManyOpenReads()
            self._queues.stats.cmd_get += 1
        if not self._fetch_first(request.choices):
            self._wait_or_miss(request.choices)

    def _fetch_first(self, choices: Sequence[requests.Get]) -> bool:
        """@return: whether there was an item.  Queues after one that is still being swept are not tried."""
        for request in choices:
            fifo = self._queues.find(request.queue)
            if fifo is not None:
                if self._fetch(fifo, request):
                    return True
                if fifo.sweeping:
                    return False
        return False

    def _miss(self, request: requests.Get) -> None:
        if not request.peek:
            self._queues.stats.get_misses += 1
        self._session.reply(self._session.spelling.nothing)

    def get_many(self, request: requests.GetMany) -> None:
        """Take one item of each of several queues."""
        self._status.check_reads()
        names = list(dict.fromkeys(request.queues))
        if not all(self.opens.allow(name, False) for name in names):
            raise TooManyOpenReads()
        for name in names:
            fifo = self._queues.find(name)
            if fifo is not None and fifo.perishable and self._is_sweeping(fifo):
                self._wait = SweepWait(self._queues, fifo, partial(self._go_on_with_many, request))
                self._session.update_busy()
                return
        self._check_children(request, names)
        self._session.numbered = request.numbered
        self._reads.take_each(names, self._session.answers(), self._session)

    @staticmethod
    def _is_sweeping(fifo: Fifo) -> bool:
        """@return: whether a sweep must end before it is known if there is an item."""
        with suppress(StoreError):  # the read itself will report it
            return fifo.peek() is None and fifo.sweeping
        return False

    def _go_on_with_many(self, request: requests.GetMany) -> None:
        self.stop_waiting()
        try:
            self.get_many(request)
        except DarnerError as error:
            self._session.reply(self._session.spelling.error(error))
        self._session.update_busy()

    def _check_children(self, request: requests.Request, names: Sequence[bytes]) -> None:
        """@raise darner.errors.NotAllowed: a read of these would create a child, and the user has no right to that."""
        log_in = self._session.log_in
        if log_in is None:
            return
        for name in names:
            parent = parent_of(name)
            if parent is not None:
                fifo = self._queues.find(name)
                if fifo is None or not fifo.exists:
                    log_in.check_new_child(request, name, parent)

    # Waiting

    def _wait_or_miss(self, choices: Sequence[requests.Get]) -> None:
        """There is no item yet: wait if the client asked for it or a sweep is under way, otherwise reply so."""
        names = [request.queue for request in choices]
        self._check_children(choices[0], names)
        over = not choices[0].wait or self._hurried
        if over and not self._is_one_sweeping(choices):
            self._reads.nothing(self._session.answers(), self._session.spelling.nothing, names)
            if not choices[0].peek:
                self._queues.stats.get_misses += 1
            return
        wait = ItemWait(self._queues, choices, self._serve, over)
        self._reads.expect(names, lambda error: self._break_off(wait, error))
        self._wait = wait
        wait.stand()
        self._session.update_busy()
        if not over:
            self._timer = self._queues.clock.callLater(choices[0].wait / 1000, self._time_out)

    def _is_one_sweeping(self, choices: Sequence[requests.Get]) -> bool:
        """@return: whether one of the queues is being swept, so that it is unknown if it has an item."""
        for request in choices:
            fifo = self._queues.find(request.queue)
            if fifo is not None and fifo.sweeping:
                return True
        return False

    def _serve(self, wait: ItemWait) -> None:
        try:
            found = self._fetch_first(wait.choices)
        except DarnerError as error:
            self._break_off(wait, error)
            return
        if found:
            self.stop_waiting()
        elif wait.over and not self._is_one_sweeping(wait.choices):
            self.stop_waiting()
            self._miss(wait.choices[0])
        else:
            wait.stand()

    def _break_off(self, wait: Wait, error: DarnerError) -> None:
        """End the wait with an error."""
        if self._wait is wait:
            self.stop_waiting()
            self._session.reply(self._session.spelling.error(error))

    def _time_out(self) -> None:
        self._timer = None
        self._give_up()

    def _give_up(self) -> None:
        wait = self._wait
        if wait is not None and not wait.hasten():
            self.stop_waiting()
            if isinstance(wait, ItemWait):
                self._miss(wait.choices[0])
            else:
                self._session.reply(self._session.spelling.nothing)

    def hurry(self) -> None:
        """
        Do not wait for items any more, as the client will send nothing more and has probably gone.  A sweep is still
        waited for.
        """
        self._hurried = True
        self._give_up()

    def stop_waiting(self) -> None:
        """Stop waiting, without a reply."""
        if self._wait is not None:
            wait, self._wait = self._wait, None
            self._session.update_busy()
            wait.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def go_on(self) -> None:
        """Continue a wait, as the replies on their way have been sent."""
        wait = self._wait
        if wait is not None:
            try:
                wait.go_on()
            except StoreError as error:
                self._break_off(wait, error)

    def give_back(self) -> None:
        """Give all open reads back to the heads of their queues."""
        self.opens.give_back()

    # Monitoring

    def monitor(self, request: requests.Monitor) -> None:
        """Open the items of a queue as they arrive."""
        if request.close_all:
            self._reads.close(self._session.answers(), b"", self.opens.all(request.queue))
        self._status.check_reads()
        self._check_children(request, (request.queue,))
        over = not request.seconds or self._hurried
        wait = MonitorWait(self._queues, self, request.queue, request.maximum, over)
        self._reads.expect((request.queue,), lambda error: self._break_off(wait, error))
        self._wait = wait
        self._session.update_busy()
        if not over:
            self._timer = self._queues.clock.callLater(request.seconds, self._time_out)
        self._beginning = True
        self.go_on()
        self._beginning = False

    @property
    def sated(self) -> bool:
        return self._session.sated

    def open_for_monitor(self, fifo: Fifo) -> bool:
        session = self._session
        session.numbered = False
        open = self._reads.open(fifo, session.answers(), session, fifo.name, told=False)
        if open is None:
            return False
        self._queues.stats.get_hits += 1
        self.opens.add(fifo.name, open)
        return True

    def may_open(self, queue: bytes) -> bool:
        return self.opens.allow(queue, True)

    def monitored(self, wait: MonitorWait) -> None:
        self.stop_waiting()
        nothing = self._session.spelling.nothing
        if self._beginning:
            self._reads.nothing(self._session.answers(), nothing, (wait.queue,))
        else:
            self._session.reply(nothing)

    def broken_off(self, wait: MonitorWait, error: StoreError) -> None:
        self._break_off(wait, error)
