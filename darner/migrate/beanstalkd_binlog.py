"""
The binlog of beanstalkd: numbered files of records.

A file begins with an i32, its version.  A record is the length of the tube's name, the name, the job's numbers, and the
job's body with CR LF behind it.  A record without a name changes a job that an earlier one made, and has no body.  The
numbers are those of a C struct, with its padding, as x86-64 and 64-bit ARM lay it out; times are in ns in version 7, in
microseconds in version 5, and in s in version 1, which has the pointers of the struct, too.  The versions between these
were in no release.  A job that is zero marks the part of a file that was not written yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple, Optional

INVALID, READY, RESERVED, BURIED, DELAYED = range(5)
"""States of a job; a job that is invalid was deleted."""

_VERSION: Final = Struct("<i")
_END: Final = b"\r\n"
"""What stands behind a body, and counts as part of it."""
_LONGEST_NAME: Final = 200
_HIGHEST_ID: Final = 2**63 - 1
_LATEST: Final = 2**62
"""A time is in ms, at most; what is damaged may have any."""
_MS: Final = 1_000_000
"""Nanoseconds of a millisecond."""


class _Layout(NamedTuple):
    """How one version lays its records out."""

    name: Struct
    """The length of the tube's name."""
    job: Struct
    """Its numbers begin with id, pri, delay, ttr, body_size, created_at, deadline_at, and end with the state."""
    unit: int
    """Nanoseconds of the unit of its times."""


LAYOUTS: Final = {
    7: _Layout(Struct("<i"), Struct("<QI4xqqi4xqqIIIIIB3x"), 1),
    5: _Layout(Struct("<Q"), Struct("<QI4xQQi4xQQIIIIIB"), 1000),
    1: _Layout(Struct("<Q"), Struct("<16xQIIIiqqIIII24xB23x"), 1_000_000_000),
}


class Record(NamedTuple):
    """One record of a binlog."""

    id: int
    state: int
    priority: int
    created: int
    """When the job was put, in ms since the epoch."""
    deadline: int
    """When a delayed job becomes ready, in ms since the epoch."""
    tube: bytes
    """Empty if the record changes a job."""
    offset: int
    """Where the body is."""
    size: int
    """Length of the body in bytes, without its line end."""


def read_binlog(path: Path, lose: Callable[[str, str], None]) -> Iterator[Record]:
    """
    Read the records of a file up to its end, or to the first that cannot be read: nothing tells where the next one
    would begin.

    @param lose: is told where that is, and why.
    @raise OSError: the file cannot be read.
    """
    with path.open("rb", buffering=256 * 1024) as file:
        length = file.seek(0, 2)
        file.seek(0)
        head = file.read(_VERSION.size)
        if not head:
            return
        version = _VERSION.unpack(head)[0] if len(head) == _VERSION.size else -1
        layout = LAYOUTS.get(version)
        if layout is None:
            lose(f"{path.name}, offset 0 of {length}", f"a binlog of version {version}, which is unknown")
            return
        at = _VERSION.size
        while True:
            head = file.read(layout.name.size)
            if len(head) < layout.name.size:
                return
            record, end, fault = _record(layout, head, file.read, at, length)
            if record is None:
                if fault:
                    lose(f"{path.name}, offset {at} of {length}", fault)
                return
            yield record
            if end != file.tell():
                file.seek(end)
            at = end


def _record(
    layout: _Layout, head: bytes, read: Callable[[int], bytes], at: int, length: int
) -> tuple[Optional[Record], int, str]:
    """@return: the record and the offset of its end; or why it is none, empty at the end of what is written."""
    (named,) = layout.name.unpack(head)
    if not 0 <= named <= _LONGEST_NAME:
        return None, 0, f"the name of a tube has {named} bytes"
    data = read(named + layout.job.size)
    if len(data) < named + layout.job.size:
        return None, 0, "the last record is cut short" if any(data) or named else ""
    job = layout.job.unpack_from(data, named)
    id, priority, _, _, size, created, deadline = job[:7]
    state = job[-1]
    if not id:
        return None, 0, ""
    if state > DELAYED or size < len(_END) or id > _HIGHEST_ID:
        return None, 0, f"job {id} has the state {state} and {size} bytes"
    start = at + len(head) + len(data)
    end = start + size if named else start
    if end > length:
        return None, 0, f"the body of job {id} is cut short, {end - length} bytes are missing"
    put, due = (max(-_LATEST, min(_LATEST, time * layout.unit // _MS)) for time in (created, deadline))
    record = Record(id, state, priority, put, due, data[:named], start, size - len(_END))
    return record, end, ""


def binlog_files(directory: Path) -> list[Path]:
    """@return: the files of a binlog, oldest first."""
    numbered = [
        (int(path.name[7:]), path)
        for path in directory.iterdir()
        if path.name.startswith("binlog.") and path.name[7:].isdecimal()
    ]
    return [path for _, path in sorted(numbered)]
