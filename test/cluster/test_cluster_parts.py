"""
Tests of the parts of a node: notes, trimming, the status site, appending, the store.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest
from zope.interface.verify import verifyObject

from darner.cluster.appends import append_surely
from darner.cluster.exits import EXIT_DAMAGED, EXIT_LEAD, EXIT_STORE
from darner.cluster.memory_log import MemoryLog
from darner.cluster.notes import LEADER, STEP_DOWN, Note, read_notes
from darner.cluster.operating import NoLeader, status, step_down
from darner.cluster.records import CLAIM, PART, TURN, Record
from darner.cluster.replicated_store import ReplicatedStore
from darner.cluster.status_site import make_site
from darner.cluster.trimming import KEPT_BYTES, trim_to
from darner.config.clusters import ClusterLog, parse_cluster
from darner.config.settings import make_settings
from darner.errors import LogConflict, LogDamaged, SettingsError, StoreError, StoreUnusable
from darner.rescue.repair import check
from darner.store import records
from darner.store.batch import Batch
from darner.store.interfaces import IReplicatedStore
from darner.store.leveldb import LevelStore
from test.cluster.nodes import Cluster

ID = b"c" * 16


class NoteTests(SynchronousTestCase):
    """L{Note} and what is made of notes."""

    def test_there_and_back(self) -> None:
        note = Note(LEADER, 3, 4, 5, "address", "1.0", "cluster", "host:1", "secret", 6, True, 6.0)
        self.assertEqual(Note.from_bytes(note.to_bytes(), 6.0), note)

    def test_other_versions(self) -> None:
        self.assertEqual(Note.from_bytes(b'{"role": "leader", "more": 1}', 2.0), Note(LEADER, age=2.0))
        values = {"a": (b"nonsense", 0.0), "b": (b'{"position": []}', 0.0), STEP_DOWN: (b"{}", 0.0), "c": (b"{}", 0.0)}
        self.assertEqual(read_notes(values), {"c": Note()})

    def test_trimming(self) -> None:
        """A majority has it on stable storage, and so have all that are alive while the log is small."""

        def notes(*durable: int, age: float = 0.0) -> dict[str, Note]:
            return {str(number): Note(durable=value, age=age) for number, value in enumerate(durable)}

        self.assertEqual(trim_to({}, 3, 0), 0)
        self.assertEqual(trim_to(notes(9), 3, 0), 0)
        self.assertEqual(trim_to(notes(9), 1, 0), 9)
        self.assertEqual(trim_to(notes(9, 8), 3, 0), 8)
        self.assertEqual(trim_to(notes(9, 8, 2), 3, 0), 2)
        self.assertEqual(trim_to(notes(9, 8, 2), 3, KEPT_BYTES + 1), 8)
        self.assertEqual(trim_to(notes(9, 8, 2, age=1e6), 3, 0), 8)
        self.assertEqual(trim_to(notes(9, 8, 7, 6, 5), 3, KEPT_BYTES + 1), 7)


class SettingsTests(SynchronousTestCase):
    """Where the log is."""

    def test_urls(self) -> None:
        self.assertEqual(parse_cluster("etcd://a:1,[::1]:2/jobs"), ClusterLog(("a:1", "[::1]:2"), "jobs", False))
        self.assertTrue(parse_cluster("etcds://a.example:1/jobs").tls)
        for url in ("etcd://a:1", "etcd:///jobs", "http://a:1/jobs", "etcd://a/jobs", "etcd://a:1,/jobs", "etcd://a:1/"):
            self.assertRaises(ValueError, parse_cluster, url)

    def test_settings(self) -> None:
        settings = make_settings({"cluster": "etcd://a:1/jobs", "cluster_user": "none"}, "file")
        self.assertEqual((settings.cluster, settings.cluster_user), ("etcd://a:1/jobs", None))
        error = self.assertRaises(SettingsError, make_settings, {"cluster": "etcd://a"}, "file")
        self.assertIn("is not of the form etcd://HOST:PORT", str(error))


class StoreTests(SynchronousTestCase):
    """L{ReplicatedStore}."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.store = ReplicatedStore(self.path)
        self.addCleanup(lambda: self.store.close())

    def record(self, kind: int, body: bytes = b"", claim: int = 1, cluster: bytes = ID) -> Record:
        return Record(kind, cluster, claim, 0, b"node", body)

    def body(self, queue: bytes) -> bytes:
        batch = Batch()
        batch.create(queue, 0, 1)
        batch.writes.append((records.NUMBERS_KEY, records.pack_u64(1024)))
        return batch.to_bytes()

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IReplicatedStore, self.store))

    def test_position(self) -> None:
        """It is kept with what was written."""
        self.store.apply(1, self.record(CLAIM))
        self.store.apply(2, self.record(TURN, self.body(b"jobs")))
        self.store.apply(3, self.record(TURN))
        self.store.close()
        self.store = ReplicatedStore(self.path)
        self.assertEqual((self.store.position, self.store.cluster), (3, ID))
        self.assertEqual([state.name for state in self.store.recover()], [b"jobs"])

    def test_parts(self) -> None:
        """A turn in parts is applied when it is complete; it is void when somebody else leads."""
        body = self.body(b"jobs")
        self.store.apply(1, self.record(PART, b"nothing of it is used"))
        self.store.apply(2, self.record(CLAIM, claim=2))
        self.store.apply(3, self.record(PART, body[:5], 2))
        self.assertEqual((self.store.position, self.store.received), (2, 3))
        self.assertRaises(LogDamaged, self.store.apply, 4, self.record(TURN, body[5:], 1))
        self.store.apply(4, self.record(PART, body[5:9], 2))
        self.store.apply(5, self.record(TURN, body[9:], 2))
        self.assertEqual((self.store.position, self.store.received), (5, 5))
        self.assertEqual([state.name for state in self.store.recover()], [b"jobs"])

    def test_what_does_not_fit(self) -> None:
        self.assertRaises(LogDamaged, self.store.apply, 2, self.record(CLAIM))
        self.store.apply(1, self.record(CLAIM))
        self.assertRaises(LogDamaged, self.store.apply, 1, self.record(CLAIM))
        self.assertRaises(LogDamaged, self.store.apply, 3, self.record(TURN))
        self.assertRaises(LogDamaged, self.store.apply, 2, self.record(TURN, cluster=b"d" * 16))
        self.assertRaises(LogDamaged, self.store.apply, 2, self.record(TURN, b"nonsense"))
        self.assertEqual(self.store.position, 1)

    def test_not_past_the_log(self) -> None:
        self.assertRaises(StoreError, self.store.write, Batch())

    def test_only_with_the_cluster(self) -> None:
        """A server alone does not open it, and it is sound; a repaired one does not belong to the log any more."""
        self.store.apply(1, self.record(CLAIM))
        self.store.apply(2, self.record(TURN, self.body(b"jobs")))
        self.store.close()
        self.assertIn("start it with --cluster", str(self.assertRaises(StoreUnusable, LevelStore, self.path)))
        report = check(self.path)
        self.assertTrue(report.sound, report.lines())


