"""
`reload`, `shutdown` and `dump_config`: in a session, behind a log-in, and with a real twistd.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase

from darner.cli.server import Options, Server, makeService
from darner.config.policies import Policies, QueueSettings
from darner.config.settings import Rights
from darner.errors import SettingsError
from darner.net.log_limits import LimitedLog
from darner.queues.collection import Queues
from darner.queues.control import Control
from test import harness, servers
from test.front.test_access import AccessTestCase
from test.harness import Asker

NOT_ALLOWED = b"CLIENT_ERROR not allowed\r\n"


class SessionTests(SynchronousTestCase):
    """The replies to clients."""

    def setUp(self) -> None:
        self.called: list[str] = []

    def server(self, control: Control, **settings: Any) -> harness.Server:
        def make(store: Any, surroundings: Any, policies: Policies) -> Queues:
            return Queues(store, surroundings, policies, control=control)

        return harness.Server(make=make, **settings)

    def test_where_an_application_embeds_it(self) -> None:
        client = harness.Server().client()
        self.assertEqual(client.does(b"reload"), b"CLIENT_ERROR reload is not allowed here\r\n")
        self.assertEqual(client.does(b"shutdown"), b"CLIENT_ERROR shutdown is not allowed here\r\n")
        self.assertFalse(client.closed)

    def test_reload(self) -> None:
        client = self.server(Control(lambda: self.called.append("reload"))).client()
        self.assertEqual(client.does(b"RELOAD"), b"Reloaded config.\r\n")
        self.assertEqual(self.called, ["reload"])

    def test_reload_fails(self) -> None:
        def fail() -> None:
            raise SettingsError("darner.toml: defaults.max_items: 'x' is not of type int")

        client = self.server(Control(fail)).client()
        self.assertEqual(
            client.does(b"reload"), b"SERVER_ERROR darner.toml: defaults.max_items: 'x' is not of type int\r\n"
        )

    def test_shutdown(self) -> None:
        """As with C{quit}, there is no reply, but earlier requests get theirs."""
        client = self.server(Control(None, lambda: self.called.append("shutdown"))).client()
        client.ask(b"get q")
        client.ask(b"shutdown")
        client.ask(b"version")
        client.server.commit()
        self.assertEqual((client.hears(), client.closed, self.called), (b"END\r\n", True, ["shutdown"]))

    def test_dump_config(self) -> None:
        """Each queue's settings in force, as they could stand in the file."""
        server = harness.Server(max_open_reads=3)
        client = server.client()
        self.assertEqual(client.does(b"dump_config"), b"END\r\n")
        client.sets(b"q", b"x")
        client.sets(b"r", b"x")
        server.queues.apply(Policies(
            QueueSettings(max_open_reads=4), {"r": {"max_age": 90.0, "max_item_bytes": 2**20}, "new": {"max_items": 7}}
        ))  # fmt: skip
        blocks = client.does(b"dump_config").decode().split("}\r\n")
        self.assertEqual([block.partition("\r\n")[0] for block in blocks], ["queue 'q' {", "queue 'r' {", "END"])
        self.assertEqual(
            dict(line.strip().split("=") for line in blocks[1].splitlines()[1:]),
            {**QueueSettings().as_text(), "max_open_reads": "4", "max_age": "90s", "max_item_bytes": "1MiB"},
        )
        named = client.does(b"dump_config r new")
        self.assertEqual(named.count(b"queue '"), 2)
        self.assertIn(b"queue 'new' {\r\n  max_items=7\r\n", named)
        self.assertIsNone(server.queues.find(b"new"), "asking creates nothing")
        self.assertEqual(client.does(b"dump_config a/b"), b"CLIENT_ERROR bad queue name\r\n")


