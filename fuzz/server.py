"""
A server without a network for one input: queues in memory, a clock that stands still, clients over memory transports.
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
from darner.queues.collection import Queues, Surroundings
from darner.store.interfaces import IStore
from darner.store.memory import MemoryStore

EPOCH: Final = 1_700_000_000
"""What the wall clock says at first, in seconds."""
MAX_ITEM_BYTES: Final = 150_000
"""The largest item, which has three chunks."""

DEDUPE_WINDOW: Final = 4.0
"""For how long ids are known, in seconds."""

_DONE: Final = Failure(ConnectionDone())


class _Transport(StringTransport):
    def abortConnection(self) -> None:
        self.loseConnection()


@implementer(ILogObserver)
class Faults:
    """
    What is logged that should never be: failures and errors.

    @ivar events: what was.
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
        """Send bytes as long as the server takes them, and let happen after each piece what is to happen then."""
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
        """Read no more, so that the server hears from its transport that nothing more goes out."""
        if not self.gone and self._transport.producer is not None:
            self._transport.producer.pauseProducing()
            self._server.commit()

    def unchoke(self) -> None:
        """Read again.  Harmless where it always did."""
        if not self.gone and self._transport.producer is not None:
            self._transport.producer.resumeProducing()
            self._server.commit()

    def hang_up(self) -> None:
        """Go away."""
        if not self.gone:
            self.gone = True
            self.protocol.connectionLost(_DONE)
            self._server.commit()

    @property
    def heard(self) -> bytes:
        """All that it was sent."""
        heard: bytes = self._transport.value()
        return heard

    def look(self) -> bool:
        """@return: whether the server has ended the connection since the last time."""
        if self.gone or not self._transport.disconnecting:
            return False
        self.gone = True
        self.protocol.connectionLost(_DONE)
        return True


class Server:
    """
    Queues and their clients, watched.

    @ivar wall_offset: how far the wall clock was set forward, in seconds.
    @ivar turns: how many turns there were.
    @ivar faults: what was logged that should never be.
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
        # What has expired goes when somebody looks, and not by the clock: so that the reference knows when.
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
        """Let everything happen that is to happen now."""
        self.clock.advance(0)
        while any(client.look() for client in self.clients):
            self.clock.advance(0)

    def advance(self, seconds: float) -> None:
        """Let time pass.  What has expired by then is dropped at once, and not within a second, so that all know it."""
        self.clock.advance(seconds)
        self.commit()
        Deferred.fromCoroutine(self.queues.expiry.flush(list(self.queues._fifos.values())))
        self.commit()

    def settle(self, gets: int) -> None:
        """
        Let all waits come to their end, one after the other.

        @param gets: how many waits there may be, at most.
        """
        # Two steps a wait: the sum of two times may be a little less than a third.
        for _ in range(2 * gets + 1):
            due = [session.reads._timer.getTime() for session in self._sessions() if session.reads._timer is not None]
            if not due:
                return
            self.advance(max(0.0, min(due) - self.clock.seconds()))
        raise AssertionError(f"more waits than the {gets} that were asked for")

    def _sessions(self) -> list[Any]:
        return [client.protocol.session for client in self.clients if not client.gone]

    def check_faults(self) -> None:
        """@raise AssertionError: something was logged that should never be."""
        assert not self.faults.events, self.faults.events

    def check_idle(self) -> None:
        """
        Have all clients go, and see that nothing is left of them but what they put.

        @raise AssertionError: something is.
        """
        for client in self.clients:
            client.hang_up()
        for _ in range(10):
            if not self.queues.reclaimer.pending:
                break
            self.advance(1)
        # What was logged lately is to be forgotten by the clock.
        for log in (self.factory.audit, self.factory._limited, self.queues.commit.log, self.queues.status.log):
            log.close()
        queues = self.queues
        assert not queues.reclaimer.pending
        # What is there may expire some day, or be due, and what is known be forgotten.
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
