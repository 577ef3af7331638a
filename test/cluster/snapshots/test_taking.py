"""
Tests of taking snapshots.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import sys
import threading
from collections.abc import Callable
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, Optional
from unittest import mock

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from bench.ports import reserve_port
from darner.cluster.notes import Note
from darner.cluster.replicated_store import ReplicatedStore
from darner.cluster.snapshots import giving, taking
from darner.cluster.snapshots.addresses import split_address
from darner.cluster.snapshots.exchange import Header, SnapshotError
from darner.cluster.snapshots.installing import install
from darner.cluster.snapshots.taking import Taking, complete, take
from darner.commands.client_settings import ClientSettings
from darner.commands.exits import USAGE, Failure
from darner.commands.output import Output
from darner.commands.snapshots import take_snapshot
from darner.errors import Stopped, StoreError
from darner.store.backup.folder import BackupFolder
from darner.store.backup.restoring import restore, restore_stream
from darner.store.directory import TAKING
from test.cluster.snapshots.stores import CLUSTER, GivingCase, fill

reactor: Any = global_reactor


class TakingTests(GivingCase):
    """Giving and taking by real connections."""

    def setUp(self) -> None:
        super().setUp()
        empty = ReplicatedStore(Path(self.mktemp()))
        empty.close()
        self.path = empty.path

    def take(self, address: str = "", secret: bytes = b"") -> Deferred[Any]:
        def work() -> tuple[str, int]:
            one = Taking(address or self.address, secret or self.giver.secret)
            try:
                return take(one, self.path)
            finally:
                one.close()

        return deferToThread(work)

    async def fails(self, text: str, address: str = "", secret: bytes = b"") -> None:
        """Taking fails, and leaves nothing."""
        try:
            await self.take(address, secret)
        except StoreError as error:
            self.assertIn(text, str(error))
        else:
            self.fail("it was taken")
        self.assertFalse((self.path / TAKING).exists())

    def through(self, change: Callable[[bytes], bytes]) -> str:
        """@return: the address of somebody between, who changes what the giver says."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)

        def pass_on(source: socket.socket, to: socket.socket, change: Callable[[bytes], bytes]) -> None:
            try:
                while data := source.recv(65536):
                    changed = change(data)
                    to.sendall(changed)
                    if len(changed) < len(data):
                        break
            except OSError:
                pass
            for one in (source, to):
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()

        def serve() -> None:
            taker, _ = listening.accept()
            giver = socket.create_connection(split_address(self.address))
            threading.Thread(target=pass_on, args=(taker, giver, lambda data: data), daemon=True).start()
            pass_on(giver, taker, change)

        threading.Thread(target=serve, daemon=True).start()
        return f"127.0.0.1:{listening.getsockname()[1]}"

    async def test_taken(self) -> None:
        """All is there, key by key, while the store goes on; it is there under the name of the database only later."""
        taking = self.take()
        await deferLater(reactor, 0, lambda: None)
        fill(self.store, 150, 20_000)
        cluster, position = await taking
        self.assertEqual(cluster, CLUSTER.hex())
        self.assertTrue(100 <= position <= 150)
        complete(self.path)
        self.assertTrue(install(self.path))
        store = ReplicatedStore(self.path)
        self.addCleanup(store.close)
        self.assertEqual(store.position, position)
        fill(store, 150, 20_000)
        self.assertEqual(store.shared(), self.store.shared())

    async def test_refused(self) -> None:
        await self.fails("closed too early", secret=b"wrong")
        await self.fails("is no address", "nonsense")
        self.patch(self.giver, "source", lambda: None)
        await self.fails("no snapshot to give")

    async def test_changed_on_its_way(self) -> None:
        """One byte is enough."""
        passed = 0

        def change(data: bytes) -> bytes:
            nonlocal passed
            at = 500_000 - passed
            passed += len(data)
            return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] if 0 <= at < len(data) else data

        await self.fails("changed on its way", self.through(change))

    async def test_cut_short(self) -> None:
        """The giver dies."""
        for length in (10, 500_000):
            passed = 0

            def change(data: bytes, length: int = length) -> bytes:
                nonlocal passed
                before, passed = passed, passed + len(data)
                return data[: max(0, length - before)]

            await self.fails("", self.through(change))

    async def test_not_a_giver(self) -> None:
        for said, text in ((b"HTTP/1.1 400 Bad Request\r\n\r\n", "no node that gives"), (b"x" * 1000, "no node")):
            await self.fails(text, self.through(lambda data, said=said: said.ljust(len(data), b"\n")))
        await self.fails("refused", f"127.0.0.1:{reserve_port()}")

    async def test_no_room(self) -> None:
        self.patch(taking, "SPARE", 1 << 60)
        await self.fails("are free in")

    async def test_cannot_write(self) -> None:
        self.patch(taking.shutil, "rmtree", shutil.rmtree)
        with mock.patch.object(taking.os, "statvfs", mock.Mock(side_effect=OSError(5, "broken"))):
            await self.fails("broken")

    async def test_silent(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        self.patch(taking, "PATIENCE", 0.05)
        self.patch(taking, "LOOK", 0.02)
        await self.fails("it sends nothing more", f"127.0.0.1:{listening.getsockname()[1]}")

    async def test_not_as_announced(self) -> None:
        with mock.patch.object(giving, "Header", lambda *header: Header(header[0], "dd", *header[2:])):
            await self.fails("not what was announced")

    async def test_stopped_while_nothing_comes(self) -> None:
        """Who stops need not wait for the giver."""
        stopped = threading.Event()

        def proceed() -> None:
            if stopped.is_set():
                raise Stopped()

        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        self.patch(taking, "LOOK", 0.01)
        self.patch(taking, "PATIENCE", 1000.0)
        waiting = deferToThread(lambda: Taking(address, b"secret", proceed))
        await deferLater(reactor, 0.05, lambda: None)
        self.assertNoResult(waiting)
        stopped.set()
        await self.assertFailure(waiting, Stopped)


class Written(Output):
    """What a command has written."""

    def __init__(self) -> None:
        super().__init__(ClientSettings())
        self.facts: dict[str, Any] = {}
        self.streamed = b""

    def done(self, text: str, **facts: Any) -> None:
        self.facts = facts

    def data(self, data: bytes) -> None:
        self.streamed += data


class CommandTests(GivingCase):
    """L{take_snapshot}."""

    def setUp(self) -> None:
        super().setUp()
        self.output = Written()
        self.file = Path(self.mktemp())
        self.file.touch()
        self.found = [
            (name, Note(snapshots=address, secret=self.giver.secret.hex()))
            for name, address in (("gone", "127.0.0.1:1"), ("there", self.address))
        ]

    def take(self, directory: Path, keep: Optional[int] = None) -> Deferred[None]:
        return deferToThread(take_snapshot, self.output, self.found, directory, keep)

    def restored(self, path: Path) -> None:
        """A data directory has all of it."""
        store = ReplicatedStore(path)
        self.addCleanup(store.close)
        self.assertEqual((store.position, store.shared()), (100, self.store.shared()))

    async def test_directory(self) -> None:
        """The node that is gone is passed over."""
        directory, path = Path(self.mktemp()), Path(self.mktemp())
        for _ in range(3):
            await self.take(directory, 2)
        self.assertEqual((self.output.facts["node"], self.output.facts["record"]), ("there", 100))
        self.assertEqual(len(BackupFolder(directory).names()), 2)
        restore(directory / self.output.facts["name"], path)
        self.restored(path)

    async def test_stream(self) -> None:
        self.patch(sys, "stdout", StringIO())
        await self.take(Path("-"))
        path = Path(self.mktemp())
        restore_stream(BytesIO(self.output.streamed).read, path)
        self.restored(path)

    async def test_none(self) -> None:
        self.found.pop()
        failure = await self.assertFailure(self.take(Path(self.mktemp())), Failure)
        self.assertIn("no node gives a snapshot: gone: 127.0.0.1:1: Connection refused", str(failure))
        self.found.clear()
        failure = await self.assertFailure(self.take(Path(self.mktemp())), Failure)
        self.assertIn("none says where", str(failure))

    async def test_stream_that_breaks(self) -> None:
        """What was written cannot be taken back, so no other node is asked."""
        self.patch(sys, "stdout", StringIO())
        self.found.append(self.found[1])
        with mock.patch.object(Taking, "read", mock.Mock(side_effect=[b"some", SnapshotError("cut")])) as read:
            failure = await self.assertFailure(self.take(Path("-")), Failure)
        self.assertEqual((str(failure), read.call_count, self.output.streamed), ("there: cut", 2, b"some"))

    async def test_cannot_write(self) -> None:
        failure = await self.assertFailure(self.take(self.file), Failure)
        self.assertIn("cannot back up", str(failure))

    async def test_usage(self) -> None:
        failure = await self.assertFailure(self.take(Path("-"), 3), Failure)
        self.assertEqual(failure.status, USAGE)
        self.patch(sys, "stdout", mock.Mock(isatty=lambda: True))
        failure = await self.assertFailure(self.take(Path("-")), Failure)
        self.assertEqual(failure.status, USAGE)