class RightsTests(AccessTestCase):
    """If there are users, only those that may administrate all queues may administrate the server."""

    def setUp(self) -> None:
        super().setUp()
        self.called: list[str] = []
        self.queues.control = Control(lambda: self.called.append("reload"), lambda: self.called.append("shutdown"))
        self.everything = self.access(
            root=Rights(admin=("*",)), bob=Rights(read=("b*",), write=(), admin=("b*", "a*"))
        )
        for queue in (b"b", b"c"):
            Asker(self.queues).put(queue, b"x")

    def told(self, credentials: bytes, line: bytes) -> bytes:
        client = self.connect(access=self.everything)
        if credentials:
            client.send(b"set auth 0 0 %d\r\n%b\r\n" % (len(credentials), credentials))
            self.assertEqual(client.receive(), b"STORED\r\n")
        client.send(line + b"\r\n")
        return client.receive()

    def test_without_the_right(self) -> None:
        for line in (b"reload", b"shutdown", b"status readonly", b"status up"):
            self.assertEqual(self.told(b"", line), b"CLIENT_ERROR unauthenticated\r\n")
            for user in (b"ann secret", b"bob plain"):
                self.assertEqual(self.told(user, line), NOT_ALLOWED, line)
        self.assertEqual((self.called, self.queues.status.name), ([], "up"))

    def test_with_the_right(self) -> None:
        self.assertEqual(self.told(b"root toor", b"reload"), b"Reloaded config.\r\n")
        self.assertEqual(self.told(b"root toor", b"status readonly"), b"END\r\n")
        self.assertEqual(self.told(b"root toor", b"shutdown"), b"")
        self.assertEqual((self.called, self.queues.status.name), (["reload", "shutdown"], "readonly"))

    def test_to_look(self) -> None:
        """All users see the status; settings are shown for queues that the user may see."""
        self.assertEqual(self.told(b"", b"status"), b"CLIENT_ERROR unauthenticated\r\n")
        self.assertEqual(self.told(b"bob plain", b"status"), b"UP\r\n")
        seen = self.told(b"bob plain", b"dump_config")
        self.assertIn(b"queue 'b' {", seen)
        self.assertNotIn(b"queue 'c' {", seen)
        self.assertIn(b"queue 'b' {", self.told(b"bob plain", b"dump_config b"))
        self.assertEqual(self.told(b"bob plain", b"dump_config b c"), NOT_ALLOWED)


