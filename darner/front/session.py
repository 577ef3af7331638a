"""
One client: its requests and their replies, and giving back what it held when it goes.

A session knows no transport and no protocol.  A front end hands it requests, says how replies are spelled and whether
the client has to log in, and gives it an L{Outlet}; what the client is told comes out there once the turn of the event
loop is written (`darner.queues.commit`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Optional

from twisted.internet.interfaces import IDelayedCall

from darner.errors import DarnerError, ItemTooLarge, NotAllowed, QueueFull, StoreError, Unauthenticated
from darner.front.audit import AuditTrail
from darner.front.client_reads import ClientReads
from darner.front.log_in import LogIn
from darner.front.outbox import Outbox, Outlet, Report, Value, discard
from darner.front.spelling import Spelling
from darner.queues.answers import Answers, Reader
from darner.queues.collection import Queues
from darner.queues.streams import PayloadWriter
from darner.queues.transfer import Transfer
from darner.values import requests
from darner.values.items import Item

RELIEF: Final = 0.01
"""Seconds for which large payloads are held back when the store has fallen behind."""
RELIEFS: Final = 200
"""
How often in a row: a store that could not merge its tables, for lack of room, stays behind until something is written.
"""


class Session(Reader):
    """
    One client's dealings with the queues.

    @ivar queues: what it works on.
    @ivar spelling: how its replies are spelled.
    @ivar log_in: who the client is; C{None}: everybody may do everything.
    @ivar reads: what it reads, waits for and has open.
    @ivar numbered: whether the reply to the read that is being served has numbers that identify items.
    @ivar flushing: whether it waits for work on all queues, such as dropping what has expired.
    @ivar transfer: what it waits to be moved.
    @ivar busy: whether requests have to be held back.
    """

    def __init__(
        self, queues: Queues, outlet: Outlet, spelling: Spelling, log_in: Optional[LogIn] = None,
        trail: Optional[AuditTrail] = None,
    ) -> None:  # fmt: skip
        """@param trail: where to log what administrates; C{None}: nowhere."""
        self.queues = queues
        self.spelling = spelling
        self.log_in = log_in
        self._trail = trail
        self._commit = queues.commit
        self._puts = queues.puts
        self._outlet = outlet
        self._answers: Optional[Answers] = None
        self.reads = ClientReads(self, queues)
        self.numbered = False
        self.flushing = False
        self.transfer: Optional[Transfer] = None
        self._relief: Optional[IDelayedCall] = None
        self._held_back = 0
        self._streaming = 0
        self._outbox = Outbox(outlet, spelling, self._rest, queues.commit.log)
        self._resting = False
        self._closing = False
        self._ended = False
        self.busy = False

    @property
    def trail(self) -> Optional[AuditTrail]:
        """Who the client is, as far as that is logged."""
        return self._trail

    def update_busy(self) -> None:
        """
        Find out whether requests have to be held back: the client waits for an item, for work on all queues or for
        many items to be moved, its password is being checked, a large reply is on its way to it, it does not read,
        enough replies gathered for this turn, others have to be served first, or the connection is about to end.
        """
        self.busy = (
            self.reads.waiting
            or self.transfer is not None
            or self.flushing
            or self._closing
            or self.sated
            or (self.log_in is not None and self.log_in.checking)
        )

    @property
    def sated(self) -> bool:
        """Whether what is on its way to the client is enough for now."""
        return self._streaming > 0 or self._outbox.choked or self._resting or self._has_had_enough()

    def _has_had_enough(self) -> bool:
        answers = self._answers
        return answers is not None and answers.size > self.queues.client_bytes

    @property
    def choked(self) -> bool:
        """Whether the client does not read the replies it has coming."""
        return self._outbox.choked

    @property
    def anonymous(self) -> bool:
        """Whether the client has not logged in, and no password of it is being checked either."""
        return self.log_in is not None and self.log_in.anonymous

    @property
    def congested(self) -> bool:
        """
        Whether more of a large payload has to be held back: what came before is still being written, or the store has
        fallen behind, so that others would have to wait.
        """
        return self._commit.busy or (self._held_back < RELIEFS and self._puts.pressed())

    def resume_when_relieved(self) -> None:
        """Have L{Outlet.proceed} called when more of a large payload may be taken, or a little later."""
        if self._commit.busy:
            self.answers()
        elif self._relief is None:
            self._held_back += 1
            self._relief = self.queues.clock.callLater(RELIEF, self._relieved)

    def _relieved(self) -> None:
        self._relief = None
        self._outlet.proceed()

    # Requests

    def answers(self) -> Answers:
        """@return: the answer sheet for this turn; when that is written, L{Outlet.proceed} is called in any case."""
        answers = self._answers
        if answers is None:
            answers = self._answers = self._commit.answers_for(self)
        return answers

    def perform(self, request: requests.Request) -> None:
        """
        Do what a request asks for, and see to its reply.

        What has a payload goes to L{put}, L{put_flow} or L{put_items} instead.
        """
        try:
            if self.log_in is not None:
                self.log_in.check(request)
            if isinstance(request, requests.Get):
                self.reads.get(request)  # nearly all of them are that
            else:
                PERFORMERS[type(request)](self, request)
                if self._trail is not None:
                    self._trail.performed(request)
        except (Unauthenticated, NotAllowed) as error:  # which the log-in has logged
            if not getattr(request, "noreply", False):
                self.reply(self.spelling.error(error))
        except DarnerError as error:
            if not getattr(request, "noreply", False):
                self.reply(self.spelling.error(error))
            elif self._trail is not None:
                self._trail.refused(request, error)
        if self._has_had_enough():
            self.busy = True

    def reply(self, reply: bytes) -> None:
        """Tell the client something that depends on nothing, in its order among the other replies."""
        self.answers().add(reply)
        if self._has_had_enough():
            self.busy = True

    def report(self, pieces: Iterator[bytes]) -> None:
        """Tell the client something that is made as it is sent; its further requests are held back until then."""
        self._streaming += 1
        self.answers().add(Report(pieces, self._streamed))
        self.update_busy()

    def takes(self, request: requests.Set) -> bool:
        """Whether to take the payload of a set at all: whether it may be put, and is within the limits."""
        if self.log_in is not None:
            if self.log_in.grant is None:
                return self.log_in.takes(request.size)
            if not request.allowed(self.log_in.grant):
                return False
        return self._puts.fits(request.queue, request.size) and not self.queues.status.refuses_writes

    def refuse(self, request: requests.Set) -> None:
        """The payload of a set that is not taken has been skipped."""
        try:
            if self.log_in is not None:
                self.log_in.check(request)
            self.queues.status.check_writes()
        except DarnerError as error:
            self._not_stored(request, error)
        else:
            too_large = request.size > self._puts.item_limit(request.queue)
            self._not_stored(request, ItemTooLarge() if too_large else QueueFull())

    def inflow(self) -> PayloadWriter:
        """@return: where to L{receive} a payload that comes in pieces; give it to L{put_flow}, or abandon it."""
        return self._puts.inflow()

    def receive(self, inflow: PayloadWriter, data: bytes) -> None:
        """Take a piece of a payload."""
        self._held_back = 0
        inflow.write(data)
        if inflow.stream:
            self.answers()

    def put(self, request: requests.Set, payload: bytes) -> None:
        """Put an item whose payload is here, at most a chunk of it."""
        try:
            if self.log_in is not None:
                if self.log_in.takes(request.size):
                    self._begin_log_in(payload, b"" if request.noreply else self.spelling.stored, request.noreply)
                    return
                self.log_in.check(request)
            self._puts.put(
                self.answers(), b"" if request.noreply else self.spelling.stored, request.queue, request.flags,
                request.expiry, payload, request.sync, request.options,
            )  # fmt: skip
        except DarnerError as error:
            self._not_stored(request, error)
        else:
            self.queues.stats.cmd_set += 1
            if self._has_had_enough():
                self.busy = True

    def put_flow(self, request: requests.Set, inflow: PayloadWriter) -> None:
        """Put an item whose payload came in pieces."""
        stored = b"" if request.noreply else self.spelling.stored
        try:
            if self.log_in is not None and self.log_in.grant is None:
                # It is small, or it would not have been taken.
                self._begin_log_in(inflow.finish(), stored, request.noreply)
                return
            self._puts.put_flow(
                self.answers(), stored, request.queue, request.flags, request.expiry, inflow, request.sync,
                request.options,
            )  # fmt: skip
        except DarnerError as error:
            self._not_stored(request, error)
        else:
            self.queues.stats.cmd_set += 1
            self.update_busy()

    def _not_stored(self, request: requests.Set, error: DarnerError) -> None:
        self.queues.stats.cmd_set += 1
        if not request.noreply:
            self.reply(self.spelling.error(error))

    def put_items(self, request: requests.PutItems, items: list[bytes]) -> None:
        """Put items, in order, up to the first that is refused; the reply says how many."""
        try:
            if self.log_in is not None:
                if len(items) == 1 and self.log_in.takes(len(items[0])):
                    self._begin_log_in(items[0], self.spelling.number(1), False)
                    return
                self.log_in.check(request)
            self._puts.put_items(self.answers(), self.spelling.number, request.queue, request.expiry, items)
        except DarnerError as error:
            self.reply(self.spelling.error(error))
        self.update_busy()

    # Logging in

    def _begin_log_in(self, credentials: bytes, welcome: bytes, silent: bool) -> None:
        """
        @param welcome: the reply when they are good.
        @param silent: whether an error is told only by the end of the connection.
        """
        assert self.log_in is not None
        self.queues.stats.auth_cmds += 1

        def ended(error: Optional[BaseException]) -> None:
            self.update_busy()
            # Also where nothing is said: what was held back may go on.
            answers = self.answers()
            if error is None:
                answers.add(welcome)
                return
            self.queues.stats.auth_errors += 1
            if not silent:
                answers.add(self.spelling.error(error))
            self.finish()

        self.log_in.begin(credentials, ended)
        self.update_busy()

    # Items on their way to the client

    def hand_out(self, item: Item, key: bytes, whole: bool) -> Any:
        spelling = self.spelling
        if self.numbered:
            before = spelling.before_numbered_item(key, item.flags, item.size, item.id + 1)
            if not item.stream:
                return b"%b%b%b" % (before, item.payload, spelling.after_item(whole))
        elif not item.stream:
            return spelling.item(key, item.flags, item.payload, whole)
        else:
            before = spelling.before_item(key, item.flags, item.size)
        self._streaming += 1
        self.update_busy()
        return Value(before, self.queues.reads.outflow(item, self._streamed), spelling.after_item(whole))

    def end(self, error: Optional[StoreError]) -> bytes:
        return self.spelling.nothing if error is None else self.spelling.error(error)

    def _streamed(self) -> None:
        self._streaming -= 1
        self.update_busy()

    # The end

    def close(self) -> None:
        """Send the replies there are, and end the connection; the client asks for nothing more."""
        self._closing = True
        self.update_busy()

    def finish(self) -> None:
        """As L{close}, also where there is no reply to be sent."""
        if not self._closing:
            self.close()
            self.answers()

    def leave(self) -> None:
        """The client has gone: its open reads go back to their queues, ahead of what came after them.  Idempotent."""
        if self._ended:
            return
        self._ended = True
        self.reads.stop_waiting()
        if self.transfer is not None:
            self.transfer.stop()
        if self.log_in is not None:
            self.log_in.cancel()
        if self._relief is not None:
            self._relief.cancel()
            self._relief = None
        self.reads.give_back()
        self._outbox.clear()

    # For the commit

    def seal(self) -> None:
        enough = self._has_had_enough()
        self._answers = None
        if enough:
            self._rest()
        if self.busy:
            self.update_busy()

    def deliver(self, answers: Answers) -> None:
        if self._ended:
            discard(answers.entries)
        elif self._outbox.send(answers.entries):
            self._idle()

    def _rest(self) -> None:
        """That is enough for one turn."""
        self._resting = True
        self._commit.rest(self)

    def go_on(self) -> None:
        """The others have been served."""
        self._resting = False
        self.update_busy()
        if not self._ended and self._outbox.pump():
            self._idle()

    def choke(self) -> None:
        """The client does not read: send it no more."""
        self._outbox.choked = True
        self.update_busy()

    def unchoke(self) -> None:
        """The client reads again."""
        self._outbox.choked = False
        self.update_busy()
        if not self._ended and self._outbox.pump():
            self._idle()

    def _idle(self) -> None:
        if self._resting:
            return
        if self._closing:
            self._outlet.close()
        else:
            self.reads.go_on()
            self._outlet.proceed()


PERFORMERS: Final[dict[type, Callable[[Session, Any], None]]] = {}
"""What does what a request asks for, by the request's class (`darner.front.commands`)."""
