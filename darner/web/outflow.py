"""
An answer on its way to a browser: no more of it than the connection takes, and not for ever.
"""

from __future__ import annotations

from typing import Any, Final, Optional

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

STALL: Final = 60.0
"""Seconds after which a browser is given up that does not read its answer."""


class Gone(Exception):
    """The browser has gone."""


@implementer(IPushProducer)
class Outflow:
    """
    Writes an answer.  It ends only when the connection has room again: so whoever sends many requests and reads nothing
    gets no more than one answer.

    @ivar choked: whether the connection has no room now.
    """

    def __init__(self, request: Any, clock: IReactorTime, stall: float = STALL) -> None:
        self._request = request
        self._clock = clock
        self._stall = stall
        self._room: Optional[Deferred[None]] = None
        self._late: Optional[IDelayedCall] = None
        self.choked = False
        self.gone = False
        request.registerProducer(self, True)

    def write(self, piece: bytes) -> None:
        """Write a piece, also where there is no room."""
        if not self.gone:
            self._request.write(piece)

    async def room(self) -> None:
        """
        Wait until there is room.

        @raise Gone: there never will be.
        """
        if self.gone:
            raise Gone()
        if self.choked:
            self._room = Deferred()
            await self._room

    def finish(self) -> None:
        """All is written."""
        self._forget()
        if not self.gone:
            self._request.unregisterProducer()
            self._request.finish()

    def leave(self) -> None:
        """The browser has gone."""
        if not self.gone:
            self.gone = True
            self._forget()
            room, self._room = self._room, None
            if room is not None:
                room.errback(Gone())

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        self._request.abort()

    # As a producer

    def pauseProducing(self) -> None:
        self.choked = True
        if self._late is None and not self.gone:
            self._late = self._clock.callLater(self._stall, self._give_up)

    def resumeProducing(self) -> None:
        self.choked = False
        self._forget()
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def stopProducing(self) -> None:
        self.leave()
