"""
Where answers go: what one asker is to be told at the end of a turn, and whether that became true.

An asker is a client's session, a call of an application, or a transfer.  It gets an answer sheet from the commit
(L{darner.queues.commit.GroupCommit.answers_for}) and hands it to whatever it asks for; the operation adds the reply and
registers what that depends on.  So no reply can say that something is stored which is not.
"""

from __future__ import annotations

from typing import Any, Final, Optional, Protocol

from darner.errors import StoreError
from darner.values.items import Item

REPLY_OVERHEAD: Final = 256
"""
What a reply counts besides its bytes, of the C{client_bytes} that gather for one client in a turn before others get
theirs: so that some 256 small requests of one client are served in a turn.
"""


class Asker(Protocol):
    """Somebody who is to be answered."""

    def seal(self) -> None:
        """The turn ends: add nothing more to its answer sheet, and get a new one for the next turn."""

    def deliver(self, answers: Answers) -> None:
        """The turn of these answers is written or refused; they are as true as they will be."""


class Resting(Protocol):
    """Somebody who has had enough for one turn."""

    def go_on(self) -> None:
        """The others have had theirs."""


class LargeReply(Protocol):
    """A reply that is more than bytes."""

    def cancel(self) -> None:
        """It will not be given; something else stands in its place."""


class Answers:
    """
    The answer sheet of one asker for one turn.

    @ivar entries: the replies in order: bytes, L{LargeReply}s, and a L{StoreError} in place of what is not true.
    @ivar size: about how many bytes the replies take, to tell when the asker has had enough for one turn.
    """

    __slots__ = ("asker", "entries", "size")

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.entries: list[Any] = []
        self.size = 0

    def add(self, reply: Any) -> int:
        """
        Say something that depends on nothing.

        @return: its slot.
        """
        entries = self.entries
        if isinstance(reply, bytes):
            self.size += len(reply) + REPLY_OVERHEAD
        entries.append(reply)
        return len(entries) - 1

    def refuse(self, slot: int, told: Optional[int], error: StoreError) -> None:
        """
        What the reply at C{slot} says is not true.

        @param told: the slot that tells of the error; C{None}: nobody is told, the reply is only left out.
        """
        refused = self.entries[slot]
        self.entries[slot] = b""
        if told is not None:
            self.entries[told] = error
        if refused is not None and not isinstance(refused, (bytes, StoreError)):
            large: LargeReply = refused
            large.cancel()


class Verdict:
    """
    Whether the puts of a turn are stored.

    @ivar error: why they are not; C{None} as long as nothing speaks against it.
    """

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: Optional[StoreError] = None


class Reader:
    """Somebody who reads items: says how they are handed out.  A base class, as calls of its methods cost less."""

    def hand_out(self, item: Item, key: bytes, whole: bool) -> Any:
        """
        @param key: what the queue is called in the reply.
        @param whole: whether the item is all of the reply; else others follow, or L{end}.
        @return: the reply that hands out the item, as an entry of L{Answers}.
        """
        raise NotImplementedError

    def end(self, error: Optional[StoreError]) -> bytes:
        """@return: what ends a reply of several items; with the error that came in between, if any."""
        raise NotImplementedError
