"""
A model of a disk that loses its power: which states may be found on it afterwards.

Synced data is certain: the contents of a file when an fsync of it began that ended before the cut, and likewise the
entries of a directory.  Of later changes

- any number of bytes appended to a file may be there, from the first on, and zeros in place of the others;
- any number of changes of a directory's entries may be there, from the first on,

independently for each file and directory.  So a file may have an entry and be empty, a newer file may be whole while
an older one is not, and a rename may be undone.  Files that are not written by appending would need a better model,
and are refused.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Optional, Union

from attrs import define, field, frozen

from bench.syscalls import Call


@define(eq=False)
class File:
    """A file, under any name."""

    data: bytearray = field(factory=bytearray)
    certain: int = 0
    """The number of bytes that are synced."""


@define(eq=False)
class Directory:
    """
    A directory and its entries.

    A change is a pair of a name and its new file or directory; changes that belong together are one step.
    """

    entries: dict[str, Union[File, Directory]] = field(factory=dict)
    certain: dict[str, Union[File, Directory]] = field(factory=dict)
    changes: list[dict[str, Union[File, Directory, None]]] = field(factory=list)
    """The steps that are not synced."""

    def change(self, **change: Union[File, Directory, None]) -> None:
        self.changes.append(change)
        _apply(self.entries, change)

    def sync(self, changes: int) -> None:
        for change in self.changes[:changes]:
            _apply(self.certain, change)
        del self.changes[:changes]


def _apply(entries: dict[str, Union[File, Directory]], change: dict[str, Union[File, Directory, None]]) -> None:
    for name, there in change.items():
        if there is None:
            entries.pop(name, None)
        else:
            entries[name] = there


@frozen
class Content:
    """The contents of a file after the cut."""

    file: File
    written: int
    """The number of bytes that are there."""
    zeros: int
    """The number of zeros that follow."""

    def bytes(self) -> bytes:
        return bytes(self.file.data[: self.written]) + bytes(self.zeros)


State = dict[str, Union[Content, None]]
"""The contents of the disk after the cut, by path; C{None} is a directory."""

Changes = Callable[[Directory], int]
"""Returns how many changes of a directory survive."""
Kept = Callable[[File], tuple[int, int]]
"""Returns how many bytes of a file survive, and how many zeros follow."""


class Disk:
    """
    A directory tree, as a process changes it.

    @ivar marks: the bytes appended to the file C{marks}, which is not on this disk.
    """

    def __init__(self, path: Path, marks: Path) -> None:
        """
        @param path: the directory, which exists and is empty.
        @param marks: a file to which the process appends marks of its progress.
        """
        self._root = str(path)
        self._marks_path = str(marks)
        self.root = Directory()
        self.marks = bytearray()
        self._files: dict[int, Union[File, Directory, bytearray]] = {}
        self._syncs: dict[int, int] = {}
        self._closing: set[int] = set()

    # Calls of the process

    def follow(self, calls: Iterable[Call]) -> Iterator[Call]:
        """
        Replay the calls of a process.

        @return: each call that changed or synced something here, or wrote a mark, once it is replayed.
        """
        for call in calls:
            if getattr(self, f"_{call.name}")(call):
                yield call

    def forget_descriptors(self) -> None:
        """The process has ended; another one follows."""
        self._files.clear()
        self._syncs.clear()
        self._closing.clear()

    def _place(self, path: bytes) -> Optional[tuple[Directory, str]]:
        text = path.decode()
        if not text.startswith(self._root + "/"):
            return None
        *parents, name = text[len(self._root) + 1 :].rstrip("/").split("/")
        directory = self.root
        for parent in parents:
            below = directory.entries[parent]
            assert isinstance(below, Directory)
            directory = below
        return directory, name

    def _openat(self, call: Call) -> bool:
        if call.result is None:
            return False
        self._files.pop(call.result, None)
        (path,) = call.texts
        if path.decode() == self._marks_path:
            self._files[call.result] = self.marks
            return False
        if path.decode().rstrip("/") == self._root:
            self._files[call.result] = self.root
            return False
        place = self._place(path)
        if place is None:
            return False
        directory, name = place
        flags = next(argument for argument in call.arguments if argument.startswith("O_")).split("|")
        there = directory.entries.get(name)
        changed = False
        if there is None or ("O_TRUNC" in flags and isinstance(there, File) and there.data):
            there = File()
            directory.change(**{name: there})
            changed = True
        self._files[call.result] = there
        return changed

    def _close(self, call: Call) -> bool:
        # Another thread may get the descriptor before this one hears that it is closed.
        if call.result is None:
            self._closing.add(call.file)
        elif call.file in self._closing:
            self._closing.discard(call.file)
            return False
        self._files.pop(call.file, None)
        return False

    def _write(self, call: Call) -> bool:
        file = self._files.get(call.file)
        if call.result is None or file is None:
            return False
        data = call.texts[0][: call.result]
        if isinstance(file, File):
            file.data += data
        else:
            assert isinstance(file, bytearray)
            file += data
        return True

    def _fsync(self, call: Call) -> bool:
        file = self._files.get(call.file)
        if file is None or isinstance(file, bytearray):
            return False
        now = len(file.data) if isinstance(file, File) else len(file.changes)
        if call.result is None:
            # Writes during the fsync are not certain when it ends.
            self._syncs[call.file] = now
            return False
        certain = self._syncs.pop(call.file, now)
        if isinstance(file, File):
            file.certain = max(file.certain, certain)
        else:
            file.sync(certain)
        return True

    _fdatasync = _fsync

    def _rename(self, call: Call) -> bool:
        places = [self._place(path) for path in call.texts]
        if call.result is None or None in places:
            return False
        (directory, old), (other, new) = (place for place in places if place is not None)
        if directory is not other:
            raise ValueError("a file was moved from one directory to another")
        directory.change(**{new: directory.entries[old], old: None})
        return True

    def _unlink(self, call: Call) -> bool:
        place = self._place(call.texts[0])
        if call.result is None or place is None:
            return False
        place[0].change(**{place[1]: None})
        return True

    _rmdir = _unlink

    def _unlinkat(self, call: Call) -> bool:
        directory = self._files.get(int(call.arguments[0])) if call.arguments[0].isdecimal() else None
        if not isinstance(directory, Directory):
            return self._unlink(call)
        if call.result is None:
            return False
        directory.change(**{call.texts[0].decode(): None})
        return True

    def _link(self, call: Call) -> bool:
        places = [self._place(path) for path in call.texts]
        if call.result is None or None in places:
            return False
        (directory, old), (other, new) = (place for place in places if place is not None)
        other.change(**{new: directory.entries[old]})
        return True

    def _mkdir(self, call: Call) -> bool:
        place = self._place(call.texts[0])
        if call.result is None or place is None:
            return False
        place[0].change(**{place[1]: Directory()})
        return True

    def _strange(self, call: Call) -> bool:
        first = call.arguments[0]
        if int(first) in self._files if first.isdecimal() else any(self._place(path) for path in call.texts):
            raise ValueError(f"the model knows nothing of {call.name}")
        return False

    _open = _creat = _pwrite64 = _writev = _renameat = _renameat2 = _ftruncate = _strange
    _mkdirat = _linkat = _dup = _dup2 = _dup3 = _sync_file_range = _strange

    # States after the cut

    def least(self) -> State:
        """The state with nothing but what is certain."""
        return self._state(lambda directory: 0, lambda file: (file.certain, 0))

    def most(self) -> State:
        """The state with everything, as if only the process had ended."""
        return self._state(lambda directory: len(directory.changes), lambda file: (len(file.data), 0))

    def entries(self, zeros: bool) -> State:
        """All entries, and the certain part of the files; zeros or nothing in place of the rest."""
        return self._state(
            lambda directory: len(directory.changes),
            lambda file: (file.certain, (len(file.data) - file.certain) * zeros),
        )

    def newest(self, suffix: str) -> State:
        """All entries, all of the newest file with such a name, and the certain part of the others."""
        files = [file for name, file in self._all(self.root) if isinstance(file, File) and name.endswith(suffix)]
        return self._state(
            lambda directory: len(directory.changes),
            lambda file: (len(file.data) if file in files[-1:] else file.certain, 0),
        )

    def without(self, suffix: str) -> State:
        """All is there, but of files with such a name what is certain."""
        files = [file for name, file in self._all(self.root) if isinstance(file, File) and name.endswith(suffix)]
        return self._state(
            lambda directory: len(directory.changes),
            lambda file: (file.certain if file in files else len(file.data), 0),
        )

    def without_entries(self, suffix: str) -> State:
        """All is there, but of directories that have files with such a name what is certain."""
        return self._state(
            lambda directory: (
                0 if any(name.endswith(suffix) for name in directory.entries) else len(directory.changes)
            ),
            lambda file: (len(file.data), 0),
        )

    def some(self, chance: random.Random) -> State:
        """A random state."""

        def kept(file: File) -> tuple[int, int]:
            written = chance.choice((file.certain, len(file.data), chance.randint(file.certain, len(file.data))))
            rest = len(file.data) - written
            return written, chance.choice((0, 0, rest, chance.randint(0, rest)))

        return self._state(
            lambda directory: chance.choice((len(directory.changes), chance.randint(0, len(directory.changes)))), kept
        )

    def _all(self, directory: Directory) -> Iterator[tuple[str, Union[File, Directory]]]:
        for name, there in directory.entries.items():
            yield name, there
            if isinstance(there, Directory):
                yield from self._all(there)

    def _state(self, changes: Changes, kept: Kept) -> State:
        state: State = {}
        known: dict[int, tuple[int, int]] = {}

        def of_file(file: File) -> tuple[int, int]:
            # Under all its names it has the same content.
            if id(file) not in known:
                known[id(file)] = kept(file)
            return known[id(file)]

        self._find(self.root, "", changes, of_file, state)
        return state

    def _find(self, directory: Directory, prefix: str, changes: Changes, kept: Kept, state: State) -> None:
        entries = dict(directory.certain)
        for change in directory.changes[: changes(directory)]:
            _apply(entries, change)
        for name, there in entries.items():
            if isinstance(there, Directory):
                state[prefix + name] = None
                self._find(there, f"{prefix}{name}/", changes, kept, state)
            else:
                state[prefix + name] = Content(there, *kept(there))
