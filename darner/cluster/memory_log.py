"""
The log in memory, for tests.

It fulfils the same contract as `darner.cluster.etcd.log`, with faults that a test orders.  All of it happens by a
clock: an operation is done C{delay} seconds after it was asked for, and never within the call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from darner.cluster.interfaces import MAX_RECORD_BYTES, IFollowing, ILog, Received
from darner.cluster.limits import check_name, check_note, check_record
from darner.errors import LogConflict, LogDamaged, LogError, LogInDoubt, LogTrimmed, LogUnavailable

_T = TypeVar("_T")


class MemoryLog:
    """
    The log that members share.

    @ivar clock: by which all happens.
    @ivar records: what is in it, by number.
    @ivar first: the lowest number that is not trimmed.
    @ivar last: the number of the last record.
    @ivar damaged: the numbers of records that cannot be read.
    @ivar notes: the notes, with the times when they were set, by node.
    @ivar unavailable: nobody reaches it.
    """

    def __init__(self, clock: IReactorTime, max_record_bytes: int = MAX_RECORD_BYTES) -> None:
        """@param clock: by which all happens, such as a C{twisted.internet.task.Clock}."""
        self.clock = clock
        self.max_record_bytes = max_record_bytes
        self.records: dict[int, bytes] = {}
        self.first = 1
        self.last = 0
        self.damaged: set[int] = set()
        self.notes: dict[str, tuple[bytes, float]] = {}
        self.unavailable = False
        self._members: list[MemoryMember] = []

    def member(self) -> MemoryMember:
        """@return: the log as one more node sees it, with faults of its own."""
        member = MemoryMember(self)
        self._members.append(member)
        return member

    def appended(self, number: int, record: bytes) -> None:
        """Add a record after the last one, and let those know that follow."""
        self.records[number] = record
        self.last = number
        for member in self._members:
            member.wake()


@implementer(ILog)
class MemoryMember:
    """
    The log as one node sees it.

    @ivar delay: after how many seconds an operation is done.  A shorter one does not overtake what is under way.
    @ivar unavailable: this node does not reach the log; what it asks for fails after its delay, and is not done.
    @ivar doubtful: what becomes of the next appends whose outcome this node does not learn: for each, whether it was
        done.
    @ivar in_flight: how many appends are not answered yet.
    """

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._clock = log.clock
        self.max_record_bytes = log.max_record_bytes
        self.delay = 0.0
        self.unavailable = False
        self.doubtful: list[bool] = []
        self.in_flight = 0
        self._appending: list[_Append] = []
        self._latest = 0.0
        self._followings: list[_Following] = []
        self._under_way: dict[Deferred[object], IDelayedCall] = {}
        self._closed = False

    def _check(self) -> None:
        if self._closed:
            raise LogUnavailable("the log is closed")
        if self.unavailable or self._log.unavailable:
            raise LogUnavailable("the log is out of reach")

    def _later(self, operation: Callable[[], _T]) -> Deferred[_T]:
        """Do it after the delay, and after what was asked for before."""
        if self._closed:
            return fail(LogUnavailable("the log is closed"))
        done: Deferred[_T] = Deferred()

        def do() -> None:
            del self._under_way[done]  # type: ignore[arg-type]
            try:
                self._check()
                result = operation()
            except Exception:
                done.errback()
            else:
                done.callback(result)

        now = self._clock.seconds()
        self._latest = max(self._latest, now + self.delay)
        self._under_way[done] = self._clock.callLater(self._latest - now, do)  # type: ignore[index]
        return done

    def last(self) -> Deferred[int]:
        return self._later(lambda: self._log.last)

    def first(self) -> Deferred[int]:
        return self._later(lambda: self._log.first)

    def append(self, number: int, record: bytes) -> Deferred[None]:
        check_record(record, self.max_record_bytes)
        append = _Append(number)
        self.in_flight += 1
        self._appending.append(append)

        def do() -> None:
            if append.failed is not None:
                raise append.failed
            if number != self._log.last + 1:
                raise LogConflict(f"record {number} does not follow record {self._log.last}")
            done = self.doubtful.pop(0) if self.doubtful else None
            if done is not False:
                self._log.appended(number, record)
            if done is not None:
                raise LogInDoubt(f"whether record {number} is appended is unknown")

        def end(result: object) -> object:
            self.in_flight -= 1
            self._appending.remove(append)
            if isinstance(result, Failure):
                for later in self._appending:
                    later.failed = later.failed or LogConflict(f"a record before {later.number} was not appended")
            return result

        return self._later(do).addBoth(end)

    def read(self, after: int, max_bytes: int) -> Deferred[list[tuple[int, bytes]]]:
        return self._later(lambda: self.records_after(after, max_bytes))

    def records_after(self, after: int, max_bytes: int) -> list[tuple[int, bytes]]:
        """@return: what L{read} promises, at once."""
        if after + 1 < self._log.first:
            raise LogTrimmed(f"record {after + 1} is trimmed: the first one is {self._log.first}")
        if after > self._log.last:
            raise LogDamaged(f"the log ends with record {self._log.last}: it has lost record {after}")
        found: list[tuple[int, bytes]] = []
        size = 0
        for number in range(after + 1, self._log.last + 1):
            if number in self._log.damaged:
                if found:
                    break
                raise LogDamaged(f"record {number} is damaged")
            found.append((number, self._log.records[number]))
            size += len(self._log.records[number])
            if size >= max_bytes:
                break
        return found

    def follow(self, after: int, received: Received) -> IFollowing:
        following = _Following(self, after, received)
        self._followings.append(following)
        following.wake()
        return following

    def wake(self) -> None:
        """Tell those who follow that there may be more."""
        for following in self._followings:
            following.wake()

    def forget(self, following: _Following) -> None:
        """Nobody follows there any more."""
        if following in self._followings:
            self._followings.remove(following)

    def call_later(self, call: Callable[[], None]) -> IDelayedCall:
        """Call something after the delay."""
        return self._clock.callLater(self.delay, call)

    def is_reachable(self) -> bool:
        """@return: whether this node reaches the log."""
        return not (self.unavailable or self._log.unavailable)

    def trim(self, to: int) -> Deferred[None]:
        def do() -> None:
            if to > self._log.last:
                raise ValueError(f"record {to} is not there")
            for number in range(self._log.first, to + 1):
                del self._log.records[number]
                self._log.damaged.discard(number)
            self._log.first = max(self._log.first, to + 1)

        return self._later(do)

    def note(self, node: str, value: bytes) -> Deferred[None]:
        check_name(node)
        check_note(value)

        def do() -> None:
            self._log.notes[node] = (value, self._clock.seconds())

        return self._later(do)

    def notes(self) -> Deferred[dict[str, tuple[bytes, float]]]:
        def do() -> dict[str, tuple[bytes, float]]:
            now = self._clock.seconds()
            return {node: (value, now - since) for node, (value, since) in self._log.notes.items()}

        return self._later(do)

    def close(self) -> Deferred[None]:
        self._closed = True
        for following in list(self._followings):
            following.stop()
        under_way, self._under_way = self._under_way, {}
        for done, call in under_way.items():
            call.cancel()
            done.errback(LogUnavailable("the log is closed"))
        return succeed(None)


class _Append:
    """An append that is not answered yet; C{failed} is why it must fail."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.failed: Optional[LogError] = None


