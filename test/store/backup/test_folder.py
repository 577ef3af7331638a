"""Tests of directories of backups, of streams, and of restoring."""

from __future__ import annotations

import fcntl
import io
import os
import random
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional
from unittest import mock

from attrs import evolve

from darner.errors import StoreError, StoreUnusable
from darner.store.backup import copying
from darner.store.backup.archive import END, header, padding, receive, send
from darner.store.backup.contents import MANIFEST, BackupDamaged, BackupFile, Contents
from darner.store.backup.folder import PROOF, BackupFolder, verify
from darner.store.backup.making import Made, make_backup, receive_backup
from darner.store.backup.restoring import find_backup, restore, restore_stream
from darner.store.leveldb import LevelStore
from test import unpack
from test.store.backup.test_capture import CaptureTestCase


class BackupTestCase(CaptureTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.backups = self.directory / "backups"
        self.folder = BackupFolder(self.backups)
        self.write(0, 120, 50_000)
        self.database.compact_range(b"", b"~")

    def back_up(self, keep: Optional[int] = None) -> Made:
        return make_backup(self.backups, self.capture(), "1", keep)

    def stream(self, known: Sequence[str] = ()) -> bytes:
        capture = self.capture()
        return b"".join(
            send(capture.files, set(known), lambda files: Contents("1", capture.time, capture.position, files))
        )

    def left(self) -> list[str]:
        """@return: what is there besides backups."""
        return [name for name in os.listdir(self.backups) if name not in self.folder.names()]


class MakingTests(BackupTestCase):
    def test_incremental(self) -> None:
        """What did not change is linked, and each backup is whole by itself."""
        first, second = self.back_up(), self.back_up()
        self.assertEqual(self.folder.names(), [first.name, second.name])
        self.assertEqual((first.linked, first.copied), (second.linked, second.copied))
        self.assertGreater(first.linked, 1)
        table = next(file for file in self.folder.contents(first.name).files if file.name.endswith(".ldb"))
        inodes = {(self.backups / made.name / table.name).stat().st_ino for made in (first, second)}
        self.assertEqual(len(inodes), 1)
        self.folder.keep(1)
        verify(self.backups / second.name, self.folder.contents(second.name))

    def test_other_file_system(self) -> None:
        """The first is copied; the next links to it."""
        real = os.link

        def there(source: Path, target: Path, **_: object) -> None:
            if "leveldb.backup" in str(source) and "backups" in str(target):
                raise OSError(18, "Invalid cross-device link")
            real(source, target)

        self.patch(copying.os, "link", there)
        first = self.back_up()
        self.assertEqual(first.linked, 0)
        self.write(500, 501)
        second = self.back_up()
        self.assertGreater(second.linked, 1)
        self.assertLess(second.copied, first.copied)
        restore(find_backup(self.backups), self.directory / "new")
        self.assertEqual(len(self.keys(self.directory / "new")), 121)

    def test_no_links_at_all(self) -> None:
        self.patch(copying.os, "link", mock.Mock(side_effect=PermissionError(1, "Operation not permitted")))
        self.back_up()
        made = self.back_up()
        self.assertEqual(made.linked, 0)
        verify(self.backups / made.name, self.folder.contents(made.name))

    def test_keep(self) -> None:
        names = [self.back_up().name for _ in range(4)]
        made = self.back_up(keep=2)
        self.assertEqual(made.removed, tuple(names[:3]))
        self.assertEqual(self.folder.names(), [names[3], made.name])
        self.assertEqual(self.left(), [])

    def test_damaged_before(self) -> None:
        """The backup before is not used where its manifest is damaged, or a file is missing or too short."""
        first = self.back_up()
        tables = sorted((self.backups / first.name / "leveldb").glob("*.ldb"))
        tables[0].unlink()
        data = tables[1].read_bytes()
        tables[1].unlink()
        tables[1].write_bytes(data[:100])
        second = self.back_up()
        verify(self.backups / second.name, self.folder.contents(second.name))
        (self.backups / second.name / MANIFEST).write_bytes(b"{}")
        third = self.back_up()
        verify(self.backups / third.name, self.folder.contents(third.name))

    def test_at_the_same_time(self) -> None:
        self.back_up()
        with self.folder.adding():
            self.assertIn("another backup", str(self.assertRaises(StoreError, self.back_up)))
        self.assertEqual(len(self.folder.names()), 1)

    def test_given_up(self) -> None:
        """Nothing is left, and earlier ones are as they were."""
        first = self.back_up()
        capture = self.capture()
        calls: list[int] = []

        def proceed() -> None:
            calls.append(1)
            if len(calls) > 5:
                raise StoreError("stopped")

        self.assertRaises(StoreError, make_backup, self.backups, capture, "1", None, proceed)
        self.assertEqual((self.folder.names(), self.left()), ([first.name], []))

    def test_full_disk(self) -> None:
        first = self.back_up()
        self.patch(copying.os, "fsync", mock.Mock(side_effect=OSError(28, "No space left on device")))
        error = self.assertRaises(StoreError, self.back_up)
        self.assertIn("No space left on device", str(error))
        self.assertEqual((self.folder.names(), self.left()), ([first.name], []))

    def test_killed_at_any_point(self) -> None:
        """What is left by a process that was killed is no backup, and goes with the next one."""
        first = self.back_up()
        (self.backups / ".unfinished-000002" / "leveldb").mkdir(parents=True)
        (self.backups / ".unfinished-000002" / "leveldb" / "CURRENT").write_bytes(b"x")
        (self.backups / f".removed-{first.name}").mkdir()
        (self.backups / "000009-20260101T000000Z").mkdir()
        (self.backups / f"{PROOF}old").touch()
        os.utime(self.backups / f"{PROOF}old", (5, 5))
        self.assertEqual(self.folder.names(), [first.name])
        made = self.back_up()
        self.assertTrue(made.name.startswith("000010-"))
        self.assertEqual(self.left(), ["000009-20260101T000000Z"])

    def test_verify(self) -> None:
        made = self.back_up()
        path, contents = self.backups / made.name, self.folder.contents(made.name)
        for file in contents.files:
            data = (path / file.name).read_bytes()
            for wrong in (data[:-1] + bytes([data[-1] ^ 1]), data + b"x", data[:-1], None) if data else ():
                (path / file.name).unlink()
                if wrong is not None:
                    (path / file.name).write_bytes(wrong)
                self.assertIn(file.name, str(self.assertRaises(BackupDamaged, verify, path, contents)))
                (path / file.name).write_bytes(data)
        verify(path, contents)


class ContentsTests(BackupTestCase):
    def test_damaged(self) -> None:
        """At each byte."""
        data = Contents("1", 5, {"sequence": 7}, (BackupFile("leveldb/CURRENT", 5, "", "0" * 64),)).to_bytes()
        good = Contents.from_bytes(data)
        for at in range(len(data)):
            for wrong in (data[:at], data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]):
                try:
                    same = Contents.from_bytes(wrong)
                except BackupDamaged:
                    continue
                self.assertEqual(same, good)

    def test_hostile(self) -> None:
        """Checksums do not help against who can make them."""
        entry = BackupFile("leveldb/x", 5, "", "0" * 64)
        for wrong in (
            evolve(entry, name="../x"), evolve(entry, name="/etc/passwd"), evolve(entry, name="leveldb/../x"),
            evolve(entry, name="leveldb/a/b"), evolve(entry, name="x"), evolve(entry, name="leveldb/.."),
            evolve(entry, size=-1), evolve(entry, size="5"), evolve(entry, sha256="x"), evolve(entry, identity=5),
            evolve(entry, name=5),
        ):  # fmt: skip
            self.assertRaises(BackupDamaged, Contents.from_bytes, Contents("1", 5, {}, (wrong,)).to_bytes())
        self.assertRaises(BackupDamaged, Contents.from_bytes, Contents("1", 5, {}, (entry, entry)).to_bytes())
        for data in (b"[]", b"5", b"[" * 100_000, b"\xff", b"{}"):
            self.assertRaises(BackupDamaged, Contents.from_bytes, data)


