"""
The sorted names of all queues, for work on all of them, a few in a turn.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Final

BLOCK: Final = 512
"""Maximum number of names in a block, and so of names that an insertion or deletion moves."""


class Names:
    """
    Sorted names.  Names may be added and removed between calls of L{after}.

    They are in blocks, so that neither L{add} nor L{after} takes longer with more names.
    """

    __slots__ = ("_blocks", "_firsts")

    def __init__(self) -> None:
        self._blocks: list[list[bytes]] = []
        self._firsts: list[bytes] = []  # the first name of each block

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            yield from block

    def add(self, name: bytes) -> None:
        """Add a new name."""
        if not self._blocks:
            self._blocks.append([name])
            self._firsts.append(name)
            return
        at = max(0, bisect_right(self._firsts, name) - 1)
        block = self._blocks[at]
        insort(block, name)
        if len(block) > BLOCK:
            half = block[BLOCK // 2 :]
            del block[BLOCK // 2 :]
            self._blocks.insert(at + 1, half)
            self._firsts.insert(at + 1, half[0])
        self._firsts[at] = block[0]

    def discard(self, name: bytes) -> None:
        """Remove a name, which must exist."""
        at = bisect_right(self._firsts, name) - 1
        block = self._blocks[at]
        del block[bisect_left(block, name)]
        if block:
            self._firsts[at] = block[0]
        else:
            del self._blocks[at], self._firsts[at]

    def after(self, name: bytes, count: int) -> list[bytes]:
        """
        @param name: the name after which to continue, which need not exist any more; empty: from the start.
        @return: some of the following names, in order, at most C{count}; none if there are no more.
        """
        at = max(0, bisect_right(self._firsts, name) - 1)
        if at >= len(self._blocks):
            return []
        block = self._blocks[at]
        start = bisect_right(block, name)
        if start == len(block) and at + 1 < len(self._blocks):
            block, start = self._blocks[at + 1], 0
        return block[start : start + count]
