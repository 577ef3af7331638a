"""
Several nodes of a cluster in one process, over the log in memory, by a clock that the test advances.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Optional

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from darner.cluster import patience
from darner.cluster.memory_log import MemoryLog, MemoryMember
from darner.cluster.node import Node
from darner.cluster.notes import LEADER
from darner.cluster.pace import Pace
from darner.cluster.replicated_store import ReplicatedStore
from darner.config.policies import Policies
from darner.queues.collection import Queues
from darner.queues.head import WINDOW_BYTES
from darner.queues.surroundings import Surroundings
from darner.values.shards import Shard
from test.harness import EPOCH, Client


class MortalClock(Clock):
    """The clock of one process: what it has to do is not done any more once the process is dead."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._shared = clock
        self.dead = False

    def seconds(self) -> float:
        return self._shared.seconds()

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kw: object) -> IDelayedCall:
        def call() -> None:
            if not self.dead:
                callable(*args, **kw)

        return self._shared.callLater(delay, call)


class Process:
    """
    A node, and the queues that it serves while it leads, as one process.

    @ivar queues: while it leads.
    @ivar shard: what it is told to have, at the next start.
    @ivar preferred: whether it is to lead rather than others, from the next start on.
    @ivar ended: exit status and reason, once the node has ended the process.
    """

    node_class = Node
    shard: Optional[Shard] = None
    preferred = False
    pace = Pace()
    window_bytes = WINDOW_BYTES

    def __init__(self, cluster: Cluster, name: str, policies: Policies) -> None:
        self._cluster = cluster
        self.name = name
        self.path = cluster.directory / name
        self._policies = policies
        self.set_by = 0.0
        self.ended: Optional[tuple[int, str]] = None
        self.start()

    def start(self) -> None:
        self.clock = MortalClock(self._cluster.clock)
        self.log: MemoryMember = self._cluster.log.member()
        self.store = ReplicatedStore(self.path)
        self.queues: Any = None
        self.ended = None
        self.node = self.node_class(
            self.log, self.store, self.name, self.clock, self.wall, maybeDeferred, self._lead, self.stop, self._end,
            pace=self.pace, shard=self.shard, preferred=self.preferred,
        )  # fmt: skip
        self.node.start()

    def wall(self) -> float:
        return EPOCH + self.set_by + self.clock.seconds()

    def _lead(self) -> None:
        surroundings = Surroundings(
            self.clock, lambda call: self.clock.callLater(0, call), maybeDeferred, self.wall
        )
        self.queues = Queues(self.store, surroundings, self._policies, window_bytes=self.window_bytes)
        self.queues.start()

    def _end(self, status: int, reason: str) -> None:
        self.kill()
        self.ended = (status, reason)

    def kill(self) -> None:
        """As C{kill -9}."""
        if not self.clock.dead:
            self.clock.dead = True
            self.log.close()
            self.store.close()

    def stop(self) -> None:
        """As SIGTERM."""

        async def stop() -> None:
            if self.queues is not None:
                await self.queues.stop()
            await self.node.stop()
            self.kill()

        Deferred.fromCoroutine(stop())

    @property
    def alive(self) -> bool:
        return not self.clock.dead

    @property
    def leads(self) -> bool:
        return self.alive and self.node.role == LEADER

    def client(self) -> Client:
        return Client(self)  # type: ignore[arg-type]

    def commit(self) -> None:
        """Run everything that is due now."""
        for _ in range(20):
            self._cluster.clock.advance(0)


class Cluster:
    """
    Nodes that share a log.

    @ivar processes: one for each node.
    """

    def __init__(
        self, case: SynchronousTestCase, size: int = 3, policies: Optional[Policies] = None,
        process: type[Process] = Process, max_record_bytes: int = 64 << 20,
    ) -> None:  # fmt: skip
        # What nodes do at random, they do the same way each time.
        case.patch(patience, "random", Random(1))
        self.clock = Clock()
        self.log = MemoryLog(self.clock, max_record_bytes)
        self.directory = Path(case.mktemp())
        self.directory.mkdir()
        self.processes = [process(self, f"node{number}", policies or Policies()) for number in range(size)]
        case.addCleanup(self.end)

    def end(self) -> None:
        for process in self.processes:
            process.kill()

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass.  @return: whether C{until} came true, which ends it early."""
        stop = self.clock.seconds() + seconds
        while not until():
            if self.clock.seconds() >= stop:
                return False
            self.clock.advance(0.05)
            for _ in range(3):
                self.clock.advance(0)
        return True

    @property
    def leaders(self) -> list[Process]:
        return [process for process in self.processes if process.leads]

    def leader(self) -> Process:
        """@return: the one that leads; waits for it."""
        if not self.run(10, lambda: len(self.leaders) == 1):
            raise AssertionError(f"{self.leaders} lead, {[process.ended for process in self.processes]}")
        return self.leaders[0]

    def followers(self) -> list[Process]:
        return [process for process in self.processes if process.alive and not process.leads]

    def settle(self) -> None:
        """Wait until all are at the same position."""

        def level() -> bool:
            return len({process.store.position for process in self.processes if process.alive}) == 1

        if not self.run(10, level):
            raise AssertionError([process.store.position for process in self.processes])
