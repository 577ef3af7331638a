"""
What a `darner.net.port.FastPort` needs of those whom it serves.
"""

from __future__ import annotations

from typing import Any, Optional, Protocol

from twisted.internet.interfaces import IProtocol, IReactorTime

from darner.net.worker import Worker


class Commit(Protocol):
    """The group commit, as a port sees it: it writes the changes of all clients that the port has served together."""

    def begin(self) -> None:
        """Called before several clients are served; L{end} follows."""

    @property
    def busy(self) -> bool:
        """Whether a thread is writing a turn."""

    worker: Optional[Worker]
    """What writes a turn while C{busy}, and tells when it has."""

    def end(self) -> None:
        """Write the changes of these clients, and send their replies."""


class ServedFactory(Protocol):
    """The factory of a L{FastPort}'s connections; it has more than Twisted's own methods."""

    refusal: bytes
    """The reply to a client that is refused, as there are too many."""
    commit: Commit
    clock: IReactorTime

    def doStart(self) -> None: ...
    def doStop(self) -> None: ...
    def buildProtocol(self, addr: Any) -> IProtocol: ...

    def full(self) -> bool:
        """@return: whether the maximum number of clients is reached."""

    def rejected(self) -> None:
        """Count and log a client that is refused."""
