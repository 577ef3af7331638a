"""
Helpers for tests of the queues: queues with a test clock, clients without a transport, a store with faults.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Optional
from unittest import skipIf

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from zope.interface import implementer

import darner.front.session
from darner.config.policies import Policies, QueueSettings
from darner.errors import StoreError
from darner.front import commands, memcache, memcache_requests  # noqa: F401  (the commands register themselves)
from darner.front.log_in import LogIn
from darner.front.session import Session
from darner.front.spelling import Spelling
from darner.queues.answers import Answers
from darner.queues.collection import Queues
from darner.queues.streams import PayloadWriter
from darner.queues.surroundings import Surroundings
from darner.store.batch import Batch
from darner.store.interfaces import IStore
from darner.store.memory import MemoryStore
from darner.values import requests
from darner.values.items import Item, PutOptions, QueueState, Step

from_source = skipIf(
    not darner.front.session.__file__.endswith(".py"),
    "it puts something in the place of what compiled code has built in",
)
"""Tests that only the source can pass."""

EPOCH = 1_700_000_000
"""The wall-clock time at the start of a test, in seconds."""

REFUSED = b"SERVER_ERROR no room\r\n"
"""The reply when the test makes a write fail."""


@implementer(IStore)
class FaultyStore:
    """
    A store with faults that a test chooses.  Nothing is really synced.

    @ivar full: refuse writes that need space.
    @ivar broken: the number of writes to refuse.
    @ivar doubtful: the number of writes to make and then report as refused.
    @ivar unmendable: fail to L{mend}.
    @ivar unreadable: fail to read items and chunks.
    @ivar numberless: fail to give numbers.
    @ivar room: the space on the disk that is reported.
    @ivar writes: for each successful write, whether it was with a sync.
    @ivar reads: for each read, the number of items returned.
    """

    def __init__(self, store: Any) -> None:
        self.store = store
        self.full = False
        self.broken = 0
        self.doubtful = 0
        self.unmendable = False
        self.unreadable = False
        self.numberless = False
        self.room: Optional[tuple[int, int]] = None
        self.writes: list[bool] = []
        self.reads: list[int] = []

    def recover(self) -> Iterator[QueueState]:
        return self.store.recover()

    def leftovers(self) -> tuple[list[int], list[int]]:
        return self.store.leftovers()

    def imported(self, number: int) -> list[Any]:
        imported: list[Any] = self.store.imported(number)
        return imported

    def new_number(self) -> int:
        self._unless(self.numberless, "no numbers")
        return self.store.new_number()

    def new_stream(self) -> int:
        self._unless(self.numberless, "no numbers")
        return self.store.new_stream()

    def write(self, batch: Batch, sync: bool = False) -> None:
        self._unless(self.full and batch.puts, "no room")
        if self.broken:
            self.broken -= 1
            raise StoreError("no room")
        self.store.write(batch)
        if self.doubtful:
            self.doubtful -= 1
            error = StoreError("no room")
            error.uncertain = True
            raise error
        self.writes.append(sync)

    def mend(self) -> None:
        self._unless(self.unmendable, "no room")
        self.store.mend()

    def read(self, number: int, start: int, stop: int, max_bytes: int) -> list[Item]:
        self._unless(self.unreadable, "unreadable")
        items = self.store.read(number, start, stop, max_bytes)
        self.reads.append(len(items))
        return items

    def seen(self, generation: int, id: bytes) -> Optional[int]:
        self._unless(self.unreadable, "unreadable")
        return self.store.seen(generation, id)

    def chunk(self, stream: int, index: int) -> bytes:
        self._unless(self.unreadable, "unreadable")
        return self.store.chunk(stream, index)

    def read_delayed(self, *arguments: int) -> Any:
        self._unless(self.unreadable, "unreadable")
        return self.store.read_delayed(*arguments)

    def delayed_deleted(self, *arguments: int) -> None:
        self.store.delayed_deleted(*arguments)

    def reclaim(self, *arguments: int) -> Step:
        return self.store.reclaim(*arguments)

    def reclaim_queue(self, *arguments: int) -> Step:
        return self.store.reclaim_queue(*arguments)

    def reclaim_stream(self, *arguments: int) -> Step:
        return self.store.reclaim_stream(*arguments)

    def ready(self) -> None:
        self._unless(self.full or self.unmendable or self.broken > 0, "no room")
        self.store.ready()

    def space(self) -> Optional[tuple[int, int]]:
        return self.room

    def pressed(self) -> bool:
        return self.store.pressed()

    def worn(self) -> bool:
        return self.store.worn()

    def settle(self) -> None:
        self.store.settle()

    def renew(self) -> None:
        self.store.renew()

    def uncompacted(self) -> bool:
        return self.store.uncompacted()

    def compact(self, wanted: Callable[[], bool] = lambda: True, all: bool = True) -> None:
        self.store.compact(wanted, all)

    def close(self) -> None:
        self.store.close()

    def _unless(self, fault: bool, reason: str) -> None:
        if fault:
            raise StoreError(reason)


class Server:
    """
    Queues over a store, without a network, with a clock that the test advances.

    @ivar set_by: the seconds by which the wall clock was set forward, or back if negative.
    @ivar holding: whether writes in a thread wait for L{release}.
    @ivar held: the writes that wait.
    """

    def __init__(self, store: Any = None, make: Callable[..., Queues] = Queues, **settings: Any) -> None:
        self.store = FaultyStore(MemoryStore() if store is None else store)
        self.clock = Clock()
        self._make = make
        self._policies = Policies(QueueSettings(**settings))
        self.set_by = 0.0
        self.holding = False
        self.start()

    def start(self) -> None:
        """Serve the contents of the store, as after a crash: all memory and all timers are dropped."""
        now = self.clock.seconds()
        self.clock = Clock()
        self.clock.rightNow = now
        clock = self.clock
        self.held: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []
        surroundings = Surroundings(
            clock, lambda call: clock.callLater(0, call), self._in_thread,
            lambda: EPOCH + self.set_by + clock.seconds(),
        )  # fmt: skip
        self.queues = self._make(self.store, surroundings, self._policies)
        self.queues.start()

    def stop(self) -> None:
        """Stop cleanly, without clients."""
        stopped = Deferred.fromCoroutine(self.queues.stop())
        self.commit()
        assert stopped.called

    def restart(self) -> None:
        """Stop cleanly and start again."""
        self.stop()
        self.start()

    def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        if not self.holding or call != self.store.write:
            return maybeDeferred(call, *arguments)
        done: Deferred[Any] = Deferred()
        self.held.append((done, call, arguments))
        return done

    def release(self) -> None:
        """Let the write in the thread end, and run everything that is due then."""
        done, call, arguments = self.held.pop(0)
        maybeDeferred(call, *arguments).chainDeferred(done)
        self.commit()

    def commit(self) -> None:
        """Run everything that is due now."""
        self.clock.advance(0)

    def client(self, dialect: Spelling = memcache.KESTREL, log_in: Optional[LogIn] = None) -> Client:
        return Client(self, dialect, log_in)

    def figures(self, queue: bytes) -> tuple[int, int]:
        """@return: the number of items of a queue and their bytes."""
        figures = self.queues.queue_figures(queue)
        return (figures["items"], figures["bytes"]) if figures else (0, 0)


class Client:
    """
    A front end without a transport, and its one client.

    @ivar sent: the bytes sent to the client that it has not read yet.
    @ivar writes: the same, as separate writes.
    @ivar closed: whether the connection was closed after the replies.
    @ivar aborted: whether the connection was aborted.
    """

    PIECE = 20_000

    def __init__(
        self, server: Server, dialect: Spelling = memcache.KESTREL, log_in: Optional[LogIn] = None
    ) -> None:
        self.server = server
        self._relative_expiry = dialect.relative_expiry
        self.session = Session(server.queues, self, dialect, log_in)
        self._requests: deque[tuple[requests.Request, bytes]] = deque()
        self.writes: list[bytes] = []
        self.closed = False
        self.aborted = False

    # Asking

    def ask(self, line: bytes) -> None:
        """Send a request, which has to wait if the session is busy."""
        self._send(memcache_requests.parse(line, self._relative_expiry), b"")

    def set(self, queue: bytes, payload: bytes, flags: int = 0, expiry: int = 0, end: bytes = b"") -> None:
        """Send a set; C{queue} may have options, and C{end} follows the byte count."""
        line = b"set %b %d %d %d%b" % (queue, flags, expiry, len(payload), end)
        request = memcache_requests.parse(line, self._relative_expiry)
        assert isinstance(request, requests.Set)
        self._send(request, payload)

    def _send(self, request: requests.Request, payload: bytes) -> None:
        self._requests.append((request, payload))
        self.proceed()

    def does(self, line: bytes) -> bytes:
        """Send a request.  @return: the bytes sent to the client by the end of the turn."""
        self.ask(line)
        self.server.commit()
        return self.hears()

    def sets(self, queue: bytes, payload: bytes, **more: Any) -> bytes:
        """As L{does}, for a set."""
        self.set(queue, payload, **more)
        self.server.commit()
        return self.hears()

    def hears(self) -> bytes:
        """@return: the bytes sent to the client since the last call."""
        data = b"".join(self.writes)
        self.writes.clear()
        return data

    def leave(self) -> None:
        """Disconnect."""
        self._requests.clear()
        self.session.leave()

    # The session's outlet

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def proceed(self) -> None:
        while self._requests and not self.session.busy:
            request, payload = self._requests.popleft()
            if not isinstance(request, requests.Set):
                self.session.perform(request)
            elif not self.session.takes(request):
                self.session.refuse(request)
            elif len(payload) <= self.PIECE:
                self.session.put(request, payload)
            else:
                inflow = self.session.inflow()
                for at in range(0, len(payload), self.PIECE):
                    self.session.receive(inflow, payload[at : at + self.PIECE])
                self.session.put_flow(request, inflow)

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True


def slow_disk(service: Any) -> None:
    """Have a running L{QueueService} write to stable storage in its thread only, as where syncs take long."""
    worker = service.queues.commit.worker
    if worker is not None:
        worker.slow_until = math.inf


def value(queue: bytes, payload: bytes, flags: int = 0, end: bytes = memcache.END) -> bytes:
    """@return: the reply that hands out an item."""
    return memcache.value_header(queue, flags, len(payload)) + payload + b"\r\n" + end



class Asker:
    """
    An asker without a client.

    @ivar told: the entries of its answer sheets after their turns were written or refused.
    """

    def __init__(self, queues: Queues) -> None:
        self._queues = queues
        self.told: list[Any] = []

    def answers(self) -> Answers:
        """@return: a new answer sheet."""
        return self._queues.commit.answers_for(self)

    def seal(self) -> None:
        pass

    def deliver(self, answers: Answers) -> None:
        self.told += answers.entries

    def put(self, queue: bytes, payload: bytes, options: Optional[PutOptions] = None, flags: int = 0) -> None:
        """Put an item."""
        self._queues.puts.put(self.answers(), b"stored", queue, flags, 0, payload, options=options)

    def put_flow(
        self, queue: bytes, inflow: PayloadWriter, options: Optional[PutOptions] = None, flags: int = 0
    ) -> None:
        """Put an item that came in pieces."""
        self._queues.puts.put_flow(self.answers(), b"stored", queue, flags, 0, inflow, options=options)

    def flush_expired(self, name: Optional[bytes] = None) -> Deferred[None]:
        """Drop expired items."""
        return self._queues.flush_expired(name, lambda count: (self.answers(), b"%d" % count))