RETRY = 0.1
"""After how many seconds following is tried again."""

CHUNK = 1 << 20
"""How many bytes are read at once."""


@implementer(IFollowing)
class _Following:
    """One who follows the log in memory."""

    def __init__(self, member: MemoryMember, after: int, received: Received) -> None:
        self.ended: Deferred[None] = Deferred()
        self._member = member
        self._after = after
        self._received = received
        self._call: Optional[IDelayedCall] = None
        self._waiting = False
        self._stopped = False

    def stop(self) -> None:
        self._end(None)

    def _end(self, result: object) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._member.forget(self)
        if self._call is not None and self._call.active():
            self._call.cancel()
        self.ended.callback(result)  # type: ignore[arg-type]

    def wake(self) -> None:
        """Look for more, soon."""
        if not (self._stopped or self._waiting or (self._call is not None and self._call.active())):
            self._call = self._member.call_later(self._look)

    def _look(self) -> None:
        if not self._member.is_reachable():
            self._call = self._member._clock.callLater(RETRY, self._look)
            return
        try:
            found = self._member.records_after(self._after, CHUNK)
        except LogError:
            self._end(Failure())
            return
        self._deliver(found)

    def _deliver(self, found: list[tuple[int, bytes]]) -> None:
        while found and not self._stopped:
            number, record = found.pop(0)
            self._after = number
            try:
                busy = self._received(number, record)
            except Exception:
                self._end(Failure())
                return
            if busy is not None and not (busy.called and not busy.paused):
                self._waiting = True
                busy.addCallbacks(self._go_on, self._end, (found,))
                return
            if busy is not None:
                busy.addErrback(self._end)
        if not self._stopped:
            self.look_for_more()

    def _go_on(self, _: object, found: list[tuple[int, bytes]]) -> None:
        self._waiting = False
        self._deliver(found)

    def look_for_more(self) -> None:
        """There may be more already."""
        if self._after < self._member._log.last:
            self.wake()
