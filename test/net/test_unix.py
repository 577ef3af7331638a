"""Tests of `darner.net.unix`: sockets that were left behind, and those that are in use."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from darner.net import unix
from darner.net.unix import UnixEndpoint


class UnixEndpointTests(TestCase):
    def setUp(self) -> None:
        # A short path: unix sockets want one.
        folder = tempfile.TemporaryDirectory(prefix="darner-")
        self.addCleanup(folder.cleanup)
        self.directory = Path(folder.name)
        self.path = self.directory / "darner.sock"

    async def listen(self, path: Any = None, **options: Any) -> Any:
        port = await UnixEndpoint(reactor, str(path or self.path), **options).listen(Factory())
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        return port

    async def refused(self, path: Any = None) -> str:
        with self.assertRaises(CannotListenError) as caught:
            await self.listen(path)
        return str(caught.exception.socketError)

    def connect(self) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.path))

    def leave_behind(self) -> None:
        """A server was killed."""
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(self.path))

    async def test_listening(self) -> None:
        port = await self.listen(mode=0o600)
        self.connect()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        await maybeDeferred(port.stopListening)
        self.assertEqual(os.listdir(self.directory), [])

    async def test_left_behind(self) -> None:
        """A lock file of Twisted with any process id does not matter if no process listens."""
        self.leave_behind()
        (self.directory / "darner.sock.lock").symlink_to(str(os.getpid()))
        await self.listen()
        self.connect()

    async def test_in_use(self) -> None:
        await self.listen()
        self.assertEqual(await self.refused(), "another process listens there")
        self.connect()

    async def test_in_use_by_one_that_accepts_nobody(self) -> None:
        with socket.socket(socket.AF_UNIX) as busy:
            busy.bind(str(self.path))
            busy.listen(0)
            self.patch(unix, "PATIENCE", 0.05)
            self.connect()
            self.assertEqual(await self.refused(), "another process listens there")

    async def test_a_file_in_the_way(self) -> None:
        self.path.write_text("mine")
        self.assertIn("not a socket", await self.refused())
        self.assertEqual(self.path.read_text(), "mine")

    async def test_no_directory(self) -> None:
        self.assertEqual(
            await self.refused(self.directory / "missing" / "s"),
            f"the directory {self.directory}/missing does not exist",
        )

    async def test_a_directory_that_cannot_be_locked(self) -> None:
        def fails(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        self.leave_behind()
        patch = self.patch(os, "open", fails)
        await self.listen()
        patch.restore()
        self.connect()

    async def test_abstract(self) -> None:
        name = f"\0darner-{os.getpid()}"
        await self.listen(name)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(name)
