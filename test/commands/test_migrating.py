"""
Tests of `darner.commands.migrating`: ``darner import`` of the queues of another server.
"""

from __future__ import annotations

from pathlib import Path

from darner.commands import migrating
from test.commands.harness import ProgramTestCase
from test.migrate import journals as write
from test.migrate.test_offline import contents


class MigratingTests(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.journals = self.directory / "kestrel"
        self.journals.mkdir()
        self.data = self.directory / "data"
        self.name = f"once_{self.queue}"
        self.journal(self.name, write.addx(b"a") + write.addx(b"b"))

    def journal(self, name: str, operations: bytes) -> None:
        (self.journals / name).write_bytes(operations)

    def test_data_directory(self) -> None:
        self.journal("left_out", write.addx(b"c"))
        told = self.well("import", str(self.journals), "--data-dir", str(self.data), "--exclude", "left_*")
        self.assertIn("total: 1 queues, 2 items, 2 bytes imported\n", told)
        found = {name: [item.payload for item in items] for name, items in contents(self.data).items()}
        self.assertEqual(found, {self.name.encode(): [b"a", b"b"]})
        told = self.well("import", str(self.journals), "--data-dir", str(self.data), "--exclude", "left_*")
        self.assertIn("0 items, 0 bytes imported; 2 items were imported before\n", told)

    def test_changed(self) -> None:
        self.well("import", str(self.journals), "--data-dir", str(self.data))
        self.journal(self.name, write.addx(b"c"))
        arguments = ("import", str(self.journals), "--data-dir", str(self.data))
        self.fails(2, "the source has changed since", *arguments)
        self.well(*arguments, "--restart")
        self.assertEqual([item.payload for item in contents(self.data)[self.name.encode()]], [b"a", b"b", b"c"])

    def test_servers(self) -> None:
        for _ in range(2):
            self.assertIn("2 items, 2 bytes imported\n", self.well("import", str(self.journals)))
        self.assertEqual(self.items(self.name), [b"a", b"b"])

    def test_refused(self) -> None:
        self.journal(f"plain_{self.queue}", write.addx(b"c"))
        self.fails(2, "has no dedupe_window", "import", str(self.journals))
        self.assertEqual(self.items(self.name), [])
        self.patch(migrating, "PATIENCE", 0.1)
        self.fails(4, "", "--timeout", "0.1", "-s", "127.0.0.1:1", "import", str(self.journals))
        self.fails(2, "cannot tell which servers file:/nonexistent are", "-s", "file:/nonexistent", "import",
                   str(self.journals))  # fmt: skip
        self.fails(1, "cannot import from http", "import", "http://host/list", "--dry-run")

    def test_dry_run(self) -> None:
        """As JSON; the exit status says that something cannot be read."""
        self.journal("cut", write.addx(b"c") + b"\2")
        done = self.call("import", str(self.journals), "--dry-run", "--json", "--data-dir", str(self.data))
        self.assertEqual(done.status, 1)
        self.assertEqual(done.json, {
            "source": str(self.journals), "kind": "Kestrel", "dry_run": True, "items": 3, "bytes": 3, "notes": {},
            "unreadable": ["cut, offset 22 of 23: the last operation is cut short, 20 bytes are missing"],
            "queues": {
                name: {
                    "target": name, "items": items, "bytes": items, "delayed": 0, "expired": 0, "unreadable": 0,
                    "before": 0,
                }
                for name, items in ((self.name, 2), ("cut", 1))
            },
        })  # fmt: skip
        self.assertFalse(self.data.exists())

    def test_options_of_the_other(self) -> None:
        """Files of an export and other servers have options of their own."""
        export = self.directory / "file"
        Path(export).write_bytes(b"")
        for arguments in (
            (str(self.journals), "--to", "q"), (str(self.journals), "--sync"), (str(export), "--data-dir", "d"),
            (str(export), "--exclude", "x"),
        ):  # fmt: skip
            done = self.call("import", *arguments)
            self.assertEqual(done.status, 2, done)
            self.assertIn(" for ", done.errors)
