"""
What is under way to the log: appends, and the transactions that they are done in.
"""

from __future__ import annotations

from typing import Optional

from twisted.internet.defer import Deferred

from darner.cluster.etcd.keys import Stored, new_head
from darner.errors import LogError


class Append:
    """
    One append.

    @ivar head: what the head is once it is done.
    @ivar stored: what its key is to have, but for the token; C{None} while its pieces are written.
    @ivar failed: why it cannot be appended.
    """

    def __init__(self, number: int, record: bytes, deadline: float) -> None:
        self.number = number
        self.record = record
        self.deadline = deadline
        self.done: Deferred[None] = Deferred()
        self.stored: Optional[Stored] = None
        self.failed: Optional[LogError] = None
        self.renew()

    def renew(self) -> None:
        """Make it another one than any that is on its way."""
        self.head = new_head(self.number)

    @property
    def size(self) -> int:
        """The bytes that go with the transaction."""
        return len(self.stored.record) if self.stored is not None else 0


class Transaction:
    """
    Appends that are done together.

    @ivar head: what the head is once it is done.
    @ivar order: counts what is sent.
    @ivar first: it was sent when all before it were done.
    @ivar refused: C{order} of what had been sent when it was refused; 0: it is not refused.
    @ivar unknown: it may be done.
    @ivar over: it is done or given up.
    """

    def __init__(self, appends: list[Append]) -> None:
        self.appends = appends
        self.head = appends[-1].head
        self.order = self.refused = 0
        self.sent = self.first = self.unknown = self.over = False