class ReloadTests(TestCase):
    """What `darner.cli.server` does of it."""

    def make(self, text: str, *arguments: str) -> Server:
        self.path = Path(self.mktemp())
        self.path.write_text(text)
        options = Options()
        options.parseOptions(["-d", self.mktemp(), "--port=0", "-c", str(self.path), *arguments])
        server = makeService(options)
        server.startService()
        self.addCleanup(server.stopService)
        return server

    def reloaded(self, server: Server, text: str) -> list[str]:
        """@return: what is logged of it."""
        self.path.write_text(text)
        with capturedLogs() as events:
            try:
                server.reload()
            except SettingsError as error:
                self.assertIn(str(error), formatEvent(events[0]))
        return [formatEvent(event) for event in events]

    def policy(self, server: Server, name: bytes) -> QueueSettings:
        assert server.queues.queues is not None
        return server.queues.queues.policy(name)

    async def test_queues_and_aliases(self) -> None:
        server = self.make("[queues.q]\nmax_open_reads = 2\n[aliases]\na = ['q']")
        await server.queues.put(b"q", b"x")
        self.assertEqual(self.policy(server, b"q").max_open_reads, 2)
        lines = self.reloaded(server, "[queues.q]\nmax_open_reads = 3\n[aliases]\nb = ['q']")
        self.assertEqual(lines, ["reloaded the settings of queues"])
        self.assertEqual(self.policy(server, b"q").max_open_reads, 3)
        assert server.queues.queues is not None
        self.assertEqual(server.queues.queues.policies.aliases, {b"b": (b"q",)})

    async def test_before_there_are_queues(self) -> None:
        """A node of a cluster may not lead yet, or be loading its queues: they get the new settings."""
        server = self.make("[queues.q]\nmax_open_reads = 2")
        await server.queues.put(b"q", b"x")
        await server.queues.stopService()
        self.reloaded(server, "[queues.q]\nmax_open_reads = 3")
        starting = server.queues._start()
        next(starting)
        self.assertIsNone(server.queues.queues)
        self.reloaded(server, "[queues.q]\nmax_open_reads = 4")
        for _ in starting:
            pass
        self.assertEqual(self.policy(server, b"q").max_open_reads, 4)

    async def test_wrong(self) -> None:
        """Whatever is wrong, nothing is changed."""
        server = self.make("[queues.q]\nmax_open_reads = 2")
        for text, said in (
            ("[queues.q]\nmax_open_reads = 3\n[queues.r]\nmax_open_reads = 'x'", "queues.r.max_open_reads"),
            ("colour = 1\n[queues.q]\nmax_open_reads = 3", "unknown setting colour"),
            ("port = 70000\n[queues.q]\nmax_open_reads = 3", "'port' must be"),
            ("=", "is not TOML"),
        ):
            (line,) = self.reloaded(server, text)
            self.assertTrue(line.startswith(f"cannot reload the settings, nothing is changed: {self.path}"), line)
            self.assertIn(said, line)
            self.assertEqual(self.policy(server, b"q").max_open_reads, 2)
        self.path.unlink()
        self.assertIn("No such file", str(self.assertRaises(SettingsError, server.reload)))

    async def test_settings_of_the_server(self) -> None:
        """Changed settings of the server are logged, as they need a restart; the command line overrides the file."""
        server = self.make("max_connections = 5", "--dialect=memcache")
        lines = self.reloaded(server, "max_connections = 6\nidle_timeout = '1h'\ndialect = 'kestrel'\nport = 5")
        self.assertEqual(lines, [
            "reloaded the settings of queues",
            "these settings have changed and need a restart: max_connections, idle_timeout",
        ])  # fmt: skip

    async def test_no_file(self) -> None:
        options = Options()
        options.parseOptions(["-d", self.mktemp(), "--port=0"])
        server = makeService(options)
        error = self.assertRaises(SettingsError, server.reload)
        self.assertEqual(str(error), "there is no configuration file")

    async def test_before_the_start_and_after_the_stop(self) -> None:
        server = self.make("")
        await server.stopService()
        self.assertEqual(self.reloaded(server, ""), ["reloaded the settings of queues"])

    def test_the_directory_of_the_process_changes(self) -> None:
        self.path = Path(self.mktemp())
        self.path.write_text("")
        options = Options()
        options.parseOptions(["-d", self.mktemp(), "--port=0", "-c", os.path.relpath(self.path)])
        server = makeService(options)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir("/")
        server.reload()

    async def test_clients_may_ask_again_and_again(self) -> None:
        """What they cause is logged once a minute with a count; what the operator asks for, each time."""
        server = self.make("")
        server._limited = LimitedLog(server._log, clock := Clock())
        assert server.queues.queues is not None
        control = server.queues.queues.control
        with capturedLogs() as events:
            for _ in range(3):
                control.reload()
            self.path.write_text("=")
            for _ in range(3):
                self.assertRaises(SettingsError, control.reload)
            clock.advance(60)
            self.path.write_text("max_connections = 7")
            control.reload()
            control.reload()
        lines = [formatEvent(event) for event in events]
        reloaded, refused = "reloaded the settings of queues", "cannot reload the settings, nothing is changed: "
        self.assertEqual(lines[0], reloaded)
        self.assertTrue(lines[1].startswith(refused), lines)
        self.assertEqual(lines[2], reloaded + " (2 more in the last 60 s)")
        self.assertTrue(lines[3].startswith(refused) and lines[3].endswith(" (2 more in the last 60 s)"), lines)
        self.assertEqual(lines[4:], ["these settings have changed and need a restart: max_connections"])
        self.assertEqual(len(self.reloaded(server, "") + self.reloaded(server, "")), 2)

    async def test_hangup(self) -> None:
        """The signal's reload is done by the event loop, and an error does not end the server."""
        server = self.make("[defaults]\nmax_open_reads = 2")
        for text, expected in (("[defaults]\nmax_open_reads = 3", 3), ("=", 3)):
            self.path.write_text(text)
            os.kill(os.getpid(), signal.SIGHUP)
            await deferLater(reactor, 0.01)
            self.assertEqual(self.policy(server, b"q").max_open_reads, expected)

    async def test_the_signal_is_given_back(self) -> None:
        before = signal.getsignal(signal.SIGHUP)
        server = self.make("")
        self.assertNotEqual(signal.getsignal(signal.SIGHUP), before)
        await server.stopService()
        self.assertEqual(signal.getsignal(signal.SIGHUP), before)

    async def test_shutdown_is_allowed_or_not(self) -> None:
        for text, allowed in (("", False), ("allow_shutdown = true", True)):
            server = self.make(text)
            assert server.queues.queues is not None
            self.assertEqual(server.queues.queues.control.on_shutdown is not None, allowed)

    def test_shutdown_by_two_clients(self) -> None:
        """A second shutdown does no harm."""

        class Reactor:
            stops = 0

            def stop(self) -> None:
                self.stops += 1
                if self.stops > 1:
                    raise ReactorNotRunning()

        options = Options()
        options.parseOptions(["-d", self.mktemp()])
        server = makeService(options, reactor)
        server._reactor = stub = Reactor()
        with capturedLogs() as events:
            server.shut_down()
            server.shut_down()
        self.assertEqual(stub.stops, 2)
        self.assertEqual([formatEvent(event) for event in events], ["a client has requested shutdown"])


