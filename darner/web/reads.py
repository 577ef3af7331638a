"""
Items that are open by HTTP: each has a token, and goes back when its time is over.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any, Final, Optional

from attrs import frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from darner.front.audit import describe_address
from darner.front.messages import OpenMessage
from darner.web.problems import Problem

MOST: Final = 10_000
"""How many may be open at once."""


@frozen
class Read:
    """An item that is open."""

    message: OpenMessage
    user: Optional[str]
    address: Any
    timer: IDelayedCall


class OpenReads:
    """Those of one server."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._reads: dict[str, Read] = {}

    def check_room(self) -> None:
        """@raise Problem: too many are open."""
        if len(self._reads) >= MOST:
            raise Problem(409, "too many items are open by HTTP")

    def add(self, message: OpenMessage, user: Optional[str], address: Any, seconds: float) -> str:
        """
        @param seconds: after which time it goes back.
        @return: the token.
        """
        token = secrets.token_urlsafe(24)
        timer = self._clock.callLater(seconds, self._time_out, token)
        self._reads[token] = Read(message, user, address, timer)
        return token

    def _time_out(self, token: str) -> None:
        self._reads.pop(token).message.abort().addErrback(lambda _: None)

    def take(self, token: str, user: Optional[str]) -> Optional[OpenMessage]:
        """
        @param user: whose read it has to be.
        @return: what was opened, which the caller ends; C{None} where it has ended already.
        """
        read = self._reads.get(token)
        if read is None or read.user != user:
            return None
        del self._reads[token]
        read.timer.cancel()
        return read.message

    def owners(self, queue: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
        """@return: who has the items of a queue open, by the items' ids, as the schema C{Item} says."""
        for read in self._reads.values():
            message = read.message
            if message.queue == queue and message.is_open:
                yield message.open_read.item.id, {
                    "by": "http", "client": None, "address": describe_address(read.address), "user": read.user,
                    "since": message.open_read.opened,
                }  # fmt: skip

    def close(self) -> None:
        """The server stops: the items go back."""
        reads, self._reads = self._reads, {}
        for read in reads.values():
            read.timer.cancel()
            read.message.abort().addErrback(lambda _: None)
