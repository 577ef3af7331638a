"""
Tests of `darner.store.files.names`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from darner.store.files.names import file_number, is_ours


class NameTests(SynchronousTestCase):
    def test_names(self) -> None:
        for name, number in (
            ("000012.ldb", 12), ("12.sst", 12), ("000003.log", 3), ("MANIFEST-000007", 7), ("CURRENT", -1),
            ("LOG.old", -1), ("LOCK", -1),
        ):  # fmt: skip
            self.assertTrue(is_ours(name), name)
            self.assertEqual(file_number(name), number)
        for name in ("letter.txt", "000012.ldb.bak", "x.log", ".ldb", "MANIFEST-", "CURRENT~", "12"):
            self.assertFalse(is_ours(name), name)
            self.assertEqual(file_number(name), -1)
