"""
Clients that are refused: as there are too many, or as their descriptors are needed for something else.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import Any, Final, Optional

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

SPARE_DESCRIPTORS: Final = 128
"""The number of descriptors that clients of queues cannot use: they are for the store and the rest of the process."""
PATIENCE: Final = 5.0
"""Seconds until a client that has been refused is disconnected, whether or not it has got the reason."""


def descriptor_limit(spare: int = SPARE_DESCRIPTORS) -> int:
    """
    @param spare: how many descriptors clients cannot use; at most a quarter of all is kept from them.
    @return: the first descriptor that clients cannot use.
    """
    limit: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return limit - min(spare, limit * spare // SPARE_DESCRIPTORS // 4)


def descriptors_are_scarce(spare: int = SPARE_DESCRIPTORS) -> bool:
    """@return: whether the client that was accepted last has a descriptor that clients cannot use."""
    try:
        lowest = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    os.close(lowest)
    return lowest > descriptor_limit(spare)


class Refusal(Protocol):
    """
    The connection of a client that is refused.

    It is told why.  Over TLS that takes a handshake, which a client may never do, so it has L{PATIENCE} seconds.
    """

    transport: Any
    _deadline: Optional[IDelayedCall] = None

    def __init__(self, reason: bytes, clock: IReactorTime) -> None:
        """@param reason: what the client is told."""
        self._reason = reason
        self._clock = clock

    def connectionMade(self) -> None:
        self._deadline = self._clock.callLater(PATIENCE, self.transport.abortConnection)
        self.transport.write(self._reason)
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()


class Dismissal(Protocol):
    """The connection of a client that is disconnected at once: there are no descriptors for it."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.abortConnection()