class StreamTests(BackupTestCase):
    def receive(self, data: bytes) -> Contents:
        self.restored += 1
        target = self.directory / f"received{self.restored}"
        return restore_stream(io.BytesIO(data).read, target)

    def refuse(self, data: bytes) -> None:
        self.assertRaises(BackupDamaged, self.receive, data)
        target = self.directory / f"received{self.restored}"
        self.assertRaises(StoreUnusable, LevelStore, target)
        self.assertFalse((self.directory / "x").exists())

    def test_tar(self) -> None:
        """Any tar unpacks it."""
        with tarfile.open(fileobj=io.BytesIO(self.stream())) as archive:
            names = archive.getnames()
            self.assertEqual(names[-1], MANIFEST)
            unpack(archive, self.directory / "unpacked")
        restore(find_backup(self.directory / "unpacked"), self.directory / "new")
        self.assertEqual(len(self.keys(self.directory / "new")), 120)

    def test_restored(self) -> None:
        self.receive(self.stream())
        self.assertEqual(len(self.keys(self.directory / "received1")), 120)

    def test_in_small_pieces(self) -> None:
        stream = io.BytesIO(self.stream())
        restore_stream(lambda most: stream.read(min(most, random.randint(1, 5000))), self.directory / "new")
        self.assertEqual(len(self.keys(self.directory / "new")), 120)

    def test_received_as_a_backup(self) -> None:
        """The second stream leaves out what the first has brought."""
        sizes = []

        def ask(known: Sequence[str]) -> object:
            data = self.stream(known)
            sizes.append(len(data))
            return io.BytesIO(data).read

        first = receive_backup(self.backups, ask)  # type: ignore[arg-type]
        self.write(500, 501)
        second = receive_backup(self.backups, ask, 1)  # type: ignore[arg-type]
        self.assertEqual(second.removed, (first.name,))
        self.assertGreater(second.linked, 1)
        self.assertLess(sizes[1], sizes[0] / 2)
        restore(find_backup(self.backups), self.directory / "new")
        self.assertEqual(len(self.keys(self.directory / "new")), 121)

    def test_incremental_alone(self) -> None:
        """A stream that leaves out something does for nobody who does not have it."""
        known = [captured.file.identity for captured in self.capture().files if captured.file.identity]
        self.refuse(self.stream(known))

    def small(self) -> bytes:
        """@return: a stream of a small store."""
        store = LevelStore(self.directory / "small")
        self.addCleanup(store.close)
        store._database.write([(b"x1", b"1")])
        self.database, database = store._database, self.database
        try:
            return self.stream()
        finally:
            self.database = database

    def test_cut(self) -> None:
        data = self.small()
        for at in {*range(0, len(data), 512), *random.sample(range(len(data)), 10), len(data) - 1}:
            self.refuse(data[:at])

    def test_damaged(self) -> None:
        """At each byte: it is noticed, or what is restored is the same."""
        data = self.small()
        good = receive(io.BytesIO(data).read, self.made("good"))
        for at in {*range(0, 512, 17), *random.sample(range(len(data)), 100)}:
            wrong = data[:at] + bytes([data[at] ^ random.randint(1, 255)]) + data[at + 1 :]
            target = self.made(f"t{at}")
            try:
                found = receive(io.BytesIO(wrong).read, target)
            except BackupDamaged:
                continue
            self.assertEqual(found.files, good.files, at)
            verify(target, good)

    def made(self, name: str) -> Path:
        path = self.directory / name
        path.mkdir()
        return path

    def test_hostile(self) -> None:
        def file(name: str, data: bytes) -> bytes:
            return header(name, len(data), 0) + data + padding(len(data))

        def manifest(*files: BackupFile) -> bytes:
            return file(MANIFEST, Contents("1", 1, {}, files).to_bytes())

        one = BackupFile("leveldb/x", 1, "", "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881")
        good = file("leveldb/x", b"x")
        self.assertEqual(receive(io.BytesIO(good + manifest(one) + END).read, self.made("ok")).files, (one,))
        for name in (
            "../x", "/tmp/x", "leveldb/../../x", "x", "leveldb/a/b", "leveldb/" + "a" * 90, "LevelDB/x", "./x/y",
        ):  # fmt: skip
            self.refuse(file(name, b"x") + manifest() + END)
        link = tarfile.TarInfo("leveldb/x")
        for kind in (
            tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_LONGNAME, b"x",
        ):  # fmt: skip
            link.type, link.linkname = kind, "/etc"
            self.refuse(link.tobuf(tarfile.GNU_FORMAT) + manifest() + END)
        self.refuse(good + good + manifest(one) + END)
        self.refuse(good + manifest() + END)
        self.refuse(manifest(one) + END)
        self.refuse(good + manifest(one) + good)
        self.refuse(good + manifest(evolve(one, size=2)) + END)
        self.refuse(good + manifest(evolve(one, sha256="0" * 64)) + END)
        self.refuse(good + header(MANIFEST, 2**40, 0) + END)
        self.refuse(header("leveldb/x", 2**62, 0) + b"x" * 1000)
        self.refuse(good + manifest(one) + END)  # whole, and yet no database
        self.refuse(bytes(5000))
        self.refuse(random.randbytes(5000))


