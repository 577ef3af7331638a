"""
Tests of `darner.queues.status`: what the server refuses by its status, and that it is kept.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Optional

from attrs import evolve
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from darner.config.settings import Settings
from darner.errors import ClientError, StoreError, StoreUnusable, Unavailable
from darner.front import memcache_requests
from darner.net.log_limits import PERIOD
from darner.queues.collection import Queues
from darner.queues.status import ServerStatus
from darner.service import QueueService
from darner.store.directory import check_directory
from darner.store.status_file import StatusFile
from darner.values import requests
from darner.values.vocabulary import STATUSES
from test.harness import Client, Server, value

READONLY = b"SERVER_ERROR server is readonly\r\n"
QUIESCENT = b"SERVER_ERROR server is quiescent\r\n"


class KeptStatusTests(SynchronousTestCase):
    """The file."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "status"

    def test_nothing_kept(self) -> None:
        self.assertEqual(StatusFile(self.path).read(), "")

    def test_what_was_kept_is_read(self) -> None:
        for status in STATUSES:
            StatusFile(self.path).write(status)
            self.assertEqual(StatusFile(self.path).read(), status)
            self.assertEqual(self.path.read_text(), f"{status}\n", "an operator may write it as well")
        self.assertEqual(os.listdir(self.directory), ["status"])
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode) & 0o077, 0)

    def test_a_write_that_fails_leaves_what_was_there(self) -> None:
        StatusFile(self.path).write("readonly")
        (self.directory / ".status.new").mkdir()
        self.assertRaises(OSError, StatusFile(self.path).write, "up")
        self.assertEqual(StatusFile(self.path).read(), "readonly")

    def test_rubbish(self) -> None:
        """A file with any other contents gives a short text."""
        self.path.write_bytes(b"\xff" * 10_000)
        self.assertLessEqual(len(StatusFile(self.path).read()), 64)


class DirectoryTests(SynchronousTestCase):
    """The check of the data directory knows the file."""

    def check(self, status: bytes, *more: str) -> None:
        path = Path(self.mktemp())
        path.mkdir()
        (path / "status").write_bytes(status)
        for name in more:
            (path / name).touch()
        check_directory(path)

    def test_before_the_first_start(self) -> None:
        """C{default_status} is the status if none is saved."""
        for status in (b"readonly", b"quiescent\n", b"up\r\n"):
            self.check(status)

    def test_foreign_files_of_that_name(self) -> None:
        """A journal of Kestrel's, for one."""
        self.assertRaises(StoreUnusable, self.check, b"\x03\0\0\0\1")
        self.assertRaises(StoreUnusable, self.check, b"up", "another")
        path = Path(self.mktemp())
        (path / "status").mkdir(parents=True)
        self.assertRaises(StoreUnusable, check_directory, path)


