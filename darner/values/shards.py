"""
Which shard a queue is in, where one service consists of several clusters.

`docs/protocol.rst` describes this for clients.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from darner.errors import WrongShard

MOST_SHARDS = 65535


def key_of(name: bytes) -> bytes:
    """@return: the part of a queue's name by which its shard is found, so that children are with their parents."""
    return name.partition(b"+")[0] or name


def shard_of(name: bytes, count: int) -> int:
    """
    @param name: of a queue.
    @param count: how many shards there are.
    @return: the number of its shard, from 1 on.
    """
    return int.from_bytes(sha256(key_of(name)).digest()[:4], "big") % count + 1


@dataclass(frozen=True)
class Shard:
    """
    One of several shards.

    @ivar number: which one, from 1 on.
    @ivar count: how many there are.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def has(self, name: bytes) -> bool:
        """@return: whether a queue is in this shard."""
        return shard_of(name, self.count) == self.number

    def check(self, name: bytes) -> None:
        """@raise WrongShard: a queue is in another shard."""
        right = shard_of(name, self.count)
        if right != self.number:
            raise WrongShard(name, right, self.number, self.count)


def parse_shard(text: str) -> Shard:
    """
    @param text: C{K/N}.
    @raise ValueError: it is of another form, or there is no such shard.
    """
    number, slash, count = text.partition("/")
    decimal = text.isascii() and number.isdecimal() and count.isdecimal()
    if not (slash and decimal and len(count) < 6 and len(number) < 6):
        raise ValueError(f"{text!r} is not of the form K/N, such as 1/4")
    shard = Shard(int(number), int(count))
    if not 1 <= shard.number <= shard.count <= MOST_SHARDS:
        raise ValueError(f"{text!r}: K is from 1 to N, and N up to {MOST_SHARDS}")
    return shard
