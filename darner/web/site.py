"""
HTTP connections, as twisted.web serves them, and what holds for every request on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import aclosing
from itertools import count
from typing import Any, Final, Optional

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request

from darner.config.settings import Settings
from darner.errors import DarnerError
from darner.front.access import Access
from darner.net.listeners import Listener
from darner.net.log_limits import LimitedLog
from darner.net.refusal import Refusal
from darner.queues.collection import Queues
from darner.web.answers import Answer
from darner.web.guard import HEADERS
from darner.web.outflow import Gone, Outflow
from darner.web.problems import PROBLEM_TYPE, Problem, problem_of
from darner.web.root import Root
from darner.web.served import Served

MOST_CONNECTIONS: Final = 256
IDLE: Final = 60.0
"""Seconds after which a connection is closed on which nothing is asked."""
MOST_BODY: Final = 16 * 1024 * 1024
"""The longest body of a request, in bytes.  Above some 100 KB it is not in memory, but in a file without a name."""


_NO_ROOM: Final = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

_numbers: Final = count(1)


class WebRequest(Request):
    """
    One request.

    @ivar media_type: the type of its body, in lower case and without parameters; empty where it says none.
    """

    factory: WebFactory
    media_type = b""
    _work: Optional[Deferred[Any]] = None
    _outflow: Optional[Outflow] = None
    _refused = False
    _received = 0

    def gotLength(self, length: Optional[int]) -> None:
        if length is not None and length > MOST_BODY:
            length = 0
            self._refuse_body()
        super().gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > MOST_BODY:
            self._refuse_body()
        if not self._refused:
            super().handleContentChunk(data)

    def _refuse_body(self) -> None:
        """Answer before the body is here, and end the connection: the rest of it is not waited for."""
        if self._refused:
            return
        self._refused = True
        problem = Problem(413, f"the body is longer than {MOST_BODY} bytes").encoded()
        headers = b"".join(b"%b: %b\r\n" % header for header in HEADERS.items())
        self.channel.write(
            b"HTTP/1.1 413 Content Too Large\r\n%bContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b"
            % (headers, PROBLEM_TYPE, len(problem), problem)
        )
        self.channel.loseConnection()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self._refused:
            return
        # Forms are none of ours: nothing of the body is looked at before it is known that it is wanted.
        kinds = self.requestHeaders.getRawHeaders(b"content-type", [])
        self.media_type = kinds[-1].partition(b";")[0].strip().lower() if kinds else b""
        self.requestHeaders.removeHeader(b"content-type")
        super().requestReceived(command, path, version)

    def process(self) -> None:
        self._work = Deferred.fromCoroutine(self.factory.answer(self))
        self._work.addCallbacks(self._deliver, self._failed).addErrback(self._fault)

    async def _send(self, answer: Answer) -> None:
        body = answer.body
        self.setResponseCode(answer.status)
        for name, value in HEADERS.items():
            self.setHeader(name, value)
        if answer.status != 204:
            self.setHeader(b"Content-Type", answer.kind)
        for name, value in answer.headers.items():
            self.setHeader(name, value)
        if isinstance(body, bytes) and answer.status not in (204, 304):
            self.setHeader(b"Content-Length", b"%d" % len(body))
        self._outflow = outflow = Outflow(self, self.factory.clock)
        if self.method == b"HEAD" and not isinstance(body, bytes):
            body = b""
        if isinstance(body, bytes):
            outflow.write(body)
        else:
            async with aclosing(body) as pieces:
                async for piece in pieces:
                    outflow.write(piece)
                    await outflow.room()
        await outflow.room()
        outflow.finish()

    def _deliver(self, answer: Answer) -> Deferred[None]:
        self._work = sending = Deferred.fromCoroutine(self._send(answer))
        return sending.addErrback(self._broken_off)

    def _failed(self, failure: Failure) -> Optional[Deferred[None]]:
        error = failure.value
        if isinstance(error, DarnerError):
            error = problem_of(error)
        if isinstance(error, (CancelledError, Gone)):
            return None
        if not isinstance(error, Problem):
            self.factory.logger.failure("could not answer a request", failure)
            error = Problem(500, "the server has a fault, which its log tells")
        return self._answer_problem(error)

    def _answer_problem(self, problem: Problem) -> Deferred[None]:
        return self._deliver(Answer(problem.encoded(), problem.status, PROBLEM_TYPE, problem.headers))

    def _broken_off(self, failure: Failure) -> None:
        """The browser has gone, or something failed when a part of the answer was sent."""
        if failure.check(CancelledError, Gone) is None:
            self.factory.logger.failure("could not finish an answer", failure)
            self.abort()

    def _fault(self, failure: Failure) -> None:
        self.factory.logger.failure("could not answer a request", failure)

    def connectionLost(self, reason: Failure) -> None:
        work, self._work = self._work, None
        if self._outflow is not None:
            self._outflow.leave()
        super().connectionLost(reason)
        for waiting in self.notifications:
            waiting.addErrback(lambda _: None)
        if work is not None:
            work.cancel()

    def abort(self) -> None:
        """End the connection at once."""
        if self.channel is not None:
            transport: Any = self.channel.transport
            transport.abortConnection()


class WebChannel(HTTPChannel):
    """
    A connection; tells the factory that it is there.

    @ivar number: no other HTTP connection of this process has it.
    @ivar connected_at: when it was made, in seconds of the clock.
    """

    factory: WebFactory

    def connectionMade(self) -> None:
        super().connectionMade()
        self.number = next(_numbers)
        self.connected_at = self.factory.clock.seconds()
        self.factory.joined(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.factory.left(self)


class WebFactory(ServerFactory):
    """
    The HTTP connections of one listener.

    @ivar clock: for time-outs.
    @ivar certified: whether every client has shown a certificate.
    @ivar connections: those that are open.
    """

    noisy = False
    logger = Logger()

    def __init__(self, root: Root, certified: bool = False) -> None:
        """@param root: answers the requests."""
        self.clock: Any = root.clock
        self._root = root
        self.certified = certified
        self.connections: set[WebChannel] = set()
        self._limited = LimitedLog(self.logger, root.clock)
        self._gone: Optional[Deferred[None]] = None

    def log(self, request: object) -> None:
        """For twisted.web, which has nothing to log: what changes something is in the audit log."""

    def buildProtocol(self, addr: Optional[IAddress]) -> Any:
        if self._root.connections >= MOST_CONNECTIONS:
            self.rejected()
            return Refusal(_NO_ROOM, self.clock)
        channel: Any = WebChannel()
        channel.requestFactory = self._make_request
        channel.factory = self
        channel.callLater = self.clock.callLater
        channel.timeOut = IDLE
        return channel

    def rejected(self) -> None:
        """Log a client that is refused."""
        self._limited.emit(LogLevel.warn, "too many connections over HTTP, or the limit of open files is reached")

    def _make_request(self, channel: Any, queued: object = None) -> WebRequest:
        request = WebRequest(channel)
        request.factory = self
        return request

    async def answer(self, request: WebRequest) -> Answer:
        return await self._root.answer(request, self.certified)

    def joined(self, channel: WebChannel) -> None:
        self.connections.add(channel)
        self._root.joined()

    def left(self, channel: WebChannel) -> None:
        self.connections.discard(channel)
        self._root.left()
        if self._gone is not None and not self.connections:
            gone, self._gone = self._gone, None
            gone.callback(None)

    def finish(self) -> Deferred[None]:
        """
        End the connections on which nothing is on its way, and those that only listen; the others when it has arrived.

        @return: fires when all are gone.
        """
        if not self.connections:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._gone = gone
        for channel in list(self.connections):
            channel.persistent = 0
            if not channel.requests:
                channel.loseConnection()
        return gone

    def abort(self) -> None:
        """End every connection at once."""
        for channel in list(self.connections):
            transport: Any = channel.transport
            transport.abortConnection()


def make_root(
    queues: Queues, settings: Settings, access: Optional[Access],
    places: Callable[[], Iterable[tuple[Listener, Any, Any]]], wall: Callable[[], float],
) -> Root:  # fmt: skip
    """@return: what answers the requests of all listeners; the parameters are those of L{Served}."""
    served = Served(queues, settings, access, places, wall)
    served.start()
    return Root(served)
