"""
Tests of the records of a cluster's log.
"""

from __future__ import annotations

import base64
import zlib
from struct import pack

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from darner.cluster.records import CLAIM, PART, TURN, Record, pack_batch, unpack_batch
from darner.errors import LogDamaged
from darner.store.batch import Batch

CLUSTER = b"c" * 16

_RECORDS = st.builds(
    Record, st.sampled_from((TURN, CLAIM, PART)), st.binary(min_size=16, max_size=16), st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1), st.binary(max_size=250), st.binary(max_size=2000) | st.just(b"text " * 1000),
)  # fmt: skip

_WRITES = st.lists(st.tuples(st.binary(min_size=10, max_size=40), st.none() | st.binary(max_size=2000)))


def by_hand(version: int = 1, kind: int = 0, flags: int = 0, added: bytes = b"", body: bytes = b"") -> bytes:
    """@return: a record as another version may write it."""
    fields = CLUSTER + pack(">QQB", 7, 8, 4) + b"node" + added
    head = b"dr" + pack(">BBHH", version, kind, flags, len(fields))
    return head + pack(">I", zlib.crc32(head + bytes(4) + fields + body)) + fields + body


class RecordTests(SynchronousTestCase):
    """L{Record}."""

    @given(_RECORDS)
    def test_there_and_back(self, record: Record) -> None:
        self.assertEqual(Record.from_bytes(record.to_bytes()), record)

    @given(_WRITES)
    def test_batches(self, writes: list[tuple[bytes, bytes | None]]) -> None:
        batch = Batch()
        batch.writes = [(b"X" + key, value) for key, value in writes]
        batch.puts = bool(writes)
        found = unpack_batch(pack_batch(batch))
        self.assertEqual([] if found is None else found.writes, batch.writes)
        self.assertEqual(found is None, batch.empty)
        if found is not None:
            self.assertTrue(found.puts)

    def test_damage(self) -> None:
        """No byte can be changed or left out, or be there twice."""
        for body in (b"", b"some bytes", b"text " * 200):
            data = Record(TURN, CLUSTER, 3, 4, b"node", body).to_bytes()
            for at in range(len(data)):
                for damaged in (
                    data[:at], data[:at] + data[at + 1 :], data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
                    data[:at] + bytes([data[at] ^ 128]) + data[at + 1 :],
                ):  # fmt: skip
                    self.assertRaises(LogDamaged, Record.from_bytes, damaged)
            self.assertRaises(LogDamaged, Record.from_bytes, data + b"x")

    def test_stable(self) -> None:
        """These bytes are what nodes of other versions write and read."""
        record = Record(CLAIM, CLUSTER, 7, 8, b"node")
        self.assertEqual(record.to_bytes(), by_hand(kind=CLAIM))
        self.assertEqual(
            record.to_bytes().hex(),
            "64720101000000251b1f9135" + "63" * 16 + "0000000000000007" "0000000000000008" "04" "6e6f6465",
        )

    def test_additions(self) -> None:
        """Fields that were added are skipped."""
        record = Record.from_bytes(by_hand(added=b"more of it", body=b"the body"))
        self.assertEqual((record.claim, record.wall, record.node, record.body), (7, 8, b"node", b"the body"))

    def test_newer(self) -> None:
        """What changes the meaning is refused."""
        for data in (by_hand(version=2), by_hand(kind=3), by_hand(flags=2), by_hand(flags=0x8000)):
            error = self.assertRaises(LogDamaged, Record.from_bytes, data)
            self.assertIn("newer version of darner: upgrade", str(error))
        self.assertRaises(LogDamaged, unpack_batch, b"\x02" + bytes(20))

    def test_compression(self) -> None:
        """It is compressed where that is worth it."""
        text = Record(TURN, CLUSTER, 1, 1, b"n", b"text " * 1000)
        self.assertLess(len(text.to_bytes()), 500)
        noise = b"".join(zlib.crc32(b"%d" % number).to_bytes(4, "big") for number in range(1000))
        self.assertIn(noise, Record(TURN, CLUSTER, 1, 1, b"n", noise).to_bytes())
        letters = base64.b64encode(noise)
        self.assertIn(letters, Record(TURN, CLUSTER, 1, 1, b"n", letters).to_bytes())
