"""
A server without a network, for one input: queues in memory, a test clock, clients over memory transports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Optional

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from darner.config.policies import Policies, QueueSettings
from darner.front.memcache_requests import LineCache
from darner.front.protocol import QueueFactory, QueueProtocol
from darner.queues.collection import Queues
from darner.queues.surroundings import Surroundings
from darner.store.interfaces import IStore
from darner.store.memory import MemoryStore

EPOCH: Final = 1_700_000_000
"""The wall-clock time at the start, in seconds."""
MAX_ITEM_BYTES: Final = 150_000
"""The size of the largest item, which has three chunks."""

DEDUPE_WINDOW: Final = 4.0
"""The C{dedupe_window}, in seconds."""

_DONE: Final = Failure(ConnectionDone())


class _Transport(StringTransport):
    def abortConnection(self) -> None:
        self.loseConnection()


@implementer(ILogObserver)
class Faults:
    """
    Collects the failures and errors that are logged.

    @ivar events: their log events.
    """

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        if "log_failure" in event or event["log_level"] >= LogLevel.error:
            self.events.append(event)


class Client:
    """
    One connection, from the client's side.

    @ivar gone: whether the connection has ended.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.gone = False
        self._shut = False
        self._transport = _Transport()
        protocol = server.factory.buildProtocol(None)
        assert isinstance(protocol, QueueProtocol)
        self.protocol = protocol
        self.protocol.makeConnection(self._transport)

    def send(self, pieces: Iterable[bytes]) -> None:
        """Send bytes as long as the server accepts them, and run the server after each piece."""
        for piece in pieces:
            if self.gone or self._shut:
                return
            self.protocol.dataReceived(piece)
            self._server.commit()

    def shut(self) -> None:
        """Close the side for writing."""
        if not self.gone and not self._shut:
            self._shut = True
            self.protocol.readConnectionLost()
            self._server.commit()

    def choke(self) -> None:
        """Stop reading, so that the transport pauses the server's producer."""
        if not self.gone and self._transport.producer is not None:
            self._transport.producer.pauseProducing()
            self._server.commit()

    def unchoke(self) -> None:
        """Read again.  Does nothing if it never stopped."""
        if not self.gone and self._transport.producer is not None:
            self._transport.producer.resumeProducing()
            self._server.commit()

    def hang_up(self) -> None:
        """Disconnect."""
        if not self.gone:
            self.gone = True
            self.protocol.connectionLost(_DONE)
            self._server.commit()

    @property
    def heard(self) -> bytes:
        """All bytes that it received."""
        heard: bytes = self._transport.value()
        return heard

    def forget(self) -> None:
        """Forget what it received."""
        self._transport.clear()

    def look(self) -> bool:
        """@return: whether the server has closed the connection since the last call."""
        if self.gone or not self._transport.disconnecting:
            return False
        self.gone = True
        self.protocol.connectionLost(_DONE)
        return True


