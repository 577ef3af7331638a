"""
Answer sheets: the replies that one asker gets at the end of a turn, once it is known whether they are true.

An asker is a client's session, a call of an application, or a transfer.  It gets an answer sheet from the commit
(L{darner.queues.commit.GroupCommit.answers_for}) and passes it to each operation; the operation adds the reply and
registers what that depends on.  So no reply can say that something is stored which is not.
"""

from __future__ import annotations

from typing import Any, Final, Optional, Protocol

from darner.errors import StoreError
from darner.values.items import Item

REPLY_OVERHEAD: Final = 256
"""
What a reply counts besides its bytes.  A client whose replies in one turn exceed C{client_bytes} must wait until the
others are served; so it gets about 256 small requests in a turn.
"""


class Asker(Protocol):
    """Gets replies at the end of a turn."""

    def seal(self) -> None:
        """Called when the turn ends: add nothing more to this answer sheet, and get a new one for the next turn."""

    def deliver(self, answers: Answers) -> None:
        """Called when the turn is written or refused: every reply is true now, or replaced by an error."""


class Resting(Protocol):
    """A client that has reached its limit for one turn."""

    def go_on(self) -> None:
        """Continue; the others have been served."""


class LargeReply(Protocol):
    """A reply that is sent in pieces."""

    def cancel(self) -> None:
        """Called when another reply has replaced it, so that it is not sent."""


class Answers:
    """
    The answer sheet of one asker for one turn.

    @ivar entries: the replies in order: bytes, L{LargeReply}s, and a L{StoreError} in place of each that is not true.
    @ivar size: approximate bytes of the replies, which limits the requests of one asker in a turn.
    """

    __slots__ = ("asker", "entries", "size")

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.entries: list[Any] = []
        self.size = 0

    def add(self, reply: Any) -> int:
        """
        Add a reply that depends on nothing.

        @return: its slot.
        """
        entries = self.entries
        if isinstance(reply, bytes):
            self.size += len(reply) + REPLY_OVERHEAD
        entries.append(reply)
        return len(entries) - 1

    def refuse(self, slot: int, told: Optional[int], error: StoreError) -> None:
        """
        Remove the reply at C{slot}, which is not true.

        @param told: the slot that gets the error; C{None}: no error is sent.
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
    The outcome of the puts of a turn.

    @ivar error: why they are not stored; C{None} if they are, or are not written yet.
    """

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: Optional[StoreError] = None


class Reader:
    """Spells the replies that hand out items.  A base class and no protocol, as calls of its methods cost less."""

    def hand_out(self, item: Item, key: bytes, whole: bool) -> Any:
        """
        @param key: the name of the queue in the reply.
        @param whole: whether the reply has only this item; otherwise others or L{end} follow.
        @return: the reply that hands out the item, as an entry of L{Answers}.
        """
        raise NotImplementedError

    def end(self, error: Optional[StoreError]) -> bytes:
        """@return: the end of a reply with several items; C{error} is the one that cut it short, if any."""
        raise NotImplementedError
