"""
Tests of `darner.migrate.redis_lists`, with redis-py.
"""

from __future__ import annotations

import sys
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from darner.migrate import redis_lists
from darner.migrate.opening import open_source
from darner.migrate.redis_lists import RedisLists
from darner.migrate.sources import Findings, SourceError
from test.migrate.reading import read
from test.migrate.redis_server import RedisServer


class RedisTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = RedisServer()
        self.addCleanup(self.server.stop)
        self.place = f"redis://127.0.0.1:{self.server.port}"

    def read(self, place: str) -> tuple[dict[bytes, list[bytes]], Findings]:
        findings = Findings()
        source = open_source(self.place + place)
        try:
            return read(source, findings), findings
        finally:
            source.close()

    def fails(self, place: str) -> str:
        return str(self.assertRaises(SourceError, self.read, place))

    def test_list(self) -> None:
        elements = [b"%d" % i for i in range(5000)] + [b"", b"\r\n\0", b"x" * 300_000, b"last"]
        self.server.lists[0][b"jobs"] = list(elements)
        self.assertEqual(self.read("/jobs")[0], {b"jobs": elements})
        self.assertEqual(self.read("/0/jobs?head=left")[0], {b"jobs": elements})
        self.assertEqual(self.read("/0/jobs?head=right")[0], {b"jobs": elements[::-1]})
        self.assertEqual({words[0] for words in self.server.asked}, {b"TYPE", b"LLEN", b"LRANGE"})

    def test_few_bytes_at_a_time(self) -> None:
        """Memory does not grow with the list."""
        self.server.lists[0][b"jobs"] = [b"x" * 10_000] * 300 + [b"y"] * 3000
        self.patch(redis_lists, "_MOST", 50)
        self.assertEqual(len(self.read("/jobs")[0][b"jobs"]), 3300)
        counts = [int(words[3]) - int(words[2]) + 1 for words in self.server.asked if words[0] == b"LRANGE"]
        self.assertLessEqual(max(counts[2:300 // 26]), 26)
        self.assertEqual(max(counts), 50)

    def test_databases_and_keys(self) -> None:
        self.server.lists = {0: {b"7": [b"a"]}, 3: {b"a b/c": [b"b"], b"queue:1": [b"c"], b"queue:2": [b"d"], b"r": []}}
        self.assertEqual(self.read("/7")[0], {b"7": [b"a"]})
        self.assertEqual(self.read("/3/a%20b%2Fc")[0], {b"a%20b%2Fc": [b"b"]})
        self.assertEqual(self.read("/3/queue:*")[0], {b"queue:1": [b"c"], b"queue:2": [b"d"]})
        found, findings = self.read("/3/none")
        self.assertEqual(found, {b"none": []})
        self.assertEqual(list(findings.notes), [f"{self.place}/3/none has no elements"])

    def test_shorter_while_it_is_read(self) -> None:
        elements = self.server.lists[0][b"jobs"] = [b"%d" % i for i in range(100)]

        def take(words: list[bytes]) -> None:
            if words[0] == b"LRANGE" and words[2] != b"0":
                del elements[:]

        self.server.before = take
        found, findings = self.read("/jobs")
        self.assertEqual(found, {b"jobs": [b"%d" % i for i in range(16)]})
        self.assertEqual(list(map(str, findings.losses)), ["list jobs: it became shorter while it was read"])

    def test_fingerprint(self) -> None:
        elements = self.server.lists[0][b"jobs"] = [b"a", b"b", b"c"]
        source = RedisLists(self.place + "/jobs")
        other = RedisLists(self.place + "/jobs?head=right")
        self.addCleanup(source.close)
        self.addCleanup(other.close)
        seen = {source.fingerprint(), other.fingerprint()}
        self.assertEqual(source.fingerprint() in seen, True)
        elements.append(b"c")
        seen.add(source.fingerprint())
        elements[:] = [b"b", b"b", b"c", b"c"]
        seen.add(source.fingerprint())
        self.assertEqual(len(seen), 4)

    def test_password(self) -> None:
        """It is in no report."""
        self.server.password = b"p:w/d"
        self.server.lists[0][b"jobs"] = [b"a"]
        self.assertIn("Redis: Authentication required", self.fails("/jobs"))
        self.place = self.place.replace("//", "//user:p%3Aw%2Fd@")
        self.assertEqual(self.read("/jobs")[0], {b"jobs": [b"a"]})
        source = RedisLists(self.place + "/jobs")
        self.assertEqual(source.place, f"redis://127.0.0.1:{self.server.port}/0/jobs")
        source.close()

    def test_what_is_no_list(self) -> None:
        named = "a list of Redis is named as redis://HOST:PORT/DB/LIST, with ?head=right or without"
        for place in ("", "/", "/a/b", "/1/a/b", "/jobs?head=top"):
            self.assertEqual(self.fails(place), named)
        self.assertIn("bad URL", str(self.assertRaises(SourceError, RedisLists, "redis://h:port/jobs")))
        self.assertEqual(self.fails("/hash"), f"{self.place}/0/hash is not a list")

    def test_no_server(self) -> None:
        source = RedisLists(self.place + "/jobs")
        self.server.stop()
        error = self.assertRaises(SourceError, source.queues, Findings())
        self.assertIn("Redis: Error 111 connecting to 127.0.0.1", str(error))
        source.close()

    def test_without_redis_py(self) -> None:
        with patch.dict(sys.modules, {"redis": None}):
            self.assertIn("pip install 'darner[redis]'", self.fails("/jobs"))
