"""
Giving snapshots: a small server beside the node, for other nodes and operators.

One snapshot is given at a time.  It is read in a thread, one piece at a time, whenever the taker's connection has room
for it; so the reactor does nothing for it but write, and no more than one piece is in memory.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Optional

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPullProducer, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger, LogLevel
from zope.interface import implementer

import darner
from darner.cluster.replicated_store import ReplicatedStore
from darner.cluster.snapshots.exchange import FRAME, LINE, NONCE, Frames, Header, SnapshotError, greeting, read_request
from darner.errors import Stopped, StoreError
from darner.net.log_limits import SparseLog
from darner.store.backup.archive import send
from darner.store.backup.capture import Capture
from darner.store.backup.contents import BackupFile, Contents

MOST: Final = 16
"""Connections at once; more are closed at once."""
PATIENCE: Final = 10.0
"""Seconds within which a taker has to ask."""
STALL: Final = 60.0
"""Seconds within which a taker has to read what it was sent."""


def cut(stream: Iterable[bytes]) -> Iterator[bytes]:
    """@return: the same bytes in pieces that fit a frame: a manifest may be longer."""
    for piece in stream:
        for at in range(0, len(piece), FRAME):
            yield piece[at : at + FRAME]


class Giver(Factory):
    """
    Gives snapshots of the store of a node.

    @ivar secret: what takers have to know, for the note of the node.
    @ivar given: how many snapshots were given as a whole.
    @ivar given_bytes: how many bytes were sent.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self, source: Callable[[], Optional[ReplicatedStore]], clock: IReactorTime,
        in_thread: Callable[..., Deferred[Any]], wall: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        """
        @param source: returns the store; C{None} while there is none that could be given.
        @param in_thread: calls a function in a thread.
        """
        self.source = source
        self.clock = clock
        self.in_thread = in_thread
        self.wall = wall
        self.secret = secrets.token_bytes(32)
        self.given = self.given_bytes = 0
        self.sparse = SparseLog(self._log, clock.seconds)
        self.current: Optional[Giving] = None
        self._connections: set[GiverProtocol] = set()
        self._idle: list[Deferred[None]] = []

    def buildProtocol(self, addr: Any) -> Optional[GiverProtocol]:
        if len(self._connections) >= MOST:
            return None
        protocol = GiverProtocol(self, addr)
        self._connections.add(protocol)
        return protocol

    def lost(self, protocol: GiverProtocol) -> None:
        """A connection is closed."""
        self._connections.discard(protocol)

    def ended(self) -> None:
        """Nothing is given any more, and no thread is at work for it."""
        self.current = None
        idle, self._idle = self._idle, []
        for waiting in idle:
            waiting.callback(None)

    def drop(self) -> Deferred[None]:
        """Close all connections.  @return: fires when no thread is in the store."""
        for protocol in list(self._connections):
            protocol.abort()
        return self.idle()

    def idle(self) -> Deferred[None]:
        """@return: fires when nothing is given, and no thread is in the store."""
        idle: Deferred[None] = Deferred()
        if self.current is None:
            idle.callback(None)
        else:
            self._idle.append(idle)
        return idle


class GiverProtocol(Protocol):
    """The connection of one taker."""

    transport: Any

    def __init__(self, giver: Giver, peer: Any) -> None:
        self._giver = giver
        self._peer = getattr(peer, "host", "a local process")
        self._nonce = secrets.token_bytes(NONCE)
        self._line = b""
        self._asked = self._gone = False
        self._giving: Optional[Giving] = None
        self._late: Optional[IDelayedCall] = None

    def connectionMade(self) -> None:
        self.transport.write(greeting(self._nonce))
        self.expect(PATIENCE)

    def expect(self, seconds: float) -> None:
        """Close the connection unless this is called again before then."""
        self.rest()
        self._late = self._giver.clock.callLater(seconds, self.abort)

    def rest(self) -> None:
        """Expect nothing for now."""
        late, self._late = self._late, None
        if late is not None and late.active():
            late.cancel()

    def dataReceived(self, data: bytes) -> None:
        if self._asked:
            return  # a taker has nothing more to say
        self._line += data[: LINE + 1]
        if b"\n" not in self._line and len(self._line) <= LINE:
            return
        self._asked = True
        try:
            line = self._line[: self._line.find(b"\n") + 1]
            key = read_request(line, self._giver.secret, self._nonce)
        except SnapshotError as error:
            self._giver.sparse.emit(
                LogLevel.warn, "cluster: {peer} asks for a snapshot and gets none: {error}",
                peer=self._peer, error=str(error),
            )  # fmt: skip
            self.transport.loseConnection()
            return
        self._give(Frames(key))

    def _give(self, frames: Frames) -> None:
        if self._gone:
            return
        store = self._giver.source()
        current = self._giver.current
        refused = ""
        if store is None:
            refused = "it has no snapshot to give for now"
        elif current is not None and current.ending:
            # A taker that has all may ask for the next before the files of the last are let go.
            self.expect(STALL)
            self._giver.idle().addCallback(lambda _: self._give(frames))
            return
        elif current is not None:
            refused = "it gives a snapshot to another one"
        if store is None or refused:
            self.transport.write(frames.pack(Header(refused).to_bytes()))
            self.transport.loseConnection()
            return
        self._giver.current = self._giving = Giving(self._giver, self, store, frames, self._peer)
        self.transport.registerProducer(self._giving, False)

    def abort(self) -> None:
        """Close the connection at once."""
        self._gone = True
        self.rest()
        self.transport.abortConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self._gone = True
        self.rest()
        self._giver.lost(self)
        if self._giving is not None:
            self._giving.stopProducing()


