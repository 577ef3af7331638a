"""
One turn of the event loop, as the group commit gathers it: what changed, who is answered, and which answers depend on
the write.  When the store refuses the write, this is where answers and queues are set right.
"""

from __future__ import annotations

from typing import Optional, Protocol

from darner.errors import StoreError
from darner.queues.answers import Answers, Verdict
from darner.store.batch import Batch
from darner.store.interfaces import IStore
from darner.values.items import Item
from darner.values.stats import Removal


class Changing(Protocol):
    """What a queue has in the store, as the turn sees it."""

    __slots__ = ()

    def write_to(self, batch: Batch, puts: bool) -> None:
        """Add what changed since the last turn to the batch; without C{puts} only what was consumed."""

    def written(self) -> None:
        """The batch is in the store."""

    def refuse(self, uncertain: bool) -> None:
        """
        The batch is not in the store, and the items put with it never will be: they are C{refused} from now on.

        @param uncertain: whether it may be there all the same; what is written next has to be right in both cases.
        """

    def not_written(self) -> None:
        """What was consumed is not in the store either, and is to be written with a later turn."""


class Emptied(Protocol):
    """A queue of which items are read or moved, as the turn sees it."""

    __slots__ = ()

    @property
    def number(self) -> Optional[int]:
        """What the store knows it by; another one after it was deleted."""

    def unread(self, item: Item, number: Optional[int], removal: Optional[Removal] = None) -> None:
        """
        That C{item} was read could not be written: it is an item again, if the queue is not deleted.

        @param number: the queue's number when it was read.
        @param removal: why it left the queue, where it was not read.
        """


class Writer(Protocol):
    """A large item that is being written."""

    def fail(self, error: StoreError) -> None:
        """One of its chunks is not in the store."""


class Read:
    """
    A reply that hands out an item.

    @ivar number: the queue's number when it was read.
    @ivar tentative: whether the item is not consumed by that.
    @ivar told: the slot that tells of an error; C{None}: nobody is told.
    """

    __slots__ = ("answers", "item", "number", "queue", "slot", "tentative", "told")

    def __init__(
        self, queue: Emptied, item: Item, tentative: bool, answers: Answers, slot: int, told: Optional[int]
    ) -> None:
        self.queue = queue
        self.number = queue.number
        self.item = item
        self.tentative = tentative
        self.answers = answers
        self.slot = slot
        self.told = told


class Move:
    """
    An item that is consumed because of what was put on a queue.

    @ivar queue: where it was.
    @ivar number: that queue's number then.
    @ivar removal: why.
    """

    __slots__ = ("item", "number", "queue", "removal")

    def __init__(self, queue: Emptied, item: Item, removal: Removal) -> None:
        self.queue = queue
        self.number = queue.number
        self.item = item
        self.removal = removal


class Chunk:
    """A chunk of a large item."""

    __slots__ = ("data", "index", "stream", "writer")

    def __init__(self, writer: Writer, stream: int, index: int, data: bytes) -> None:
        self.writer = writer
        self.stream = stream
        self.index = index
        self.data = data


class Turn:
    """
    What happened in one turn.

    @ivar sync: whether it is to be on stable storage before it is answered.
    @ivar promised: whether that was promised by L{GroupCommit.sync_within}.
    @ivar began: when it began, where that is measured (L{darner.queues.timings.Timings}).
    @ivar wrote: when it began to be written.
    """

    __slots__ = (
        "answers", "began", "chunks", "consumed", "consumed_slots", "followers", "moves", "promised", "put_slots",
        "puts", "queues", "reads", "sync", "verdicts", "wrote",
    )  # fmt: skip

    def __init__(self) -> None:
        self.queues: dict[Changing, None] = {}
        self.answers: list[Answers] = []
        # Two lists side by side, as a pair for each put would cost more than the rest of its reply.
        self.puts: list[Answers] = []
        self.put_slots: list[int] = []
        self.consumed: list[Answers] = []
        self.consumed_slots: list[int] = []
        self.verdicts: list[Verdict] = []
        self.followers: list[tuple[Verdict, Answers, int]] = []
        self.reads: list[Read] = []
        self.moves: list[Move] = []
        self.chunks: list[Chunk] = []
        self.sync = False
        self.promised = False
        self.began = self.wrote = 0.0

    def batch(self, store: IStore, puts: bool) -> Batch:
        """@return: what is to be written; without C{puts} only what was consumed."""
        batch = store.batch()
        if puts:
            # Before the items that may hold them.
            for chunk in self.chunks:
                batch.chunk(chunk.stream, chunk.index, chunk.data)
        for queue in self.queues:
            queue.write_to(batch, puts)
        return batch

    def forget_moves(self, queue: Emptied) -> None:
        """What was moved out of C{queue} does not come back."""
        if self.moves:
            self.moves = [move for move in self.moves if move.queue is not queue]

    def refuse_puts(self, error: StoreError, gathering: Turn) -> None:
        """
        What was put is not stored, and who was to be told so is told of the error.

        @param gathering: the turn that gathers by now: it may have read what was put in this one.
        """
        for queue in self.queues:
            queue.refuse(error.uncertain)
        for answers, slot in zip(self.puts, self.put_slots, strict=True):
            answers.refuse(slot, slot, error)
        for verdict in self.verdicts:
            verdict.error = error
        for verdict, answers, slot in self.followers + gathering.followers:
            if verdict.error is not None:
                answers.refuse(slot, slot, error)
        for move in self.moves:
            # Where it was to go it is not: so it is where it came from.
            if not move.item.refused:
                move.queue.unread(move.item, move.number, move.removal)
        for chunk in self.chunks:
            chunk.writer.fail(error)
        for read in self.reads + gathering.reads:
            if read.item.refused:
                read.answers.refuse(read.slot, read.told, error)
        # Should the next turn fail too, what never was an item is not to become one.
        gathering.moves = [move for move in gathering.moves if not move.item.refused]

    def undo(self, error: StoreError) -> None:
        """Not even what was consumed can be written."""
        for read in self.reads:
            if not (read.item.refused or read.tentative):
                read.answers.refuse(read.slot, read.told, error)
                read.queue.unread(read.item, read.number)
        for answers, slot in zip(self.consumed, self.consumed_slots, strict=True):
            answers.refuse(slot, slot, error)
        for queue in self.queues:
            queue.not_written()
