"""
The session of one client: performs its requests, sends the replies, and gives back its open reads when it disconnects.

A session knows no transport and no protocol.  The front end passes it requests, an L{Outlet} for the replies, the
spelling of replies, and whether the client must log in.  Replies are written to the outlet once the turn of the event
loop is written to the store (`darner.queues.commit`).
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
from darner.queues.answers import Answers, Asker, Reader
from darner.queues.collection import Queues
from darner.queues.streams import PayloadWriter
from darner.queues.transfer import Transfer
from darner.values import requests
from darner.values.items import Item

RELIEF: Final = 0.01
"""Seconds for which large payloads are held back when the store has fallen behind."""
RELIEFS: Final = 200
"""
The maximum number of times in a row: a store that lacks space to merge its tables stays behind until the next write.
"""


class Session(Reader, Asker):
    """
    The session of one client.

    @ivar queues: the queues of the server.
    @ivar spelling: the spelling of its replies.
    @ivar log_in: the client's log-in; C{None}: there are no users, and everybody may do everything.
    @ivar reads: the client's reads, waits and open reads.
    @ivar numbered: whether the reply to the current read has a number for each item (C{gets}).
    @ivar flushing: whether it waits for work on all queues, such as dropping expired items.
    @ivar transfer: the transfer that it waits for.
    @ivar busy: whether its requests must be held back.
    """

    def __init__(
        self, queues: Queues, outlet: Outlet, spelling: Spelling, log_in: Optional[LogIn] = None,
        trail: Optional[AuditTrail] = None,
    ) -> None:  # fmt: skip
        """@param trail: logs administrative requests; C{None}: they are not logged."""
        self.queues = queues
        self.spelling = spelling
        self.log_in = log_in
        self._trail = trail
        self._commit = queues.commit
        self._puts = queues.puts
        self._outlet = outlet
        self._answers: Optional[Answers] = None
        self._owed = 0  # answer sheets that were not delivered yet
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
        Update C{busy}.  Requests are held back while the client waits for an item, for work on all queues or for a
        transfer, while its password is being checked or a large reply is being sent, while it does not read replies,
        when it has reached its limit for this turn, and when its connection is about to be closed.
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
        """Whether enough replies are on their way to the client for now."""
        return self._streaming > 0 or self._outbox.choked or self._resting or self._has_had_enough()

    def _has_had_enough(self) -> bool:
        answers = self._answers
        return answers is not None and answers.size > self.queues.client_bytes

    @property
    def choked(self) -> bool:
        """Whether the client does not read its replies."""
        return self._outbox.choked

    @property
    def anonymous(self) -> bool:
        """Whether the client has not logged in, and its password is not being checked."""
        return self.log_in is not None and self.log_in.anonymous

    @property
    def congested(self) -> bool:
        """
        Whether the rest of a large payload must wait: the part before is still being written, or the store has fallen
        behind, so that other clients would have to wait.
        """
        return self._commit.busy or (self._held_back < RELIEFS and self._puts.pressed())

    def resume_when_relieved(self) -> None:
        """Call L{Outlet.proceed} when more of a large payload can be accepted, or a little later."""
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
        """@return: the answer sheet for this turn.  L{Outlet.proceed} is called when the turn is written."""
        answers = self._answers
        if answers is None:
            answers = self._answers = self._commit.answers_for(self)
            self._owed += 1
        return answers

    def perform(self, request: requests.Request) -> None:
        """
        Perform a request and reply.  Requests with a payload go to L{put}, L{put_flow} or L{put_items} instead.
        """
        try:
            if self.log_in is not None:
                self.log_in.check(request)
            if isinstance(request, requests.Get):
                self.reads.get(request)  # first, as nearly all requests are reads
            else:
                PERFORMERS[type(request)](self, request)
                if self._trail is not None:
                    self._trail.performed(request)
        except (Unauthenticated, NotAllowed) as error:  # LogIn has logged it
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
        """Send a reply that depends on no write, in its order among the other replies."""
        self.answers().add(reply)
        if self._has_had_enough():
            self.busy = True

    def report(self, pieces: Iterator[bytes]) -> None:
        """Send a reply that is made piece by piece; the client's further requests wait until it is sent."""
        self._streaming += 1
        self.answers().add(Report(pieces, self._streamed))
        self.update_busy()

    def takes(self, request: requests.Set) -> bool:
        """Whether to accept the payload of a set: the client may put it, and it is within the limits."""
        if self.log_in is not None:
            if self.log_in.grant is None:
                return self.log_in.takes(request.size)
            if not request.allowed(self.log_in.grant):
                return False
        return self._puts.fits(request.queue, request.size) and not self.queues.status.refuses_writes

    def refuse(self, request: requests.Set) -> None:
        """Reply to a set whose payload was not accepted and has been skipped."""
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
        """@return: a writer for a payload that comes in pieces (L{receive}); pass it to L{put_flow}, or abandon it."""
        return self._puts.inflow()

    def receive(self, inflow: PayloadWriter, data: bytes) -> None:
        """Write a piece of a payload."""
        self._held_back = 0
        inflow.write(data)
        if inflow.stream:
            self.answers()

    def put(self, request: requests.Set, payload: bytes) -> None:
        """Put an item whose payload has been received whole, at most one chunk."""
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
                # It is small, otherwise takes() would have refused it.
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
        """Put items, in order, up to the first that is refused; the reply is the number of items put."""
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
        @param welcome: the reply for success.
        @param silent: whether to send no error before the connection is closed.
        """
        assert self.log_in is not None
        self.queues.stats.auth_cmds += 1

        def ended(error: Optional[BaseException]) -> None:
            self.update_busy()
            # Even without a reply, so that the requests that were held back go on.
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
        """Send the replies that are pending, then close the connection; no more requests are served."""
        self._closing = True
        self.update_busy()

    def finish(self) -> None:
        """As L{close}, also if no reply is pending."""
        if not self._closing:
            self.close()
            self.answers()

    def leave(self) -> None:
        """Give all open reads back to the heads of their queues, as the client has disconnected.  Idempotent."""
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
        self._owed -= 1
        if self._ended:
            discard(answers.entries)
        elif self._outbox.send(answers.entries):
            self._idle()

    def _rest(self) -> None:
        """Let the other clients go first."""
        self._resting = True
        self._commit.rest(self)

    def go_on(self) -> None:
        """Continue, as the other clients have been served."""
        self._resting = False
        self.update_busy()
        if not self._ended and self._outbox.pump():
            self._idle()

    def choke(self) -> None:
        """Stop sending, as the client does not read."""
        self._outbox.choked = True
        self.update_busy()

    def unchoke(self) -> None:
        """Continue sending, as the client reads again."""
        self._outbox.choked = False
        self.update_busy()
        if not self._ended and self._outbox.pump():
            self._idle()

    def _idle(self) -> None:
        if self._resting:
            return
        if self._closing:
            if not self._owed:
                self._outlet.close()
        else:
            self.reads.go_on()
            self._outlet.proceed()


PERFORMERS: Final[dict[type, Callable[[Session, Any], None]]] = {}
"""The functions that perform requests, by the class of the request (`darner.front.commands`)."""
