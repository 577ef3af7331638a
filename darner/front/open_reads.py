"""
The open reads of one client, which it may close, abort or touch, and which go back when it disconnects.
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
        @return: the open reads of a queue, oldest first; C{None} if there are none.  The oldest is still open, or was
            given back after C{open_timeout} without the client knowing: the next close is meant for that one.
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
        """@return: whether the client may read from a queue now; C{open}: whether it is an open read."""
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
            # Drop reads whose items the store refused, as the client got an error for each.  If the client opens more
            # than it may, it also knows of those that were given back after open_timeout.
            had = [read for read in reads if not read.refused]
            reads.clear()
            reads.extend(had if len(had) < limit else still)
        return True

    def add(self, queue: bytes, read: OpenRead) -> None:
        """Add a read that the client has opened."""
        self._reads.setdefault(queue, deque()).append(read)

    def oldest(self, queue: bytes) -> Sequence[OpenRead]:
        """Remove the oldest open read of a queue.  @return: that read, to be closed; empty if there is none."""
        reads = self.of(queue)
        return (reads.popleft(),) if reads else ()

    def all(self, queue: bytes) -> Sequence[OpenRead]:
        """Remove all open reads of a queue.  @return: these, to be closed."""
        return self._reads.pop(queue, ()) if self.of(queue) else ()

    def first(self, queue: bytes, count: int) -> Sequence[OpenRead]:
        """Remove the C{count} oldest open reads of a queue.  @return: these, to be closed; empty if there are fewer."""
        # Reads that were given back after open_timeout count too, as the client does not know that.  Items that the
        # store refused do not: the monitor's replies left them out.
        reads = [read for read in self._reads.get(queue, ()) if not read.refused]
        if not 0 < count <= len(reads):
            return ()
        self._reads[queue] = deque(reads[count:])
        return reads[:count]

    def abort(self, queue: bytes) -> None:
        """Give the oldest open read of a queue back, if there is one."""
        reads = self.of(queue)
        if reads:
            read = reads.popleft()
            read.abort()

    def touch(self, queue: bytes) -> bool:
        """
        Restart the C{open_timeout} of the open reads of a queue.

        @return: whether any is open.
        """
        return sum(read.touch() for read in self.of(queue) or ()) > 0

    def still_open(self, queue: Optional[bytes] = None) -> list[OpenRead]:
        """@return: those of a queue, or of all, that are open."""
        some = self._reads.values() if queue is None else [self._reads.get(queue, deque())]
        return [read for reads in some for read in reads if read.is_open]

    def give_back(self) -> None:
        """Give all of them back to their queues."""
        opens, self._reads = self._reads, {}
        for reads in opens.values():
            for read in reads:
                read.abort()
