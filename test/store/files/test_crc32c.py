"""Tests of `darner.store.files.crc32c`."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from darner.store.files.crc32c import crc32c, masked


def by_bits(data: bytes) -> int:
    """As the definition has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


class ChecksumTests(SynchronousTestCase):
    def test_known(self) -> None:
        """The examples of RFC 3720, and the usual one."""
        for data, expected in (
            (bytes(32), 0x8A9136AA),
            (b"\xff" * 32, 0x62A8AB43),
            (bytes(range(32)), 0x46DD794E),
            (b"123456789", 0xE3069283),
            (b"", 0),
        ):
            self.assertEqual(crc32c(data), expected)

    def test_every_length(self) -> None:
        """Also where the way of computing changes."""
        random = Random(1)
        for length in (*range(140), 255, 256, 257, 1000, 4096, 4097, 20_001):
            data = random.randbytes(length)
            self.assertEqual(crc32c(data), by_bits(data), length)

    def test_masked(self) -> None:
        self.assertEqual(masked(0), 0xA282EAD8)
        self.assertEqual(masked(0xFFFFFFFF), (0xFFFFFFFF + 0xA282EAD8) & 0xFFFFFFFF)
        self.assertEqual(masked(1 << 15), 0xA282EAD9)