class Server:
    """
    Queues and their clients, with checks.

    @ivar wall_offset: the seconds that the wall clock was set forward.
    @ivar turns: the number of turns.
    @ivar faults: the failures and errors that were logged.
    """

    def __init__(self, store: Optional[IStore] = None) -> None:
        self.clock = Clock()
        self.wall_offset = 0.0
        self.turns = 0
        self.clients: list[Client] = []
        surroundings = Surroundings(self.clock, self._schedule, maybeDeferred, self._wall)
        self.queues = Queues(
            store or MemoryStore(), surroundings,
            Policies(QueueSettings(max_item_bytes=MAX_ITEM_BYTES, dedupe_window=DEDUPE_WINDOW)),
        )  # fmt: skip
        # Expired items are dropped only by reads, not by the timer, so that the reference knows when.
        self.queues.expiry.watch = lambda fifo: None  # type: ignore[method-assign]
        self.factory = QueueFactory(self.queues)
        self.queues.start()
        self.commit()
        self._idle_calls = len(self.clock.getDelayedCalls())
        self.faults = Faults()

    def __enter__(self) -> Server:
        globalLogPublisher.addObserver(self.faults)
        return self

    def __exit__(self, *_: object) -> None:
        globalLogPublisher.removeObserver(self.faults)

    def _wall(self) -> float:
        return EPOCH + self.wall_offset + self.clock.seconds()

    def _schedule(self, call: Callable[[], None]) -> None:
        self.turns += 1
        self.clock.callLater(0, call)

    def client(self) -> Client:
        client = Client(self)
        self.clients.append(client)
        return client

    def commit(self) -> None:
        """Run everything that is due now."""
        self.clock.advance(0)
        while any(client.look() for client in self.clients):
            self.clock.advance(0)

    def advance(self, seconds: float) -> None:
        """Advance the clock.  Expired items are dropped at once, not within a second, as the reference drops them."""
        self.clock.advance(seconds)
        self.commit()
        Deferred.fromCoroutine(self.queues.expiry.flush(list(self.queues._fifos.values())))
        self.commit()

    def settle(self, gets: int) -> None:
        """
        Let all waits end, one after the other.

        @param gets: the maximum number of waits.
        """
        # Two steps for each wait, because of rounding: the sum of two times may be a little less than the due time.
        for _ in range(2 * gets + 1):
            due = [session.reads._timer.getTime() for session in self._sessions() if session.reads._timer is not None]
            if not due:
                return
            self.advance(max(0.0, min(due) - self.clock.seconds()))
        raise AssertionError(f"more waits than the {gets} that were asked for")

    def _sessions(self) -> list[Any]:
        return [client.protocol.session for client in self.clients if not client.gone]

    def check_faults(self) -> None:
        """@raise AssertionError: a failure or an error was logged."""
        assert not self.faults.events, self.faults.events

    def check_idle(self) -> None:
        """
        Disconnect all clients, and check that the server keeps nothing of them but their items.

        @raise AssertionError: it does.
        """
        for client in self.clients:
            client.hang_up()
        for _ in range(10):
            if not self.queues.reclaimer.pending:
                break
            self.advance(1)
        # Stop the timers of the logs.
        for log in (self.factory.audit, self.factory._limited, self.queues.commit.log, self.queues.status.log):
            log.close()
        queues = self.queues
        assert not queues.reclaimer.pending
        # The remaining timers are for expiry, delays and ids.
        calls = [call for call in self.clock.getDelayedCalls() if call is not queues.expiry._timer]
        ids = [fifo.storage.sides.ids for fifo in queues._fifos.values()]
        knowing = [known for known in ids if known is not None and known._timer is not None]
        delayed = [fifo for fifo in queues._fifos.values() if fifo.storage.sides.delayed_count]
        assert len(calls) == self._idle_calls + len(knowing) + len(delayed), calls
        assert queues.store.leftovers() == ([], []), queues.store.leftovers()
        fifos = queues._fifos
        assert sorted(fifos) == queues.names(), (sorted(fifos), queues.names())
        for fifo in fifos.values():
            assert not fifo.waiters, fifo.name
            assert not fifo.open_count, fifo.name
        gathering = queues.commit._gathering
        for gathered in (gathering.queues, gathering.answers, gathering.puts, gathering.reads, gathering.chunks):
            assert not gathered
        assert not gathering.followers
        assert not queues.commit._waiting
        assert not self.factory.connections
        assert queues.stats.curr_connections == 0
        assert len(self.factory.lines) <= LineCache.MAX_LINES
        for client in self.clients:
            protocol, session = client.protocol, client.protocol.session
            assert not protocol.framing._data, protocol.framing._data
            assert protocol.framing._inflow is None
            assert not session._answers, session._answers
            assert not session.reads.opens._reads, session.reads.opens._reads
            assert session.reads._wait is None
            assert session.reads._timer is None
            assert session._relief is None
            assert not session._outbox._replies
        self.check_faults()
