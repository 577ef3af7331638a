"""
Queues of Kestrel, from the journals of its queue directory.

A journal is read twice: once to learn which items are left, and once to fetch them.  In between memory holds only the
numbers of items that were open, or given back, at its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Final

from attrs import define, field

from darner.migrate import kestrel_journal as journal
from darner.migrate.kestrel_journal import Operation, Place, journal_files, queue_names, read_journal
from darner.migrate.open_file import OpenFile
from darner.migrate.sources import Findings, Source, SourceError, SourceItem, SourceQueue, files_digest

_ADDS: Final = frozenset({journal.ADD, journal.ADDX, journal.ADD_XID, journal.CONTINUE})


@define
class _State:
    """
    Which items of a queue are left.  Items are numbered in the order in which they were added.

    @ivar added: how many were.
    @ivar head: the number of the next one that was never removed.
    @ivar front: items that were given back, which come before the head, first to last.
    @ivar opened: items that are open, by xid.
    @ivar named: the xids that items have from ADD_XID.
    @ivar xid: the one that was given last.
    @ivar idle: operations that had nothing to do, as for a REMOVE from an empty queue.
    """

    added: int = 0
    head: int = 0
    front: deque[int] = field(factory=deque)
    opened: dict[int, int] = field(factory=dict)
    named: dict[int, int] = field(factory=dict)
    xid: int = 0
    idle: int = 0

    def apply(self, operation: Operation) -> None:
        code, xid = operation.code, operation.xid
        if code in _ADDS:
            if code == journal.CONTINUE:
                self._close(xid)
            elif xid:
                self.named[self.added] = xid
            self.added += 1
        elif code == journal.REMOVE:
            self._take()
        elif code == journal.REMOVE_TENTATIVE:
            item = self._take()
            if item >= 0:
                self.opened[self.named.pop(item, 0) or self._next_xid()] = item
        elif code == journal.REMOVE_TENTATIVE_XID:
            item = self._take()
            if item >= 0:
                self.opened[xid] = item
            self.xid = xid
        elif code == journal.SAVE_XID:
            self.xid = xid
        elif code == journal.CONFIRM_REMOVE:
            self._close(xid)
        elif xid in self.opened:
            self.front.appendleft(self.opened.pop(xid))
        else:
            self.idle += 1

    def _take(self) -> int:
        """@return: the item at the head; -1 if there is none."""
        if self.front:
            return self.front.popleft()
        if self.head < self.added:
            self.head += 1
            return self.head - 1
        self.idle += 1
        return -1

    def _close(self, xid: int) -> None:
        if self.opened.pop(xid, None) is None:
            self.idle += 1

    def _next_xid(self) -> int:
        self.xid += 1
        while self.xid in self.opened or not self.xid:
            self.xid += 1
        return self.xid

    def first(self) -> list[int]:
        """
        @return: the items that come before the head.  Kestrel gives back what is open when it starts, the highest xid
            first, so that the lowest comes to be at the head.
        """
        return [*(self.opened[xid] for xid in sorted(self.opened)), *self.front]


class KestrelQueue(SourceQueue):
    """A queue of Kestrel."""

    def __init__(self, name: str, files: list[Path]) -> None:
        super().__init__(name.encode("utf-8", "surrogateescape"))
        self._files = files

    def _operations(self, findings: Findings) -> Iterator[Operation]:
        for path in self._files:
            try:
                yield from read_journal(path, findings.lose)
            except OSError as error:
                raise SourceError(f"cannot read {path}: {error.strerror}") from error

    def items(self, findings: Findings) -> Iterator[SourceItem]:
        state = _State()
        for operation in self._operations(findings):
            state.apply(operation)
        if state.opened:
            findings.note("open reads become ready items, at the heads of their queues", len(state.opened))
        if state.idle:
            findings.note("operations of a journal had nothing to do: an earlier part of it may be missing", state.idle)
        with OpenFile() as files:
            yield from self._left(state, files, findings)

    def _left(self, state: _State, files: OpenFile, findings: Findings) -> Iterator[SourceItem]:
        first = state.first()
        wanted = set(first)
        early: dict[int, SourceItem] = {}
        at_head = False
        number = -1
        for operation in self._operations(findings):
            if operation.place is None:
                continue
            number += 1
            if number in wanted:
                early[number] = _item(operation, operation.place, files)
            elif number >= state.head:
                if not at_head:
                    at_head = True
                    yield from (early[item] for item in first)
                yield _item(operation, operation.place, files)
        if not at_head:
            yield from (early[item] for item in first)


def _item(operation: Operation, place: Place, files: OpenFile) -> SourceItem:
    return SourceItem(place.size, _Payload(place, files), operation.time, operation.expiry)


class _Payload:
    """A payload in a journal, read when it is asked for."""

    def __init__(self, place: Place, files: OpenFile) -> None:
        self._place = place
        self._files = files

    def __iter__(self) -> Iterator[bytes]:
        return self._files.read(*self._place)


class Kestrel(Source):
    """A queue directory of Kestrel."""

    kind: ClassVar[str] = "Kestrel"

    def __init__(self, directory: Path) -> None:
        super().__init__(str(directory.absolute()))
        self._directory = directory.absolute()

    @staticmethod
    def recognizes(directory: Path) -> bool:
        """A journal begins with one of ten small numbers."""
        for path in directory.iterdir():
            if path.is_file():
                with path.open("rb") as file:
                    first = file.read(1)
                if first and first[0] <= journal.REMOVE_TENTATIVE_XID:
                    return True
        return False

    def _journals(self) -> dict[str, list[Path]]:
        return {name: journal_files(self._directory, name) for name in queue_names(self._directory)}

    def fingerprint(self) -> bytes:
        return files_digest(self._directory, (path for files in self._journals().values() for path in files))

    def queues(self, findings: Findings) -> list[SourceQueue]:
        journals = self._journals()
        for name, files in journals.items():
            if len(files) > 1 and files[-2].suffix == ".pack" and files[-1].name == name:
                findings.note(
                    f"queue {name} was packed when Kestrel ended: its items may be there twice, as in Kestrel itself", 0
                )
        return [KestrelQueue(name, files) for name, files in journals.items()]
