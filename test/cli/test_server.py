"""
The command line and putting a server together (`darner.cli.server`).
"""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from attrs import evolve
from OpenSSL.crypto import FILETYPE_PEM
from twisted.application.service import IService
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ReactorNotRunning
from twisted.internet.protocol import Factory
from twisted.internet.ssl import KeyPair
from twisted.internet.testing import MemoryReactor
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

import darner
from darner.cli import server as server_module
from darner.cli.server import CannotStart, Interrupted, Options, Server, makeService
from darner.config.policies import Policies, QueueSettings
from darner.config.settings import Listener, Settings
from darner.errors import SettingsError
from darner.service import QueueService
from test import allow_critical


def parsed(*arguments: str) -> Options:
    options = Options()
    options.parseOptions(arguments)
    return options


class OptionsTests(SynchronousTestCase):
    def config(self, text: str) -> str:
        path = self.mktemp()
        Path(path).write_text(text)
        return path

    def test_nothing_given(self) -> None:
        self.assertEqual(parsed().settings(), Settings())
        self.assertEqual(parsed().settings().tcp_port, 22133)

    def test_long_and_short(self) -> None:
        config = self.config("")
        long = parsed("--data-dir=d", "--port=1", "--interface=::1", f"--config={config}")
        short = parsed("-d", "d", "-p", "1", "-i", "::1", "-c", config)
        self.assertEqual(long.settings(), Settings(data_dir="d", port=1, interface="::1"))
        self.assertEqual(short.settings(), long.settings())

    def test_the_rest(self) -> None:
        options = parsed(
            "--listen=tcp6:1", "--listen", "unix:/run/d", "--dialect=memcache", "--debug", "--min-free-bytes=1GiB"
        )
        self.assertEqual(
            options.settings(),
            Settings(
                listen=(Listener("tcp6:1"), Listener("unix:/run/d")), dialect="memcache", debug=True,
                min_free_bytes=2**30,
            ),
        )  # fmt: skip
        self.assertIsNone(options.settings().tcp_port)

    def test_configuration_file(self) -> None:
        config = self.config(
            """
            data_dir = "/srv/queues"
            port = 5
            debug = true
            listen = ["tcp6:1", {endpoint = "unix:/run/d", dialect = "memcache"}]
            [defaults]
            max_item_bytes = "16 MiB"
            [queues.q]
            max_open_reads = 3
            """
        )
        expected = Settings(
            data_dir="/srv/queues", port=5, debug=True,
            policies=Policies(QueueSettings(max_item_bytes=2**24), {"q": {"max_open_reads": 3}}),
            listen=(Listener("tcp6:1"), Listener("unix:/run/d", "memcache")),
        )  # fmt: skip
        self.assertEqual(parsed("-c", config).settings(), expected)

    def test_the_command_line_wins(self) -> None:
        config = self.config('data_dir = "a"\nport = 5\ninterface = "::1"\ndialect = "memcache"\nlisten = ["tcp6:1"]')
        options = parsed("-c", config, "-d", "b", "-p", "6", "--listen=tcp6:2", "--dialect=kestrel")
        self.assertEqual(
            options.settings(), Settings(data_dir="b", port=6, interface="::1", listen=(Listener("tcp6:2"),))
        )

    def test_port_is_not_a_number(self) -> None:
        self.assertIn("--port is not a number: x", self.usage("--port=x"))

    def usage(self, *arguments: str) -> str:
        """@return: the error line for a wrong command line."""
        with patch.object(sys, "stderr", io.StringIO()) as err, self.assertRaises(SystemExit) as caught:
            parsed(*arguments)
        self.assertEqual(caught.exception.code, 2)
        text = err.getvalue()
        self.assertEqual((text[:8], text.count("\n")), ("darner: ", 1))
        return text

    def test_usage(self) -> None:
        for arguments, said in (
            (["--prot=1"], "option --prot not recognized (is --port meant?); --help lists the options"),
            (["--nonsense"], "option --nonsense not recognized; --help"),
            (["-z"], "option -z not recognized; --help"),
            (["stray"], "unexpected argument: stray"),
            (["--port"], "option --port requires argument"),
        ):
            self.assertIn(said, self.usage(*arguments))

    def test_no_data_directory(self) -> None:
        with self.assertRaisesRegex(SettingsError, "data_dir is empty; '.' is"):
            parsed("--data-dir=").settings()

    def test_wrong_settings(self) -> None:
        for text, arguments, expected in (
            ("", ("-p", "65536"), "port"),
            ("", ("--dialect=both",), "dialect"),
            ("port = 'x'", (), "port"),
            ("colour = 1", (), "unknown setting colour"),
            ("defaults.max_item_bytes = '5 apples'", (), "defaults.max_item_bytes"),
            ("port = 70000", ("-p", "1"), "port"),
            ("=", (), "is not TOML"),
        ):
            with self.assertRaisesRegex(SettingsError, expected):
                parsed("-c", self.config(text), *arguments).settings()

    def test_an_error_names_its_source(self) -> None:
        config = self.config("")
        for arguments, source in (
            (["-p", "-1"], "command line: "),
            (["-p", "-1", "-c", config], f"{config} and command line: "),
            (["-c", self.config("port = -1")], ""),
        ):
            with self.assertRaises(SettingsError) as caught:
                parsed(*arguments).settings()
            self.assertTrue(str(caught.exception).startswith(source))

    def test_no_such_configuration_file(self) -> None:
        with self.assertRaisesRegex(SettingsError, "cannot read .*: No such file"):
            parsed("-c", self.mktemp()).settings()

    def test_version(self) -> None:
        with patch("sys.stdout", io.StringIO()) as out:
            with self.assertRaises(SystemExit) as caught:
                parsed("--version")
        self.assertEqual((caught.exception.code, out.getvalue()), (0, f"darner {darner.__version__}\n"))

    def test_help_names_every_option(self) -> None:
        text = str(Options())
        names = "data-dir port interface listen config dialect password-file debug version"
        for name in names.split():
            self.assertIn(f"--{name}", text)


class MakeServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()
        self.memory: Any = MemoryReactor()

    def refused(self, *arguments: str) -> str:
        """@return: the message with which the process ends."""
        with self.assertRaises(SystemExit) as caught:
            makeService(parsed("-d", self.path, *arguments), self.memory)
        text = caught.exception.code
        assert isinstance(text, str)
        self.assertNotIn("\n", text)
        self.assertTrue(text.startswith("darner: "), text)
        return text.removeprefix("darner: ")

    def endpoints(self, *arguments: str) -> list[tuple[str, str]]:
        """@return: what kind of endpoints there are, and their reply keys."""
        server = makeService(parsed("-d", self.path, *arguments), self.memory)
        key = server.queues._settings.dialect
        return [(type(place.endpoint).__name__, place.dialect or key) for place in server.queues.listeners]

    def test_a_service(self) -> None:
        server = makeService(parsed("-d", self.path))
        verifyObject(IService, server)
        self.assertIsInstance(server.queues, QueueService)
        self.assertIs(server.queues._reactor, reactor)
        self.assertFalse(os.path.exists(self.path), "nothing is made before the start")

    def test_the_directory_does_not_change_with_that_of_the_process(self) -> None:
        server = makeService(parsed("-d", self.path), self.memory)
        self.assertEqual(server.queues.data_dir, Path(self.path).absolute())

    def test_where_it_listens(self) -> None:
        for arguments, expected in (
            ((), [("TCP4ServerEndpoint", "kestrel")]),
            (("-p", "1", "-i", "::1"), [("TCP6ServerEndpoint", "kestrel")]),
            (("--listen=tcp6:1", "--dialect=memcache"), [("TCP6ServerEndpoint", "memcache")]),
            (
                ("-p", "1", "--listen=unix:x", "--listen=tcp:2"),
                [("TCP4ServerEndpoint", "kestrel"), ("UnixEndpoint", "kestrel"), ("TCP4ServerEndpoint", "kestrel")],
            ),
        ):
            self.assertEqual(self.endpoints(*arguments), expected)

    def test_dialect_of_one_place(self) -> None:
        config = self.mktemp()
        Path(config).write_text('listen = ["unix:x", {endpoint = "unix:y", dialect = "memcache"}]')
        self.assertEqual([dialect for _, dialect in self.endpoints("-c", config)], ["kestrel", "memcache"])

    def test_wrong_setting(self) -> None:
        self.assertRegex(self.refused("-p", "70000"), "^command line: 'port' must be <= 65535")

    def test_bad_endpoint(self) -> None:
        junk = self.mktemp()
        Path(junk).write_text("junk")
        for endpoint in (
            "", "nonsense", "bogus:1", "tcp", "tcp:x", "tcp:1:bogus=3", "systemd:domain=INET:index=0",
            "unix:x:mode=zzz", "tcp:1:interface=\\", f"ssl:1:privateKey={self.mktemp()}",
            f"ssl:1:privateKey={junk}:certKey={junk}",
        ):  # fmt: skip
            text = self.refused(f"--listen={endpoint}")
            self.assertTrue(text.startswith(f"bad endpoint to listen at: {endpoint}: "), text)
        self.assertFalse(os.path.exists(self.path), "nothing is made")

    def test_what_is_wrong_with_an_endpoint(self) -> None:
        self.patch(os, "environ", {"LISTEN_FDS": "1", "LISTEN_FDNAMES": "web", "LISTEN_PID": str(os.getpid())})
        self.assertIn("systemd has passed no socket of", self.refused("--listen=systemd:domain=INET:name=darner"))
        self.assertIn("systemd has passed no socket of", self.refused("--listen=systemd:domain=INET:index=7"))
        self.patch(server_module, "serverFromString", lambda *_: __import__("no_such_module_at_all"))
        self.assertIn("pip install 'darner[tls]'", self.refused("--listen=ssl:1"))

    def test_what_listens_where(self) -> None:
        key = self.mktemp()
        pair = KeyPair.generate(size=2048)
        Path(key).write_bytes(pair.dump(FILETYPE_PEM) + pair.selfSignedCert(1, CN=b"darner").dumpPEM())
        server = makeService(
            parsed(
                "-d", self.path, "--port=0", "--text-port=0", f"--listen=ssl:0:privateKey={key}",
                f"--listen=mtls:0:privateKey={key}:clientCA={key}", "--listen=tcp:0",
            ),
            self.memory,
        )  # fmt: skip
        self.assertEqual(
            [str(place) for place in server.queues.listeners],
            ["", " (TLS)", " (TLS, client certificates)", "", " (text protocol)"],
        )

    def test_mutual_tls_endpoint(self) -> None:
        self.assertRegex(self.refused("--listen=mtls:1:privateKey=nowhere:clientCA=nowhere"), "No such file")
        junk = self.mktemp()
        Path(junk).write_text("junk")
        text = self.refused(f"--listen=mtls:1:privateKey={junk}:clientCA={junk}")
        self.assertIn(f"{junk} has no certificate in PEM format", text)

    def test_password_file(self) -> None:
        passwords = Path(self.mktemp())
        passwords.write_text("ann:secret\n")
        server = makeService(parsed("-d", self.path, f"--password-file={passwords}"), self.memory)
        self.assertEqual(server.queues._settings.password_file, str(passwords.absolute()))
        passwords.write_text("secret\n")
        text = self.refused(f"--password-file={passwords}")
        self.assertEqual(text, f"{passwords}, line 1: not of the form user:password")

    def test_unusable_directory(self) -> None:
        Path(self.path).write_text("mine")
        self.assertIn("is not a directory", self.refused())
        self.assertEqual(Path(self.path).read_text(), "mine")