@implementer(IPullProducer)
class Giving:
    """One snapshot, which is captured and sent piece by piece."""

    _log = Logger()

    def __init__(
        self, giver: Giver, protocol: GiverProtocol, store: ReplicatedStore, frames: Frames, peer: str
    ) -> None:
        self._giver = giver
        self._protocol = protocol
        self._store = store
        self._frames = frames
        self._peer = peer
        self._capture: Optional[Capture] = None
        self._stream: Iterator[bytes] = iter(())
        self._working = self._stopped = self._done = False
        self._bytes = 0

    @property
    def ending(self) -> bool:
        """The taker is gone, or all was sent to it; what is left is to let go of the files."""
        return self._stopped or self._done

    def resumeProducing(self) -> None:
        """The taker has read what it was sent."""
        if self._working or self._stopped or self._done:
            return
        self._working = True
        self._protocol.rest()
        self._giver.in_thread(self._next).addBoth(self._has)

    def stopProducing(self) -> None:
        """The taker is gone."""
        if self._stopped:
            return
        self._stopped = True
        if not self._working:
            self._release()

    def _proceed(self) -> None:
        """@raise Stopped: the taker is gone."""
        if self._stopped:
            raise Stopped()

    def _next(self) -> bytes:
        """In a thread.  @return: the next frame."""
        if self._capture is not None:
            return self._frames.pack(next(self._stream, b""))
        store = self._store
        cluster, position = store.cluster.hex(), store.position
        try:
            capture = self._capture = store.capture_snapshot(self._proceed, self._giver.wall)
        except StoreError as error:
            self._log.warn("cluster: cannot give a snapshot: {error}", error=error)
            self._done = True
            return self._frames.pack(Header(str(error)).to_bytes())

        def conclude(files: tuple[BackupFile, ...]) -> Contents:
            return Contents(darner.__version__, capture.time, capture.position, files)

        self._stream = cut(send(capture.files, (), conclude))
        size = sum(captured.file.size for captured in capture.files)
        self._log.info(
            "cluster: gives a snapshot of {size} bytes, from record {position} on, to {peer}",
            size=size, position=position, peer=self._peer,
        )  # fmt: skip
        return self._frames.pack(Header("", cluster, position, size, darner.__version__).to_bytes())

    def _has(self, frame: Any) -> None:
        self._working = False
        if self._stopped or not isinstance(frame, bytes):
            if not self._stopped:
                self._log.error("cluster: a snapshot cannot be given: {error}", error=frame.getErrorMessage())
                self._protocol.abort()
            self._stopped = True
            self._release()
            return
        self._bytes += len(frame)
        self._giver.given_bytes += len(frame)
        self._done = self._done or len(frame) == self._frames.empty
        self._protocol.expect(STALL)
        self._protocol.transport.write(frame)
        if self._done:
            self._finish()

    def _finish(self) -> None:
        if self._capture is not None:
            self._giver.given += 1
            self._log.info("cluster: gave a snapshot to {peer}: {size} bytes", peer=self._peer, size=self._bytes)
        self._protocol.transport.unregisterProducer()
        self._protocol.transport.loseConnection()

    def _release(self) -> None:
        """Nothing is at work: let go of the files."""
        capture = self._capture
        if capture is None:
            self._giver.ended()
        else:
            self._giver.in_thread(capture.release).addBoth(lambda _: self._giver.ended())
