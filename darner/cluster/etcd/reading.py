"""
Reading records.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from darner.cluster.etcd import messages
from darner.cluster.etcd.client import TXN, EtcdClient
from darner.cluster.etcd.keys import Keys, Stored, read_first, read_head, read_stored
from darner.cluster.etcd.pieces import Pieces
from darner.cluster.etcd.settings import Sizes
from darner.errors import LogDamaged, LogTrimmed


class Bounds(NamedTuple):
    """
    Where the log begins and ends.

    @ivar first: the lowest number that is not trimmed.
    @ivar last: the number of the last record.
    @ivar revision: etcd's, of which this is so.
    """

    first: int
    last: int
    revision: int


class Reader:
    """Reads records, as they are at one revision of etcd's."""

    def __init__(self, client: EtcdClient, keys: Keys, pieces: Pieces, sizes: Sizes) -> None:
        self._client = client
        self._keys = keys
        self._pieces = pieces
        self._most = sizes.records
        self._limit = 4

    async def bounds(self, *more: Any) -> tuple[Bounds, Any]:
        """
        @param more: what is to be read at the same revision.
        @return: the bounds, and the answer.
        @raise LogUnavailable: etcd did not answer in time.
        """
        request = messages.TxnRequest(success=[messages.get(self._keys.first), messages.get(self._keys.head), *more])
        answer = await self._client.ask(TXN, request)
        first, head = (
            found.response_range.kvs[0].value if found.response_range.kvs else None for found in answer.responses[:2]
        )
        return Bounds(read_first(first), read_head(head).number, answer.header.revision), answer

    async def read(self, after: int, max_bytes: int) -> tuple[list[tuple[int, bytes]], Bounds]:
        """
        @return: records as L{darner.cluster.interfaces.ILog.read} promises, and the bounds as of the last look.
        @raise LogTrimmed: the next record is gone.
        @raise LogDamaged: the next record cannot be read.
        """
        found: list[tuple[int, bytes]] = []
        size = 0
        while True:
            bounds, answer = await self.bounds(
                messages.get(*self._keys.records(after + 1), limit=min(self._limit, self._most))
            )
            try:
                self._check(after + 1, bounds)
                for kv in answer.responses[2].response_range.kvs:
                    number = self._keys.number(kv.key)
                    if number != after + 1:
                        break
                    record = await self.record(number, read_stored(number, kv.value))
                    found.append((number, record))
                    after = number
                    size += len(record)
                    if size >= max_bytes:
                        break
                else:
                    if after == bounds.last:
                        return found, bounds
                    if not answer.responses[2].response_range.kvs:
                        raise LogDamaged(f"record {after + 1} is missing: the log has {bounds.first} to {bounds.last}")
            except (LogTrimmed, LogDamaged):
                if found:
                    return found, bounds
                raise
            if found:
                self._adapt(size // len(found))
            if size >= max_bytes:
                return found, bounds

    def _check(self, number: int, bounds: Bounds) -> None:
        if number < bounds.first:
            raise LogTrimmed(f"record {number} is trimmed: the first one is {bounds.first}")
        if number > bounds.last + 1:
            raise LogDamaged(f"the log ends with record {bounds.last}: it has lost record {number - 1}")

    def _adapt(self, mean: int) -> None:
        """Read as many at once as make a MiB, if the next ones are like these."""
        self._limit = max(1, min(2 * self._limit, (1 << 20) // (mean + 1), self._most))

    async def record(self, number: int, stored: Stored) -> bytes:
        """
        @return: the record that is stored so.
        @raise LogTrimmed: its pieces were trimmed meanwhile.
        @raise LogDamaged: it cannot be read.
        """
        if not stored.upload:
            return stored.record
        try:
            return await self._pieces.read(number, stored)
        except LogDamaged:
            bounds, _ = await self.bounds()
            self._check(number, bounds)
            raise
