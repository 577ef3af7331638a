"""Tests of `darner.front.shard_check` and `darner.queues.sharded`: a server with the queues of one shard."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, Optional

from twisted.trial.unittest import SynchronousTestCase

from darner.config.policies import Policies, QueueSettings
from darner.config.settings import Rights
from darner.errors import SettingsError, WrongShard
from darner.front.access import Access
from darner.front.kestrel_port import TextFactory
from darner.front.memcache import MEMCACHE
from darner.front.protocol import QueueFactory
from darner.front.shard_check import ShardCheck
from darner.front.shard_rights import Here
from darner.queues.sharded import ShardedQueues
from darner.store.memory import MemoryStore
from darner.values import requests
from darner.values.shards import Shard
from darner.values.vocabulary import CHUNK_BYTES
from test.front.test_access import AccessTestCase
from test.front.test_protocol import MemoryClient
from test.harness import Asker

WRONG = b"CLIENT_ERROR queue jobs is in shard 2 of 2, this is shard 1\r\n"
"""C{photos} and C{mail.dead} are in the first of two shards, C{jobs} and C{orders} in the second one."""


VALUES: dict[str, Any] = {
    "queue": b"", "queues": (), "origin": b"", "target": b"", "choices": (), "flags": 0, "expiry": 0, "size": 1,
    "key": b"", "seconds": 0.0, "count": 1, "status": "up", "reply": b"",
}  # fmt: skip
"""For the fields of requests that have no default."""


class ShardTestCase(AccessTestCase):
    """The first of two shards."""

    def setUp(self) -> None:
        super().setUp()
        self.queues: Any = ShardedQueues(MemoryStore(), self.surroundings)
        self.queues.shard = Shard(1, 2)

    def joins(
        self, access: Optional[Access] = None, kind: type[QueueFactory] = QueueFactory, **more: Any
    ) -> MemoryClient:
        factory = kind(self.queues, access=access, **more)
        factory.make_log_in = partial(ShardCheck, Here(Shard(1, 2)))
        return MemoryClient(self.clock, factory)

    def says(self, client: MemoryClient, sent: bytes) -> bytes:
        client.send(sent)
        return client.receive()


class WithoutUsersTests(ShardTestCase):
    """Everybody may do everything, with the queues that are here."""

    def setUp(self) -> None:
        super().setUp()
        self.client = self.joins()

    def does(self, line: bytes) -> bytes:
        return self.says(self.client, line + b"\r\n")

    def test_queues_that_are_here(self) -> None:
        self.assertEqual(self.does(b"set photos 0 0 1\r\na"), b"STORED\r\n")
        self.assertEqual(self.does(b"get photos+new/open"), b"END\r\n")
        self.assertEqual(self.does(b"get photos mail.dead"), b"VALUE photos 0 1\r\na\r\nEND\r\n")
        self.assertEqual(self.does(b"set photos 0 0 1\r\nb"), b"STORED\r\n")
        self.assertEqual(self.does(b"get photos+new/open"), b"VALUE photos+new 0 1\r\nb\r\nEND\r\n")
        self.assertEqual(self.does(b"requeue photos mail.dead"), b"1\r\n")
        self.assertEqual(self.does(b"get mail.dead/peek"), b"VALUE mail.dead 0 1\r\nb\r\nEND\r\n")
        self.assertEqual(self.does(b"flush_all"), b"Flushed all queues.\r\n")
        self.assertEqual(self.does(b"version")[:7], b"VERSION")
        self.assertIn(b"STAT queue_photos_items 0", self.does(b"stats"))
        self.assertIn(b"queue 'photos'", self.does(b"dump_stats photos"))

    def test_queues_of_another_shard(self) -> None:
        for line in (
            b"set jobs 0 0 1\r\na", b"set jobs/sync/id=1 0 0 1\r\na", b"get jobs", b"get jobs/t=1000", b"get jobs/open",
            b"get jobs/peek", b"get jobs/close", b"get jobs/abort", b"get jobs/close/open/t=10", b"gets jobs",
            b"get photos jobs", b"get photos jobs/t=1000", b"get jobs photos/t=0/open", b"monitor jobs 1",
            b"monitor jobs 0", b"confirm jobs 1", b"touch jobs", b"delete jobs", b"flush jobs", b"flush_expired jobs",
            b"requeue jobs photos", b"requeue photos jobs", b"dump_stats jobs", b"dump_config photos jobs",
        ):  # fmt: skip
            self.assertEqual(self.does(line), WRONG, line)
        self.assertEqual(list(self.queues.names()), [])

    def test_nothing_is_done_in_part(self) -> None:
        self.does(b"set photos 0 0 1\r\na")
        for line in (b"get photos jobs", b"get photos jobs/t=0", b"requeue photos jobs"):
            self.assertEqual(self.does(line), WRONG)
        self.assertEqual(self.queues.queue_figures(b"photos")["items"], 1)
        self.assertEqual(self.queues.names(), [b"photos"])

    def test_children(self) -> None:
        self.assertIn(b"queue jobs+a is in shard 2 of 2", self.does(b"get jobs+a"))
        self.assertEqual(self.does(b"get photos+a"), b"END\r\n")

    def test_noreply(self) -> None:
        self.assertEqual(self.does(b"set jobs 0 0 1 noreply\r\na"), b"")
        self.assertEqual(self.does(b"delete jobs noreply"), b"")

    def test_a_large_payload_is_skipped(self) -> None:
        """It is not written to the store first."""
        size = 3 * CHUNK_BYTES
        self.client.send(b"set jobs 0 0 %d\r\n" % size + b"x" * (CHUNK_BYTES * 2))
        self.assertIsNone(self.client.protocol.framing._inflow)
        self.assertEqual(self.says(self.client, b"x" * CHUNK_BYTES + b"\r\nget photos\r\n"), WRONG + b"END\r\n")

    def test_dialect(self) -> None:
        client = self.joins(spelling=MEMCACHE)
        for line in (b"get jobs/t=10\r\n", b"gets jobs\r\n", b"set jobs 0 0 1\r\na\r\n", b"delete jobs\r\n"):
            self.assertEqual(self.says(client, line), WRONG)
        self.assertEqual(self.says(client, b"delete photos\r\n"), b"NOT_FOUND\r\n")

    def test_text_protocol(self) -> None:
        client = self.joins(kind=TextFactory)
        wrong = b"-queue jobs is in shard 2 of 2, this is shard 1\n"
        for line in (
            b"put jobs:\na\nb\n\n", b"get jobs\n", b"peek jobs\n", b"monitor jobs 10\n", b"confirm jobs 1\n",
            b"flush jobs\n", b"delete jobs\n",
        ):  # fmt: skip
            self.assertEqual(self.says(client, line).lower(), wrong, line)
        self.assertEqual(self.says(client, b"put photos:\na\n\nget photos\n"), b"+1\n:a\n")


class WithUsersTests(ShardTestCase):
    """Users have the rights that they have, on the queues that are here."""

    def log_in(self, user: bytes, **rights: Rights) -> MemoryClient:
        client = self.joins(self.access(**rights))
        self.assertEqual(self.says(client, b"get jobs\r\n"), b"CLIENT_ERROR unauthenticated\r\n")
        self.assertEqual(self.says(client, b"set auth 0 0 %d\r\n%b\r\n" % (len(user), user)), b"STORED\r\n")
        return client

    def test_rights(self) -> None:
        client = self.log_in(b"ann secret", ann=Rights(read=("photos", "jobs"), write=("photos",)))
        self.assertEqual(self.says(client, b"get jobs\r\n"), WRONG)
        self.assertEqual(self.says(client, b"set jobs 0 0 1\r\nx\r\n"), WRONG)
        self.assertEqual(self.says(client, b"get mail.dead\r\n"), b"CLIENT_ERROR not allowed\r\n")
        self.assertEqual(self.says(client, b"set photos 0 0 1\r\nx\r\n"), b"STORED\r\n")
        self.assertEqual(self.says(client, b"delete photos\r\n"), b"CLIENT_ERROR not allowed\r\n")
        self.assertEqual(self.says(client, b"flush_all\r\n"), b"CLIENT_ERROR not allowed\r\n")
        self.assertIn(b"queue_photos_items", self.says(client, b"stats\r\n"))

    def test_administrator(self) -> None:
        client = self.log_in(b"ann secret", ann=Rights(admin=("*",)))
        self.assertEqual(self.says(client, b"flush_all\r\n"), b"Flushed all queues.\r\n")
        self.assertEqual(self.says(client, b"delete photos\r\n"), b"DELETED\r\n")
        self.assertEqual(self.says(client, b"delete jobs\r\n"), WRONG)

    def test_wrong_password(self) -> None:
        client = self.joins(self.access())
        self.assertIn(b"authentication failure", self.says(client, b"set auth 0 0 9\r\nann wrong\r\n"))


class RequestsTests(SynchronousTestCase):
    """The check relies on this: each request asks for a right to each queue that it names."""

    def test_every_request(self) -> None:
        here = Here(Shard(1, 2))
        of_queues = 0
        for kind in vars(requests).values():
            if not (isinstance(kind, type) and issubclass(kind, requests.Request) and dataclasses.is_dataclass(kind)):
                continue
            fields = {field.name for field in dataclasses.fields(kind)}
            for name in fields & {"queue", "queues", "origin", "target", "choices"}:
                request: Any = kind(**{field: self.value(field, field == name) for field in fields if field in VALUES})
                self.assertRaises(WrongShard, request.allowed, here)
                of_queues += 1
        self.assertGreater(of_queues, 12)

    def value(self, field: str, elsewhere: bool) -> Any:
        """@return: for a field of a request; where it has a queue, whether that is one of another shard."""
        queue = b"jobs" if elsewhere else b"photos"
        if field == "queues":
            return (b"photos", queue)
        if field == "choices":
            return (requests.Get(b"photos", b"photos"), requests.Get(queue, queue))
        return queue if field in ("queue", "origin", "target") else VALUES[field]


class ShardedQueuesTests(ShardTestCase):
    """What comes by another way than a front end's check."""

    def test_nothing_makes_a_queue_of_another_shard(self) -> None:
        self.assertRaises(WrongShard, self.queues.make, b"jobs")
        self.assertRaises(WrongShard, self.queues.existing, b"jobs")
        self.assertRaises(WrongShard, self.queues.check_queue, b"jobs")
        self.assertRaises(WrongShard, Asker(self.queues).put, b"jobs", b"x")
        self.queues.check_queue(b"photos")
        self.assertIs(self.queues.make(b"photos"), self.queues.make(b"photos"))
        self.assertEqual(self.queues.names(), [])

    def test_settings(self) -> None:
        """Those that would move items to another shard are refused when they are read again, too."""
        wrong = Policies(QueueSettings(max_attempts=1, dead_letter_queue="jobs"))
        error = self.assertRaises(SettingsError, self.queues.apply, wrong)
        self.assertIn("defaults.dead_letter_queue: queue jobs is in shard 2 of 2", str(error))
        self.assertEqual(self.queues.policies, Policies())
        right = Policies(QueueSettings(max_attempts=1, dead_letter_queue="mail.dead"))
        self.queues.apply(right)
        self.assertEqual(self.queues.policies, right)

    def test_every_queue_without_a_shard(self) -> None:
        queues = ShardedQueues(MemoryStore(), self.surroundings, Policies())
        queues.make(b"jobs")
        queues.check_queue(b"jobs")
        queues.apply(Policies(QueueSettings(expire_to_queue="jobs")))
