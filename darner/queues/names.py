"""
The names of the queues in order, for work that goes over all of them a few in a turn.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Final

BLOCK: Final = 512
"""How many names a block holds at most: this many are moved at most when one is added or taken away."""


class Names:
    """
    Names in order.  Names may be added and taken away while somebody walks over them by L{after}.

    They lie in blocks, so that neither adding a name nor going on behind one takes longer where there are many.
    """

    __slots__ = ("_blocks", "_firsts")

    def __init__(self) -> None:
        self._blocks: list[list[bytes]] = []
        self._firsts: list[bytes] = []  # the first name of each block

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            yield from block

    def add(self, name: bytes) -> None:
        """Add a name, which is not there yet."""
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
        """Take a name away, which is there."""
        at = bisect_right(self._firsts, name) - 1
        block = self._blocks[at]
        del block[bisect_left(block, name)]
        if block:
            self._firsts[at] = block[0]
        else:
            del self._blocks[at], self._firsts[at]

    def after(self, name: bytes, count: int) -> list[bytes]:
        """
        @param name: where to go on, whether it is still there or not; empty: at the beginning.
        @return: some of the names that follow, in order, C{count} at most; none where there are no more.
        """
        at = max(0, bisect_right(self._firsts, name) - 1)
        if at >= len(self._blocks):
            return []
        block = self._blocks[at]
        start = bisect_right(block, name)
        if start == len(block) and at + 1 < len(self._blocks):
            block, start = self._blocks[at + 1], 0
        return block[start : start + count]
