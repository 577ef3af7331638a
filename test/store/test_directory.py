"""
Tests of `darner.store.directory`'s reserve, and of what it is for.  The rest of it is in `test.store.test_leveldb`.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import plyvel
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from darner.errors import StoreError, StoreUnusable
from darner.front.protocol import QueueFactory
from darner.queues.collection import Queues
from darner.queues.surroundings import Surroundings
from darner.store.batch import Batch
from darner.store.directory import MARKER_TEXT, RESERVE_BYTES
from darner.store.leveldb import LevelStore
from darner.store.reserve import Reserve
from test.front.test_protocol import MemoryClient

MIB = 1024 * 1024


def with_room(room: int) -> os.statvfs_result:
    """@return: what the system says of a file system with so many free bytes."""
    return os.statvfs_result((4096, 4096, 0, 0, room // 4096, 0, 0, 0, 0, 255))


class ReserveTests(SynchronousTestCase):
    """Room that is kept."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.reserve = Reserve(self.path, MIB)

    def leave(self, room: int) -> None:
        self.patch(os, "fstatvfs", lambda _: with_room(room))

    def test_take_and_give_up(self) -> None:
        self.assertTrue(self.reserve.take())
        self.assertTrue(self.reserve.take())
        self.assertEqual((self.reserve.held, self.path.stat().st_size), (True, MIB))
        self.assertGreaterEqual(self.path.stat().st_blocks * 512, MIB)
        self.reserve.give_up()
        self.reserve.give_up()
        self.assertEqual((self.reserve.held, self.path.exists()), (False, False))

    def test_one_that_is_there_is_kept_on_a_full_disk(self) -> None:
        self.reserve.take()
        self.leave(0)
        self.assertTrue(Reserve(self.path, MIB).take())

    def test_the_last_room_is_not_taken(self) -> None:
        self.leave(MIB + MIB // 4)
        self.assertFalse(self.reserve.take())
        self.assertFalse(self.path.exists())
        self.leave(2 * MIB)
        self.assertTrue(self.reserve.take())

    def test_a_disk_that_does_neither(self) -> None:
        """It can be neither made nor removed: nothing is raised, and the reason is said."""

        def fails(*_: object, **__: object) -> None:
            raise OSError(errno.EROFS, "this text is not used")

        self.reserve.take()
        self.patch(Path, "unlink", fails)
        self.reserve.give_up()
        self.assertEqual((self.reserve.held, self.path.stat().st_size), (False, 0))
        self.patch(os, "truncate", fails)
        self.patch(os, "open", fails)
        self.reserve.give_up()
        self.assertFalse(self.reserve.take())
        self.assertEqual(self.reserve.reason, os.strerror(errno.EROFS))


class OlderLogsTests(SynchronousTestCase):
    """A write with sync is safe together with all that was written before it."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.store = LevelStore(self.path)
        self.addCleanup(self.store.close)
        self.directory = self.store._database.directory
        self.synced: list[str] = []
        self.patch(os, "fsync", lambda file: self.synced.append(Path(os.readlink(f"/proc/self/fd/{file}")).name))

    def write(self) -> None:
        batch = Batch()
        batch.create(b"q", self.store.new_number(), 0)
        self.store.write(batch, sync=True)

    def test_logs_before_the_newest(self) -> None:
        for name in ("000001.log", "000002.log", "9999999.log"):
            (self.directory.database / name).touch()
        self.write()
        logs = {path.name for path in self.directory.database.glob("*.log")}
        self.assertGreaterEqual(len(logs), 4)
        self.assertEqual(set(self.synced), logs - {"9999999.log"} | {"leveldb"})

    def test_the_directory_when_a_log_is_new(self) -> None:
        self.write()
        self.write()
        self.assertEqual(self.synced, ["leveldb"])

    def test_once_for_each_change(self) -> None:
        """Older logs are not looked for again, until the directory has changed, or may have since."""
        listed: list[object] = []
        listdir = os.listdir
        self.patch(os, "listdir", lambda path: listed.append(path) or listdir(path))
        database = self.directory.database

        def looks(seconds_ago: float) -> bool:
            listed.clear()
            changed = time.time() - seconds_ago
            os.utime(database, (changed, changed))
            self.directory.sync_older_logs()
            first = len(listed)
            self.directory.sync_older_logs()
            self.assertEqual(first, 1)
            return len(listed) > 1

        self.assertFalse(looks(10))
        # As just now, however long this process has stood still since.
        self.assertTrue(looks(-60))
        self.assertTrue(looks(-10))
        self.assertFalse(looks(5))
        older = database / "000001.log"
        older.touch()
        self.synced.clear()
        self.directory.sync_older_logs()
        self.assertIn(older.name, self.synced)

    def test_a_fault_is_not_forgotten(self) -> None:
        """A log that could not be synced is synced the next time."""
        older = self.directory.database / "000001.log"
        older.touch()
        os.utime(self.directory.database, (1, 1))
        fsync = os.fsync

        def fail(file: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, "fsync", fail)
        self.assertRaises(OSError, self.directory.sync_older_logs)
        self.patch(os, "fsync", fsync)
        self.directory.sync_older_logs()
        self.assertIn(older.name, self.synced)

    def test_log_that_is_gone_by_then(self) -> None:
        listed = ["000001.log", "000009.log", "x.log"]
        self.patch(os, "listdir", lambda _: listed)
        self.directory.sync_older_logs()
        self.assertEqual(self.synced, ["leveldb"])

    def test_a_fault(self) -> None:
        def fail(file: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, "fsync", fail)
        error = self.assertRaises(StoreError, self.write)
        self.assertEqual(str(error), "cannot write: Input/output error")
        self.assertRaises(StoreError, self.write)
        self.store.mend()
        self.patch(os, "fsync", lambda _: None)
        self.write()


class FirstStartTests(SynchronousTestCase):
    """The machine remembers what was made: the directories, and the database in them."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute() / "new" / "data"
        self.synced: list[str] = []
        fsync = os.fsync

        def note(file: int) -> None:
            self.synced.append(os.readlink(f"/proc/self/fd/{file}"))
            fsync(file)

        self.patch(os, "fsync", note)

    def test_all_is_safe(self) -> None:
        LevelStore(self.path).close()
        made = {str(path) for path in (self.path, *list(self.path.parents)[:3])}
        self.assertLessEqual(made, set(self.synced))
        # Renamed when it is whole, and then its name is made safe.
        new = f"{self.path}/leveldb.new"
        files = [at for at, path in enumerate(self.synced) if path.startswith(new)]
        self.assertGreater(len(files), 3)
        self.assertEqual(self.synced[files[-1]], new)
        self.assertIn(str(self.path), self.synced[files[-1] :])

    def test_made_by_one_that_was_killed(self) -> None:
        """What it made may not be safe yet."""
        (self.path / "leveldb").mkdir(parents=True)
        (self.path / "darner").write_bytes(MARKER_TEXT)
        LevelStore(self.path).close()
        self.assertLessEqual({str(self.path.parent), str(self.path)}, set(self.synced))

    def test_database_that_was_not_finished(self) -> None:
        """It holds nothing, and is made anew."""
        LevelStore(self.path).close()
        (self.path / "leveldb").rename(self.path / "leveldb.new")
        (self.path / "leveldb").mkdir()
        for file in (self.path / "leveldb.new").glob("MANIFEST*"):
            file.unlink()
        LevelStore(self.path).close()
        self.assertFalse((self.path / "leveldb.new").exists())

    def test_parent_that_cannot_be_read(self) -> None:
        LevelStore(self.path).close()
        open_file = os.open

        def refuse(path: Any, *arguments: Any, **more: Any) -> int:
            if path == self.path.parent:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return open_file(path, *arguments, **more)

        self.patch(os, "open", refuse)
        LevelStore(self.path).close()

    def test_a_fault(self) -> None:
        def fail(file: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(os, "fsync", fail)
        self.assertIn("Input/output error", str(self.assertRaises(StoreUnusable, LevelStore, self.path)))
        self.patch(os, "fsync", lambda _: None)
        LevelStore(self.path).close()


class SmallDisk:
    """A disk with little room, for a LevelDB and a reserve.  What is deleted from the database comes back at once."""

    def __init__(self, case: SynchronousTestCase, path: Path, room: int) -> None:
        self._reserve = path / "reserve"
        self.room = room
        self.opened = 0
        case.patch(os, "fstatvfs", lambda _: with_room(self.left))

    @property
    def left(self) -> int:
        reserve = self._reserve.stat().st_blocks * 512 if self._reserve.exists() else 0
        return max(0, self.room - reserve)

    def open(self, *args: Any, **options: Any) -> Any:
        if self.left < 4 * MIB:
            raise plyvel.IOError(b"IO error: 000005.ldb: No space left on device")
        self.opened += 1
        return Limited(self, plyvel.DB(*args, **options))


class Limited:
    """A database on a L{SmallDisk}."""

    def __init__(self, disk: SmallDisk, database: Any) -> None:
        self._disk = disk
        self._database = database

    def put(self, key: bytes, value: bytes, sync: bool = False) -> None:
        batch = self.write_batch(sync=sync)
        batch.put(key, value)
        batch.write()

    def write_batch(self, sync: bool = False) -> Any:
        return LimitedBatch(self._disk, self._database.write_batch(sync=sync))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


class LimitedBatch:
    def __init__(self, disk: SmallDisk, batch: Any) -> None:
        self._disk = disk
        self._batch = batch
        self._size = 0
        self.delete = batch.delete

    def put(self, key: bytes, value: bytes) -> None:
        self._size += len(key) + len(value)
        self._batch.put(key, value)

    def write(self) -> None:
        if self._size > self._disk.left:
            raise plyvel.IOError(b"IO error: 000003.log: No space left on device")
        self._disk.room -= self._size
        self._batch.write()


class OnDiskTestCase(SynchronousTestCase):
    """A server on a store in C{path}, and one client of it."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.clock = Clock()

    def start(self, open_database: Any = plyvel.DB) -> None:
        self.store = LevelStore(self.path, open_database)
        self.addCleanup(self.store.close)
        self.queues = Queues(
            self.store, Surroundings(self.clock, lambda call: self.clock.callLater(0, call), maybeDeferred)
        )
        self.queues.start()
        self.client = MemoryClient(self.clock, QueueFactory(self.queues))

    def ask(self, request: bytes) -> bytes:
        self.client.send(request)
        return self.client.receive()


class FullDiskTests(OnDiskTestCase):
    """On a full disk sets are refused, and reads and closes go on; sets work again when there is room."""

    def setUp(self) -> None:
        super().setUp()
        self.disk = SmallDisk(self, self.path, RESERVE_BYTES + 12 * MIB)
        self.start(self.disk.open)

    def set(self, number: int) -> bytes:
        payload = b"%08d" % number + bytes(4000)
        return self.ask(b"set q 0 0 %d\r\n%b\r\n" % (len(payload), payload))

    def fill(self) -> int:
        for number in range(20_000):
            reply = self.set(number)
            if reply != b"STORED\r\n":
                self.assertEqual(reply, b"SERVER_ERROR cannot write: No space left on device\r\n")
                return number
        raise AssertionError("the disk is not full")

    def test_the_queue_can_be_drained(self) -> None:
        count = self.fill()
        self.assertGreater(count, 100)
        opened = self.disk.opened
        for _ in range(20):
            self.assertEqual(self.set(0), b"SERVER_ERROR cannot write: No space left on device\r\n")
        for number in range(count):
            options = b"/close/open" if number % 2 else b"/close"
            reply = self.ask(b"get q%b\r\n" % options if number % 2 else b"get q/close\r\nget q\r\n")
            self.assertIn(b"%08d" % number, reply)
        self.assertEqual(self.ask(b"get q/close\r\nget q\r\n"), b"END\r\nEND\r\n")
        self.assertLessEqual(self.disk.opened, opened + 1)  # it is not opened anew for each set that is refused
        self.disk.room += 24 * MIB
        self.assertEqual(self.set(7), b"STORED\r\n")

    def test_nothing_is_half_there(self) -> None:
        count = self.fill()
        large = b"set q 0 0 200000\r\n" + bytes(200_000) + b"\r\n"
        self.assertEqual(self.ask(large), b"SERVER_ERROR cannot write: No space left on device\r\n")
        self.assertEqual(self.ask(b"set new 0 0 1\r\nx\r\n")[:12], b"SERVER_ERROR")
        self.store.close()
        self.start(self.disk.open)
        self.assertEqual((self.queues.names(), self.queues.make(b"q").count), ([b"q"], count))
        self.clock.advance(1)
        self.assertEqual(self.store.leftovers(), ([], []))

    def test_start_on_a_full_disk(self) -> None:
        count = self.fill()
        self.store.close()
        self.disk.room = RESERVE_BYTES + MIB
        self.start(self.disk.open)
        self.assertEqual(self.queues.make(b"q").count, count)
        self.assertIn(b"%08d" % 0, self.ask(b"get q\r\n"))
        self.assertEqual(self.set(0)[:12], b"SERVER_ERROR")

    def test_no_room_at_all(self) -> None:
        self.store.close()
        self.disk.room = 0
        error = self.assertRaises(StoreUnusable, LevelStore, self.path, self.disk.open)
        self.assertIn("No space left on device", str(error))


class FailingSync:
    """A database whose writes arrive, but whose fsync fails."""

    def __init__(self, database: Any, faults: list[str]) -> None:
        """@param faults: has an entry for each fsync that is still to fail."""
        self._database = database
        self._faults = faults

    def write_batch(self, sync: bool = False) -> Any:
        batch = self._database.write_batch(sync=sync)
        if not sync or not self._faults:
            return batch
        self._faults.pop()
        return FailingBatch(batch)

    def put(self, key: bytes, value: bytes, sync: bool = False) -> None:
        batch = self.write_batch(sync=sync)
        batch.put(key, value)
        batch.write()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


class FailingBatch:
    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self.put = batch.put
        self.delete = batch.delete

    def write(self) -> None:
        self._batch.write()
        raise plyvel.IOError(b"IO error: 000003.log: Input/output error")


class FailingSyncTests(OnDiskTestCase):
    """What was refused because it could not be made safe is not there after a restart, although it was written."""

    def setUp(self) -> None:
        super().setUp()
        faults = ["once"]
        self.start(lambda *arguments, **options: FailingSync(plyvel.DB(*arguments, **options), faults))

    def restart(self) -> None:
        self.store.close()
        self.start()
        self.clock.advance(1)

    def test_of_a_new_queue(self) -> None:
        self.assertEqual(self.ask(b"set q/sync 0 0 1\r\nx\r\n"), b"SERVER_ERROR cannot write: Input/output error\r\n")
        self.restart()
        self.assertEqual((self.queues.names(), self.ask(b"get q\r\n")), ([], b"END\r\n"))
        self.assertEqual(self.store.leftovers(), ([], []))

    def test_of_a_queue_that_is_there(self) -> None:
        self.ask(b"set q 0 0 1\r\na\r\n")
        self.assertIn(b"SERVER_ERROR", self.ask(b"set q/sync 0 0 1\r\nx\r\n"))
        self.assertEqual(self.ask(b"set q/sync 0 0 1\r\nb\r\n"), b"STORED\r\n")
        self.restart()
        self.assertEqual(self.queues.make(b"q").count, 2)
        self.assertEqual(
            self.ask(b"get q\r\nget q\r\nget q\r\n"),
            b"VALUE q 0 1\r\na\r\nEND\r\nVALUE q 0 1\r\nb\r\nEND\r\nEND\r\n",
        )