class TwistdTests(SynchronousTestCase):
    """A server in a process of its own."""

    def start(self, text: str) -> servers.Server:
        directory = servers.make_directory(self)
        (directory / "darner.toml").write_text(text)
        return servers.Server(self, "--port=0", "--config=darner.toml", directory=directory)

    def test_hangup_and_reload(self) -> None:
        """SIGHUP and the command do the same; what is wrong changes nothing and ends nothing."""
        server = self.start("[defaults]\nmax_open_reads = 1\n")
        config = server.directory / "darner.toml"
        with server.client() as client:
            for payload in (b"1", b"2", b"3", b"4"):
                client.set(b"q", payload)
            self.assertEqual(client.get(b"q/open"), b"1")
            self.assertEqual(client.ask(b"get q/open"), b"CLIENT_ERROR close current item first")
            config.write_text("[defaults]\nmax_open_reads = 2\n")
            server.process.send_signal(signal.SIGHUP)
            server.wait_for("reloaded the settings of queues")
            self.assertEqual(client.get(b"q/open"), b"2")
            config.write_text("[defaults]\nmax_open_reads = 'many'\n")
            server.process.send_signal(signal.SIGHUP)
            server.wait_for("cannot reload the settings, nothing is changed")
            self.assertEqual(
                client.ask(b"reload"),
                b"SERVER_ERROR darner.toml: defaults.max_open_reads: 'many' is not of type int",
            )
            config.write_text("debug = true\n[defaults]\nmax_open_reads = 3\n")
            self.assertEqual(client.ask(b"reload"), b"Reloaded config.")
            server.wait_for("these settings have changed and need a restart: debug")
            self.assertEqual(client.get(b"q/open"), b"3")
            client.send(b"dump_config q\r\n")
            lines = iter(client.line, b"END")
            self.assertIn(b"  max_open_reads=3", list(lines))
        self.assertEqual(server.stop(), 0)

    def test_shutdown(self) -> None:
        server = self.start("allow_shutdown = true\n")
        with server.client() as client, server.client() as other:
            client.set(b"q", b"x")
            self.assertEqual(other.get(b"q/open"), b"x")
            client.send(b"version\r\nshutdown\r\nversion\r\n")
            self.assertEqual(client.rest().count(b"VERSION"), 1)
            self.assertEqual(other.rest(), b"")
        self.assertEqual(server.process.wait(servers.PATIENCE), 0)
        self.assertIn("a client has requested shutdown", server.text)
        self.assertIn("] stopped", server.text)
        server.start()
        with server.client() as client:
            self.assertEqual(client.get(b"q"), b"x")

    def test_shutdown_is_not_allowed(self) -> None:
        server = servers.Server(self)
        with server.client() as client:
            self.assertEqual(client.ask(b"shutdown"), b"CLIENT_ERROR shutdown is not allowed here")
            self.assertEqual(client.ask(b"reload"), b"SERVER_ERROR there is no configuration file")
            self.assertEqual(client.set(b"q", b"x"), b"STORED")

    def test_status_over_a_crash(self) -> None:
        """The status survives a crash, and is enforced without a grace period then."""
        server = self.start("status_change_grace_period = '1h'\n")
        with server.client() as client:
            client.set(b"q", b"x")
            self.assertEqual(client.ask(b"status readonly"), b"END")
            self.assertEqual(client.set(b"q", b"y"), b"STORED")
        server.restart()
        with server.client() as client:
            self.assertEqual(client.ask(b"status"), b"READONLY")
            self.assertEqual(client.set(b"q", b"z"), b"SERVER_ERROR server is readonly")
            self.assertEqual((client.get(b"q"), client.get(b"q")), (b"x", b"y"))
            self.assertEqual(client.ask(b"status up"), b"END")
            self.assertEqual(client.set(b"q", b"z"), b"STORED")
        self.assertEqual((server.data / "status").read_text(), "up\n")
        self.assertEqual((server.data / "status").stat().st_mode & 0o777, 0o600)
        self.assertEqual(server.stop(), 0)

    def test_hangup_in_another_directory(self) -> None:
        """twistd has changed the directory by then."""
        directory = servers.make_directory(self)
        (directory / "darner.toml").write_text("")
        elsewhere = directory / "elsewhere"
        elsewhere.mkdir()
        program = (*servers.TWISTD, "--nodaemon", "--pidfile=", "--rundir=elsewhere", "darner")
        server = servers.Server(
            self, "--port=0", "--config=darner.toml", "--data-dir=data", program=program, directory=directory
        )
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("reloaded the settings of queues")
        self.assertEqual(server.stop(), 0)