class ServerStatusTests(SynchronousTestCase):
    """Changes, with and without a grace period."""

    def setUp(self) -> None:
        self.clock = Clock()
        directory = Path(self.mktemp())
        directory.mkdir()
        self.kept = StatusFile(directory / "status")
        self.path = directory / "status"

    def status(self, default: str = "up", grace: float = 0.0, kept: bool = True) -> ServerStatus:
        return ServerStatus(self.clock, default, grace, self.kept if kept else None)

    def refuses(self, status: ServerStatus) -> tuple[bool, bool]:
        """@return: whether it refuses writes, and whether reads; the checks have to agree."""
        for refuses, check in (
            (status.refuses_writes, status.check_writes), (status.refuses_reads, status.check_reads),
        ):  # fmt: skip
            if refuses:
                self.assertRaises(Unavailable, check)
            else:
                check()
        return status.refuses_writes, status.refuses_reads

    def test_what_each_refuses(self) -> None:
        for name, expected in (("up", (False, False)), ("readonly", (True, False)), ("quiescent", (True, True))):
            self.assertEqual(self.refuses(self.status(name, kept=False)), expected)
            changed = self.status(kept=False)
            changed.change(name)
            self.assertEqual((changed.name, self.refuses(changed)), (name, expected))

    def test_kept(self) -> None:
        self.status().change("readonly")
        again = self.status(default="quiescent")
        self.assertEqual((again.name, self.refuses(again)), ("readonly", (True, False)))
        again.change("up")
        self.assertEqual(self.status(default="quiescent").name, "up")

    def test_the_same_again_changes_nothing(self) -> None:
        status = self.status("readonly")
        status.change("readonly")
        self.assertFalse(self.path.exists())

    def test_grace(self) -> None:
        """A stricter status is reported at once, and enforced later."""
        status = self.status(grace=30)
        status.change("readonly")
        self.assertEqual((status.name, self.refuses(status)), ("readonly", (False, False)))
        self.clock.advance(29.9)
        self.assertEqual(self.refuses(status), (False, False))
        self.clock.advance(0.2)
        self.assertEqual(self.refuses(status), (True, False))
        status.change("quiescent")
        self.assertEqual((status.name, self.refuses(status)), ("quiescent", (True, False)))
        self.assertEqual(str(self.assertRaises(Unavailable, status.check_writes)), "server is readonly")
        self.clock.advance(30)
        self.assertEqual(self.refuses(status), (True, True))

    def test_a_laxer_one_holds_at_once(self) -> None:
        status = self.status("quiescent", grace=30)
        status.change("readonly")
        self.assertEqual(self.refuses(status), (True, False))
        status.change("up")
        self.assertEqual(self.refuses(status), (False, False))
        self.clock.advance(PERIOD)
        self.assertEqual((self.refuses(status), self.clock.getDelayedCalls()), ((False, False), []))

    def test_log(self) -> None:
        """A client that changes it all the time does not fill the log."""
        status = self.status()
        with capturedLogs() as logs:
            for _ in range(50):
                status.change("readonly")
                status.change("up")
            self.clock.advance(PERIOD)
        readonly, up = "status changed from up to readonly", "status changed from readonly to up"
        more = " (49 more in the last 60 s)"
        self.assertEqual([formatEvent(event) for event in logs], [readonly, up, readonly + more, up + more])

    def test_log_at_the_stop(self) -> None:
        status = self.status()
        for name in ("readonly", "up", "readonly"):
            status.change(name)
        with capturedLogs() as logs:
            status.stop()
        self.assertEqual(len(logs), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_back_within_the_grace_period(self) -> None:
        status = self.status(grace=30)
        status.change("readonly")
        status.change("up")
        self.clock.advance(60)
        self.assertEqual((status.name, self.refuses(status)), ("up", (False, False)))
        self.assertEqual(self.status("quiescent").name, "up")

    def test_a_second_change_within_the_grace_period(self) -> None:
        """The second change is refused; Kestrel drops it silently."""
        status = self.status(grace=30)
        status.change("readonly")
        error = self.assertRaises(ClientError, status.change, "quiescent")
        self.assertEqual(str(error), "a change to readonly is under way")
        self.clock.advance(30)
        self.assertEqual((status.name, self.refuses(status)), ("readonly", (True, False)))
        self.assertEqual(self.status().name, "readonly")

    def test_no_grace_after_a_restart(self) -> None:
        status = self.status(grace=30)
        status.change("readonly")
        status.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.refuses(self.status(grace=30)), (True, False))

    def test_it_cannot_be_kept(self) -> None:
        """If the status cannot be saved, nothing is changed, as it would be lost at a restart."""
        (self.path.parent / ".status.new").mkdir()
        status = self.status()
        error = self.assertRaises(StoreError, status.change, "readonly")
        self.assertEqual(str(error), "cannot keep the status: Is a directory")
        self.assertEqual((status.name, self.refuses(status)), ("up", (False, False)))

    def test_what_is_kept_cannot_be_used(self) -> None:
        def unreadable() -> None:
            self.path.unlink()
            self.path.mkdir()

        for damage, said in (
            (lambda: self.path.write_text("down\n"), "the saved status 'down' is unknown; starting as readonly"),
            (unreadable, "cannot read the saved status: "),
        ):
            damage()
            with capturedLogs() as events:
                self.assertEqual(self.status("readonly").name, "readonly")
            (line,) = [formatEvent(event) for event in events]
            self.assertTrue(line.startswith(said), line)


