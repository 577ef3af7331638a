"""
Tests of a real cluster: three etcds, three nodes run by twistd, clients, and faults.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from bench.cluster_shards import Shards
from bench.cluster_torture import PATIENCE, Node, Torture, claims
from bench.server_log import unhandled
from darner.cli.options import Options
from darner.cli.server import makeService
from darner.client.blocking import Shards as ShardsClient
from darner.client.blocking import SpansShards
from darner.errors import DarnerError
from darner.values.shards import Shard
from test.cluster.etcd_servers import ETCD
from test.servers import Client, environment, run, until


@skipIf(ETCD is None, "there is no etcd")
class RealClusterTests(SynchronousTestCase):
    """Nothing is lost, nothing is there twice, the order is kept, and all nodes have the same keys and values."""

    def program(self, torture: Torture, *arguments: str) -> str:
        url = f"etcd://{','.join(torture.etcd.endpoints)}/torture"
        command = [sys.executable, "-m", "darner.commands.entry", "cluster", *arguments, f"--cluster={url}"]
        told: list[str] = []

        def done() -> bool:
            # On a machine that is very busy etcd, or a node, does not answer in time now and then.
            done = run(*command, cwd=torture.directory, patience=PATIENCE)
            told[:] = [done.stdout]
            return done.returncode == 0

        until(done, f"darner cluster {arguments[0]}", PATIENCE)
        return told[0]

    def known_leader(self, torture: Torture) -> Node:
        """@return: who leads, as both clients and C{darner cluster} see it."""
        found: list[Node] = []

        def known() -> bool:
            # On a machine that is very busy another node may lead by now.
            found[:] = [torture.leader()]
            return bool(json.loads(self.program(torture, "status", "--json"))["leader"] == found[0].name)

        until(known, "the leader is known", PATIENCE)
        return found[0]

    def step_down(self, torture: Torture) -> None:
        """Have the leader end in order."""

        def done() -> bool:
            leader = self.known_leader(torture)
            process = leader.process
            assert process is not None
            if f"{leader.name} is asked to step down" not in self.program(torture, "step-down"):
                return False
            until(lambda: process.poll() is not None, "the leader has ended", PATIENCE)
            return process.returncode == 0 and torture.leader() is not leader

        until(done, "a leader has stepped down", PATIENCE)

    def test_faults(self) -> None:
        torture = Torture(3, 7)
        self.addCleanup(torture.remove)
        self.addCleanup(torture.end)
        torture.run(3, ["kill", "pause", "quorum"], 1.0)
        self.assertEqual(torture.compared, 2)
        leader = self.known_leader(torture)
        told = json.loads(self.program(torture, "status", "--json"))
        self.assertEqual(sorted(node["name"] for node in told["nodes"]), ["node0", "node1", "node2"])
        self.assertIn(leader.name, self.program(torture, "status"))
        self.step_down(torture)
        for node in torture.nodes:
            self.assertEqual(unhandled(node.output.read_text(), ["cluster: the node ends (status 70)"]), [])

    def test_lost_disk(self) -> None:
        """
        A node without a disk joins by a snapshot, though it is killed meanwhile, and so is a giver.  An operator takes
        one, and restores it.
        """
        torture = Torture(0, 7)
        self.addCleanup(torture.remove)
        self.addCleanup(torture.end)
        self.fill(torture, 100)
        until(lambda: (torture.leader().metric("trimmed") or 0) > 100, "the log is trimmed", PATIENCE)
        leader = torture.leader()
        late, other = (node for node in torture.nodes if node is not leader)
        late.kill()
        shutil.rmtree(torture.directory / late.name)
        said = len(late.output.read_text())
        late.start()
        until(lambda: "takes a snapshot" in late.output.read_text()[said:], "it takes a snapshot", PATIENCE)
        late.kill()
        other.kill()

        def joined() -> bool:
            late.start()
            assert leader.process is not None
            if leader.process.poll() is not None:
                # The machine was so busy that it was deposed.
                leader.start()
                other.start()
            position = leader.position()
            return position is not None and late.position() == position

        until(joined, "it has joined", PATIENCE)
        # Of the leader, as a rule; where this process was slow it was there before the kill, and of the other one.
        self.assertIn("cluster: takes a snapshot of", late.output.read_text()[said:])
        until(lambda: self.restored(torture, other), "a node follows from a backup on", PATIENCE)
        torture.compare()
        for node in torture.nodes:
            self.assertEqual(unhandled(node.output.read_text(), ["cluster: the node ends (status 70)"]), [])

    def fill(self, torture: Torture, count: int) -> None:
        """Put items of 100 kB, each at the node that leads."""
        stored = 0

        def filled() -> bool:
            nonlocal stored
            with contextlib.suppress(OSError), Client(("127.0.0.1", torture.leader().port)) as client:
                while stored < count and client.set(b"jobs", b"%0100000d" % stored) == b"STORED":
                    stored += 1
            return stored == count

        until(filled, f"{count} items are stored", PATIENCE)

    def restored(self, torture: Torture, node: Node) -> bool:
        """
        A node gets a backup in the place of its data.

        @return: whether it follows from there on.  Where another node has led since the backup, the log may have been
            trimmed behind it.
        """
        before = claims(torture.nodes)
        self.program(torture, "snapshot", "backups", "--timeout=30")
        node.kill()
        shutil.rmtree(torture.directory / node.name)
        restoring = [sys.executable, "-m", "darner.commands.entry", "restore", "backups", f"--data-dir={node.name}"]
        self.assertEqual(run(*restoring, cwd=torture.directory, patience=PATIENCE).returncode, 0)
        said = len(node.output.read_text())
        node.start()

        def follows() -> bool:
            position = torture.leader().position()
            return position is not None and node.position() == position

        until(follows, f"{node.name} has all of the log", PATIENCE)
        if "too far behind" not in node.output.read_text()[said:]:
            return True
        self.assertNotEqual(claims(torture.nodes), before)
        return False


@skipIf(ETCD is None, "there is no etcd")
class RealShardsTests(SynchronousTestCase):
    """
    Two shards, with three nodes each, over the same three etcds; C{photos} is in the first one, and C{jobs} in the
    second one.
    """

    def test_a_leader_dies(self) -> None:
        """The client goes on at the next one."""
        for left in reversed(range(5)):
            service = Shards(2, '[defaults]\ndedupe_window = "1h"\n')
            self.addCleanup(service.end)
            self.leaders = [0, 0]
            try:
                self.go_on(service)
            except (AssertionError, DarnerError, OSError):
                # Where the machine was so busy that another leader was deposed, what was under way there is in doubt.
                if not left or not self.deposed(service):
                    raise
                service.end()
            else:
                break
        self.refused(service)

    def deposed(self, service: Shards) -> bool:
        """@return: whether there were more leaders than the test is about; the nodes may just be about to say so."""

        def deposed() -> bool:
            leaders = [len(claims(nodes)) for nodes in service.nodes]
            return any(there > known for there, known in zip(leaders, self.leaders, strict=True))

        with contextlib.suppress(AssertionError):
            until(deposed, "there were more leaders", 10)
            return True
        return False

    def go_on(self, service: Shards) -> None:
        first = service.leader(1)
        service.leader(2)
        self.leaders = [len(claims(nodes)) for nodes in service.nodes]
        with ShardsClient(service.places, timeout=60) as client:
            for number in range(20):
                client.put("photos", b"%d" % number, id=f"{number}")
                client.put("jobs", b"%d" % number, id=f"{number}")
            read = client.open(["jobs", "photos"], timeout=60)
            assert read is not None
            self.assertEqual((read.queue, read.payload), ("jobs", b"0"))
            read.close()
            first.kill()
            self.leaders[0] += 1
            for number in range(20, 30):
                client.put("photos", b"%d" % number, id=f"{number}")
            self.assertEqual([item.payload for item in client.get_many("photos", 99)], [b"%d" % n for n in range(30)])
            self.assertEqual(len(client.get_many("jobs", 99)), 19)
            self.assertRaises(SpansShards, client.requeue, "photos", "jobs")
        with Client(("127.0.0.1", service.leader(2).port)) as plain:
            self.assertEqual(plain.ask(b"get photos"), b"CLIENT_ERROR queue photos is in shard 1 of 2, this is shard 2")

    def refused(self, service: Shards) -> None:
        """A node that is told another shard than its data has ends, and says why."""
        leader = service.leader(2)
        node = next(node for node in service.nodes[1] if node is not leader)
        node.kill()
        command = [option for option in node._command if "cluster-shard" not in option]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 72, done.stdout)
        self.assertIn("has shard 2 of 2, and this node is told to have all queues", done.stderr)
        urls = [f"--cluster={url}" for url in service.urls]
        command = [sys.executable, "-m", "darner.commands.entry", "cluster", "status", "--json", *urls]

        def well() -> bool:
            done = run(*command, cwd=service.directory, patience=PATIENCE)
            told = json.loads(done.stdout)
            self.assertEqual(done.returncode, 1 if told["wrong"] else 0, done.stderr)
            if told["wrong"]:
                return False
            self.assertEqual([log["shard"] for log in told["logs"]], ["1/2", "2/2"])
            return True

        until(well, "all shards have a leader", PATIENCE)


class OptionsTests(SynchronousTestCase):
    """What cannot be started."""

    def refused(self, *options: str) -> str:
        parsed = Options()
        parsed.parseOptions(["--port=0", f"--data-dir={self.mktemp()}", *options])
        return str(self.assertRaises(SystemExit, makeService, parsed))

    def test_bad_url(self) -> None:
        self.assertIn("is not of the form etcd://HOST:PORT", self.refused("--cluster=etcd://nowhere"))

    def test_missing_file(self) -> None:
        path = self.mktemp()
        with open(path, "w") as file:
            file.write('cluster_ca_file = "/nonexistent"\n')
        error = self.refused(f"--config={path}", "--cluster=etcds://127.0.0.1:1/jobs")
        self.assertIn("cannot read /nonexistent", error)

    def test_shard(self) -> None:
        """The log may be named in the file, and its shard on the command line, or the other way round."""
        options = Options()
        path = self.mktemp()
        with open(path, "w") as file:
            file.write('cluster_shard = "1/2"\n')
        options.parseOptions([f"--config={path}", "--cluster=etcd://127.0.0.1:1/jobs", "--cluster-prefer"])
        self.assertEqual((options.settings().shard, options.settings().cluster_prefer), (Shard(1, 2), True))
        self.assertIn("is not of the form K/N", self.refused("--cluster=etcd://127.0.0.1:1/jobs", "--cluster-shard=2"))

    def test_snapshot_without_a_directory(self) -> None:
        for arguments in (["snapshot"], ["status", "backups"], ["step-down", "--keep=3"]):
            command = [sys.executable, "-m", "darner.commands.entry", "cluster", *arguments, "--cluster=etcd://a:1/b"]
            done = subprocess.run(command, env=environment(), capture_output=True, text=True)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("a directory of backups is for snapshot", done.stderr)
