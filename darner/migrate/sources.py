"""
What queues are taken over from: a source, its queues, their items, and what was found on the way.

A source is never changed.  It can be read any number of times, and yields the same items in the same order each time,
as long as nobody else changes it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import ClassVar, Final, NamedTuple, Optional

from darner.errors import DarnerError

_PLAIN: Final = frozenset(range(33, 127)) - {ord("/"), ord("%")}
"""What stays as it is in the name of a queue."""
_LONGEST_NAME: Final = 250
_SAMPLE: Final = 4096
"""Bytes at either end of a file that identify it, together with its size."""


class SourceError(DarnerError):
    """A source cannot be read at all, or is of no known kind.  The text says in one line what is wrong."""


class Unreadable(DarnerError):
    """
    One item cannot be read.

    @ivar place: where it is.
    @ivar reason: why.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place = place
        self.reason = reason


class Loss(NamedTuple):
    """Something in a source that cannot be read."""

    place: str
    """The file, and the offset in it."""
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


class SourceItem(NamedTuple):
    """
    An item of a source.

    The payload comes in pieces, so that memory does not grow with the size of items.  They are read before the next
    item is asked for.
    """

    size: int
    """Length of the payload in bytes."""
    pieces: Iterable[bytes]
    """The payload.  Iterating raises L{Unreadable} where it cannot be read to its end."""
    time: int = 0
    """When it was put, in ms since the epoch; 0 if the source does not know."""
    expiry: int = 0
    """When it expires, in ms since the epoch; 0 is never."""
    due: int = 0
    """When it becomes available, in ms since the epoch; 0 is at once."""


class Findings:
    """
    What was found while a source was read, besides its items.

    @ivar losses: what cannot be read.
    @ivar notes: what cannot be kept as it was, with how often that is so; 0 where that is not counted.
    """

    def __init__(self) -> None:
        self.losses: dict[Loss, None] = {}
        self.notes: Counter[str] = Counter()

    def lose(self, place: str, reason: str) -> None:
        self.losses[Loss(place, reason)] = None

    def note(self, text: str, count: int = 1) -> None:
        self.notes[text] += count


class SourceQueue(ABC):
    """
    One queue of a source.

    @ivar name: its name in the source.
    @ivar target: the name of the queue that its items are put on.
    """

    def __init__(self, name: bytes, target: Optional[bytes] = None) -> None:
        self.name = name
        self.target = queue_name(name if target is None else target)

    @abstractmethod
    def items(self, findings: Findings) -> Iterator[SourceItem]:
        """
        Read the items in the order in which the source would give them.

        @param findings: where to say what cannot be read or kept.
        @raise SourceError: the source cannot be read any more.
        """


class Source(ABC):
    """
    Something that queues can be taken over from.

    @ivar place: where it is, as the operator named it, without a password.
    """

    kind: ClassVar[str]
    """What it is, in words."""

    def __init__(self, place: str) -> None:
        self.place = place

    @abstractmethod
    def fingerprint(self) -> bytes:
        """@return: 16 bytes that differ once the source has changed."""

    @abstractmethod
    def queues(self, findings: Findings) -> list[SourceQueue]:
        """@return: its queues, sorted by name."""

    def identity(self) -> bytes:
        """@return: 16 bytes that stay the same when the source changes."""
        return digest(self.kind.encode(), self.place.encode("utf-8", "surrogateescape"))

    def close(self) -> None:  # noqa: B027  (most hold nothing)
        """Release what the source holds.  Idempotent."""


def digest(*parts: bytes) -> bytes:
    """@return: 16 bytes that depend on all parts and on where each ends."""
    made = hashlib.blake2b(digest_size=16)
    for part in parts:
        made.update(len(part).to_bytes(8, "big"))
        made.update(part)
    return made.digest()


def files_digest(directory: Path, paths: Iterable[Path]) -> bytes:
    """
    @return: a L{digest} of files: their names below a directory, their sizes, and how they begin and end.
    @raise SourceError: one of them cannot be read.
    """
    parts: list[bytes] = []
    for path in sorted(paths):
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(0)
                first = file.read(_SAMPLE)
                file.seek(max(0, size - _SAMPLE))
                parts += (str(path.relative_to(directory)).encode(), size.to_bytes(8, "big"), first, file.read(_SAMPLE))
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from error
    return digest(*parts)


def refuse_locked(lock: Path) -> None:
    """
    Refuse files that a server has locked.  Asking for the lock to read changes nothing.

    @param lock: the file that a server locks while it runs; it may be missing.
    @raise SourceError: a server runs.
    """
    try:
        with lock.open("rb") as file:
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES) and os.access(lock, os.R_OK):
            raise SourceError(f"{lock.parent} is in use: stop the server first") from error
        raise SourceError(f"cannot read {lock}: {error.strerror}") from error


def queue_name(name: bytes) -> bytes:
    """
    @return: the name of a queue for any bytes: what a queue's name may not hold is written C{%2F}, as in a URL.  A name
        that is too long ends with a digest of the whole.
    """
    if all(33 <= byte < 127 and byte != 47 for byte in name) and 0 < len(name) <= _LONGEST_NAME:
        return name
    spelled = b"".join(b"%c" % byte if byte in _PLAIN else b"%%%02X" % byte for byte in name) or b"%"
    if len(spelled) <= _LONGEST_NAME:
        return spelled
    return spelled[: _LONGEST_NAME - 33] + b"~" + digest(name).hex().encode()
