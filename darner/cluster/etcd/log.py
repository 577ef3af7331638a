"""
The log of a cluster in etcd.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, Optional, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from darner.cluster.etcd import messages
from darner.cluster.etcd.appending import Appender
from darner.cluster.etcd.client import COMPACT, PUT, RANGE, TXN, EtcdClient
from darner.cluster.etcd.following import Following
from darner.cluster.etcd.keys import Keys
from darner.cluster.etcd.pieces import Pieces
from darner.cluster.etcd.reading import Reader
from darner.cluster.etcd.settings import Credentials, Sizes, Timings
from darner.cluster.interfaces import MAX_RECORD_BYTES, IFollowing, ILog, Received
from darner.cluster.limits import check_name, check_note, check_record
from darner.errors import LogUnavailable
from darner.net.clock import MonotonicClock

_T = TypeVar("_T")

_TRIM_STEP = 1000
"""How many records one transaction drops."""


class SteadyReactor:
    """What the log needs of a reactor, by the monotonic clock: the reactor's own time is that of the wall clock."""

    def __init__(self, reactor: Any) -> None:
        self.callFromThread = reactor.callFromThread
        clock = MonotonicClock(reactor.callFromThread)
        self.seconds, self.callLater, self.stop = clock.seconds, clock.callLater, clock.stop


@implementer(ILog)
class EtcdLog:
    """
    A log that etcd keeps, as one node sees it.

    Nothing is connected before it is first used.  C{keys} has what is where; `appending` has how it is safe.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, endpoints: Sequence[str], name: str, credentials: Optional[Credentials] = None,
        timings: Optional[Timings] = None, sizes: Optional[Sizes] = None, max_record_bytes: int = MAX_RECORD_BYTES,
    ) -> None:  # fmt: skip
        """
        @param reactor: a reactor with threads; its time is not used.
        @param endpoints: C{HOST:PORT} of etcd servers of one cluster; those before are preferred.
        @param name: of the log: 1 to 250 printable ASCII characters without C{/} and white space.  All that it writes
            is below C{darner/NAME/}.
        @raise ValueError: the name is none, or there are no endpoints.
        """
        check_name(name)
        sizes = sizes or Sizes()
        self.max_record_bytes = max_record_bytes
        self._keys = Keys(name)
        self._reactor = SteadyReactor(reactor)
        self._client = EtcdClient(self._reactor, endpoints, credentials, timings)
        pieces = Pieces(self._client, self._keys, sizes)
        self._appender = Appender(self._client, self._keys, pieces, sizes)
        self._reader = Reader(self._client, self._keys, pieces, sizes)
        self._followings: list[Following] = []
        self._seen: dict[str, tuple[int, float]] = {}
        self._under_way: set[Deferred[Any]] = set()

    def _run(self, steps: Coroutine[Deferred[Any], Any, _T]) -> Deferred[_T]:
        """Do it, until the log is closed."""
        running = ensureDeferred(steps)
        answer: Deferred[_T] = Deferred(lambda _: running.cancel())
        self._under_way.add(answer)

        def done(result: Any) -> None:
            self._under_way.discard(answer)
            if not answer.called:
                answer.callback(result)

        running.addBoth(done)
        return answer

    def last(self) -> Deferred[int]:
        async def last() -> int:
            return (await self._reader.bounds())[0].last

        return self._run(last())

    def first(self) -> Deferred[int]:
        async def first() -> int:
            return (await self._reader.bounds())[0].first

        return self._run(first())

    def append(self, number: int, record: bytes) -> Deferred[None]:
        check_record(record, self.max_record_bytes)
        return self._appender.append(number, record)

    def read(self, after: int, max_bytes: int) -> Deferred[list[tuple[int, bytes]]]:
        async def read() -> list[tuple[int, bytes]]:
            return (await self._reader.read(after, max_bytes))[0]

        return self._run(read())

    def follow(self, after: int, received: Received) -> IFollowing:
        following = Following(self._client, self._keys, self._reader, after, received)
        self._followings = [*(other for other in self._followings if not other.ended.called), following]
        return following

    def trim(self, to: int) -> Deferred[None]:
        return self._run(self._trim(to))

    async def _trim(self, to: int) -> None:
        """In steps, so that no transaction takes long; then etcd is told to forget what was."""
        revision = 0
        while True:
            bounds, answer = await self._reader.bounds()
            if to > bounds.last:
                raise ValueError(f"record {to} is not there: the last one is {bounds.last}")
            if bounds.first > to:
                break
            known = answer.responses[0].response_range.kvs
            unchanged = (
                messages.has_value(self._keys.first, known[0].value) if known else messages.is_absent(self._keys.first)
            )
            stop = min(to, bounds.first + _TRIM_STEP - 1) + 1
            done = await self._client.ask(TXN, messages.TxnRequest(
                compare=[unchanged],
                success=[
                    messages.put(self._keys.first, b"%d" % stop),
                    messages.delete(*self._keys.records(0, stop)),
                    messages.delete(*self._keys.pieces(stop)),
                ],
            ))  # fmt: skip
            if done.succeeded:
                revision = done.header.revision
        if revision:
            await self._compact(revision)

    async def _compact(self, revision: int) -> None:
        """The records are dropped already, so a failure is only told of; the next L{trim} compacts more."""
        try:
            await self._client.ask(COMPACT, messages.CompactionRequest(revision=revision))
        except LogUnavailable as error:
            if "has been compacted" not in str(error):
                self._log.warn("cluster: etcd did not compact its revisions: {error}", error=error)

    def note(self, node: str, value: bytes) -> Deferred[None]:
        check_name(node)
        check_note(value)

        async def note() -> None:
            await self._client.ask(PUT, messages.PutRequest(key=self._keys.note(node), value=value))

        return self._run(note())

    def notes(self) -> Deferred[dict[str, tuple[bytes, float]]]:
        return self._run(self._notes())

    async def _notes(self) -> dict[str, tuple[bytes, float]]:
        """A note is as old as the time since this process saw that it has changed; that is the least it can be."""
        start, end = self._keys.notes
        answer = await self._client.ask(RANGE, messages.RangeRequest(key=start, range_end=end))
        now = self._client.reactor.seconds()
        seen = {}
        notes = {}
        for kv in answer.kvs:
            node = self._keys.node(kv.key)
            revision, since = self._seen.get(node, (0, now))
            if revision != kv.mod_revision:
                since = now
            seen[node] = (kv.mod_revision, since)
            notes[node] = (kv.value, now - since)
        self._seen = seen
        return notes

    def close(self) -> Deferred[None]:
        for following in self._followings:
            following.stop()
        self._appender.close()
        self._client.close()
        for answer in list(self._under_way):
            if not answer.called:
                answer.errback(LogUnavailable("the log is closed"))
        self._reactor.stop()
        return succeed(None)
