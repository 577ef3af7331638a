"""Tests of what ``darner cluster`` says of several shards."""

from __future__ import annotations

import json
from typing import Any, Union
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from darner.cluster import operating
from darner.commands.exits import FAILED, USAGE
from darner.errors import DarnerError, LogUnavailable
from test.commands.harness import Done, call

URLS = ("etcd://127.0.0.1:1/first", "etcd://127.0.0.1:1/second")


def status(shard: str, leader: str = "a") -> dict[str, Any]:
    nodes = [
        {"name": name, "role": role, "position": 9, "lag": lag, "durable": 9, "address": f"{name}:1", "version": "1"}
        for name, role, lag in (("a", "leader", 0), ("b", "follower", 3), ("c", "gone", 99))
    ]
    return {"leader": leader, "claim": 1, "shard": shard, "last": 9, "trimmed": 4, "nodes": nodes}


class ShardTests(SynchronousTestCase):
    """Where a queue is."""

    def test_queues(self) -> None:
        done = call("cluster", "shard", "--shards=4", "jobs", "jobs+audit", "photos")
        self.assertEqual(done.text.split(), ["queue", "shard", "jobs", "4", "jobs+audit", "4", "photos", "1"])
        done = call("cluster", "shard", "--shards=4", "--json", "jobs", "photos")
        self.assertEqual(json.loads(done.text), {"jobs": 4, "photos": 1})

    def test_wrong(self) -> None:
        for arguments, reason in (
            (("shard", "jobs"), "shard needs --shards=N"),
            (("shard", "--shards=2"), "shard needs --shards=N"),
            (("shard", "--shards=0", "jobs"), "shard needs --shards=N"),
            (("shard", "--shards=2", "a b"), "bad queue name"),
            (("status", "--shards=2"), "--shards is for shard"),
            (("status",), "where is the log?"),
            (("step-down", *(f"--cluster={url}" for url in URLS)), "step-down is for one log"),
            (("snapshot", "a", "b", f"--cluster={URLS[0]}"), "a directory of backups is for snapshot"),
        ):
            done = call("cluster", *arguments)
            self.assertEqual(done.status, USAGE, arguments)
            self.assertIn(reason, done.errors)


class StatusTests(SynchronousTestCase):
    """How shards are."""

    def told(self, *found: Union[dict[str, Any], DarnerError], json: bool = False) -> Done:
        urls = [f"--cluster={url}" for url in URLS[: len(found)]]
        with mock.patch.object(operating, "ask_all", return_value=list(found)):
            return call("cluster", "status", *urls, *(["--json"] if json else []))

    def test_all_is_well(self) -> None:
        done = self.told(status("1/2"), status("2/2"))
        self.assertEqual((done.status, done.errors), (0, ""))
        head, first, second = (line.split() for line in done.text.splitlines())
        self.assertEqual(head[:3], ["log", "shard", "leader"])
        self.assertEqual(first, ["first", "1/2", "a", "a:1", "9", "3", "2", "of", "3", "4"])
        self.assertEqual(second[:3], ["second", "2/2", "a"])
        document = json.loads(self.told(status("1/2"), status("2/2"), json=True).text)
        self.assertEqual([log["log"] for log in document["logs"]], ["first", "second"])
        self.assertEqual(document["wrong"], [])

    def test_environment(self) -> None:
        with mock.patch.object(operating, "ask_all", return_value=[status("1/2"), status("2/2")]) as asking:
            self.assertEqual(call("cluster", "status", DARNER_CLUSTER=" ".join(URLS)).status, 0)
        self.assertEqual(asking.call_args.args[0], URLS)

    def test_whole_logs(self) -> None:
        """As where clients put anywhere and read everywhere."""
        done = self.told(status(""), status(""))
        self.assertEqual(done.status, 0)
        self.assertEqual(done.text.splitlines()[1].split()[:3], ["first", "all", "a"])

    def test_something_is_wrong(self) -> None:
        for found, reason in (
            ((status("1/2", ""), status("2/2")), "first: no node leads"),
            ((status("1/2"), LogUnavailable("out of reach")), "second: out of reach"),
            ((status("1/2"), status("1/2")), "there twice: shard 1 of 2; not named or unknown: shard 2 of 2"),
            ((status("1/2"), status("2/3")), "shards of different services: of 2 and of 3"),
            ((status("1/4"), status("2/4")), "not named or unknown: shard 3, 4 of 4"),
        ):
            done = self.told(*found)
            self.assertEqual(done.status, FAILED)
            self.assertIn(reason, done.errors)
            self.assertIn("first", done.text)
            self.assertIn(reason.partition("; ")[0], json.loads(self.told(*found, json=True).text)["wrong"])

    def test_one_log(self) -> None:
        done = self.told(status("1/2"))
        self.assertIn("shard 1/2, leader a, last record 9, trimmed to 4", done.text)
        self.assertEqual(done.status, 0)
        done = self.told(status("", ""))
        self.assertIn("leader none, last record 9", done.text)
        self.assertEqual(done.status, FAILED)
        self.assertIn("no node leads", done.errors)
        self.assertIn("out of reach", self.told(LogUnavailable("out of reach")).errors)
