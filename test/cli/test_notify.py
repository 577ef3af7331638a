"""
What a service manager is told (`darner.cli.notify`).
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from darner.cli import server as server_module
from darner.cli.notify import Notifier
from darner.cli.options import Options
from darner.errors import SettingsError
from darner.queues.collection import Queues
from darner.queues.surroundings import Surroundings
from darner.store.leveldb import LevelStore
from darner.store.memory import MemoryStore
from darner.values.stats import Health
from test.servers import FOREGROUND, PATIENCE, Server, make_directory


class Manager:
    """The socket of a service manager."""

    def __init__(self, case: Any, name: str = "") -> None:
        """@param name: that of an abstract socket; by default it has a path."""
        self.path = name or str(make_directory(case) / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        case.addCleanup(self._socket.close)
        self._socket.bind("\0" + name[1:] if name else self.path)
        self._socket.setblocking(False)

    def message(self, patience: float = PATIENCE) -> dict[str, str]:
        """@return: the next message.  @raise TimeoutError: none has come in so many seconds."""
        if not select.select([self._socket], [], [], patience)[0]:
            raise TimeoutError
        return self._parsed(self._socket.recv(4096))

    def messages(self) -> list[dict[str, str]]:
        """@return: those that are there."""
        found = []
        while True:
            try:
                found.append(self._parsed(self._socket.recv(4096)))
            except BlockingIOError:
                return found

    @staticmethod
    def _parsed(message: bytes) -> dict[str, str]:
        return dict(line.split("=", 1) for line in message.decode().split("\n"))


class NotifierTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.manager = Manager(self)
        self.clock = Clock()
        surroundings = Surroundings(self.clock, lambda call, *arguments: call(*arguments), lambda *_: None)  # type: ignore
        self.queues = Queues(MemoryStore(), surroundings)

    def notifier(self, **environment: str) -> Notifier:
        return Notifier({"NOTIFY_SOCKET": self.manager.path, **environment})

    def test_nobody_to_tell(self) -> None:
        notifier = Notifier({})
        self.assertFalse(notifier.wanted)
        notifier.ready(self.queues)
        notifier.reloading()
        notifier.stopping()
        self.assertEqual(self.manager.messages(), [])

    def test_ready(self) -> None:
        notifier = self.notifier()
        self.assertTrue(notifier.wanted)
        notifier.ready(self.queues)
        self.assertEqual(self.manager.messages(), [{"READY": "1", "STATUS": "up; 0 clients"}])
        self.clock.advance(3600)
        self.assertEqual(self.manager.messages(), [])

    def test_abstract_socket(self) -> None:
        manager = Manager(self, f"@darner-test-{os.getpid()}")
        Notifier({"NOTIFY_SOCKET": manager.path}).ready(self.queues)
        self.assertEqual(manager.messages(), [{"READY": "1", "STATUS": "up; 0 clients"}])

    def test_watchdog(self) -> None:
        """It is told at half of the time that it waits, with how the server is, until the server stops."""
        notifier = self.notifier(WATCHDOG_USEC="10000000", WATCHDOG_PID=str(os.getpid()))
        notifier.ready(self.queues)
        self.manager.messages()
        self.clock.advance(4.9)
        self.assertEqual(self.manager.messages(), [])
        self.clock.advance(0.1)
        self.assertEqual(self.manager.messages(), [{"WATCHDOG": "1", "STATUS": "up; 0 clients"}])
        self.queues.stats.curr_connections = 3
        self.queues.space.health = Health(False, "disk\nfull")
        self.clock.advance(5)
        (message,) = self.manager.messages()
        self.assertEqual(message["STATUS"], "up, refuses sets: disk full; 3 clients")
        notifier.stopping()
        self.assertEqual(self.manager.messages(), [{"STOPPING": "1", "STATUS": "stopping: finishing running requests"}])
        self.clock.advance(60)
        self.assertEqual(self.manager.messages(), [])

    def test_no_watchdog_for_this_process(self) -> None:
        for environment in (
            {"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {},
        ):  # fmt: skip
            self.notifier(**environment).ready(self.queues)
        self.clock.advance(3600)
        self.assertEqual([list(message) for message in self.manager.messages()], [["READY", "STATUS"]] * 4)

    def test_reload(self) -> None:
        notifier = self.notifier()
        notifier.ready(self.queues)
        notifier.reloading()
        notifier.reloaded()
        notifier.reloading()
        notifier.reloaded("port is\nno number")
        _, first, done, _, failed = self.manager.messages()
        self.assertEqual(first["RELOADING"], "1")
        self.assertTrue(first["MONOTONIC_USEC"].isdigit())
        self.assertEqual(done, {"READY": "1", "STATUS": "up; 0 clients"})
        self.assertEqual(failed, {"READY": "1", "STATUS": "cannot reload the settings: port is no number"})

    def test_manager_that_is_not_there(self) -> None:
        """Service goes on, and the log says so once."""
        notifier = Notifier({"NOTIFY_SOCKET": self.mktemp()})
        with capturedLogs() as events:
            notifier.ready(self.queues)
            notifier.stopping()
        self.assertEqual(len(events), 1)
        self.assertIn("cannot notify the service manager at", formatEvent(events[0]))

    def test_manager_that_does_not_read(self) -> None:
        """Nobody waits for it."""
        notifier = self.notifier()
        with capturedLogs() as events:
            for _ in range(10_000):
                notifier.stopping()
        self.assertEqual(len(events), 1)


class ServerTests(SynchronousTestCase):
    """When the server says what."""

    def setUp(self) -> None:
        self.manager = Manager(self)
        self.patch(os, "environ", {**os.environ, "NOTIFY_SOCKET": self.manager.path})
        umask = os.umask(0)
        os.umask(umask)
        self.addCleanup(os.umask, umask)

    def test_ready_when_the_store_is_open(self) -> None:
        """Not before the store is open, and not before the reactor runs."""
        reactor: Any = MemoryReactor()
        turns: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        reactor.callFromThread = lambda *call: turns.put(call)
        config = Path(self.mktemp())
        config.write_text("trusted_network = true\n")
        options = Options()
        options.parseOptions(["--port=0", "--data-dir", self.mktemp(), "--config", str(config)])
        server = server_module.makeService(options, reactor)
        before: list[object] = []

        def open_store(path: Path) -> LevelStore:
            before.extend(self.manager.messages())
            return LevelStore(path)

        server.open_store = open_store  # type: ignore[method-assign]
        server.startService()
        self.addCleanup(self.stop, server, turns)
        self.assertEqual(before + self.manager.messages(), [])
        for call, arguments, named in reactor.whenRunningHooks:
            call(*arguments, **named)
        self.assertEqual(self.manager.messages(), [{"READY": "1", "STATUS": "up; 0 clients"}])
        server.reload()
        config.write_text("prot = 1\n")
        self.assertRaises(SettingsError, server.reload)
        self.assertEqual(
            [message.get("STATUS", "reloading") for message in self.manager.messages()],
            ["reloading", "up; 0 clients", "reloading", f"cannot reload the settings: {config}: unknown setting prot "
             "(is port meant?)"],
        )  # fmt: skip


    @staticmethod
    def stop(server: Any, turns: SimpleQueue[tuple[Any, ...]]) -> None:
        """Stop a server whose turns are to be run, and its threads with it."""
        stopped = server.stopService()
        while not stopped.called:
            call, *arguments = turns.get(timeout=PATIENCE)
            call(*arguments)


class ProcessTests(SynchronousTestCase):
    """A server as systemd starts it."""

    def program(self, manager: Manager, *more: str) -> tuple[str, ...]:
        return ("/usr/bin/env", f"NOTIFY_SOCKET={manager.path}", *more, *FOREGROUND)

    def test_life(self) -> None:
        """It serves when it says so, takes new settings, and says when it begins to stop."""
        # Without a watchdog: nobody knows how many beats there are until they are read, and the kernel holds few.
        manager, directory = Manager(self), make_directory(self)
        (directory / "darner.toml").write_text("port = 0\n")
        program = self.program(manager)
        server = Server(self, "--config=darner.toml", program=program, directory=directory, ready=False)
        self.assertEqual(manager.message(), {"READY": "1", "STATUS": "up; 0 clients"})
        with server.client(server.addresses[0]) as client:
            self.assertEqual(client.set(b"q", b"x"), b"STORED")
        (directory / "darner.toml").write_text("port = 0\n[defaults]\nmax_items = 5\n")
        server.process.send_signal(signal.SIGHUP)
        self.assertEqual(manager.message()["RELOADING"], "1")
        self.assertEqual(manager.message()["READY"], "1")
        self.assertEqual(server.stop(), 0)
        self.assertEqual(manager.messages(), [{"STOPPING": "1", "STATUS": "stopping: finishing running requests"}])

    def test_beats(self) -> None:
        """Each tells how it is."""
        manager = Manager(self)
        server = Server(self, program=self.program(manager, "WATCHDOG_USEC=200000"), ready=False)
        self.assertEqual(manager.message(), {"READY": "1", "STATUS": "up; 0 clients"})
        with server.client(server.addresses[0]) as client:
            self.assertEqual(client.set(b"q", b"x"), b"STORED")
            while (message := manager.message())["STATUS"] == "up; 0 clients":
                self.assertEqual(message["WATCHDOG"], "1")
            self.assertEqual(message, {"WATCHDOG": "1", "STATUS": "up; 1 clients"})
            self.assertEqual(manager.message(), message)

    def test_start_that_fails(self) -> None:
        """It never says that it serves."""
        manager, directory = Manager(self), make_directory(self)
        (directory / "data").mkdir()
        (directory / "data" / "mine").write_text("not a queue")
        server = Server(self, program=self.program(manager), directory=directory, ready=False)
        self.assertEqual(server.process.wait(PATIENCE), 1)
        self.assertEqual(manager.messages(), [])

    def test_event_loop_that_hangs(self) -> None:
        """The watchdog is told nothing."""
        manager = Manager(self)
        server = Server(self, program=self.program(manager, "WATCHDOG_USEC=100000"))
        while "WATCHDOG" not in manager.message():
            pass
        server.process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(server.pid, os.WUNTRACED)
        self.assertTrue(os.WIFSTOPPED(status))
        manager.messages()
        with self.assertRaises(TimeoutError):
            manager.message(1)
        server.process.send_signal(signal.SIGCONT)
        self.assertIn("WATCHDOG", manager.message())
        self.assertEqual(server.stop(), 0)


if sys.platform != "linux":
    ProcessTests.skip = NotifierTests.skip = ServerTests.skip = "systemd is there on Linux alone"  # type: ignore
