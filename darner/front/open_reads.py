"""
The open reads of one client: those that it may close, abort or extend, and that go back when it goes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Optional

from darner.queues.open_read import OpenRead


class OpenReads:
    """The open reads of one client, by their queues."""

    def __init__(self) -> None:
        self._reads: dict[bytes, deque[OpenRead]] = {}

    def of(self, queue: bytes) -> Optional[deque[OpenRead]]:
        """
        @return: the open reads of a queue, the oldest first; C{None} where there are none.  The oldest is still open,
            or was given back as it was late and the client does not know: a close that comes means it, and no other.
        """
        reads = self._reads.get(queue)
        if reads is None:
            return None
        while reads and not (reads[0].is_open or (reads[0].late and reads[0].fifo.policy.max_open_reads > 1)):
            reads.popleft()
        if not reads:
            del self._reads[queue]
            return None
        return reads

    def allow(self, queue: bytes, open: bool) -> bool:
        """@return: whether the client may read a queue now; to C{open} an item, or plainly."""
        if queue not in self._reads:
            return True
        reads = self.of(queue)
        return reads is None or (open and self._may_open(reads))

    @staticmethod
    def _may_open(reads: deque[OpenRead]) -> bool:
        limit = reads[0].fifo.policy.max_open_reads
        if len(reads) >= limit:
            still = [read for read in reads if read.is_open]
            if len(still) >= limit:
                return False
            # One whose item was refused by the store may stand between others, and the client knows.  Of those that
            # were late it knows as well, if it opens more than it may but for them.
            had = [read for read in reads if not read.refused]
            reads.clear()
            reads.extend(had if len(had) < limit else still)
        return True

    def add(self, queue: bytes, read: OpenRead) -> None:
        """The client has opened an item."""
        self._reads.setdefault(queue, deque()).append(read)

    def oldest(self, queue: bytes) -> Sequence[OpenRead]:
        """@return: the oldest open read of a queue, where there is one; it is to be closed, and no more among these."""
        reads = self.of(queue)
        return (reads.popleft(),) if reads else ()

    def all(self, queue: bytes) -> Sequence[OpenRead]:
        """@return: every open read of a queue; as with L{oldest}."""
        return self._reads.pop(queue, ()) if self.of(queue) else ()

    def first(self, queue: bytes, count: int) -> Sequence[OpenRead]:
        """@return: so many open reads of a queue, the oldest, as with L{oldest}; none where there are not so many."""
        # Those that ended by themselves count: the client does not know of that, and means those behind them.  What the
        # store refused was left out of the replies of a monitor.
        reads = [read for read in self._reads.get(queue, ()) if not read.refused]
        if not 0 < count <= len(reads):
            return ()
        self._reads[queue] = deque(reads[count:])
        return reads[:count]

    def abort(self, queue: bytes) -> None:
        """Give the oldest open read of a queue back, where there is one."""
        reads = self.of(queue)
        if reads:
            read = reads.popleft()
            read.abort()

    def touch(self, queue: bytes) -> bool:
        """
        Have the time for which the items of a queue may be open begin anew.

        @return: whether any is open.
        """
        return sum(read.touch() for read in self.of(queue) or ()) > 0

    def still_open(self, queue: Optional[bytes] = None) -> list[OpenRead]:
        """@return: those of a queue, or of all, that are open."""
        some = self._reads.values() if queue is None else [self._reads.get(queue, deque())]
        return [read for reads in some for read in reads if read.is_open]

    def give_back(self) -> None:
        """Give all of them back, to where they were."""
        opens, self._reads = self._reads, {}
        for reads in opens.values():
            for read in reads:
                read.abort()
