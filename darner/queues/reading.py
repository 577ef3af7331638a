"""
Reading items, closing and aborting open reads, and the replies to that.
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
    """Reads items from the queues of one server."""

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

        @param answers: the asker's answer sheet.
        @param reader: spells the reply with the item; the reply becomes an error if the read cannot be written.
        @param key: the name of the queue in the reply.
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
        """As L{take}, but leave the item in its queue."""
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
        As L{take}, but the item is consumed only when the read is closed.

        @param told: whether the reader is told if the put of the item is refused; otherwise the item is left out.
        @return: the open read; C{None} if there was no item.
        """
        open = fifo.open()
        if open is not None:
            slot = answers.add(reader.hand_out(open.item, key, True))
            self._commit.read(fifo, open.item, True, answers, slot, slot if told else None)
        return open

    def take_each(self, names: Sequence[bytes], answers: Answers, reader: Reader) -> None:
        """Take one item from each of several queues that has any, up to the first error; one reply for all."""
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
        """@return: a reader of the payload of a large item, chunk by chunk."""
        return PayloadReader(self._store, self._reclaimer, item, done)

    def nothing(self, answers: Answers, reply: Any, names: Sequence[bytes]) -> None:
        """
        Reply that there is no item.  This creates fan-out children that do not exist, unless the status refuses writes.

        @param names: the queues that the client wanted to read.
        @param reply: the reply, which becomes an error if a child cannot be written.
        @raise StoreError: the store cannot create a child.
        """
        made = self._make_children(names)
        slot = answers.add(reply)
        if made:
            self._commit.put(answers, slot)

    def expect(self, names: Sequence[bytes], refused: Callable[[StoreError], object]) -> None:
        """
        Create children as L{nothing} does, for a reader that is about to wait for an item of these queues.

        @param refused: called with the error if a child cannot be written.
        @raise StoreError: the store cannot create a child.
        """
        if self._make_children(names):
            self._commit.unless_put(refused)

    def _make_children(self, names: Sequence[bytes]) -> bool:
        """@return: whether this turn creates one."""
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
        """Close open reads; does nothing for those that are not open any more."""
        for read in reads:
            read.close()
        if reply:
            self._commit.consumed(answers, answers.add(reply))

    def abort(self, answers: Answers, reply: bytes, read: OpenRead) -> None:
        """Give an item back; does nothing if it is not open any more."""
        read.abort()
        self._commit.consumed(answers, answers.add(reply))
