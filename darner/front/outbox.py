"""
Replies on their way to one client: small ones at once, large ones piece by piece and as fast as the client takes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Optional, Protocol

from twisted.logger import LogLevel

from darner.errors import StoreError
from darner.front.spelling import Spelling
from darner.net.log_limits import LimitedLog
from darner.queues.streams import PayloadReader

PIECES: Final = 2
"""How many pieces of large replies are sent to one client before others get their turn."""


class Outlet(Protocol):
    """Where replies go: the front end's connection."""

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""

    def proceed(self) -> None:
        """Replies went out, or the session is no longer busy: hand over the requests that were held back."""

    def close(self) -> None:
        """Send what was written and end the connection."""

    def abort(self) -> None:
        """End the connection at once."""


class PiecewiseReply:
    """A reply that is made and sent piece by piece, as fast as the client takes it."""

    def piece(self) -> Optional[bytes]:
        """
        @return: what comes next, perhaps nothing for now; C{None} when it is complete.
        @raise StoreError: it cannot be read.
        """
        raise NotImplementedError

    def cancel(self) -> None:
        """Make no more of it.  Idempotent."""
        raise NotImplementedError


class Value(PiecewiseReply):
    """The reply that hands out a large item."""

    def __init__(self, header: bytes, outflow: PayloadReader, end: bytes) -> None:
        self._before = header
        self._outflow = outflow
        self._after: Optional[bytes] = end

    def piece(self) -> Optional[bytes]:
        chunk = next(self._outflow, None)
        if chunk is None:
            rest, self._after = self._after, None
            return rest
        before, self._before = self._before, b""
        return before + chunk if before else chunk

    def cancel(self) -> None:
        """Read no more of it."""
        self._outflow.cancel()


class Report(PiecewiseReply):
    """A reply that tells of many queues, some in each piece."""

    def __init__(self, pieces: Iterator[bytes], done: Callable[[], object]) -> None:
        """@param done: called once, when it is complete or cancelled."""
        self._pieces: Optional[Iterator[bytes]] = pieces
        self._done = done

    def piece(self) -> Optional[bytes]:
        piece = None if self._pieces is None else next(self._pieces, None)
        if piece is None:
            self.cancel()
        return piece

    def cancel(self) -> None:
        if self._pieces is not None:
            self._pieces = None
            self._done()


class Outbox:
    """
    What one client has coming.

    @ivar choked: whether the client takes no more for now.
    """

    def __init__(self, outlet: Outlet, spelling: Spelling, more: Callable[[], object], log: LimitedLog) -> None:
        """
        @param more: called when there is more than fits in a turn; it has L{pump} called when there is time.
        @param log: where to log items that cannot be read.
        """
        self._outlet = outlet
        self._spelling = spelling
        self._more = more
        self._log = log
        self._replies: deque[Any] = deque()
        self.choked = False

    def send(self, replies: list[Any]) -> bool:
        """
        Send replies behind those that are on their way.

        @param replies: bytes, L{PiecewiseReply}s and errors.
        @return: whether nothing is left to be sent.
        """
        if not self._replies:
            try:
                data = b"".join(replies)
            except TypeError:
                pass  # not bytes alone
            else:
                if data:
                    self._outlet.write(data)
                return not self.choked
        self._replies.extend(replies)
        return self.pump()

    def pump(self) -> bool:
        """As L{send}, with no more replies than there are."""
        pieces = 0
        while self._replies and not self.choked:
            reply = self._replies[0]
            if isinstance(reply, PiecewiseReply):
                if pieces == PIECES:
                    self._more()
                    return False
                pieces += 1
                try:
                    piece = reply.piece()
                except StoreError as error:
                    # A part of the item is sent, so closing the connection is the only way to report the error.
                    self._log.emit(LogLevel.error, "cannot read a large item, disconnecting: {error}", error=str(error))
                    self._outlet.abort()
                    return False
                if piece is not None:
                    if piece:
                        self._outlet.write(piece)
                    continue
            self._replies.popleft()
            if not isinstance(reply, PiecewiseReply):
                self._outlet.write(reply if isinstance(reply, bytes) else self._spelling.error(reply))
        return not self._replies and not self.choked

    def clear(self) -> None:
        """Send nothing of what is left."""
        discard(self._replies)
        self._replies.clear()


def discard(replies: Iterable[Any]) -> None:
    """These replies will not be sent."""
    for reply in replies:
        if isinstance(reply, PiecewiseReply):
            reply.cancel()
