"""Tests of the API of a server with the queues of one shard."""

from __future__ import annotations

from typing import Any

from darner.config.settings import Settings
from darner.queues.sharded import ShardedQueues
from darner.values.shards import Shard
from test.harness import Server
from test.web.browser import WebServer
from test.web.test_queues_api import ApiTestCase

WRONG = "queue jobs is in shard 2 of 2, this is shard 1"
SETTINGS = Settings(cluster="etcd://127.0.0.1:1/photos", cluster_shard="1/2")


class ShardTests(ApiTestCase):
    """The first of two shards: C{photos} is there, and C{jobs} is not."""

    def setUp(self) -> None:
        def make(*arguments: Any) -> ShardedQueues:
            queues = ShardedQueues(*arguments)
            queues.shard = Shard(1, 2)
            return queues

        self.server = Server(make=make)
        self.web = WebServer(SETTINGS, None, self.server)
        self.queues = self.server.queues
        self.browser = self.web.browser()

    def wrong(self, method: str, path: str, body: Any = None) -> None:
        reply = self.browser.ask(method, "/api/v1" + path, body)
        self.assertEqual((reply.status, reply.json["detail"]), (400, WRONG), path)

    def test_queues_of_another_shard(self) -> None:
        self.wrong("GET", "/queues/jobs")
        self.wrong("GET", "/queues/jobs/items")
        self.wrong("POST", "/queues/jobs/items", {"payload": "x"})
        self.wrong("POST", "/queues/jobs/flush", {})
        self.wrong("DELETE", "/queues/jobs")
        self.assertEqual(self.queues.names(), [])

    def test_targets_in_another_shard(self) -> None:
        self.api("POST", "/queues/photos/items", {"payload": "x"}, 201)
        self.wrong("POST", "/queues/photos/requeue", {"target": "jobs"})
        self.wrong("POST", "/queues/photos/items/move", {"target": "jobs", "ids": ["1"]})
        self.assertEqual(self.server.figures(b"photos"), (1, 1))
        self.api("POST", "/queues/photos/requeue", {"target": "mail.dead"})
        self.assertEqual(self.server.figures(b"mail.dead"), (1, 1))
