"""
What is done to single items, wherever they are in their queue: dropping, moving, and giving them back.

Each operation is about items in one state, a bounded number of them: those that are in it no more are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

from darner.errors import DarnerError
from darner.queues.answers import Answers
from darner.queues.browsing import DELAYED, OPEN, RETRYING, find
from darner.queues.commit import GroupCommit
from darner.queues.disk_space import DiskSpace
from darner.queues.fifo import Fifo
from darner.values.items import ITEM_OVERHEAD, Item

if TYPE_CHECKING:
    from darner.queues.collection import Queues

Key = tuple[int, int]
"""When an item is due, in ms since the epoch, of one that is delayed, else 0; and its id."""


class Picks:
    """
    Single items of the queues of one server.

    @ivar AT_ONCE: how many items to pick in a turn.
    """

    AT_ONCE = 20

    def __init__(self, queues: Queues, fifos: dict[bytes, Fifo], commit: GroupCommit, space: DiskSpace) -> None:
        """@param fifos: the queues by name, as C{queues} keeps them."""
        self._queues = queues
        self._fifos = fifos
        self._commit = commit
        self._space = space

    def drop(self, answers: Answers, reply: bytes, name: bytes, state: str, keys: Sequence[Key]) -> int:
        """
        Consume items.

        @return: how many.
        @raise StoreError: one cannot be read; nothing has changed.
        """
        fifo = self._fifos.get(name)
        found = [] if fifo is None else self._find(fifo, state, keys)
        for due, item in found:
            assert fifo is not None
            if state == DELAYED:
                assert fifo.storage.sides.delays is not None
                fifo.storage.sides.delays.drop(due, item)
            else:
                self._take_out(fifo, state, item)
                fifo.storage.consume(item)
        self._commit.consumed(answers, answers.add(reply))
        return len(found)

    def give_back(self, answers: Answers, reply: bytes, name: bytes, state: str, keys: Sequence[Key]) -> int:
        """
        Make items available that are open, set aside or delayed.  The reader of an open one can close it no more.

        @return: how many.
        @raise StoreError: one cannot be read; nothing has changed.
        """
        fifo = self._fifos.get(name)
        found = [] if fifo is None or state not in (OPEN, RETRYING, DELAYED) else self._find(fifo, state, keys)
        slot = answers.add(reply)
        for due, item in found:
            assert fifo is not None
            if state == DELAYED:
                assert fifo.storage.sides.delays is not None
                fifo.storage.sides.delays.release(due, item)
                fifo.put_due(item)
                continue
            self._take_out(fifo, state, item)
            fifo.storage.contents.give_back(item)
            if state == OPEN:
                fifo.storage.stats.canceled_transactions += 1
        if fifo is not None and found:
            fifo.serve()
        if state == DELAYED:
            self._commit.put(answers, slot)
        else:
            self._commit.consumed(answers, slot)
        return len(found)

    def move(
        self, answers: Answers, reply: bytes, name: bytes, state: str, keys: Sequence[Key], target: bytes
    ) -> int:
        """
        Put items at the end of another queue, and consume them here: both are written, or neither is.

        @return: how many.
        @raise ClientError: the target is an alias.
        @raise StoreError: the target cannot be made, there is no room, or the first item cannot be read.
        """
        self._queues.check_queue(target)
        fifo = self._fifos.get(name)
        moved = 0
        for due, item in [] if fifo is None else self._find(fifo, state, keys):
            assert fifo is not None
            try:
                if fifo.durable or self._queues.is_durable(target):
                    self._space.take(ITEM_OVERHEAD if item.stream else item.size + ITEM_OVERHEAD)
                self._queues.existing(target)
                self._move(fifo, state, due, item, target)
            except DarnerError:
                if not moved:
                    raise
                break
            moved += 1
        self._commit.put(answers, answers.add(reply))
        return moved

    def _move(self, fifo: Fifo, state: str, due: int, item: Item, target: bytes) -> None:
        if state == DELAYED:
            assert fifo.storage.sides.delays is not None
            fifo.storage.sides.delays.release(due, item)
            other = self._queues.existing(target)
            other.put(item.flags, 0, item.size, item.payload, item.stream, shared=True)
            return
        self._take_out(fifo, state, item)
        try:
            self._queues.move(fifo, item, target)
        except DarnerError:
            fifo.put_back(item)
            raise

    # Finding

    def _find(self, fifo: Fifo, state: str, keys: Sequence[Key]) -> list[tuple[int, Item]]:
        """@return: of these items those that are in the state now, each once, with when they are due."""
        found: dict[Key, Optional[Item]] = {}
        near: dict[int, Item] = {}
        for due, id in keys:
            found[due, id] = self._find_one(fifo, state, due, id, near)
        return [(key[0], item) for key, item in found.items() if item is not None]

    @staticmethod
    def _find_one(fifo: Fifo, state: str, due: int, id: int, near: dict[int, Item]) -> Optional[Item]:
        if state == DELAYED:
            delays = fifo.storage.sides.delays
            return None if delays is None else delays.find(due, id)
        seen = find(fifo, id, near)
        return None if seen is None or seen.state != state else seen.item

    @staticmethod
    def _take_out(fifo: Fifo, state: str, item: Item) -> None:
        """Take an item out of memory: it is neither to be had nor consumed."""
        storage = fifo.storage
        if state == OPEN:
            storage.contents.withdraw(item.id)
            if storage.sides.retries is not None:
                storage.sides.retries.withdraw(item.id)
        elif state == RETRYING:
            assert storage.sides.retries is not None
            storage.sides.retries.take_out(item.id)
        else:
            storage.contents.take_out(item)
