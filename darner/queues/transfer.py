"""
Moving the items of one queue to the end of another, for example dead letters back to their queue.

Each item is moved atomically.  A turn moves a bounded number of items, so that other clients are served; the next turn
continues when those are written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Optional

from darner.errors import DarnerError
from darner.queues.answers import Answers
from darner.queues.collection import Queues
from darner.values.items import ITEM_OVERHEAD

ITEMS_A_TURN: Final = 200
"""Maximum number of items moved in one turn."""
BYTES_A_TURN: Final = 1024 * 1024
"""Bytes to write after which a turn moves no more."""


class Transfer:
    """
    One move of items.  It is an L{Asker}, so that the commit tells it when its moves are written.

    @ivar moved: the number of items whose move is written.
    """

    def __init__(
        self,
        queues: Queues,
        origin: bytes,
        target: bytes,
        count: Optional[int],
        done: Callable[[Optional[DarnerError]], None],
    ) -> None:
        """
        @param count: the maximum number of items; by default, and at most, the items that there are now.
        @param done: called at the end, with the error if one occurred.
        """
        self._queues = queues
        self._origin = origin
        self._target = target
        fifo = queues.find(origin)
        there = 0 if fifo is None else fifo.count
        self._left = there if count is None else min(count, there)
        self._done = done
        self._error: Optional[DarnerError] = None
        self._stopped = False
        self._moving = 0  # in the turn that is being written
        self.moved = 0

    def go_on(self) -> None:
        """Move as many items as one turn may."""
        if self._stopped:
            return
        self._moving = self._move_some()
        commit = self._queues.commit
        answers = commit.answers_for(self)
        slot = answers.add(b"")
        if self._moving:
            commit.put(answers, slot)

    def stop(self) -> None:
        """Stop; items that are moved stay so."""
        self._stopped = True

    def _move_some(self) -> int:
        moved = size = 0
        try:
            while self._left and moved < ITEMS_A_TURN and size < BYTES_A_TURN:
                room = self._move_one()
                if not room:
                    break
                self._left -= 1
                moved += 1
                size += room
        except DarnerError as error:
            self._error = error
        return moved

    def _move_one(self) -> int:
        """
        @return: approximate bytes to write; 0 if no item is available, or if that is unknown yet and left to a later
            turn.
        """
        fifo = self._queues.find(self._origin)
        item = None if fifo is None else fifo.peek()
        if fifo is None or item is None:
            if fifo is None or not fifo.sweeping:
                self._left = 0
            return 0
        room = ITEM_OVERHEAD if item.stream else item.size + ITEM_OVERHEAD
        if fifo.durable or self._queues.is_durable(self._target):
            self._queues.space.take(room)
        item = fifo.take_out()
        try:
            self._queues.move(fifo, item, self._target)
        except DarnerError:
            fifo.put_back(item)
            raise
        return room

    # For the turn

    def seal(self) -> None:
        """Nothing to do: it asks once in a turn."""

    def deliver(self, answers: Answers) -> None:
        (reply,) = answers.entries
        if self._stopped:
            return
        if isinstance(reply, DarnerError):
            self._done(reply)
            return
        self.moved += self._moving
        if self._error is not None or not self._left:
            self._done(self._error)
        else:
            self._queues.commit.rest(self)
