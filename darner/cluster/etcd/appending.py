"""
Appending to the log: several transactions in flight, in order, each done once or not at all.

Each transaction compares the log's head with the one before it: number and token.  A token is made for each attempt, so
that a transaction is done only behind the very append that it was meant to follow, and at most once.

A transaction that etcd has I{refused} was not done: another one has overtaken it, and it is sent again once the one
before is done, or somebody else has appended.  Where the outcome is I{unknown} (no answer in time, a connection lost),
it may still be done, even later.  Then nothing more is sent until all answers are there or given up.  The head tells
what was done, and gets a new token: what is still on its way can never be done from then on.  Only then is the rest
sent again.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any, Optional

from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from darner.cluster.etcd import messages
from darner.cluster.etcd.client import TXN, EtcdClient, EtcdError, Tries
from darner.cluster.etcd.keys import TOKEN_BYTES, Head, Keys, Stored, read_head, read_stored
from darner.cluster.etcd.pieces import Pieces
from darner.cluster.etcd.settings import Sizes
from darner.errors import LogConflict, LogDamaged, LogError, LogInDoubt, LogUnavailable


class _Append:
    """
    One append.

    @ivar stored: what its key is to have, but for the token; C{None} while its pieces are written.
    @ivar head: what the head is once it is done; another one for each attempt whose outcome became unknown.
    @ivar sent: it is under way.
    @ivar refused: etcd has refused it, and it is to be sent again.
    @ivar unknown: an attempt of it may still be done.
    @ivar first: it was sent when all before it were done.
    """

    def __init__(self, number: int, record: bytes, deadline: float) -> None:
        self.number = number
        self.record = record
        self.deadline = deadline
        self.done: Deferred[None] = Deferred()
        self.stored: Optional[Stored] = None
        self.failed: Optional[LogError] = None
        self.sent = self.refused = self.unknown = self.first = self.uploading = False
        self.renew()

    def renew(self) -> None:
        """Make it an append that nothing on its way can be."""
        self.head = Head(self.number, os.urandom(TOKEN_BYTES))
        self.refused = self.unknown = self.first = False


class Appender:
    """The appends of one node, in their order."""

    _log = Logger()

    def __init__(self, client: EtcdClient, keys: Keys, pieces: Pieces, sizes: Sizes) -> None:
        self._client = client
        self._keys = keys
        self._pieces = pieces
        self._most = sizes.appends
        self._pending: deque[_Append] = deque()
        self._head: Optional[Head] = None
        self._in_flight = 0
        self._settling = self._finding_out = False
        self._troubles = 0
        self._closed = False

    def append(self, number: int, record: bytes) -> Deferred[None]:
        """As L{darner.cluster.interfaces.ILog.append}."""
        if self._closed:
            return fail(LogUnavailable("the log is closed"))
        if self._pending and number != self._pending[-1].number + 1:
            return fail(LogConflict(f"record {number} does not follow record {self._pending[-1].number}"))
        if not self._pending and self._head is not None and number != self._head.number + 1:
            self._head = None
        append = _Append(number, record, self._deadline())
        if self._pieces.is_large(record):
            append.uploading = True
            ensureDeferred(self._upload(append))
        else:
            append.stored = Stored(b"", record)
        self._pending.append(append)
        self._go()
        return append.done

    def _deadline(self) -> float:
        return float(self._client.reactor.seconds() + self._client.timings.patience)

    async def _upload(self, append: _Append) -> None:
        try:
            append.stored = await self._pieces.write(append.number, append.record)
        except LogError as error:
            append.failed = error
        append.uploading = False
        append.record = b""
        if append.done.called:
            # It has failed meanwhile.
            if append.stored is not None:
                self._pieces.sweep(append.number, append.stored)
            return
        append.deadline = self._deadline()
        self._go()

    # Sending

    def _go(self) -> None:
        """Send what can be sent."""
        if self._settling or not self._pending:
            return
        if self._head is None:
            self._settle()
            return
        previous = self._head
        first = True
        for append in list(self._pending):
            if append.failed is not None:
                if first:
                    self._fail(append.failed)
                return
            if (
                self._settling
                or append.stored is None
                or self._in_flight >= self._most
                or (append.refused and not first)
            ):
                return
            if not append.sent:
                self._send(append, previous, first)
            previous = append.head
            first = False

    def _send(self, append: _Append, previous: Head, first: bool) -> None:
        assert append.stored is not None
        append.sent, append.refused, append.first = True, False, first
        self._in_flight += 1
        request = messages.TxnRequest(
            compare=[self._is_head(previous)],
            success=[
                messages.put(self._keys.head, append.head.value()),
                messages.put(self._keys.record(append.number), append.stored._replace(token=append.head.token).value()),
            ],
            failure=[messages.get(self._keys.head)],
        )
        timeout = self._client.timings.attempt * min(1 + self._troubles, 4)
        self._client.call(TXN, request, timeout).addCallbacks(
            self._answered, self._not_answered, callbackArgs=(append,), errbackArgs=(append,)
        )

    def _is_head(self, head: Head) -> Any:
        """@return: the comparison that holds while that is the head."""
        if not head.token:
            return messages.is_absent(self._keys.head)
        return messages.has_value(self._keys.head, head.value())

    def _answered(self, answer: Any, append: _Append) -> None:
        self._in_flight -= 1
        append.sent = False
        if append.done.called:
            pass
        elif answer.succeeded:
            self._appended(append)
        elif self._settling:
            pass
        elif append.first:
            try:
                self._overtaken(append, self._read_head(answer.responses[0].response_range))
            except LogDamaged as error:
                self._fail(error)
        else:
            append.refused = True
        self._next()

    def _not_answered(self, failure: Failure, append: _Append) -> None:
        self._in_flight -= 1
        append.sent = False
        error = failure.value
        if not isinstance(error, (EtcdError, LogUnavailable)):
            self._log.failure("cluster: appending record {number} failed", failure, number=append.number)
            error = LogUnavailable(repr(error))
        if not append.done.called:
            if isinstance(error, EtcdError) and not error.is_refusal:
                append.unknown = True
            elif not isinstance(error, EtcdError) or error.is_final:
                append.failed = LogUnavailable(str(error))
            if not self._settling:
                self._troubles += 1
                self._settling = True
                self._log.info("cluster: record {number}: {error}", number=append.number, error=error)
        self._next()

    def _next(self) -> None:
        if not self._settling:
            self._go()
        elif self._in_flight == 0:
            self._settle()

    def _read_head(self, answer: Any) -> Head:
        return read_head(answer.kvs[0].value if answer.kvs else None)

    def _appended(self, append: _Append) -> None:
        """It is appended, and so are those before it, whatever became of their answers."""
        self._head = append.head
        self._troubles = 0
        done = []
        while self._pending and self._pending[0].number <= append.number:
            done.append(self._pending.popleft())
        # Who hears of it may append more at once.
        for earlier in done:
            earlier.done.callback(None)

    def _overtaken(self, append: _Append, head: Head) -> None:
        """The first one was refused, as the head is another one."""
        if head.number != append.number - 1:
            self._conflict(head)
            return
        # Somebody has only seen to it that nothing is on its way.
        self._head = head
        append.refused = True

    def _conflict(self, head: Head) -> None:
        number = self._pending[0].number
        self._fail(LogConflict(f"record {number} cannot be appended: the last one is {head.number}, of another append"))

    def _fail(self, error: LogError) -> None:
        """The first one fails, and those behind it."""
        pending, self._pending = self._pending, deque()
        self._head = None
        for append in pending:
            may_be_done = isinstance(error, LogInDoubt) and (append.unknown or append.sent)
            if append is pending[0]:
                failure = error
            elif may_be_done:
                failure = LogInDoubt(f"whether record {append.number} is appended is unknown")
            else:
                failure = LogConflict(f"record {append.number} is not appended, as an append before it failed")
            if append.stored is not None and append.stored.upload and not may_be_done:
                self._pieces.sweep(append.number, append.stored)
            append.done.errback(failure)

    # Finding out

    def _settle(self) -> None:
        """Find out where the log ends, and see to it that nothing is on its way."""
        self._settling = True
        if not self._finding_out:
            self._finding_out = True
            ensureDeferred(self._find_out())

    async def _find_out(self) -> None:
        if self._troubles > 1:
            longest = self._client.timings.longest_pause
            await self._client.pause(min(self._client.timings.first_pause * 2**self._troubles, longest))
        tries = Tries(self._client, self._pending[0].deadline - self._client.reactor.seconds() if self._pending else 0)
        doubtful = any(append.unknown for append in self._pending)
        while self._pending:
            try:
                if await self._try_to_find_out():
                    if doubtful:
                        self._log.info("cluster: it is clear again which records are appended")
                    break
                continue
            except (EtcdError, LogUnavailable) as error:
                reason: Exception = error
            except LogDamaged as error:
                self._fail(error)
                break
            except Exception as error:
                self._log.failure("cluster: it could not be found out which records are appended")
                self._give_up(repr(error))
                break
            try:
                await tries.again(reason)
            except LogUnavailable as error:
                self._give_up(str(error))
                break
        self._settling = self._finding_out = False
        self._go()

    def _give_up(self, reason: str) -> None:
        if self._pending:
            append = self._pending[0]
            if append.unknown:
                self._fail(LogInDoubt(f"whether record {append.number} is appended is unknown: {reason}"))
            else:
                self._fail(LogUnavailable(f"record {append.number} is not appended: {reason}"))

    async def _try_to_find_out(self) -> bool:
        """
        @return: whether it is found out; C{False}: it changed meanwhile.
        @raise EtcdError: etcd does not answer.
        """
        first = self._pending[0].number
        answer = await self._client.call(TXN, messages.TxnRequest(success=[messages.get(self._keys.head)]))
        head = self._read_head(answer.responses[0].response_range)
        if self._pending and head.number >= first:
            await self._find_own(head)
        if not self._pending:
            self._head = None
            return True
        if head.number != self._pending[0].number - 1:
            self._conflict(head)
            return True
        if any(append.unknown for append in self._pending):
            fenced = Head(head.number, os.urandom(TOKEN_BYTES))
            answer = await self._client.call(TXN, messages.TxnRequest(
                compare=[self._is_head(head)], success=[messages.put(self._keys.head, fenced.value())]
            ))  # fmt: skip
            if not answer.succeeded or not self._pending:
                return False
            head = fenced
            for append in self._pending:
                append.renew()
        self._head = head
        append = self._pending[0]
        if append.failed is None and append.stored is not None and self._client.reactor.seconds() >= append.deadline:
            self._fail(LogUnavailable(f"record {append.number} is not appended: etcd did not answer in time"))
        return True

    async def _find_own(self, head: Head) -> None:
        """Find out which of the appends are done, as there are records with their numbers."""
        for append in self._pending:
            if append.head == head:
                self._appended(append)
                return
        last = min(head.number, self._pending[-1].number)
        while self._pending and self._pending[0].number <= last:
            append = self._pending[0]
            if not append.unknown:
                return
            key = self._keys.record(append.number)
            answer = await self._client.call(TXN, messages.TxnRequest(success=[messages.get(key)]))
            if append.done.called:
                return
            kvs = answer.responses[0].response_range.kvs
            if not kvs:
                self._fail(LogInDoubt(f"whether record {append.number} was appended is unknown: it is trimmed"))
            elif read_stored(append.number, kvs[0].value).token == append.head.token:
                self._appended(append)
            else:
                return

    def close(self) -> None:
        """Fail what is under way.  Nothing is appended any more, but what is sent already may be."""
        self._closed = True
        if self._pending:
            for append in self._pending:
                append.unknown = append.unknown or append.sent
            self._give_up("the log is closed")