class ServerTests(TestCase):
    def setUp(self) -> None:
        self.path = self.mktemp()
        umask = os.umask(0)
        os.umask(umask)
        self.addCleanup(os.umask, umask)

    def make(self, *arguments: str, **changes: Any) -> Server:
        server = makeService(parsed("-d", self.path, *arguments))
        server._settings = evolve(server._settings, **changes)
        return server

    def file(self, text: str) -> str:
        """@return: the path of a file with this text."""
        path = self.mktemp()
        Path(path).write_text(text)
        return path

    async def logged(self, server: Server) -> list[str]:
        """@return: what a start and a stop log."""
        with capturedLogs() as events:
            server.startService()
            self.assertTrue(server.running)
            await server.stopService()
            self.assertFalse(server.running)
        return [formatEvent(event) for event in events if event.get("log_namespace") == "darner.cli.server.Server"]

    async def test_what_it_logs(self) -> None:
        server = self.make("--port=0")
        lines = await self.logged(server)
        self.assertEqual(lines[0], f"darner: queue server, version {darner.__version__}")
        self.assertRegex(lines[1], r"^listening on IPv4Address\(type='TCP', host='127.0.0.1', port=[1-9]\d*\)$")
        directory = os.path.join(os.getcwd(), self.path)
        self.assertEqual(lines[2:], [
            f"data directory: {directory}", "starting up", "stopping: finishing running requests", "stopped",
        ])  # fmt: skip

    async def test_open_to_other_machines(self) -> None:
        """A server that other machines reach without a log-in warns, in the log and on the terminal."""
        allow_critical(self, "WARNING: everybody who reaches", "WARNING: passwords are sent")
        passwords = self.file("ann:secret\n")
        config = self.file("trusted_network = true\n")
        for arguments, said in (
            (["--interface=0.0.0.0"], "everybody who reaches 0.0.0.0:"),
            (["--interface=::"], "everybody who reaches ::"),
            (["--interface=0.0.0.0", f"--password-file={passwords}"], "passwords are sent to 0.0.0.0"),
            (["--interface=0.0.0.0", f"--config={config}"], ""),
            (["--interface=127.0.0.1"], ""),
        ):
            with patch.object(sys, "__stderr__", io.StringIO()) as err:
                lines = await self.logged(self.make("--port=0", *arguments))
            warnings = [line for line in lines if line.startswith("WARNING: ")]
            self.assertEqual(len(warnings), bool(said), arguments)
            self.assertIn(said, "".join(warnings))
            self.assertEqual("".join(f"darner: {line}\n" for line in warnings), err.getvalue())

    async def test_a_signal_before_the_reactor_runs(self) -> None:
        """A signal during the start ends it, and a later one stops the reactor: cleanly in both cases."""
        for number, default in ((signal.SIGTERM, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
            before = signal.signal(number, default)
            self.addCleanup(signal.signal, number, before)
            server = self.make("--port=0")
            opened: list[Any] = []

            def open_store(path: Path, number: int = number, opened: list[Any] = opened) -> Any:
                opened.append(path)
                os.kill(os.getpid(), number)
                return time.sleep(10)

            server.queues._open_store = open_store
            error = self.assertRaises(Interrupted, server.startService)
            self.assertEqual((error.code, len(opened)), (0, 1))
            self.assertIs(signal.getsignal(number), default)

            class Stub:
                stopped = 0

                def callFromThread(self, call: Any) -> None:
                    call()

                def stop(self) -> None:
                    self.stopped += 1
                    raise ReactorNotRunning()

            server = self.make("--port=0")
            server._reactor = stub = Stub()
            server.startService()
            os.kill(os.getpid(), number)
            self.assertEqual(stub.stopped, 1)
            await server.stopService()
            self.assertNotEqual(signal.getsignal(number), server._hear_stop)

    async def test_debug(self) -> None:
        self.assertIn("debug logging is on", await self.logged(self.make("--port=0", "--debug")))

    def refused(self, server: Server) -> str:
        """@return: the message with which the process ends."""
        with patch.object(sys, "__stderr__", io.StringIO()) as err:
            with self.assertRaises(CannotStart) as caught:
                server.startService()
        self.assertFalse(server.running)
        self.assertIsNone(server.queues.queues)
        error = caught.exception
        self.assertIsInstance(error, SystemExit)
        self.assertEqual((error.code, err.getvalue()), (1, f"darner: {error.args[0]}\n"))
        self.assertNotIn("\n", error.args[0])
        return error.args[0]

    async def test_the_directory_is_in_use(self) -> None:
        allow_critical(self, "is in use by another process")
        server = self.make("--port=0")
        server.startService()
        self.assertIn("is in use by another process", self.refused(self.make("--port=0")))
        await server.stopService()

    def test_the_password_file_has_gone(self) -> None:
        allow_critical(self, "No such file")
        passwords = Path(self.mktemp())
        passwords.write_text("ann:secret\n")
        server = self.make("--port=0", f"--password-file={passwords}")
        passwords.unlink()
        self.assertIn("No such file", self.refused(server))

    async def test_private(self) -> None:
        """Other users cannot read the files, and a stricter umask is kept."""
        for given, expected in ((0o000, 0o077), (0o022, 0o077), (0o177, 0o177)):
            os.umask(given)
            server = self.make("--port=0")
            server.startService()
            await server.stopService()
            self.assertEqual(os.umask(given), expected)

    async def test_nothing_is_touched_before_the_ports_are_had(self) -> None:
        allow_critical(self, "cannot listen: ")
        other = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory())
        self.addCleanup(other.stopListening)
        port = other.getHost().port
        for arguments in ([f"--port={port}"], ["--port=0", f"--text-port={port}"], [f"--port={port}", "--repair"]):
            self.refused(self.make(*arguments))
            self.assertNotIn(self.path.rpartition("/")[2], os.listdir(os.path.dirname(self.path)))

    async def test_it_cannot_listen(self) -> None:
        allow_critical(self, "cannot listen: ")
        other = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory())
        self.addCleanup(other.stopListening)
        port = other.getHost().port
        with tempfile.TemporaryDirectory() as directory:
            for arguments in (
                [f"--port={port}"],
                [f"--listen=tcp:{port}:interface=127.0.0.1"],
                ["--listen=tcp:70000"],
                [f"--listen=unix:{directory}/missing/darner.sock"],
            ):
                self.assertTrue(self.refused(self.make(*arguments)).startswith("cannot listen: "))

    async def test_a_clean_stop_has_status_0(self) -> None:
        class Reactor:
            _exitSignal: Any = 15

        for number in (15, None):
            stub = Reactor()
            stub._exitSignal = number
            server = self.make("--port=0")
            server._reactor = stub
            server.startService()
            stopping: Deferred[None] = server.stopService()
            await stopping
            self.assertIsNone(stub._exitSignal)
