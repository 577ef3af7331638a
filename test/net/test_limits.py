"""Tests of `darner.net.limits`; what clients see of them is in `test.protocol_contract`."""

from __future__ import annotations

from typing import Optional

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from darner.net.limits import (
    ALL_CLIENTS_BYTES,
    CLIENT_BYTES,
    LEAST_CLIENT_BYTES,
    SWEEPS,
    ClientTimeouts,
    Limits,
    client_bytes,
)
from darner.values.stats import ServerStats
from test.front.test_protocol import MemoryTestCase


class ClientBytesTests(SynchronousTestCase):
    def test_by_number(self) -> None:
        self.assertEqual([client_bytes(number) for number in (0, 1, 1000)], [CLIENT_BYTES] * 3)
        self.assertEqual(client_bytes(1_000_000), LEAST_CLIENT_BYTES)
        for number in (4097, 5500, 30_000):
            self.assertLessEqual(number * client_bytes(number), ALL_CLIENTS_BYTES)
            self.assertLess(client_bytes(number), client_bytes(number - 1000))


class Connection:
    """A client that does what the test says."""

    def __init__(self, stalled: bool = False, idle: bool = False, anonymous: bool = False) -> None:
        self.active = True
        self.quiet_since: Optional[float] = None
        self.connected_at = 0.0
        self.anonymous = anonymous
        self.stalled = stalled
        self.idle = idle
        self.end = ""

    def close(self) -> None:
        self.end = "closed"

    def abort(self) -> None:
        self.end = "aborted"


class PatienceTests(SynchronousTestCase):
    def start(self, *connections: Connection, **limits: float) -> None:
        self.clock = Clock()
        self.stats = ServerStats()
        self.connections = set(connections)
        self.patience = ClientTimeouts(Limits(**limits), self.clock, self.connections, self.stats)
        self.patience.update()

    def test_stalled(self) -> None:
        stalled, fine = Connection(stalled=True), Connection()
        self.start(stalled, fine, stall_timeout=8)
        self.clock.pump([1] * 8)
        self.assertEqual(stalled.end, "")
        self.clock.pump([1] * 4)
        self.assertEqual((stalled.end, fine.end, self.stats.idle_kicks), ("aborted", "", 1))

    def test_sign_of_life(self) -> None:
        client = Connection(stalled=True)
        self.start(client, stall_timeout=8)
        for _ in range(10):
            client.active = True
            self.clock.pump([1] * 7)
        self.assertEqual(client.end, "")
        self.clock.pump([1] * 12)
        self.assertEqual(client.end, "aborted")

    def test_never_logs_in(self) -> None:
        """Whatever it sends: the time to log in begins with the connection."""
        client, user = Connection(anonymous=True), Connection()
        self.start(client, user, stall_timeout=8)
        for _ in range(10):
            self.assertLess(self.clock.seconds(), 8 + 8 / SWEEPS)
            client.active = user.active = True
            self.clock.advance(1)
            if client.end:
                break
        self.assertEqual((client.end, user.end), ("aborted", ""))
        self.assertGreaterEqual(self.clock.seconds(), 8)

    def test_never_logs_in_without_a_limit(self) -> None:
        client = Connection(anonymous=True)
        self.start(client, idle_timeout=8)
        self.clock.pump([1] * 100)
        self.assertEqual(client.end, "")

    def test_both(self) -> None:
        """Each has its own time-out; a client that is stalled and idle is disconnected after the shorter."""
        stalled, idle, both = Connection(stalled=True), Connection(idle=True), Connection(True, True)
        self.start(stalled, idle, both, stall_timeout=40, idle_timeout=8)
        self.clock.pump([1] * 12)
        self.assertEqual([client.end for client in (stalled, idle, both)], ["", "closed", "closed"])
        self.connections -= {idle, both}
        self.clock.pump([1] * 48)
        self.assertEqual(stalled.end, "aborted")

    def test_never(self) -> None:
        self.start(Connection(True, True))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nobody_there(self) -> None:
        """There is no timer without clients."""
        client = Connection()
        self.start(stall_timeout=8)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.connections.add(client)
        for _ in range(2):
            self.patience.update()
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.connections.clear()
        self.patience.update()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class CrowdTests(MemoryTestCase):
    """With very many clients, less is buffered for each."""

    def test_held(self) -> None:
        client = self.connect()
        self.queues.client_bytes = LEAST_CLIENT_BYTES
        client.send(b"get q/t=1000\r\n")
        sent = 0
        while client.transport.producerState == "producing":
            client.send(b"version\r\n" * 100)
            sent += 900
            self.assertLess(sent, LEAST_CLIENT_BYTES + 1000)
        self.advance(2)
        self.assertEqual(client.transport.producerState, "producing")
        self.assertEqual(client.receive().count(b"VERSION"), sent // 9)

    def test_as_they_come_and_go(self) -> None:
        self.queues.stats.curr_connections = 8191
        self.queues.joined()
        self.assertEqual(self.queues.client_bytes, CLIENT_BYTES // 2)
        self.queues.stats.curr_connections = 1000
        self.queues.left()
        self.assertEqual(self.queues.client_bytes, CLIENT_BYTES)