class StatusServer(Server):
    """A server whose status is changed after a grace period."""

    def __init__(self, grace: float = 0.0) -> None:
        self._grace = grace
        super().__init__(make=self._with_status)

    def _with_status(self, store: Any, surroundings: Any, policies: Any) -> Queues:
        status = ServerStatus(surroundings.clock, "up", self._grace)
        return Queues(store, surroundings, policies, status=status)


class SessionTests(SynchronousTestCase):
    """The replies to clients."""

    def setUp(self) -> None:
        self.server = Server()
        self.client = self.server.client()
        self.client.sets(b"q", b"a")
        self.client.sets(b"q", b"b")

    def become(self, status: bytes, server: Optional[Server] = None) -> Client:
        client = (server or self.server).client()
        self.assertEqual(client.does(b"status " + status), b"END\r\n")
        return client

    def test_status(self) -> None:
        self.assertEqual(self.client.does(b"status"), b"UP\r\n")
        for status in (b"readonly", b"QUIESCENT", b"Up"):
            self.become(status)
            self.assertEqual(self.client.does(b"status"), status.upper() + b"\r\n")
            self.assertIn(b"STAT status %b\r\n" % status.upper(), self.client.does(b"stats"))

    def test_readonly(self) -> None:
        self.become(b"readonly")
        self.assertEqual(self.client.sets(b"q", b"x"), READONLY)
        self.assertEqual(self.client.sets(b"q", b"x", end=b" noreply"), b"")
        for line in (b"flush q", b"flush_all", b"delete q", b"flush none", b"requeue q r", b"flush_expired q"):
            self.assertEqual(self.client.does(line), READONLY)
        self.assertEqual(self.client.does(b"get q/open"), value(b"q", b"a"))
        self.assertEqual(self.client.does(b"get q/abort"), b"END\r\n")
        self.assertEqual(self.client.does(b"get q/peek"), value(b"q", b"a"))
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"a"))
        self.become(b"up")
        self.assertEqual(self.client.sets(b"q", b"x"), b"STORED\r\n")

    def test_quiescent(self) -> None:
        """Reads are refused, but open items can be closed or given back."""
        other = self.server.client()
        self.client.does(b"get q/open")
        other.does(b"get q/open")
        self.become(b"quiescent")
        self.assertEqual(self.client.sets(b"q", b"x"), QUIESCENT)
        for line in (
            b"get q", b"get q/open", b"get q/peek", b"get q/t=100", b"get none", b"get q r", b"flush q", b"requeue q r",
        ):  # fmt: skip
            self.assertEqual(self.server.client().does(line), QUIESCENT, line)
        self.assertEqual(other.does(b"get q/abort"), b"END\r\n")
        self.assertEqual(self.client.does(b"get q/close"), b"END\r\n")
        self.assertEqual(self.server.figures(b"q"), (1, 1))
        self.become(b"up")
        self.assertEqual(self.client.does(b"get q"), value(b"q", b"b"))

    def test_close_and_open_while_quiescent(self) -> None:
        """As in Kestrel, the one is closed, and the next is refused."""
        self.client.does(b"get q/open")
        self.become(b"quiescent")
        self.assertEqual(self.client.does(b"get q/close/open"), QUIESCENT)
        self.client.leave()
        self.become(b"up")
        self.assertEqual(self.server.client().does(b"get q"), value(b"q", b"b"))

    def test_figures_are_told_all_the_same(self) -> None:
        self.become(b"quiescent")
        self.assertIn(b"STAT curr_items 2\r\n", self.client.does(b"stats"))
        self.assertIn(b"  items=2\r\n", self.client.does(b"dump_stats"))
        self.assertTrue(self.client.does(b"version").startswith(b"VERSION "))

    def test_a_wait_goes_on(self) -> None:
        """As in Kestrel, a read that already waits goes on waiting."""
        waiting = self.server.client()
        waiting.ask(b"get r/t=1000")
        self.become(b"quiescent")
        self.server.clock.advance(1)
        self.server.commit()
        self.assertEqual(waiting.hears(), b"END\r\n")

    def test_a_payload_on_its_way(self) -> None:
        """The status is checked when a set is complete; a refused one leaves nothing behind."""
        session = self.client.session
        request = memcache_requests.parse(b"set q 0 0 200000")
        assert isinstance(request, requests.Set)
        self.assertTrue(session.takes(request))
        inflow = session.inflow()
        session.receive(inflow, bytes(200_000))
        self.become(b"readonly")
        session.put_flow(request, inflow)
        self.server.commit()
        self.assertEqual(self.client.hears(), READONLY)
        self.assertFalse(session.takes(request))
        self.assertEqual(self.server.figures(b"q"), (2, 2))
        self.server.restart()
        self.assertEqual(self.server.figures(b"q"), (2, 2))

    def test_grace(self) -> None:
        server = StatusServer(grace=5)
        client = server.client()
        self.become(b"readonly", server)
        self.assertEqual(client.does(b"status"), b"READONLY\r\n")
        self.assertEqual(client.sets(b"q", b"x"), b"STORED\r\n")
        self.assertEqual(client.does(b"status quiescent"), b"CLIENT_ERROR a change to readonly is under way\r\n")
        server.clock.advance(5)
        self.assertEqual(client.sets(b"q", b"x"), READONLY)

    def test_a_stop_within_the_grace_period(self) -> None:
        server = StatusServer(grace=5)
        self.become(b"readonly", server)
        server.stop()
        self.assertEqual([call for call in server.clock.getDelayedCalls() if call.getTime() > 1], [])

    def test_no_such_status(self) -> None:
        for line in (b"status down", b"status writeavoid", b"status up please", b"status \xff"):
            self.assertEqual(self.client.does(line), b"CLIENT_ERROR unknown status\r\n")


