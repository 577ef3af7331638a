"""
One turn of the event loop, as the group commit gathers it: the changes, the replies, and which replies depend on the
write.  If the store refuses the write, the turn corrects replies and queues.
"""

from __future__ import annotations

from typing import Optional, Protocol

from darner.errors import StoreError
from darner.queues.answers import Answers, Verdict
from darner.store.batch import Batch
from darner.values.items import Item
from darner.values.stats import Removal


class Changing(Protocol):
    """A queue with changes to write, as the turn sees it."""

    __slots__ = ()

    def write_to(self, batch: Batch, puts: bool) -> None:
        """Add the changes since the last turn to the batch; without C{puts} only the consumption of items."""

    def written(self) -> None:
        """Called when the batch is in the store."""

    def refuse(self, uncertain: bool) -> None:
        """
        Called when the batch was not written.  Its items are C{refused} from now on and will never be stored.

        @param uncertain: whether the batch may be in the store all the same; the next write must suit both cases.
        """

    def not_written(self) -> None:
        """Called when the consumption was not written either, so that a later turn must write it."""


class Emptied(Protocol):
    """A queue from which items are read or moved, as the turn sees it."""

    __slots__ = ()

    @property
    def number(self) -> Optional[int]:
        """The queue's number in the store; it changes when the queue is deleted and created again."""

    def unread(self, item: Item, number: Optional[int], removal: Optional[Removal] = None) -> None:
        """
        Undo the read of C{item}, which could not be written, unless the queue was deleted since.

        @param number: the queue's number at the time of the read.
        @param removal: why the item left the queue, if it was not read.
        """


class Writer(Protocol):
    """A large item that is being written."""

    def fail(self, error: StoreError) -> None:
        """Called when one of its chunks was not written."""


class Read:
    """
    A reply that hands out an item.

    @ivar number: the queue's number at the time of the read.
    @ivar tentative: whether the item is not consumed.
    @ivar told: the slot for an error; C{None}: no error is sent.
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
    An item that is consumed because of a put on a queue.

    @ivar queue: the queue that it was in.
    @ivar number: the number of that queue at the time.
    @ivar removal: the reason.
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
    The changes and replies of one turn.

    @ivar sync: whether to sync it to stable storage before the replies go out.
    @ivar promised: whether L{GroupCommit.sync_within} promised that.
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
        # Two parallel lists: a tuple for each put would cost more than the rest of its reply.
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

    def batch(self, puts: bool) -> Batch:
        """@return: the changes to write; without C{puts} only the consumption of items."""
        batch = Batch()
        if puts:
            # Before the items that may refer to them.
            for chunk in self.chunks:
                batch.chunk(chunk.stream, chunk.index, chunk.data)
        for queue in self.queues:
            queue.write_to(batch, puts)
        return batch

    def over(self) -> Turn:
        """@return: this, without its contents, for another turn: to make one costs more than most requests."""
        self.queues.clear()
        self.answers = []
        if self.puts:
            self.puts, self.put_slots = [], []
        if self.reads:
            self.reads = []
        if self.consumed:
            self.consumed, self.consumed_slots = [], []
        if self.verdicts or self.followers:
            self.verdicts, self.followers = [], []
        if self.moves or self.chunks:
            self.moves, self.chunks = [], []
        self.sync = self.promised = False
        self.began = self.wrote = 0.0
        return self

    def forget_moves(self, queue: Emptied) -> None:
        """Do not restore items that were moved out of C{queue} if the write is refused."""
        if self.moves:
            self.moves = [move for move in self.moves if move.queue is not queue]

    def refuse_puts(self, error: StoreError, gathering: Turn) -> None:
        """
        Refuse the puts of this turn: replace the replies that depend on them by the error.

        @param gathering: the turn that gathers now: it may have read items that this one put.
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
            # It did not reach its new queue, so it goes back to its old one.
            if not move.item.refused:
                move.queue.unread(move.item, move.number, move.removal)
        for chunk in self.chunks:
            chunk.writer.fail(error)
        for read in self.reads + gathering.reads:
            if read.item.refused:
                read.answers.refuse(read.slot, read.told, error)
        # If the next turn fails too, it must not restore items that were never stored.
        gathering.moves = [move for move in gathering.moves if not move.item.refused]

    def undo(self, error: StoreError) -> None:
        """Undo the consumption of items, which could not be written either."""
        for read in self.reads:
            if not (read.item.refused or read.tentative):
                read.answers.refuse(read.slot, read.told, error)
                read.queue.unread(read.item, read.number)
        for answers, slot in zip(self.consumed, self.consumed_slots, strict=True):
            answers.refuse(slot, slot, error)
        for queue in self.queues:
            queue.not_written()
