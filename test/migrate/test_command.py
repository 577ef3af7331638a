"""
Tests of ``python -m darner.migrate`` and of `darner.migrate.opening`.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

from darner.migrate import __main__ as command
from darner.migrate.opening import open_source
from darner.migrate.sources import SourceError, queue_name
from darner.store.leveldb import LevelStore
from test.migrate import journals as write
from test.migrate.binlogs import binlog, job
from test.migrate.reading import snapshot, unpacked
from test.migrate.test_offline import contents
from test.servers import ROOT, Server, environment, make_directory


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class CommandCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = make_directory(self)
        self.data = self.directory / "data"
        self.journals = self.directory / "kestrel"
        self.journals.mkdir()
        (self.journals / "jobs").write_bytes(write.addx(b"a") + write.addx(b"b") + write.remove_tentative_xid(1))

    def run_command(self, *arguments: object, terminal: bool = False) -> tuple[int, str, str]:
        """@return: the exit status, and what is printed on standard output and standard error."""
        out, err = io.StringIO(), Terminal() if terminal else io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                status = command.main([str(argument) for argument in arguments])
            except SystemExit as end:
                status = int(end.code or 0)
        return status, out.getvalue(), err.getvalue()


class CommandTests(CommandCase):
    def test_import(self) -> None:
        before = snapshot(self.journals)
        status, out, err = self.run_command(self.journals, "--data-dir", self.data)
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(out.splitlines(), [
            f"Kestrel, {self.journals}", "queue jobs: 2 items, 2 bytes",
            "note: open reads become ready items, at the heads of their queues (1)",
            "total: 1 queues, 2 items, 2 bytes imported",
        ])  # fmt: skip
        self.assertEqual([item.payload for item in contents(self.data)[b"jobs"]], [b"a", b"b"])
        self.assertEqual(snapshot(self.journals), before)

    def test_served(self) -> None:
        """What was imported is what a server gives out."""
        self.run_command(unpacked("cpp-darner-killed", self.directory), "--data-dir", self.data, "--exclude", "gone.*")
        server = Server(self, directory=self.directory)
        with server.client() as client:
            self.assertEqual(client.get(b"jobs"), b"job 0")
            self.assertEqual(client.get(b"jobs"), b"job 2")
            self.assertEqual(len(client.get(b"large") or b""), 5001)
            self.assertEqual(client.stats()[b"curr_items"], b"19")

    def test_servers(self) -> None:
        (self.directory / "config").write_text('[queues."*"]\ndedupe_window = "1d"\n')
        server = Server(
            self, "--port=0", f"--data-dir={self.data}", f"--config={self.directory / 'config'}",
            directory=self.directory,
        )  # fmt: skip
        for _ in range(2):
            status, _, err = self.run_command(self.journals, "--servers", f"127.0.0.1:{server.address[1]}")
            self.assertEqual((status, err), (0, ""))
        with server.client() as client:
            self.assertEqual([client.get(b"jobs"), client.get(b"jobs"), client.get(b"jobs")], [b"a", b"b", None])

    def test_dry_run(self) -> None:
        status, out, _ = self.run_command(self.journals, "--dry-run", "--data-dir", self.data)
        self.assertEqual(status, 0)
        self.assertTrue(out.endswith("total: 1 queues, 2 items, 2 bytes to import\n"))
        self.assertFalse(self.data.exists())

    def test_damaged(self) -> None:
        """The exit status tells that not all could be read."""
        with (self.journals / "jobs").open("ab") as journal:
            journal.write(b"\2\1")
        status, out, _ = self.run_command(self.journals, "--data-dir", self.data)
        self.assertEqual(status, 1)
        self.assertIn("unreadable: jobs, offset 49 of 51: the last operation is cut short", out)

    def test_errors(self) -> None:
        status, out, err = self.run_command(self.directory / "none", "--dry-run")
        self.assertEqual((status, out, err), (2, "", f"darner: {self.directory / 'none'} is not a directory\n"))
        status, _, err = self.run_command(self.journals)
        self.assertEqual(status, 2)
        self.assertIn("name --data-dir or --servers, or ask for a --dry-run", err)
        status, _, err = self.run_command(self.journals, "--data-dir", self.journals)
        self.assertEqual(status, 2)
        self.assertIn("holds journals of Kestrel: name an empty directory as the data directory", err)

    def test_progress(self) -> None:
        _, _, err = self.run_command(self.journals, "--data-dir", self.data, terminal=True)
        self.assertEqual(err, "\rjobs: 0 items, 0 MB\033[K\r\033[K")
        _, _, err = self.run_command(self.journals, "--data-dir", self.data, "--quiet", terminal=True)
        self.assertEqual(err, "")
        _, _, err = self.run_command(self.journals / "none", "--dry-run", terminal=True)
        self.assertTrue(err.startswith("\ndarner: "), err)

    def test_module(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "darner.migrate", str(self.journals), "--dry-run"], cwd=ROOT, env=environment(),
            capture_output=True, check=False, text=True,
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("2 items", done.stdout)


class DocumentTests(CommandCase):
    def test_report(self) -> None:
        """The report in `docs/migration.rst` is that of a directory among the tests' data."""
        text = (ROOT / "docs" / "migration.rst").read_text()
        (shown,) = re.findall(r"    \$ python -m darner.migrate (\S+) --dry-run\n((?:    .*\n)+)", text)
        directory = unpacked("cpp-darner-killed", self.directory)
        _, out, _ = self.run_command(directory, "--dry-run")
        self.assertEqual(out.replace(str(directory), shown[0]), shown[1].replace("    ", ""))

    def test_program(self) -> None:
        text = (ROOT / "docs" / "migration.rst").read_text()
        (program,) = re.findall(r"code-block:: python\n\n((?:(?:    .*)?\n)+)", text)
        program = program.replace("/var/spool/darner", str(self.journals)).replace("/var/lib/darner", str(self.data))
        out = io.StringIO()
        with redirect_stdout(out):
            exec(dedent(program), {})
        self.assertEqual(out.getvalue().splitlines()[:2], ["2", "True"])


