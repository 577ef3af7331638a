"""
The queues of one shard.
"""

from __future__ import annotations

from typing import Optional

from darner.config.clusters import check_within
from darner.config.policies import Policies
from darner.queues.collection import Queues
from darner.queues.fifo import Fifo
from darner.values.shards import Shard


class ShardedQueues(Queues):
    """
    As L{Queues}, but there are no queues of other shards, whoever asks for one.

    Front ends refuse a request for one before they do anything for it; this is for what they do not know of.

    @ivar shard: which one.
    """

    shard: Optional[Shard] = None

    def make(self, name: bytes) -> Fifo:
        """
        As L{Queues.make}.

        @raise darner.errors.WrongShard: it is a queue of another shard.
        """
        if self.shard is not None and self.find(name) is None:
            self.shard.check(name)
        return super().make(name)

    def apply(self, policies: Policies) -> None:
        """
        As L{Queues.apply}.

        @raise darner.errors.SettingsError: they would move items to another shard; nothing is changed.
        """
        if self.shard is not None:
            check_within(self.shard, policies)
        super().apply(policies)

    def check_queue(self, name: bytes) -> None:
        """
        As L{Queues.check_queue}.

        @raise darner.errors.WrongShard: it is a queue of another shard.
        """
        if self.shard is not None:
            self.shard.check(name)
        super().check_queue(name)
