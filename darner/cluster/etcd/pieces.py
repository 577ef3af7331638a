"""
Records that are too large for one request: cut into pieces, which are written under keys of their own first.

Nobody looks at them until the one transaction that appends the record names them.  Those of an append that failed are
deleted, and those that a process left behind when it died, when records up to their number are trimmed.
"""

from __future__ import annotations

import os
import zlib
from typing import Any

from twisted.internet.defer import DeferredSemaphore, FirstError, ensureDeferred, gatherResults
from twisted.logger import Logger

from darner.cluster.etcd import messages
from darner.cluster.etcd.client import DELETE, PUT, RANGE, EtcdClient
from darner.cluster.etcd.keys import TOKEN_BYTES, Keys, Stored
from darner.cluster.etcd.settings import Sizes
from darner.errors import LogDamaged, LogUnavailable

_PATIENT = 3
"""How many times longer than for another answer one is waited for: many pieces are under way at once."""


class Pieces:
    """Writing and reading the pieces of large records, some at once."""

    _log = Logger()

    def __init__(self, client: EtcdClient, keys: Keys, sizes: Sizes) -> None:
        self._client = client
        self._keys = keys
        self._whole = sizes.whole
        self._size = sizes.piece
        self._room = DeferredSemaphore(sizes.pieces)

    def is_large(self, record: bytes) -> bool:
        """@return: whether a record has to be cut."""
        return len(record) > self._whole

    async def write(self, number: int, record: bytes) -> Stored:
        """
        Write the pieces of a record.

        @return: what its key is to have.
        @raise LogUnavailable: not all could be written; none is left, as far as etcd can be reached.
        """
        upload = os.urandom(TOKEN_BYTES)
        count = -(-len(record) // self._size)
        view = memoryview(record)

        async def put(index: int) -> None:
            piece = bytes(view[index * self._size : (index + 1) * self._size])
            request = messages.PutRequest(key=self._keys.piece(number, upload, index), value=piece)
            await self._client.ask(PUT, request, _PATIENT * self._client.timings.attempt)

        stored = Stored(b"", b"", upload, count, len(record), zlib.crc32(record))
        failed: list[Exception] = []

        async def put_unless_failed(index: int) -> None:
            if not failed:
                try:
                    await put(index)
                except LogUnavailable as error:
                    failed.append(error)

        await gatherResults([self._room.run(put_unless_failed, index) for index in range(count)])
        if failed:
            self.sweep(number, stored)
            raise failed[0]
        return stored

    def sweep(self, number: int, stored: Stored) -> None:
        """
        Delete the pieces of a record that was not appended, without waiting for it.

        Where that fails, they are deleted with what is trimmed.
        """
        request = messages.DeleteRangeRequest(
            key=self._keys.piece(number, stored.upload, 0),
            range_end=self._keys.piece(number, stored.upload, stored.pieces),
        )

        def failed(failure: Any) -> None:
            failure.trap(LogUnavailable)
            self._log.debug("cluster: pieces of record {number} are left: {error}", number=number, error=failure.value)

        ensureDeferred(self._client.ask(DELETE, request)).addErrback(failed)

    async def read(self, number: int, stored: Stored) -> bytes:
        """
        Read a record that was cut.

        @raise LogDamaged: a piece is not there, which it is not either where the record was trimmed meanwhile; or they
            do not make the record.
        @raise LogUnavailable: etcd cannot be reached.
        """

        async def get(index: int) -> bytes:
            key = self._keys.piece(number, stored.upload, index)
            request = messages.RangeRequest(key=key)
            answer = await self._client.ask(RANGE, request, _PATIENT * self._client.timings.attempt)
            if not answer.kvs:
                raise LogDamaged(f"record {number} is damaged: piece {index} of {stored.pieces} is not there")
            value: bytes = answer.kvs[0].value
            return value

        found: list[bytes] = []
        # A record has as many pieces as it needs: those under way are bounded, by the semaphore as well.
        for start in range(0, stored.pieces, 64):
            wanted = range(start, min(start + 64, stored.pieces))
            try:
                found += await gatherResults([self._room.run(get, index) for index in wanted], consumeErrors=True)
            except FirstError as error:
                error.subFailure.raiseException()
        return stored.check(number, b"".join(found))
