"""
Sends the replies to one client: small ones at once, large ones piece by piece, as fast as the client reads them.
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
"""The number of pieces of large replies that are sent to one client before others get their turn."""


class Outlet(Protocol):
    """The front end's connection, as the session sees it."""

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""

    def proceed(self) -> None:
        """Pass on the requests that were held back: replies have been sent, or the session is no longer busy."""

    def close(self) -> None:
        """Send what was written and close the connection."""

    def abort(self) -> None:
        """Close the connection at once."""


class PiecewiseReply:
    """A reply that is made and sent piece by piece, as fast as the client reads it."""

    def piece(self) -> Optional[bytes]:
        """
        @return: the next piece, which may be empty; C{None} when the reply is complete.
        @raise StoreError: it cannot be read.
        """
        raise NotImplementedError

    def cancel(self) -> None:
        """Make no more pieces.  Idempotent."""
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
        """Stop reading the item."""
        self._outflow.cancel()


class Report(PiecewiseReply):
    """A report on many queues, some in each piece."""

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
    The pending replies of one client.

    @ivar choked: whether the client does not read them for now.
    """

    def __init__(self, outlet: Outlet, spelling: Spelling, more: Callable[[], object], log: LimitedLog) -> None:
        """
        @param more: called when there is more to send than fits in a turn; it must have L{pump} called later.
        @param log: for lines about items that cannot be read.
        """
        self._outlet = outlet
        self._spelling = spelling
        self._more = more
        self._log = log
        self._replies: deque[Any] = deque()
        self.choked = False

    def send(self, replies: list[Any]) -> bool:
        """
        Send replies after those that are pending.

        @param replies: bytes, L{PiecewiseReply}s and errors.
        @return: whether all is sent.
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
        """As L{send}, for the pending replies."""
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
        """Drop the pending replies."""
        discard(self._replies)
        self._replies.clear()


def discard(replies: Iterable[Any]) -> None:
    """Cancel these replies, which will not be sent."""
    for reply in replies:
        if isinstance(reply, PiecewiseReply):
            reply.cancel()