class RestoreTests(BackupTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.names = [self.back_up().name]
        self.write(500, 501)
        self.names.append(self.back_up().name)
        self.target = self.directory / "new"

    def test_which(self) -> None:
        self.assertEqual(find_backup(self.backups).name, self.names[1])
        self.assertEqual(find_backup(self.backups, self.names[0]).name, self.names[0])
        self.assertEqual(find_backup(self.backups / self.names[0]).name, self.names[0])
        for source, name in ((self.backups, "000009"), (self.directory, ""), (self.directory / "none", "")):
            self.assertRaises(StoreUnusable, find_backup, source, name)

    def test_empty_or_missing(self) -> None:
        self.target.mkdir()
        (self.target / "lost+found").mkdir()
        restore(find_backup(self.backups, self.names[0]), self.target)
        self.assertEqual(len(self.keys(self.target)), 120)
        (self.directory / "other").mkdir()
        (self.directory / "other" / "file").touch()
        for path in (self.target, self.directory / "other", self.directory / "other" / "file"):
            self.assertRaises(StoreUnusable, restore, find_backup(self.backups), path)
        self.assertEqual(os.listdir(self.directory / "other"), ["file"])

    def test_damaged(self) -> None:
        """No server starts on what is there then, and a restore of another backup makes it whole."""
        path = find_backup(self.backups)
        table = next((path / "leveldb").glob("*.ldb"))
        data = table.read_bytes()
        table.unlink()
        for wrong in (None, data[:-1] + b"\0", data + b"x", data[:100]):
            if wrong is not None:
                table.write_bytes(wrong)
            self.assertIn(table.name, str(self.assertRaises(BackupDamaged, restore, path, self.target)))
            error = self.assertRaises(StoreUnusable, LevelStore, self.target)
            self.assertIn("did not end", str(error))
        table.write_bytes(data)
        restore(path, self.target)
        self.assertEqual(len(self.keys(self.target)), 121)

    def test_cut_short_at_any_point(self) -> None:
        """A server starts on it only once the restore has ended."""
        path = find_backup(self.backups)

        class Killed(BaseException):
            pass

        for name in ("fsync", "unlink", "rename"):
            for at in (1, 2, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18):
                calls = [0]
                real = getattr(os, name)

                def last(*arguments: Any, **options: Any) -> Any:
                    calls[0] += 1  # noqa: B023
                    if calls[0] == at:  # noqa: B023
                        raise Killed()
                    return real(*arguments, **options)  # noqa: B023

                with mock.patch.object(os, name, last):
                    try:
                        restore(path, self.target)
                    except Killed:
                        pass
                    else:
                        break
                if not self.target.exists():
                    continue
                if (self.target / "restoring").exists():
                    self.assertRaises(StoreUnusable, LevelStore, self.target)
                elif os.listdir(self.target):
                    break  # it was done by then
            shutil.rmtree(self.target, ignore_errors=True)

    def test_two_at_once(self) -> None:
        self.target.mkdir()
        with (self.target / "restoring").open("wb") as mark:
            fcntl.flock(mark, fcntl.LOCK_EX)
            self.assertRaises(StoreUnusable, restore, find_backup(self.backups), self.target)

    def test_full_disk(self) -> None:
        with mock.patch.object(copying.os, "fsync", side_effect=OSError(28, "No space left on device")):
            error = self.assertRaises(StoreError, restore, find_backup(self.backups), self.target)
        self.assertIn("No space left on device", str(error))
        restore(find_backup(self.backups), self.target)
        self.assertEqual(len(self.keys(self.target)), 121)
