"""
Data directories of the C++ Darner: a LevelDB for each queue.

A key is a 64-bit number, little-endian, and a byte: 1 for an item, 2 for a chunk of a large item.  LevelDB sorts keys
by that byte and then by the number.  An item's value is its payload, or a header that names its chunks:

  - A payload that ends in NUL has another NUL behind it.
  - A header is three 64-bit numbers, little-endian, and the bytes 1 and 0: the first chunk, the one behind the last,
    and the size of the payload.

An item's key is deleted when the item is consumed.  So what is there was not consumed: items that were open or given
back when the server ended are among the others, in the place where they were put.  The C++ Darner takes all numbers
between the first and the last for items when it starts, and fails to read those that are missing.

The files are read without LevelDB, which would change them as soon as it opens them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct
from typing import Any, ClassVar, Final, Optional, Union

from darner.migrate.sources import (
    Findings,
    Source,
    SourceError,
    SourceItem,
    SourceQueue,
    Unreadable,
    files_digest,
    refuse_locked,
)
from darner.rescue.salvage import Salvage
from darner.store.files.entry import Entry
from darner.store.files.names import is_ours
from darner.store.files.table import Table

_KEY: Final = Struct("<QB")
_HEADER: Final = Struct("<QQQ")
_ITEM, _CHUNK = 1, 2
_CHUNK_BYTES: Final = 1024
_AHEAD: Final = 256
"""How many chunks to read and drop before it is cheaper to look for the wanted one."""
_UNCHANGING: Final = frozenset({"LOCK", "LOG", "LOG.old"})
"""Files of a LevelDB that hold none of its records."""


class _Records(Salvage):
    """The records of one queue's LevelDB."""

    def __init__(self, database: Path) -> None:
        super().__init__(database)
        self._logged: Optional[list[Entry]] = None
        self._found: Optional[list[tuple[bytes, Table]]] = None

    @staticmethod
    def order(key: bytes) -> Any:
        if len(key) != _KEY.size:
            return (-1 if not key else 256, int.from_bytes(key[:8], "big"))
        number, kind = _KEY.unpack(key)
        return kind, number

    # A search for a chunk reads neither the logs nor the beginnings of all tables again.

    def _written(self) -> list[Entry]:
        if self._logged is None:
            self._logged = super()._written()
        return self._logged

    def _tables(self, unwanted: Callable[[bytes], bool]) -> list[tuple[bytes, Table]]:
        if self._found is None:
            self._found = super()._tables(lambda last: False)
        return [(first, table) for first, table in self._found if table.last is None or not unwanted(table.last)]


class _Chunks:
    """The chunks of large items, looked for in ascending order for the most part."""

    def __init__(self, records: _Records) -> None:
        self._records = records
        self._entries: Iterator[tuple[bytes, bytes]] = iter(())
        self._next: Optional[tuple[int, bytes]] = None

    def _step(self) -> None:
        key, value = next(self._entries, (b"", b""))
        kind, number = _Records.order(key)
        self._next = (number, value) if kind == _CHUNK else None

    def find(self, number: int) -> Optional[bytes]:
        """@return: a chunk; C{None} if it is missing."""
        for _ in range(_AHEAD):
            if self._next is None or self._next[0] >= number:
                break
            self._step()
        if self._next is None or self._next[0] != number:
            self._entries = self._records.entries(_KEY.pack(number, _CHUNK))
            self._step()
        return self._next[1] if self._next is not None and self._next[0] == number else None


class CppQueue(SourceQueue):
    """A queue of the C++ Darner."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.name.encode("utf-8", "surrogateescape"))
        self._path = path

    def items(self, findings: Findings) -> Iterator[SourceItem]:
        name = self._path.name
        try:
            records = _Records(self._path)
            chunks = _Chunks(records)
            for key, value in records.entries():
                kind, number = records.order(key)
                if kind == _CHUNK:
                    break
                if kind != _ITEM:
                    findings.lose(f"{name}, key {key.hex()}", "it is neither that of an item nor of a chunk")
                    continue
                item = _read(name, number, value, chunks)
                if isinstance(item, SourceItem):
                    yield item
                else:
                    findings.lose(f"{name}, item {number}", item)
            for damage in records.damages:
                findings.lose(f"{name}/{damage.file}", damage.reason)
        except OSError as error:
            raise SourceError(f"cannot read {self._path}: {error.strerror}") from error


def _read(name: str, number: int, value: bytes, chunks: _Chunks) -> Union[SourceItem, str]:
    """@return: the item, or why it cannot be read."""
    if not value.endswith(b"\0") or value == b"\0":
        # The C++ Darner looks at the byte before an empty payload, and mostly takes it for a NUL.
        payload = value.rstrip(b"\0")
        return SourceItem(len(payload), (payload,))
    if value.endswith(b"\0\0"):
        return SourceItem(len(value) - 1, (value[:-1],))
    if not value.endswith(b"\1\0") or len(value) != _HEADER.size + 2:
        return "it ends as neither a payload nor a header does"
    first, end, size = _HEADER.unpack_from(value)
    if end - first != -(-size // _CHUNK_BYTES) or end - first < 2:
        return f"its header names {max(0, end - first)} chunks for {size} bytes"
    return SourceItem(size, _pieces(f"{name}, item {number}", first, end, size, chunks))


def _pieces(place: str, first: int, end: int, size: int, chunks: _Chunks) -> Iterator[bytes]:
    for number in range(first, end):
        chunk = chunks.find(number)
        if chunk is None:
            raise Unreadable(place, f"chunk {number} is missing")
        if len(chunk) != min(_CHUNK_BYTES, size - (number - first) * _CHUNK_BYTES):
            raise Unreadable(place, f"chunk {number} has {len(chunk)} bytes")
        yield chunk


def _is_database(path: Path) -> bool:
    """@return: whether a directory holds a LevelDB, or what is left of one."""
    return path.is_dir() and any(is_ours(entry.name) for entry in path.iterdir())


class CppDarner(Source):
    """A data directory of the C++ Darner."""

    kind: ClassVar[str] = "C++ Darner"

    def __init__(self, directory: Path) -> None:
        """@raise SourceError: a server uses it."""
        super().__init__(str(directory.absolute()))
        self._directory = directory.absolute()
        for path in self._databases():
            refuse_locked(path / "LOCK")

    @staticmethod
    def recognizes(directory: Path) -> bool:
        return any(_is_database(path) for path in directory.iterdir())

    def _databases(self) -> list[Path]:
        return sorted(path for path in self._directory.iterdir() if _is_database(path))

    def fingerprint(self) -> bytes:
        paths = [path for database in self._databases() for path in database.iterdir() if path.name not in _UNCHANGING]
        return files_digest(self._directory, paths)

    def queues(self, findings: Findings) -> list[SourceQueue]:
        queues = [CppQueue(path) for path in self._databases()]
        for queue in queues:
            if queue.name.rpartition(b".")[2].isdigit():
                findings.note(
                    f"queue {queue.name.decode(errors='replace')} may be what is left of a deleted or flushed queue", 0
                )
        findings.note("items that were open or given back are in the place where they were put, as ready items", 0)
        return list(queues)
