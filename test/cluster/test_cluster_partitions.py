"""
Tests of a real cluster in network namespaces, whose network is cut.
"""

from __future__ import annotations

from unittest import SkipTest, skipIf

from twisted.trial.unittest import SynchronousTestCase

from bench.cluster_network import Network, missing
from bench.cluster_probe import Answer, Probe
from bench.cluster_torture import Torture
from bench.server_log import unhandled
from test.cluster.etcd_servers import ETCD


@skipIf(ETCD is None, "there is no etcd")
class PartitionTests(SynchronousTestCase):
    """Nothing is lost, nothing is there twice, the order is kept, and never do two nodes answer."""

    def test_no_answers_from_etcd(self) -> None:
        """What the leader asks of etcd is done, but no answer comes back, while clients reach it."""
        reason = missing()
        if reason is not None:
            raise SkipTest(reason)
        torture = Torture(2, 7, network=Network())
        self.addCleanup(torture.remove)
        self.addCleanup(torture.end)
        torture.run(1, ["partition"], 0.5)
        self.assertEqual(torture.compared, 2)
        self.assertEqual(list(torture.silences()), ["partition, the leader hears no etcd"])
        for node in torture.nodes:
            self.assertEqual(unhandled(node.output.read_text(), ["cluster: the node ends (status 70)"]), [])


class ProbeTests(SynchronousTestCase):
    """What is made of answers."""

    def probe(self, *answers: tuple[float, float, int]) -> Probe:
        probe = Probe([], str)
        probe.answers = [Answer(sent, answered, node, f"node{node}") for sent, answered, node in answers]
        return probe

    def test_two_that_answer(self) -> None:
        """A node must not answer what it was asked after a later leader had answered."""
        self.probe((1, 2, 0), (3, 6, 0), (4, 5, 1), (7, 8, 1)).check()
        error = self.assertRaises(AssertionError, self.probe((1, 2, 0), (4, 5, 1), (5.5, 6, 0), (7, 8, 1)).check)
        self.assertEqual(str(error), "node0 answered what it was asked 0.500 s after node1 had answered")

    def test_outage(self) -> None:
        """The longest time without an answer."""
        probe = self.probe((0, 1, 0), (1, 2, 0), (4, 5, 1), (6, 7, 1))
        self.assertEqual(probe.outage(0, 7), 3)
        self.assertEqual(probe.outage(5, 11), 4)
        self.assertEqual(probe.outage(2, 10), 3)
        self.assertEqual(probe.outage(20, 30), 10)

    def test_within(self) -> None:
        """Only what was both asked and answered in that time."""
        self.assertEqual(self.probe((0, 1, 0), (1, 2, 0), (2, 4, 0), (3, 3.5, 1)).within(1, 3.5), 2)
