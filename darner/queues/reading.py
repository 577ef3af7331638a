"""
Reading items, and ending their reads: what is handed out, and what its reader is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Optional

from darner.config.policies import parent_of
from darner.errors import StoreError
from darner.queues.answers import Answers, Reader
from darner.queues.commit import GroupCommit
from darner.queues.fifo import Fifo
from darner.queues.open_read import OpenRead
from darner.queues.reclaiming import Reclaimer
from darner.queues.status import ServerStatus
from darner.queues.streams import PayloadReader
from darner.store.interfaces import IStore
from darner.values.items import Item
from darner.values.stats import ServerStats

if TYPE_CHECKING:
    from darner.queues.collection import Queues


class Reads:
    """What is read of the queues of one server."""

    def __init__(
        self, queues: Queues, fifos: dict[bytes, Fifo], store: IStore, commit: GroupCommit, reclaimer: Reclaimer,
        stats: ServerStats, status: ServerStatus,
    ) -> None:  # fmt: skip
        """@param fifos: the queues by name, as C{queues} keeps them."""
        self._queues = queues
        self._fifos = fifos
        self._store = store
        self._commit = commit
        self._reclaimer = reclaimer
        self._stats = stats
        self._status = status

    def take(self, fifo: Fifo, answers: Answers, reader: Reader, key: bytes) -> bool:
        """
        Take an item.

        @param answers: who takes it.
        @param reader: spells the reply that hands it out, which becomes an error if that cannot be written.
        @param key: what the queue is called in the reply.
        @return: whether there was an item.
        @raise StoreError: it cannot be read.
        """
        item = fifo.take()
        if item is None:
            return False
        slot = answers.add(reader.hand_out(item, key, True))
        self._commit.read(fifo, item, False, answers, slot, slot)
        return True

    def peek(self, fifo: Fifo, answers: Answers, reader: Reader, key: bytes) -> bool:
        """As L{take}, and leave the item where it is."""
        item = fifo.peek()
        if item is None:
            return False
        slot = answers.add(reader.hand_out(item, key, True))
        self._commit.read(fifo, item, True, answers, slot, slot)
        return True

    def open(
        self, fifo: Fifo, answers: Answers, reader: Reader, key: bytes, told: bool = True
    ) -> Optional[OpenRead]:
        """
        As L{take}, and consume the item when it is closed.

        @param told: whether the reader is told where the put of the item is refused; else the item is left out.
        @return: what to close, abort or touch; C{None} where there was no item.
        """
        open = fifo.open()
        if open is not None:
            slot = answers.add(reader.hand_out(open.item, key, True))
            self._commit.read(fifo, open.item, True, answers, slot, slot if told else None)
        return open

    def take_each(self, names: Sequence[bytes], answers: Answers, reader: Reader) -> None:
        """Take one item of each of several queues, as far as there are any and they can be read; one reply for all."""
        taken: list[tuple[Fifo, Item, int]] = []
        made = False
        failed: Optional[StoreError] = None
        try:
            for name in names:
                self._stats.cmd_get += 1
                fifo = self._fifos.get(name)
                item = fifo.take() if fifo is not None else None
                if fifo is None or item is None:
                    self._stats.get_misses += 1
                    made |= self._make_children((name,))
                    continue
                self._stats.get_hits += 1
                taken.append((fifo, item, answers.add(reader.hand_out(item, name, False))))
        except StoreError as error:
            failed = error
        last = answers.add(reader.end(failed))
        if made:
            self._commit.put(answers, last)
        for fifo, item, slot in taken:
            self._commit.read(fifo, item, False, answers, slot, last)

    def outflow(self, item: Item, done: Callable[[], None]) -> PayloadReader:
        """@return: the payload of a large item, chunk by chunk."""
        return PayloadReader(self._store, self._reclaimer, item, done)

    def nothing(self, answers: Answers, reply: Any, names: Sequence[bytes]) -> None:
        """
        Tell a reader that there is nothing to be had.  A child that does not exist is made by that, unless nothing may
        be written for now.

        @param names: the queues that it wanted to read.
        @param reply: what it is told; an error, where one of them cannot be made after all.
        @raise StoreError: the store cannot make one.
        """
        made = self._make_children(names)
        slot = answers.add(reply)
        if made:
            self._commit.put(answers, slot)

    def expect(self, names: Sequence[bytes], refused: Callable[[StoreError], object]) -> None:
        """
        A reader is going to wait for an item of one of these queues; they are made as by L{nothing}.

        @param refused: called with the error if one of them cannot be made after all.
        @raise StoreError: the store cannot make one.
        """
        if self._make_children(names):
            self._commit.unless_put(refused)

    def _make_children(self, names: Sequence[bytes]) -> bool:
        """@return: whether one comes into being with what is to be written now."""
        made = False
        for name in names:
            made |= parent_of(name) is not None and self._make_child(name)
        return made

    def _make_child(self, name: bytes) -> bool:
        fifo = self._fifos.get(name)
        if fifo is None or fifo.number is None:
            if name in self._queues.policies.aliases or self._status.refuses_writes:
                return False
            fifo = self._queues.existing(name)
            fifo.changed()
        return fifo.unwritten

    def close(self, answers: Answers, reply: bytes, reads: Sequence[OpenRead]) -> None:
        """Close open reads; harmless where one is not open any more."""
        for read in reads:
            read.close()
        if reply:
            self._commit.consumed(answers, answers.add(reply))

    def abort(self, answers: Answers, reply: bytes, read: OpenRead) -> None:
        """Give an item back; harmless where it is not open any more."""
        read.abort()
        self._commit.consumed(answers, answers.add(reply))
