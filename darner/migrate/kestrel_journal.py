"""
The journal of a queue of Kestrel: operations, one after the other.

An operation is a byte and what belongs to it.  All numbers are little-endian; times are in ms since the epoch, except
for C{ADD}.  Kestrel's C{docs/journal_format.md} describes all but the last two, of which its C{Journal.scala} tells:

====  ====================  ======================================================================================
code  operation             what follows
====  ====================  ======================================================================================
0     ADD                   i32 size, i32 expiry (s), payload of size - 4 bytes
1     REMOVE
2     ADDX                  i32 size, i64 time, i64 expiry, payload of size - 16 bytes
3     REMOVE_TENTATIVE
4     SAVE_XID              i32 xid
5     UNREMOVE              i32 xid
6     CONFIRM_REMOVE        i32 xid
7     ADD_XID               i32 xid, and as for ADDX
8     CONTINUE              i32 xid, and as for ADDX: CONFIRM_REMOVE and ADDX in one
9     REMOVE_TENTATIVE_XID  i32 xid
====  ====================  ======================================================================================

The document has another operation 8, STATE_DUMP (i32 xid, i32 count), which no release wrote.  Its count is below the
16 bytes that a CONTINUE has at least, or it is not told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct
from typing import IO, Final, NamedTuple, Optional

ADD, REMOVE, ADDX, REMOVE_TENTATIVE, SAVE_XID = range(5)
UNREMOVE, CONFIRM_REMOVE, ADD_XID, CONTINUE, REMOVE_TENTATIVE_XID = range(5, 10)

_WINDOW: Final = 256 * 1024
_XID: Final = Struct("<i")
_ADD: Final = Struct("<iI")
_ADDX: Final = Struct("<iqq")
_ADD_XID: Final = Struct("<iiqq")
_DUMP: Final = Struct("<ii")
_WITH_XID: Final = frozenset({SAVE_XID, UNREMOVE, CONFIRM_REMOVE, REMOVE_TENTATIVE_XID})


class Place(NamedTuple):
    """Where the payload of an item is."""

    file: Path
    offset: int
    size: int


class Operation(NamedTuple):
    """One operation of a journal."""

    code: int
    xid: int = 0
    place: Optional[Place] = None
    """Where the payload is, for operations that add an item."""
    time: int = 0
    """When the item was added, in ms since the epoch; 0 if the journal does not say."""
    expiry: int = 0
    """When it expires, in ms since the epoch; 0 is never."""


class _Window:
    """A part of a file, so that small numbers are read from memory and payloads are skipped."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size
        self._data = b""
        self._start = 0

    def view(self, at: int, length: int) -> tuple[bytes, int]:
        """@return: bytes that hold those from C{at} on, and where in them those are; fewer at the end of the file."""
        if at < self._start or at + length > self._start + len(self._data):
            self._file.seek(at)
            self._start, self._data = at, self._file.read(max(length, _WINDOW))
        return self._data, at - self._start


def read_journal(path: Path, lose: Callable[[str, str], None]) -> Iterator[Operation]:
    """
    Read the operations of a file up to its end, or to the first that cannot be read: nothing tells where the next one
    would begin.

    @param lose: is told where that is, and why.
    @raise OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        window = _Window(file, size)
        at = 0
        while at < size:
            data, here = window.view(at, 1 + _ADD_XID.size)
            code = data[here]
            end, operation, fault = _operation(path, code, data, here + 1, at + 1)
            if not fault and end > size:
                fault = f"the last operation is cut short, {end - size} bytes are missing"
            if fault or operation is None:
                lose(f"{path.name}, offset {at} of {size}", fault)
                return
            yield operation
            at = end


def _operation(path: Path, code: int, data: bytes, here: int, at: int) -> tuple[int, Optional[Operation], str]:
    """
    @param here: where in C{data} the operation's own numbers are.
    @param at: the same, in the file.
    @return: the offset of the operation's end; the operation; or why it is none.
    """
    if code in (REMOVE, REMOVE_TENTATIVE):
        return at, Operation(code), ""
    if code in _WITH_XID:
        numbers = _unpacked(_XID, data, here)
        return at + _XID.size, Operation(code, numbers[0] if numbers else 0), ""
    if code == ADD:
        numbers = _unpacked(_ADD, data, here)
        xid, size, time, expiry, head = 0, numbers[0] if numbers else 4, 0, numbers[1] * 1000 if numbers else 0, 4
        start = at + _ADD.size
    elif code == ADDX:
        numbers = _unpacked(_ADDX, data, here)
        (size, time, expiry), xid, head = numbers or (16, 0, 0), 0, 16
        start = at + _ADDX.size
    elif code in (ADD_XID, CONTINUE):
        numbers = _unpacked(_DUMP, data, here)
        if code == CONTINUE and numbers and 0 <= numbers[1] < 16:
            return at + _DUMP.size, Operation(SAVE_XID, numbers[0]), ""
        numbers = _unpacked(_ADD_XID, data, here)
        (xid, size, time, expiry), head = numbers or (0, 16, 0, 0), 16
        start = at + _ADD_XID.size
    else:
        return at, None, f"there is no operation {code}"
    if size < head:
        return at, None, f"an item has the size {size}"
    place = Place(path, start, size - head)
    return start + place.size, Operation(code, xid, place, max(0, time), max(0, expiry)), ""


def _unpacked(numbers: Struct, data: bytes, here: int) -> Optional[tuple[int, ...]]:
    """@return: the numbers of an operation; C{None} if it is cut short."""
    return numbers.unpack_from(data, here) if here + numbers.size <= len(data) else None


def journal_files(directory: Path, queue: str) -> list[Path]:
    """
    @return: the files of a queue's journal, oldest first.  A file that was packed takes the place of all that are not
        newer; unfinished files do not count.
    """
    timed: list[tuple[int, bool, Path]] = []
    for path in directory.iterdir():
        name, _, rest = path.name.partition(".")
        stamp, _, ending = rest.partition(".")
        if name == queue and stamp.isdecimal() and ending in ("", "pack") and path.is_file():
            timed.append((int(stamp), ending == "pack", path))
    timed.sort()
    packed = max((stamp for stamp, is_packed, _ in timed if is_packed), default=-1)
    files = [path for stamp, is_packed, path in timed if stamp > packed or (stamp == packed and is_packed)]
    current = directory / queue
    return [*files, current] if current.is_file() else files


def queue_names(directory: Path) -> list[str]:
    """@return: the names of the queues with journals in a directory, sorted."""
    return sorted({
        path.name.partition(".")[0] for path in directory.iterdir() if path.is_file() and "~~" not in path.name
    })  # fmt: skip
