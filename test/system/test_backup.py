"""Backups of real servers under load, by the real program, with either killed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

from darner.store.backup.folder import BackupFolder, verify
from test.commands.harness import Done, ProgramTestCase, call
from test.servers import Client, Server, until

AHEAD = 1000
"""How many items there are at most, however long the load lasts."""


def found(path: Path, pattern: str) -> list[Path]:
    """@return: the files below a directory that match, of those that do not go meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return list(path.glob(pattern))
    return []


class BackupTestCase(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.backups = Path(self.directory) / "backups"
        settings = Path(self.directory) / "darner.toml"
        settings.write_text(f'backup_dir = "{self.directory}"\n')
        self.own = Server(
            self, "--port=0", "--http-port=0", f"--data-dir={self.directory}/data", f"--config={settings}"
        )
        self.folder = BackupFolder(self.backups)

    @property
    def url(self) -> str:
        return re.findall(r"http://127\.0\.0\.1:\d+", self.own.text)[-1]

    def run_program(self, *arguments: str, given: bytes = b"") -> Done:
        done = call("--http", self.url, *arguments, given=given)
        self.assertEqual((done.status, done.errors), (0, ""), done)
        return done

    def fill(self, items: int = 300, queue: bytes = b"filled") -> None:
        with self.own.client() as client:
            for number in range(items):
                payload = os.urandom(100) * 300
                self.assertEqual(client.set(queue, b"%08d" % number + payload), b"STORED")

    def contents(self, data: Path, queue: bytes) -> list[int]:
        """@return: the numbers of the items that a server has on a restored directory."""
        server = Server(self, "--port=0", f"--data-dir={data}")
        numbers = []
        with server.client() as client:
            while (payload := client.get(queue)) is not None:
                numbers.append(int(payload[:8]))
        server.stop()
        return numbers


class Load:
    """One client puts numbered items, another takes them; both note what was answered.  Some 50 always stay."""

    def __init__(self, server: Server) -> None:
        self.asked_put = self.put = self.asked_get = self.got = 0
        self._stop = False
        self._server = server
        self._threads = [threading.Thread(target=self._run, args=(work,)) for work in (self._put, self._get)]
        for thread in self._threads:
            thread.start()

    def _run(self, work: object) -> None:
        with self._server.client() as client:
            while not self._stop:
                work(client)  # type: ignore[operator]

    def _put(self, client: Client) -> None:
        if self.put > self.got + AHEAD:
            time.sleep(0.001)
            return
        self.asked_put += 1
        assert client.set(b"load", b"%08d" % self.put + bytes(2000)) == b"STORED"
        self.put += 1

    def _get(self, client: Client) -> None:
        if self.got + 50 > self.put:
            time.sleep(0.001)
            return
        self.asked_get += 1
        assert client.get(b"load") is not None
        self.got += 1

    def stop(self) -> None:
        self._stop = True
        for thread in self._threads:
            thread.join()


class UnderLoadTests(BackupTestCase):
    def test_moment(self) -> None:
        """What was answered before is there, and what was taken before is not; nothing is missing in between."""
        self.fill(600)  # more than a segment
        load = Load(self.own)
        self.addCleanup(load.stop)
        for number, how in enumerate(("server", "stream", "directory", "server")):
            until(lambda: load.got > 50 * (number + 1), "there is load")  # noqa: B023
            put, got = load.put, load.got
            target = Path(self.directory) / f"restored{number}"
            if how == "stream":
                stream = self.run_program("backup", "-").out
                asked_put, asked_get = load.asked_put, load.asked_get
                self.run_program("restore", "-", "--data-dir", str(target), given=stream)
            else:
                place = self.backups if how == "server" else self.own.directory / "elsewhere"
                made = self.run_program("backup", str(place), "--json").json
                asked_put, asked_get = load.asked_put, load.asked_get
                self.assertEqual(made["linked"] > 0, how == "server")
                self.run_program("restore", str(place), "--data-dir", str(target))
            numbers = self.contents(target, b"load")
            self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))))
            self.assertTrue(got <= numbers[0] <= asked_get, (how, got, numbers[0], asked_get))
            self.assertTrue(put <= numbers[-1] + 1 <= asked_put, (how, put, numbers[-1], asked_put))

    def test_check(self) -> None:
        self.fill(50)
        self.assertIn("checked", self.run_program("backup", str(self.backups), "--check", "--keep", "1").text)
        (name,) = self.folder.names()
        self.assertEqual(sorted(os.listdir(self.backups)), [name])
        self.assertEqual(self.contents(self.restored(name), b"filled"), list(range(50)))

    def restored(self, name: str) -> Path:
        target = Path(self.directory) / "restored"
        self.run_program("restore", str(self.backups), "--backup", name, "--data-dir", str(target))
        return target

    def test_open_items(self) -> None:
        """They are ready again, at their places."""
        self.fill(5)
        with self.own.client() as client:
            self.assertEqual(client.get(b"filled/open")[:8], b"00000000")  # type: ignore[index]
            self.run_program("backup", str(self.backups))
        self.assertEqual(self.contents(self.restored(self.folder.names()[0]), b"filled"), list(range(5)))


