"""
The bytes of an input as choices: the fuzzer decides by them what happens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final, TypeVar
from zlib import crc32

_T = TypeVar("_T")

_ENDS: Final = 300
"""The number of bytes at either end that are cut byte by byte."""


class Choices:
    """Choices made from bytes; when there are none left, every choice is the first option."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> bool:
        """Whether there are bytes left."""
        return self._at < len(self._data)

    def byte(self) -> int:
        return self.bytes(1)[0] if self.left else 0

    def bytes(self, size: int) -> bytes:
        """@return: the next bytes; fewer if there are not as many."""
        at, self._at = self._at, min(self._at + size, len(self._data))
        return self._data[at : self._at]

    def of(self, values: Sequence[_T]) -> _T:
        """@return: one of at most 256 values."""
        return values[self.byte() % len(values)]


def pieces(data: bytes, seed: bytes) -> Iterator[bytes]:
    """
    Cut bytes at random, the same way whenever data and seed are the same.

    @return: pieces that are not empty and together make C{data}.
    """
    random = Random(crc32(seed))
    at = 0
    while at < len(data):
        # Mostly short ones, as cuts matter at the ends of lines and in the headers of requests.
        size = random.choice((1, 1, 2, 3, 5, 9, 30, 1000, 70_000))
        yield data[at : at + size]
        at += size


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    """@return: single bytes; of long data the first and last hundreds, with large pieces between."""
    for at in range(min(len(data), _ENDS)):
        yield data[at : at + 1]
    middle = max(_ENDS, len(data) - _ENDS)
    for at in range(_ENDS, middle, 30_000):
        yield data[at : min(at + 30_000, middle)]
    for at in range(middle, len(data)):
        yield data[at : at + 1]
