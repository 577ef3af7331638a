"""
Appending to the log: several transactions in flight, in order, each done once or not at all.

A transaction appends one record, or several where more were given than may be in flight.  It compares the log's head
with the append before it: number and token.  A token is made for each attempt, so that a transaction is done only
behind the very append that it was meant to follow, and at most once.

A transaction that etcd has I{refused} was not done: it has overtaken the one before, and is sent again, or somebody
else has appended.  Where the outcome is I{unknown} (no answer in time, a connection lost), it may still be done, even
later.  Then nothing more is sent until all answers are there or given up.  The head tells what was done, and gets a new
token: what is still on its way can never be done from then on.  Only then is the rest sent again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Any, Optional

from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from darner.cluster.etcd import messages
from darner.cluster.etcd.client import TXN, EtcdClient, EtcdError, Tries
from darner.cluster.etcd.keys import Head, Keys, Stored, new_head, read_head, read_stored
from darner.cluster.etcd.pieces import Pieces
from darner.cluster.etcd.settings import Sizes
from darner.cluster.etcd.transactions import Append, Transaction
from darner.errors import LogConflict, LogDamaged, LogError, LogInDoubt, LogUnavailable


class Appender:
    """The appends of one node, in their order."""

    _log = Logger()

    def __init__(self, client: EtcdClient, keys: Keys, pieces: Pieces, sizes: Sizes) -> None:
        self._client = client
        self._keys = keys
        self._pieces = pieces
        self._sizes = sizes
        self._waiting: deque[Append] = deque()
        self._transactions: deque[Transaction] = deque()
        self._head: Optional[Head] = None
        self._sends = self._in_flight = 0
        self._settling = self._finding_out = False
        self._troubles = 0
        self._closed = False

    def _pending(self) -> Iterator[Append]:
        """All that are not answered, in order."""
        return chain((append for sent in self._transactions for append in sent.appends), self._waiting)

    def _first(self) -> Optional[Append]:
        return next(self._pending(), None)

    def append(self, number: int, record: bytes) -> Deferred[None]:
        """As L{darner.cluster.interfaces.ILog.append}."""
        if self._closed:
            return fail(LogUnavailable("the log is closed"))
        latest = self._waiting[-1] if self._waiting else None
        if latest is None and self._transactions:
            latest = self._transactions[-1].appends[-1]
        if latest is not None and number != latest.number + 1:
            return fail(LogConflict(f"record {number} does not follow record {latest.number}"))
        if latest is None and self._head is not None and number != self._head.number + 1:
            self._head = None
        append = Append(number, record, self._deadline())
        if self._pieces.is_large(record):
            ensureDeferred(self._upload(append))
        else:
            append.stored = Stored(b"", record)
        self._waiting.append(append)
        self._go()
        return append.done

    def _deadline(self) -> float:
        return float(self._client.reactor.seconds() + self._client.timings.patience)

    async def _upload(self, append: Append) -> None:
        try:
            append.stored = await self._pieces.write(append.number, append.record)
        except LogError as error:
            append.failed = error
        append.record = b""
        if append.done.called:
            # It has failed meanwhile.
            self._sweep(append)
            return
        append.deadline = self._deadline()
        self._go()

    def _sweep(self, append: Append) -> None:
        """Delete the pieces of what is not appended."""
        if append.stored is not None and append.stored.upload:
            self._pieces.sweep(append.number, append.stored)

    # Sending

    def _go(self) -> None:
        """Send what can be sent."""
        if self._settling or self._first() is None:
            return
        if self._head is None:
            self._settle()
            return
        previous: Optional[Transaction] = None
        for transaction in list(self._transactions):
            # Behind one that was sent again since, it has its turn; before, it would only be refused once more.
            if transaction.refused and (previous is None or (previous.sent and previous.order > transaction.refused)):
                self._send(transaction, previous)
            previous = transaction
        while (previous is None or previous.sent) and len(self._transactions) < self._sizes.transactions:
            together = self._together()
            if not together or self._settling:
                return
            transaction = Transaction(together)
            self._transactions.append(transaction)
            self._send(transaction, previous)
            previous = transaction

    def _together(self) -> list[Append]:
        """Take those that wait, as many as go into one transaction."""
        together: list[Append] = []
        size = 0
        while self._waiting and len(together) < self._sizes.appends:
            append = self._waiting[0]
            if append.failed is not None and not together and not self._transactions:
                self._fail(append.failed)
                break
            if append.stored is None or append.failed is not None:
                break
            size += append.size
            if together and size > self._sizes.whole:
                break
            together.append(self._waiting.popleft())
        return together

    def _send(self, transaction: Transaction, previous: Optional[Transaction]) -> None:
        self._sends += 1
        self._in_flight += 1
        transaction.order, transaction.refused = self._sends, 0
        transaction.sent, transaction.first = True, previous is None
        success = [messages.put(self._keys.head, transaction.head.value())]
        for append in transaction.appends:
            assert append.stored is not None
            value = append.stored._replace(token=append.head.token).value()
            success.append(messages.put(self._keys.record(append.number), value))
        before = previous.head if previous is not None else self._head
        assert before is not None
        request = messages.TxnRequest(
            compare=[self._is_head(before)], success=success, failure=[messages.get(self._keys.head)]
        )
        timeout = self._client.timings.attempt * min(1 + self._troubles, 4)
        self._client.call(TXN, request, timeout).addCallbacks(
            self._answered, self._not_answered, callbackArgs=(transaction,), errbackArgs=(transaction,)
        )

    def _is_head(self, head: Head) -> Any:
        """@return: the comparison that holds while that is the head."""
        if not head.token:
            return messages.is_absent(self._keys.head)
        return messages.has_value(self._keys.head, head.value())

    def _answered(self, answer: Any, transaction: Transaction) -> None:
        self._in_flight -= 1
        transaction.sent = False
        if transaction.over:
            pass
        elif answer.succeeded:
            self._appended(transaction)
        elif not transaction.first:
            transaction.refused = self._sends
        elif not self._settling:
            try:
                self._overtaken(transaction, self._read_head(answer.responses[0].response_range))
            except LogDamaged as error:
                self._fail(error)
        self._next()

    def _not_answered(self, failure: Failure, transaction: Transaction) -> None:
        self._in_flight -= 1
        transaction.sent = False
        error = failure.value
        if not isinstance(error, (EtcdError, LogUnavailable)):
            self._log.failure("cluster: appending failed", failure)
            error = LogUnavailable(repr(error))
        if not transaction.over:
            if isinstance(error, EtcdError) and not error.is_refusal:
                transaction.unknown = True
            elif not isinstance(error, EtcdError) or error.is_final:
                transaction.appends[0].failed = LogUnavailable(str(error))
            if not self._settling:
                self._troubles += 1
                self._settling = True
                self._log.info("cluster: record {n}: {error}", n=transaction.appends[0].number, error=error)
        self._next()

    def _next(self) -> None:
        if not self._settling:
            self._go()
        elif self._in_flight == 0:
            self._settle()

    def _read_head(self, answer: Any) -> Head:
        return read_head(answer.kvs[0].value if answer.kvs else None)

    def _appended(self, transaction: Transaction) -> None:
        """It is done, and so are those before it, whatever became of their answers."""
        self._head = transaction.head
        self._troubles = 0
        done = []
        while not transaction.over:
            earlier = self._transactions.popleft()
            earlier.over = True
            done += earlier.appends
        # Who hears of it may append more at once.
        for append in done:
            append.done.callback(None)

    def _overtaken(self, transaction: Transaction, head: Head) -> None:
        """The first one was refused, as the head is another one."""
        if head.number != transaction.appends[0].number - 1:
            self._conflict(head)
            return
        # Somebody has only seen to it that nothing is on its way.
        self._head = head
        transaction.refused = self._sends

    def _conflict(self, head: Head) -> None:
        first = self._first()
        number = first.number if first is not None else 0
        self._fail(LogConflict(f"record {number} cannot be appended: the last one is {head.number}, of another append"))

    def _fail(self, error: LogError) -> None:
        """The first one fails, and those behind it."""
        unknown: set[int] = set()
        failing = list(self._pending())
        for transaction in self._transactions:
            transaction.over = True
            if transaction.unknown or transaction.sent:
                unknown.update(append.number for append in transaction.appends)
        self._transactions.clear()
        self._waiting.clear()
        self._head = None
        for append in failing:
            may_be_done = isinstance(error, LogInDoubt) and append.number in unknown
            if append is failing[0]:
                failure = error
            elif may_be_done:
                failure = LogInDoubt(f"whether record {append.number} is appended is unknown")
            else:
                failure = LogConflict(f"record {append.number} is not appended, as an append before it failed")
            if not may_be_done:
                self._sweep(append)
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
        first = self._first()
        tries = Tries(self._client, first.deadline - self._client.reactor.seconds() if first is not None else 0)
        while self._first() is not None:
            try:
                if await self._try_to_find_out(tries):
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
        first = self._first()
        if first is not None:
            if self._transactions and (self._transactions[0].unknown or self._transactions[0].sent):
                self._fail(LogInDoubt(f"whether record {first.number} is appended is unknown: {reason}"))
            else:
                self._fail(LogUnavailable(f"record {first.number} is not appended: {reason}"))

    async def _try_to_find_out(self, tries: Tries) -> bool:
        """
        @return: whether it is found out; C{False}: it changed meanwhile.
        @raise EtcdError: etcd does not answer.
        """
        timeout = tries.timeout()
        answer = await self._client.call(TXN, messages.TxnRequest(success=[messages.get(self._keys.head)]), timeout)
        head = self._read_head(answer.responses[0].response_range)
        await self._find_own(head)
        first = self._first()
        if first is None:
            return True
        if head.number != first.number - 1:
            self._conflict(head)
            return True
        if any(transaction.unknown for transaction in self._transactions):
            fenced = new_head(head.number)
            request = messages.TxnRequest(
                compare=[self._is_head(head)], success=[messages.put(self._keys.head, fenced.value())]
            )
            answer = await self._client.call(TXN, request, timeout)
            if not answer.succeeded or self._first() is not first:
                return False
            head = fenced
            self._log.info("cluster: record {number} is not appended, and is sent again", number=first.number)
        self._head = head
        self._begin_again()
        ensureDeferred(self._client.prefer_leader())
        if first.failed is None and first.stored is not None and self._client.reactor.seconds() >= first.deadline:
            self._fail(LogUnavailable(f"record {first.number} is not appended: etcd did not answer in time"))
        return True

    def _begin_again(self) -> None:
        """Nothing of what was sent is done, or can be: send it all again, as if it were new."""
        for transaction in reversed(self._transactions):
            transaction.over = True
            self._waiting.extendleft(reversed(transaction.appends))
        self._transactions.clear()
        for append in self._waiting:
            append.renew()

    async def _find_own(self, head: Head) -> None:
        """Find out which of the transactions are done."""
        for transaction in self._transactions:
            if transaction.head == head:
                self._appended(transaction)
                return
        while self._transactions and self._transactions[0].unknown:
            transaction = self._transactions[0]
            append = transaction.appends[-1]
            if append.number > head.number:
                return
            key = self._keys.record(append.number)
            answer = await self._client.call(TXN, messages.TxnRequest(success=[messages.get(key)]))
            if transaction.over:
                return
            kvs = answer.responses[0].response_range.kvs
            if not kvs:
                self._fail(LogInDoubt(f"whether record {append.number} was appended is unknown: it is trimmed"))
            elif read_stored(append.number, kvs[0].value).token == append.head.token:
                self._appended(transaction)
            else:
                return

    def close(self) -> None:
        """Fail what is under way.  Nothing is appended any more, but what is sent already may be."""
        self._closed = True
        self._give_up("the log is closed")