class KilledTests(BackupTestCase):
    def program(self, place: Path) -> subprocess.Popen[bytes]:
        return self.start("--http", self.url, "backup", str(place), stderr=subprocess.DEVNULL)

    def test_server(self) -> None:
        """At several points of a backup: its queues and the earlier backups are whole, and the next one is made."""
        self.fill()
        self.run_program("backup", str(self.backups))
        (first,) = self.folder.names()
        staged = Path(self.directory) / "data" / "leveldb.backup"
        points = (
            lambda: staged.exists(), lambda: len(found(staged, "leveldb/*")) > 2,
            lambda: found(self.backups, ".unfinished-*/leveldb/*"),
        )  # fmt: skip
        for point in points:
            program = self.program(self.backups)
            until(lambda: point() or program.poll() is not None, "the backup is being made")  # noqa: B023
            self.own.kill()
            program.wait()
            verify(self.backups / first, self.folder.contents(first))
            for name in self.folder.names():
                verify(self.backups / name, self.folder.contents(name))
            self.own.start()
            self.assertFalse(staged.exists())
            with self.own.client() as client:
                self.assertEqual(client.count(b"filled"), 300)
        self.run_program("backup", str(self.backups))
        self.assertFalse(list(self.backups.glob(".unfinished-*")))

    def test_program(self) -> None:
        """Whichever side writes: the server goes on, and has nothing left of it soon."""
        self.fill()
        elsewhere = self.own.directory / "elsewhere"
        for place in (self.backups, elsewhere):
            self.run_program("backup", str(place))
            program = self.program(place)
            until(lambda: found(place, ".unfinished-*") or program.poll() is not None, "it works")  # noqa: B023
            program.send_signal(signal.SIGKILL)
            program.wait()
            until(lambda: not (Path(self.directory) / "data" / "leveldb.backup").exists(), "the server is done")
            for name in BackupFolder(place).names():
                verify(place / name, BackupFolder(place).contents(name))

            def made(place: Path = place) -> bool:
                return call("--http", self.url, "backup", str(place)).status == 0

            until(made, "a backup is made")
        with self.own.client() as client:
            self.assertEqual(client.count(b"filled"), 300)


class RefusedTests(BackupTestCase):
    def test_hostile_directory(self) -> None:
        """The server writes nowhere but below backup_dir, and where the program can write."""
        outside = self.own.directory / "outside"
        outside.mkdir()
        (Path(self.directory) / "link").symlink_to(outside)
        for place in (outside, Path(self.directory) / "link"):
            done = self.run_program("backup", str(place), "--json")
            self.assertEqual(done.json["linked"], 0, "the program has written it, of a stream")

    def test_words(self) -> None:
        for arguments, status, text in (
            (("backup", "-", "--keep", "3"), 2, "--keep are for a directory"),
            (("restore", "-", "--backup", "x", "-d", "y"), 2, "a stream has one backup"),
            (("restore", str(self.directory), "-d", "y"), 1, "there is no backup"),
        ):
            done = call("--http", self.url, *arguments)
            self.assertEqual(done.status, status)
            self.assertIn(text, done.errors)
