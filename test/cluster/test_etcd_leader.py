"""
Tests of which etcd the log prefers.
"""

from __future__ import annotations

from typing import Any, Optional

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from darner.cluster.etcd import messages
from darner.cluster.etcd.client import STATUS, EtcdClient, EtcdError, Method


class ToldClient(EtcdClient):
    """
    A client of etcds that say who leads; they are members 1, 2 and so on.

    @ivar says: what each says; C{None} if it does not answer.
    """

    def __init__(self, *says: Optional[int], current: int) -> None:
        super().__init__(Clock(), [f"etcd{number}:1" for number in range(len(says))])
        self.says = says
        self.asked: list[int] = []
        self._current = current

    def _call(
        self, method: Method, request: Any, timeout: Optional[float], index: Optional[int] = None
    ) -> Deferred[Any]:
        assert method is STATUS
        assert index is not None
        self.asked.append(index)
        leader = self.says[index]
        if leader is None:
            return fail(EtcdError(f"etcd{index}", "DEADLINE_EXCEEDED", "late"))
        return succeed(messages.StatusResponse(header={"member_id": index + 1}, leader=leader))


class PreferLeaderTests(SynchronousTestCase):
    """Requests go to the etcd that leads, as the one says that serves."""

    def prefers(self, *says: Optional[int], current: int) -> int:
        client = ToldClient(*says, current=current)
        self.successResultOf(Deferred.fromCoroutine(client.prefer_leader()))
        return client._current

    def test_leader(self) -> None:
        self.assertEqual(self.prefers(3, 3, 3, current=0), 2)
        self.assertEqual(self.prefers(2, 2, None, current=1), 1)

    def test_cut_off(self) -> None:
        """One that is cut off still takes itself for the leader: it is not gone back to."""
        self.assertEqual(self.prefers(1, 3, 3, current=1), 2)
        self.assertEqual(self.prefers(1, 2, 2, current=1), 1)

    def test_unknown(self) -> None:
        """Where it is not found, all stays as it is."""
        self.assertEqual(self.prefers(1, 0, 1, current=1), 1)
        self.assertEqual(self.prefers(1, None, 1, current=1), 1)
        self.assertEqual(self.prefers(None, 1, 1, current=1), 1)

    def test_nothing_to_choose(self) -> None:
        client = ToldClient(1, current=0)
        self.successResultOf(Deferred.fromCoroutine(client.prefer_leader()))
        self.assertEqual(client.asked, [])