class ServiceTests(TestCase):
    """Calls of an application are refused too."""

    async def start(self, path: str, **settings: Any) -> QueueService:
        service = QueueService(path, settings=evolve(Settings(), **settings))
        service.startService()
        self.addCleanup(service.stopService)
        return service

    async def test_calls(self) -> None:
        service = await self.start(self.mktemp())
        await service.put(b"q", b"a")
        await service.put(b"q", b"b")
        assert service.queues is not None
        service.queues.status.change("readonly")
        for call in (service.put(b"q", b"x"), service.flush(b"q"), service.delete(b"q")):
            await self.assertFailure(call, Unavailable)
        read = await service.open(b"q")
        assert read is not None
        service.queues.status.change("quiescent")
        for read_call in (service.get(b"q"), service.open(b"q"), service.peek(b"q", timeout=None)):
            await self.assertFailure(read_call, Unavailable)
        await read.close()
        self.assertEqual(service.count(b"q"), 1)

    async def test_kept_in_the_data_directory(self) -> None:
        path = self.mktemp()
        service = await self.start(path)
        assert service.queues is not None
        service.queues.status.change("quiescent")
        await service.stopService()
        service = await self.start(path, default_status="readonly")
        assert service.queues is not None
        self.assertEqual(service.queues.status.name, "quiescent")

    async def test_default(self) -> None:
        service = await self.start(self.mktemp(), default_status="readonly", status_change_grace_period=7.0)
        assert service.queues is not None
        self.assertEqual(service.queues.status.name, "readonly")
        await self.assertFailure(service.put(b"q", b"x"), Unavailable)
