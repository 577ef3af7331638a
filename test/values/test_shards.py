"""Tests of `darner.values.shards`."""

from __future__ import annotations

from collections import Counter

from twisted.trial.unittest import SynchronousTestCase

from darner.errors import WrongShard
from darner.values.shards import Shard, key_of, parse_shard, shard_of


class ShardTests(SynchronousTestCase):
    """Which shard a queue is in.  Clients rely on these numbers: they never change."""

    def test_vectors(self) -> None:
        for name, shards in (
            (b"jobs", [1, 2, 3, 4, 12, 12]),
            (b"photos", [1, 1, 1, 1, 5, 37]),
            (b"mail.dead", [1, 1, 3, 1, 5, 5]),
            (b"+jobs", [1, 1, 1, 3, 7, 23]),
            (b"a" * 250, [1, 1, 1, 1, 1, 33]),
        ):
            self.assertEqual([shard_of(name, count) for count in (1, 2, 3, 4, 16, 64)], shards, name)

    def test_children_are_with_their_parents(self) -> None:
        for name, key in (
            (b"jobs", b"jobs"), (b"jobs+a", b"jobs"), (b"jobs+a+b", b"jobs"), (b"jobs+", b"jobs"), (b"+a", b"+a"),
            (b"+", b"+"),
        ):  # fmt: skip
            self.assertEqual(key_of(name), key)
            self.assertEqual(shard_of(name, 1000), shard_of(key, 1000))

    def test_names_that_differ_little_are_spread(self) -> None:
        shards = Counter(shard_of(b"queue%d" % number, 4) for number in range(4000))
        self.assertEqual(sorted(shards), [1, 2, 3, 4])
        self.assertLess(max(shards.values()) - min(shards.values()), 200)

    def test_check(self) -> None:
        shard = Shard(1, 4)
        self.assertTrue(shard.has(b"photos"))
        shard.check(b"photos+a")
        self.assertFalse(shard.has(b"jobs"))
        error = self.assertRaises(WrongShard, shard.check, b"jobs+a")
        self.assertEqual(str(error), "queue jobs+a is in shard 4 of 4, this is shard 1")

    def test_text(self) -> None:
        self.assertEqual(parse_shard("3/16"), Shard(3, 16))
        self.assertEqual(str(Shard(3, 16)), "3/16")
        for text in ("", "1", "/", "1/", "/2", "a/b", "-1/2", "1/2/3", "1/999999", "999999/1", " 1/2", "\u0661/2"):
            self.assertIn("is not of the form K/N", str(self.assertRaises(ValueError, parse_shard, text)))
        for text in ("0/2", "3/2", "0/0", "1/65536"):
            self.assertIn("K is from 1 to N", str(self.assertRaises(ValueError, parse_shard, text)))
