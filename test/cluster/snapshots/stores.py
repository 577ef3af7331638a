"""
Stores with records, and nodes that give them over real connections.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from darner.cluster.records import CLAIM, TURN, Record, pack_batch
from darner.cluster.replicated_store import ReplicatedStore
from darner.cluster.snapshots import giving, taking
from darner.cluster.snapshots.giving import Giver
from darner.store.batch import Batch

reactor: Any = global_reactor
CLUSTER = b"c" * 16


def claim(cluster: bytes = CLUSTER) -> Record:
    return Record(CLAIM, cluster, 1, 0, b"node")


def turn(number: int, size: int = 10, cluster: bytes = CLUSTER) -> Record:
    batch = Batch()
    batch.writes.append((b"Zkey%06d" % number, b"x" * size))
    return Record(TURN, cluster, 1, 0, b"node", pack_batch(batch))


def fill(store: ReplicatedStore, to: int, size: int = 10, cluster: bytes = CLUSTER) -> None:
    """Apply records up to a number."""
    for number in range(store.position + 1, to + 1):
        store.apply(number, claim(cluster) if number == 1 else turn(number, size, cluster))


class GivingCase(TestCase):
    """
    A giver at a port of the loopback interface.

    @ivar store: what it gives.
    @ivar address: where.
    """

    def setUp(self) -> None:
        # A machine that is busy with other things is not taken for a peer that is gone.
        self.patch(giving, "PATIENCE", 600.0)
        self.patch(taking, "PATIENCE", 600.0)
        self.store = ReplicatedStore(Path(self.mktemp()))
        self.addCleanup(lambda: self.store.close())
        fill(self.store, 100, 20_000)
        self.giver = Giver(lambda: self.store, reactor, deferToThread)
        self.address = self.listen(self.giver)

    def listen(self, giver: Giver) -> str:
        port = reactor.listenTCP(0, giver, interface="127.0.0.1")

        async def end() -> None:
            await maybeDeferred(port.stopListening)
            await giver.drop()

        self.addCleanup(lambda: Deferred.fromCoroutine(end()))
        return f"127.0.0.1:{port.getHost().port}"
