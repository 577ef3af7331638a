"""
Tests of the clients of the torture: over a cluster in memory they notice a server that is wrong.
"""

from __future__ import annotations

import random
from typing import Any, Optional
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from bench.cluster_client import ATTEMPTS, Client
from darner.config.policies import Policies, QueueSettings
from darner.queues.collection import Queues
from darner.queues.fifo import Fifo
from darner.queues.producer_ids import ProducerIds
from darner.queues.putting import Puts
from darner.queues.retries import Retries
from test import harness
from test.cluster.checker import Fault
from test.cluster.nodes import Cluster, Process


class MemoryClient(Client):
    """A client of nodes in this process, which kills the leader now and then while it waits for an answer."""

    def __init__(self, cluster: Cluster, seed: int, deadliness: float) -> None:
        """@param deadliness: how likely a request is its leader's last one."""
        super().__init__([], str(seed), 0, lambda: cluster.processes[0].wall())
        self._cluster = cluster
        self._deaths = random.Random(seed)
        self._deadliness = deadliness
        self._leader: Optional[Process] = None
        self._connection: Any = None
        self._lost = False  # Its leader was killed behind an answer, so the connection has nobody at its other end.
        self.kills = 0

    def ask(self, request: bytes) -> Optional[bytes]:
        if self._lost:
            self._lost = False
            return None
        if self._leader is None:
            self._leader = self._cluster.leader()
            self._connection = self._leader.client()
        line, _, payload = request.partition(b"\r\n")
        if line.startswith(b"set "):
            self._connection.set(line.split(b" ")[1], payload[:-2])
        else:
            self._connection.ask(line)
        if self._deaths.random() < self._deadliness:
            for _ in range(self._deaths.randrange(6)):
                self._cluster.clock.advance(0)
            self._leader.kill()
            self._leader.start()
            self._leader = None
            self.kills += 1
            answer = self._answer(self._connection.hears())
            self._lost = answer is not None
            return answer
        self._leader.commit()
        heard = b""

        def answered() -> bool:
            nonlocal heard
            heard += self._connection.hears()
            return self._answer(heard) is not None

        if not self._cluster.run(30, answered):
            raise AssertionError(f"{heard!r} to {line!r}")
        return self._answer(heard)

    def _answer(self, heard: bytes) -> Optional[bytes]:
        """@return: as L{ask}; C{None} also while something is missing."""
        line, end, rest = heard.partition(b"\r\n")
        if not line.startswith(b"VALUE"):
            return line + end or None
        size = int(line.split()[3])
        return b"=" + rest[:size] if len(rest) == size + 7 else None


class MemoryClientTests(SynchronousTestCase):
    """L{Client}, and the model that it has of its queues."""

    def client(self, seed: int = 1, deadliness: float = 0.0) -> MemoryClient:
        limits = {"max_attempts": ATTEMPTS, "dead_letter_queue": "dead0"}
        policies = Policies(QueueSettings(dedupe_window=3600.0), {"tried0": limits})
        self.cluster = Cluster(self, policies=policies)
        return MemoryClient(self.cluster, seed, deadliness)

    def test_right(self) -> None:
        for seed in range(3):
            client = self.client(seed, 0.05)
            client.prepare()
            for _ in range(400):
                client.step()
            self.cluster.settle()
            stores = [process.store.shared() for process in self.cluster.processes]
            self.assertEqual(stores[1:], stores[:1] * 2)
            client.empty()
            self.assertGreater(client.kills, 10)
            for what in ("large", "with ids", "delayed", "put again", "dead letters", "closed", "given back", "moved"):
                self.assertGreater(client.done[what], 0, what)

    def found(self, text: str, place: type, name: str, wrong: Any) -> None:
        """A server with a wrong method is found out."""
        client = self.client()
        with mock.patch.object(place, name, wrong):
            client.prepare()
            with self.assertRaises(Fault) as raised:
                for _ in range(2000):
                    client.step()
        self.assertIn(text, str(raised.exception).splitlines()[0])

    @harness.from_source
    def test_ignores_delays(self) -> None:
        self.found("before its time", Puts, "_delay", staticmethod(lambda fifo, options: 0))

    @harness.from_source
    def test_leaves_a_child_out(self) -> None:
        put_on = Puts._put_on

        def wrong(self: Puts, fifos: list[Fifo], *arguments: Any) -> None:
            put_on(self, fifos[: len(fifos) - (arguments[2] % 3 == 0) or 1], *arguments)

        self.found("jobs0+copy: ", Puts, "_put_on", wrong)

    @harness.from_source
    def test_loses_dead_letters(self) -> None:
        self.found("dead0: ", Fifo, "move_to_dead_letters", lambda self, item: self.storage.consume(item))

    @harness.from_source
    def test_counts_no_attempts(self) -> None:
        self.found("tried0: ", Retries, "exhausted", lambda self, id: False)

    @harness.from_source
    def test_loses_what_it_moves(self) -> None:
        move = Queues.move

        def wrong(self: Queues, fifo: Fifo, item: Any, target: bytes, *removal: Any) -> None:
            if target == b"moved0":
                fifo.storage.consume(item)
            else:
                move(self, fifo, item, target, *removal)

        self.found("moved0: ", Queues, "move", wrong)

    @harness.from_source
    def test_moves_twice(self) -> None:
        move = Queues.move

        def wrong(self: Queues, fifo: Fifo, item: Any, target: bytes, *removal: Any) -> None:
            move(self, fifo, item, target, *removal)
            if target == b"moved0":
                self.existing(target).put(item.flags, item.expiry, item.size, item.payload, item.stream, True)

        self.found("moved0: ", Queues, "move", wrong)

    @harness.from_source
    def test_forgets_ids(self) -> None:
        self.found("jobs0: ", ProducerIds, "find", lambda self, id: None)
