"""
Tests of logs that are shards, and of nodes that are preferred, over the log in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Optional
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from darner.cluster.exits import EXIT_DAMAGED
from darner.cluster.notes import FOLLOWER, JOINING, LEADER, RESIGNED, Note
from darner.cluster.pace import Pace
from darner.cluster.preference import YIELDED, Preference
from darner.cluster.replicated_store import ReplicatedStore
from darner.cluster.shards import check_shard, new_cluster_id, shard_in
from darner.errors import LogDamaged
from darner.values.shards import Shard
from test.cluster.nodes import Cluster, Process


class First(Process):
    """A node of the first of two shards."""

    shard: Optional[Shard] = Shard(1, 2)


class Quick(Process):
    """A node that gives way sooner than others do."""

    pace = Pace(yields=5.0, yields_again=100.0)


class ClusterIdTests(SynchronousTestCase):
    """The id of a cluster says which shard it is."""

    def test_there_and_back(self) -> None:
        for shard in (None, Shard(1, 2), Shard(65535, 65535)):
            made = new_cluster_id(shard)
            self.assertEqual(len(made), 16)
            self.assertEqual(shard_in(made), shard)
            self.assertNotEqual(new_cluster_id(shard), made)
            check_shard(made, shard, "the log")
            check_shard(b"", shard, "nothing yet")
        self.assertIsNone(shard_in(b""))

    def test_wrong(self) -> None:
        error = self.assertRaises(LogDamaged, check_shard, new_cluster_id(Shard(1, 2)), Shard(2, 2), "the log")
        self.assertIn("the log has shard 1 of 2, and this node is told to have shard 2 of 2", str(error))
        error = self.assertRaises(LogDamaged, check_shard, new_cluster_id(None), Shard(2, 2), "the log")
        self.assertIn("the log has all queues", str(error))


class ShardTests(SynchronousTestCase):
    """A node that is told another shard than its log has is refused, and nothing is mixed."""

    def cluster(self) -> Cluster:
        return Cluster(self, process=First)

    def reason(self, process: Process) -> str:
        assert process.ended is not None
        status, reason = process.ended
        self.assertEqual(status, EXIT_DAMAGED)
        return reason

    def test_the_first_claim_says_it(self) -> None:
        cluster = self.cluster()
        self.assertEqual(cluster.leader().client().sets(b"photos", b"one"), b"STORED\r\n")
        cluster.settle()
        self.assertEqual({shard_in(process.store.cluster) for process in cluster.processes}, {Shard(1, 2)})
        first = cluster.leader()
        first.kill()
        self.assertEqual(shard_in(cluster.leader().store.cluster), Shard(1, 2))

    def test_another_one_on_its_data(self) -> None:
        for shard in (Shard(2, 2), Shard(1, 3), None):
            cluster = self.cluster()
            cluster.leader()
            cluster.settle()
            late = cluster.followers()[0]
            late.kill()
            late.shard = shard
            late.start()
            self.assertIn(f"the data directory {late.path} has shard 1 of 2, and this node is told", self.reason(late))
            cluster.end()

    def test_another_one_with_an_empty_directory(self) -> None:
        """It applies nothing of the log."""
        cluster = self.cluster()
        cluster.leader()
        stranger = First(cluster, "stranger", cluster.processes[0]._policies)
        cluster.processes.append(stranger)
        stranger.kill()
        stranger.shard = Shard(2, 2)
        stranger.start()
        cluster.run(1)
        self.assertIn("the log has shard 1 of 2, and this node is told to have shard 2 of 2", self.reason(stranger))
        after = ReplicatedStore(stranger.path)
        self.addCleanup(after.close)
        self.assertEqual((after.position, after.cluster), (0, b""))

    def test_nothing_is_taken_of_another_one(self) -> None:
        """A node whose record is trimmed looks first, so that its data directory stays as it is."""
        cluster = self.cluster()
        cluster.leader()
        cluster.settle()
        cluster.run(3)  # all have said what they follow
        late = cluster.followers()[0]
        joiner = mock.Mock(holding=0)
        late.node._shard = Shard(2, 2)
        late.node._stop_following()
        late.node._join(joiner, mock.Mock())
        cluster.run(1)
        self.assertIn("the log has shard 1 of 2", self.reason(late))
        joiner.take.assert_not_called()

    def test_a_snapshot_of_another_one(self) -> None:
        cluster = self.cluster()
        leader = cluster.leader()
        cluster.settle()
        late = cluster.followers()[0]
        joiner = mock.Mock(holding=0)
        joiner.take.return_value = Deferred()
        late.node.joiner = joiner
        late.node._stop_following()
        other = ReplicatedStore(Path(self.mktemp()))
        self.addCleanup(other.close)
        other.cluster = leader.store.cluster

        async def switch(store: ReplicatedStore) -> ReplicatedStore:
            return other

        joiner.switch = switch
        late.node._join(joiner, mock.Mock())
        cluster.run(1)
        late.node._shard = Shard(2, 2)
        joiner.take.return_value.callback(None)
        self.assertIn(f"the snapshot in {other.path} has shard 1 of 2", self.reason(late))


class PreferenceTests(SynchronousTestCase):
    """The preferred node leads, where it can."""

    def cluster(self, preferred: int = 2) -> Cluster:
        cluster = Cluster(self, process=Quick)
        cluster.processes[preferred].kill()
        cluster.processes[preferred].preferred = True
        cluster.processes[preferred].start()
        return cluster

    def test_it_leads_from_the_beginning(self) -> None:
        for preferred in range(3):
            cluster = self.cluster(preferred)
            self.assertIs(cluster.leader(), cluster.processes[preferred])
            cluster.end()

    def test_another_one_leads_as_soon_as_ever_where_it_is_away(self) -> None:
        cluster = self.cluster()
        leader = cluster.leader()
        cluster.settle()
        began = cluster.clock.seconds()
        leader.kill()
        self.assertIsNot(cluster.leader(), leader)
        self.assertLess(cluster.clock.seconds() - began, 4)

    def test_the_work_is_shared_again_after_a_repair(self) -> None:
        cluster = self.cluster()
        preferred = cluster.leader()
        cluster.settle()
        preferred.kill()
        other = cluster.leader()
        cluster.run(5)
        preferred.start()
        cluster.run(Quick.pace.yields - 1)
        self.assertTrue(other.leads, "not before it has been well for a while")
        self.assertTrue(cluster.run(20, lambda: preferred.leads))
        self.assertIsNone(other.ended, "it has stopped in order")
        other.start()
        cluster.run(10)
        self.assertTrue(preferred.leads)

    def test_it_does_not_flap(self) -> None:
        """A preferred node that cannot serve does not cost an outage again and again."""
        cluster = self.cluster()
        preferred = cluster.leader()
        claims = 0
        with mock.patch.object(preferred, "_lead", side_effect=OSError("the port is taken")):
            preferred.kill()
            other = cluster.leader()
            preferred.start()
            for _ in range(15):
                cluster.run(2)
                for process in cluster.processes:
                    if not process.alive:
                        claims += process is preferred
                        cluster.run(0.5)  # a process is not there at once
                        process.start()
        self.assertEqual(claims, 1)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertFalse(preferred.leads)
        self.assertIsNot(other, preferred)

    def test_a_preferred_leader_does_not_step_down(self) -> None:
        """Also where others are preferred as well."""
        cluster = self.cluster()
        leader = cluster.leader()
        for process in cluster.followers():
            process.kill()
            process.preferred = True
            process.start()
        cluster.run(10)
        self.assertTrue(leader.leads)


class PreferenceRuleTests(SynchronousTestCase):
    """When a leader steps down."""

    def setUp(self) -> None:
        self.pace = Pace()
        self.preference = Preference("a", False, self.pace)
        self.now = 0.0
        self.position = 0

    def heir(self, note: Note, seconds: float = 60.0, yielded: Optional[tuple[bytes, float]] = None) -> Optional[str]:
        """@return: what came of looking for so long, as the log grows, or the first that was found."""
        for _ in range(int(seconds * 5)):
            self.now += 0.2
            self.position += 100
            told = Note(**{**vars(note), "position": note.position or self.position - 100})
            found = self.preference.heir({"b": told, "c": Note(FOLLOWER)}, self.position, yielded, self.now)
            if found is not None:
                return found
        return None

    def test_well(self) -> None:
        self.assertEqual(self.heir(Note(FOLLOWER, preferred=True)), "b")
        self.assertGreaterEqual(self.now, self.pace.yields)

    def test_not_well(self) -> None:
        for note in (
            Note(FOLLOWER), Note(JOINING, preferred=True), Note(LEADER, preferred=True), Note(RESIGNED, preferred=True),
            Note(FOLLOWER, preferred=True, position=1), Note(FOLLOWER, preferred=True, age=1.5),
        ):  # fmt: skip
            self.assertIsNone(self.heir(note), note)

    def test_not_for_long_enough(self) -> None:
        for _ in range(5):
            self.assertIsNone(self.heir(Note(FOLLOWER, preferred=True), 25))
            self.assertIsNone(self.heir(Note(FOLLOWER, preferred=True, age=3), 1))

    def test_not_again_soon(self) -> None:
        self.assertIsNone(self.heir(Note(FOLLOWER, preferred=True), yielded=(b"b", 599)))
        self.assertEqual(self.heir(Note(FOLLOWER, preferred=True), yielded=(b"b", 600)), "b")

    def test_head_start(self) -> None:
        notes = {"a": Note(preferred=True, position=9), "b": Note(FOLLOWER, position=5, preferred=True)}
        self.assertEqual(self.preference.head_start(notes, 5, ""), self.pace.head_start)
        self.assertEqual(self.preference.head_start(notes, 6, ""), 0, "it could not lead")
        self.assertEqual(self.preference.head_start(notes, 5, "b"), 0, "it has led, and does no more")
        self.assertEqual(Preference("a", True, self.pace).head_start(notes, 5, ""), 0)
        self.assertIsNone(Preference("a", True, self.pace).heir(notes, 5, None, 0.0))
        self.assertNotIn("/", YIELDED)