class OpeningTests(CommandCase):
    def error(self, place: object) -> str:
        return str(self.assertRaises(SourceError, open_source, str(place)))

    def test_kinds(self) -> None:
        """A directory is known by its files, also where one kind looks like another."""
        self.assertEqual(open_source(str(self.journals)).kind, "Kestrel")
        self.assertEqual(open_source(str(unpacked("cpp-darner-clean", self.directory))).kind, "C++ Darner")
        beanstalkd = self.directory / "beanstalkd"
        beanstalkd.mkdir()
        (beanstalkd / "binlog.1").write_bytes(binlog(job(1, b"a")))
        self.assertEqual(open_source(str(beanstalkd)).kind, "beanstalkd")

    def test_no_source(self) -> None:
        empty = self.directory / "empty"
        empty.mkdir()
        self.assertEqual(self.error(empty), f"{empty} holds nothing of the C++ Darner, of Kestrel or of beanstalkd")
        (empty / "file").write_bytes(b"what is this")
        self.assertIn("holds nothing of", self.error(empty))
        self.assertIn("cannot import from http: known are redis and rediss", self.error("http://host/"))
        LevelStore(self.data).close()
        self.assertIn("is a data directory of this server", self.error(self.data))

    def test_unreadable(self) -> None:
        def fail(_: Path) -> bool:
            raise PermissionError(13, "Permission denied")

        self.patch(Path, "is_dir", fail)
        self.assertEqual(self.error(self.journals), f"cannot read {self.journals}: Permission denied")


class NameTests(SynchronousTestCase):
    def test_names(self) -> None:
        for name, expected in (
            (b"jobs", b"jobs"), (b"a+b.c%41", b"a+b.c%41"), (b"a b/c", b"a%20b%2Fc"), (b"9% / x", b"9%25%20%2F%20x"),
            ("ä".encode(), b"%C3%A4"), (b"", b"%"), (b"x" * 250, b"x" * 250),
        ):  # fmt: skip
            self.assertEqual(queue_name(name), expected)

    def test_long_names(self) -> None:
        """They stay different."""
        one, other = queue_name(b"x" * 251), queue_name(b"x" * 252)
        self.assertEqual((len(one), len(other)), (250, 250))
        self.assertNotEqual(one, other)
        self.assertEqual(one, queue_name(b"x" * 251))