class AppendTests(SynchronousTestCase):
    """L{append_surely}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.log = MemoryLog(self.clock)
        self.member = self.log.member()

    def append(self, number: int, record: bytes = b"record") -> Deferred[None]:
        return Deferred.fromCoroutine(append_surely(self.member, self.clock, number, record))

    def run_on(self, seconds: float = 1.0) -> None:
        self.clock.pump([0.05] * int(seconds * 20))

    def test_in_doubt_and_out_of_reach(self) -> None:
        """It waits, as long as it takes, until it can find out."""
        for done in (True, False):
            self.member.doubtful = [done]
            self.member.delay = 0.01
            appending = self.append(self.log.last + 1)
            self.clock.advance(0.01)
            self.member.unavailable = True
            self.run_on(5)
            self.assertNoResult(appending)
            self.member.unavailable = False
            self.run_on()
            self.successResultOf(appending)
        self.assertEqual(self.log.records, {1: b"record", 2: b"record"})

    def test_out_of_reach(self) -> None:
        self.member.unavailable = True
        appending = self.append(1)
        self.run_on()
        self.assertNoResult(appending)
        self.member.unavailable = False
        self.run_on()
        self.successResultOf(appending)

    def test_another_record(self) -> None:
        self.log.appended(1, b"of another")
        appending = self.append(1)
        self.run_on()
        self.failureResultOf(appending, LogConflict)

    def test_nothing_before(self) -> None:
        appending = self.append(3)
        self.run_on()
        self.failureResultOf(appending, LogDamaged)

    def test_trimmed(self) -> None:
        self.log.appended(1, b"of another")
        self.log.appended(2, b"of another")
        self.member.trim(2)
        appending = self.append(1)
        self.run_on()
        self.failureResultOf(appending, LogConflict)


class NodeTests(SynchronousTestCase):
    """What else a node does."""

    def test_status_site(self) -> None:
        cluster = Cluster(self)
        leader = cluster.leader()
        cluster.settle()
        for process in cluster.processes:
            for path, query, code in (
                (b"/health", b"", 200 if process.leads else 503), (b"/health", b"?live", 200), (b"/metrics", b"", 200),
                (b"/ping", b"", 200), (b"/other", b"", 404),
            ):  # fmt: skip
                request: Any = DummyRequest([])
                request.path, request.uri = path, path + query
                body = make_site(process.node).resource.render_GET(request)
                self.assertEqual(request.responseCode or 200, code)
                if path == b"/health":
                    told = json.loads(body)
                    self.assertEqual((told["ok"], told["leader"]), (process.leads, leader.name))
                elif path == b"/metrics":
                    self.assertIn(b"\ndarner_cluster_leads %d\n" % process.leads, body)
                    self.assertIn(b"# TYPE darner_cluster_failovers_total counter\n", body)
                    self.assertIn(b"\ndarner_cluster_snapshots_given_total 0\n", body)

    def test_status_and_step_down(self) -> None:
        cluster = Cluster(self)
        leader = cluster.leader()
        follower = cluster.followers()[0]
        log = cluster.log.member()
        self.assertEqual(leader.client().sets(b"jobs", b"one"), b"STORED\r\n")
        follower.kill()
        cluster.run(3)
        asking = Deferred.fromCoroutine(status(log, cluster.clock))
        cluster.run(4)
        told = self.successResultOf(asking)
        self.assertEqual((told["leader"], told["last"]), (leader.name, cluster.log.last))
        self.assertEqual({node["name"]: node["role"] for node in told["nodes"]}[follower.name], "gone")
        asking = Deferred.fromCoroutine(step_down(log, cluster.clock))
        cluster.run(6)
        self.successResultOf(asking)
        self.assertFalse(leader.alive)
        self.assertIsNot(cluster.leader(), leader)
        cluster.end()
        asking = Deferred.fromCoroutine(step_down(log, cluster.clock))
        cluster.run(6)
        self.failureResultOf(asking, NoLeader)

    def test_no_room(self) -> None:
        """Puts are refused where the leader's disk is full; what else is in the turn is done."""
        cluster = Cluster(self)
        leader = cluster.leader()
        one, other = leader.client(), leader.client()
        self.assertEqual(one.sets(b"jobs", b"one"), b"STORED\r\n")
        full = mock.patch.object(leader.store, "check_room", mock.Mock(side_effect=StoreError("no room")))
        with full:
            one.set(b"jobs", b"two")
            self.assertEqual(other.does(b"get jobs"), b"VALUE jobs 0 3\r\none\r\nEND\r\n")
            self.assertEqual(one.hears(), b"SERVER_ERROR no room\r\n")
        self.assertEqual(other.does(b"get jobs"), b"END\r\n")
        self.assertEqual(one.sets(b"jobs", b"three"), b"STORED\r\n")
        leader.kill()
        self.assertEqual(cluster.leader().client().does(b"get jobs"), b"VALUE jobs 0 5\r\nthree\r\nEND\r\n")

    def test_cannot_write(self) -> None:
        """A node that cannot write what the log has ends, without an answer."""
        cluster = Cluster(self)
        leader = cluster.leader()
        client = leader.client()
        with mock.patch.object(LevelStore, "write", mock.Mock(side_effect=StoreError("broken"))):
            client.set(b"jobs", b"one")
            cluster.run(1)
        self.assertEqual(client.hears(), b"")
        for process in cluster.processes:
            self.assertEqual(process.ended and process.ended[0], EXIT_STORE)
            process.start()
        self.assertEqual(cluster.leader().client().does(b"get jobs"), b"VALUE jobs 0 3\r\none\r\nEND\r\n")

    def test_internal_error(self) -> None:
        """An error while a turn is packed refuses its puts; others are not concerned."""
        cluster = Cluster(self)
        leader = cluster.leader()
        client = leader.client()
        with mock.patch.object(leader.store, "check_room", mock.Mock(side_effect=ZeroDivisionError)):
            self.assertTrue(client.sets(b"jobs", b"one").startswith(b"SERVER_ERROR"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(client.sets(b"jobs", b"two"), b"STORED\r\n")

    def test_cannot_serve(self) -> None:
        """A node that leads and cannot serve ends, so that another one leads."""
        cluster = Cluster(self)
        cluster.leader()
        first, second = cluster.followers()
        with mock.patch.object(first, "_lead", mock.Mock(side_effect=OSError("taken"))):
            first.kill()
            first.start()
            second.kill()
            cluster.leader().kill()
            cluster.run(5)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(first.ended, (EXIT_LEAD, "this node leads, and cannot serve: taken"))
        second.start()
        self.assertIs(cluster.leader(), second)

    def test_cannot_sync(self) -> None:
        """A node whose disk fails ends."""
        cluster = Cluster(self)
        leader = cluster.leader()
        with mock.patch.object(leader.store, "sync", mock.Mock(side_effect=StoreError("broken"))):
            self.assertEqual(leader.client().sets(b"jobs", b"one"), b"STORED\r\n")
            cluster.run(3)
        self.assertEqual(leader.ended and leader.ended[0], EXIT_STORE)
        self.assertIsNot(cluster.leader(), leader)

    def test_threads_rest(self) -> None:
        """Before the store is closed, no thread is in it, and none will be."""
        cluster = Cluster(self)
        leader = cluster.leader()
        cluster.run(3)
        under_way: Deferred[int] = Deferred()
        leader.node._in_thread = lambda work: under_way
        self.assertEqual(leader.client().sets(b"jobs", b"one"), b"STORED\r\n")
        cluster.run(2)
        resting = leader.node.rest()
        self.assertNoResult(resting)
        under_way.callback(leader.store.position)
        self.successResultOf(resting)
        self.successResultOf(leader.node.rest())
        leader.node._in_thread = mock.Mock(side_effect=AssertionError)
        self.assertEqual(leader.client().sets(b"jobs", b"one"), b"STORED\r\n")
        cluster.run(2)

    def test_measured(self) -> None:
        """Turns are measured as those of a server alone."""
        cluster = Cluster(self)
        leader = cluster.leader()
        timings = leader.queues.measure(cluster.clock.seconds)
        leader.log.delay = 0.25
        client = leader.client()
        client.set(b"jobs", b"one")
        cluster.run(1)
        self.assertEqual(client.hears(), b"STORED\r\n")
        self.assertIs(leader.queues.commit.timings, timings)
        leader.kill()

    def test_what_is_no_conflict(self) -> None:
        """An error that nobody has thought of ends the node, without an answer."""
        cluster = Cluster(self)
        leader = cluster.leader()
        client = leader.client()
        with mock.patch.object(leader.log, "append", mock.Mock(side_effect=ZeroDivisionError)):
            client.set(b"jobs", b"one")
            cluster.run(1)
        self.assertEqual(client.hears(), b"")
        self.assertEqual(leader.ended and leader.ended[0], EXIT_DAMAGED)
