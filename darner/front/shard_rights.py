"""
Rights where the server has the queues of one shard only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from darner.config.settings import Rights
from darner.front.access import NAMES, Grant
from darner.values.shards import Shard

EVERYTHING: Final = Grant(Rights(admin=("*",)))


class Here:
    """
    To be asked in place of a user (L{darner.values.requests.Permissions}).

    Each request asks for a right to each queue that it names; this raises L{darner.errors.WrongShard} at the first one
    of another shard.

    @ivar has: whether a queue is in this shard.
    """

    everything = True

    def __init__(self, shard: Shard) -> None:
        self.has: Callable[[bytes], bool] = lru_cache(NAMES)(shard.has)
        self._shard = shard

    def may_read(self, queue: bytes) -> bool:
        if not self.has(queue):
            self._shard.check(queue)
        return True

    may_write = may_administrate = may_see = may_read


class ShardGrant(Grant):
    """The rights of a user, on the queues of one shard."""

    def __init__(self, here: Here, grant: Grant) -> None:
        self._has = here.has
        self._grant = grant
        self.everything = grant.everything
        self.sees_all = grant.sees_all

    def may_read(self, queue: bytes) -> bool:
        return self._has(queue) and self._grant.may_read(queue)

    def may_write(self, queue: bytes) -> bool:
        return self._has(queue) and self._grant.may_write(queue)

    def may_administrate(self, queue: bytes) -> bool:
        return self._has(queue) and self._grant.may_administrate(queue)
