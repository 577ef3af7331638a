"""
The server as its operators run it: a real twistd, real signals, real shortages.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import ssl
import stat
import struct
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from unittest import skipUnless

import plyvel
from twisted.trial.unittest import SynchronousTestCase

import darner
from bench.ports import reserve_port
from bench.remains import disk_usage
from darner.errors import StoreUnusable
from darner.store.leveldb import LevelStore
from darner.values.vocabulary import CHUNK_BYTES
from test.damage import live_tables
from test.servers import (
    FOREGROUND,
    MODULE,
    PATIENCE,
    TWISTD,
    Client,
    Server,
    environment,
    make_certificate,
    make_directory,
    run,
    until,
)

STOPS_WITHIN = 5.0
"""Seconds of processor time that a clean stop may take, whatever there is to do."""


def contents(path: Path) -> dict[str, tuple[int, bytes]]:
    """@return: everything below a directory: each file's time of change and bytes."""
    return {
        str(entry.relative_to(path)): (entry.stat().st_mtime_ns, b"" if entry.is_dir() else entry.read_bytes())
        for entry in sorted(path.rglob("*"))
    }


def processor_time(pid: int) -> float:
    """@return: the seconds that a process has worked, itself and for the kernel; also of one that has just ended."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def put_many(client: Client, queue: bytes, count: int) -> None:
    """Set many small items without waiting for each."""
    sets = b"".join(b"set %b 0 0 8 noreply\r\n%08d\r\n" % (queue, number) for number in range(count))
    client.send(sets)
    assert client.ask(b"version").startswith(b"VERSION ")


class OptionsTests(SynchronousTestCase):
    """Options of the command line and the configuration file."""

    def test_configuration_from_a_pipe(self) -> None:
        """It can be read once only."""
        pipe = "<(echo '[defaults]'; echo max_items=7)"
        shell = f"exec {sys.executable} -m darner --port=0 --data-dir=data --config={pipe}"
        server = Server(self, "bash", program=("bash", "-c", shell))
        with server.client() as client:
            client.send(b"set q 0 0 1\r\nx\r\ndump_config q\r\nquit\r\n")
            self.assertIn(b"  max_items=7\r\n", client.rest())

    def serves(self, client: Client) -> None:
        with client:
            self.assertEqual(client.set(b"q", b"here"), b"STORED")
            self.assertEqual(client.get(b"q"), b"here")

    def test_long_options(self) -> None:
        directory = make_directory(self)
        elsewhere = directory / "else" / "where"
        server = Server(self, f"--data-dir={elsewhere}", "--port=0", "--interface=127.0.0.2", directory=directory)
        self.assertEqual(server.address[0], "127.0.0.2")
        self.serves(server.client())
        self.assertTrue((elsewhere / "darner").exists())
        self.assertEqual(sorted(entry.name for entry in directory.iterdir()), ["else", "err", "out"])

    def test_short_options(self) -> None:
        directory = make_directory(self)
        (directory / "darner.toml").write_text('dialect = "memcache"\n')
        server = Server(
            self, "-d", "there", "-p", "0", "-i", "127.0.0.2", "-c", "darner.toml", directory=directory
        )  # fmt: skip
        self.assertEqual(server.address[0], "127.0.0.2")
        with server.client() as client:
            client.set(b"q", b"x")
            self.assertEqual(client.ask(b"get q/t=1"), b"VALUE q/t=1 0 1")
        self.assertTrue((directory / "there" / "darner").exists())

    def test_several_places_to_listen_at(self) -> None:
        """``--listen`` is taken as often as it is given, and leaves no other port open."""
        directory = make_directory(self)
        path = str(directory / "socket")
        server = Server(
            self, f"--listen=unix:{path}", "--listen=tcp6:0", "--listen=tcp:0:interface=127.0.0.1",
            directory=directory,
        )  # fmt: skip
        server.allow("everybody who reaches")
        self.assertEqual([host for host, _ in server.addresses], ["::", "127.0.0.1"])
        self.serves(server.client(path))
        host = "::1" if socket.has_ipv6 and _has_address("::1") else "127.0.0.1"
        self.serves(server.client((host, server.addresses[0][1])))
        self.serves(server.client(server.addresses[1]))

    def test_port_and_listen_together(self) -> None:
        directory = make_directory(self)
        path = str(directory / "socket")
        server = Server(self, "--port=0", f"--listen=unix:{path}", directory=directory)
        self.serves(server.client())
        self.serves(server.client(path))
        self.assertEqual(server.stop(), 0)
        self.assertFalse(os.path.exists(path))

    def test_unix_socket_after_crash(self) -> None:
        """A socket file that a crash left behind does not keep the server from starting."""
        directory = make_directory(self)
        path = str(directory / "socket")
        server = Server(self, "--port=0", f"--listen=unix:{path}", directory=directory)
        server.restart()
        self.serves(server.client(path))

    def test_tls(self) -> None:
        directory = make_directory(self)
        certificate = make_certificate(directory, "server")
        listen = f"--listen=ssl:0:interface=127.0.0.1:privateKey={certificate}:certKey={certificate}"
        server = Server(self, listen, directory=directory)
        context = ssl.create_default_context(cafile=str(certificate))
        context.check_hostname = False
        payload = bytes(range(256)) * 2000
        with socket.create_connection(server.address, PATIENCE) as plain, context.wrap_socket(plain) as client:
            client.sendall(b"set q 5 0 %d\r\n%b\r\nget q\r\nquit\r\n" % (len(payload), payload))
            replies = client.makefile("rb").read()
        self.assertEqual(replies, b"STORED\r\nVALUE q 5 %d\r\n%b\r\nEND\r\n" % (len(payload), payload))
        self.assertEqual(server.stop(), 0)

    def test_tls_client_that_does_not_read(self) -> None:
        """The bounds hold over TLS as well: on what is held for a client, and on how long it may stall."""
        directory = make_directory(self)
        certificate = make_certificate(directory, "own")
        (directory / "config.toml").write_text('stall_timeout = "2s"\n')
        server = Server(
            self, "--listen=ssl:0:interface=127.0.0.1:privateKey=own.pem", "--port=0", "--config=config.toml",
            directory=directory,
        )  # fmt: skip
        feeder = server.client()
        self.addCleanup(feeder.close)
        self.assertEqual(feeder.set(b"q", bytes(60_000)), b"STORED")
        server.reset_peak_memory()
        before = server.memory("VmHWM")
        context = ssl.create_default_context(cafile=str(certificate))
        context.check_hostname = False
        plain = socket.create_connection(server.addresses[1], PATIENCE)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        with context.wrap_socket(plain) as client:
            # It may be disconnected before it has sent all.
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                client.sendall(b"get q/peek\r\n" * 4000)
            until(lambda: feeder.stats()[b"curr_connections"] == b"1", "the end of a client that stalls")
        self.assertLess(server.memory("VmHWM") - before, 32 * 2**20)
        self.assertNotIn("Traceback", server.text)
        self.assertEqual(server.stop(), 0)

    def test_memory_without_tls(self) -> None:
        """The modules for TLS are imported only if an endpoint is configured, on the command line or in the file."""
        directory = make_directory(self)
        (directory / "plain.toml").write_text("port = 0\n")
        (directory / "named.toml").write_text(f'port = 0\nlisten = [{{endpoint = "unix:{directory / "socket"}"}}]\n')
        for loads, program, options in (
            (False, FOREGROUND, ["--port=0"]),
            (False, MODULE, ["--config=plain.toml"]),
            (True, MODULE, ["--config=named.toml"]),
            (True, FOREGROUND, ["--listen=tcp:0:interface=127.0.0.1"]),
        ):
            server = Server(self, *options, program=program, directory=directory)
            maps = Path(f"/proc/{server.pid}/maps").read_text()
            self.assertEqual("cryptography" in maps, loads, (program, options))
            self.serves(server.client())
            self.assertEqual(server.stop(), 0)

    def test_client_certificates(self) -> None:
        """Only who has a certificate of the right authority gets in."""
        directory = make_directory(self)
        own, friend, stranger = (make_certificate(directory, name) for name in ("server", "friend", "stranger"))
        listen = f"--listen=mtls:0:interface=127.0.0.1:privateKey={own}:clientCA={friend}"
        server = Server(self, listen, directory=directory, ready=False)
        server.wait_for("] starting up")
        for certificate, replies in ((friend, b"STORED\r\n"), (stranger, b""), (None, b"")):
            context = ssl.create_default_context(cafile=str(own))
            context.check_hostname = False
            if certificate is not None:
                context.load_cert_chain(certificate)
            received = b""
            # In TLS 1.3 a client hears of its refusal when it reads.
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                with (
                    socket.create_connection(server.addresses[0], PATIENCE) as plain,
                    context.wrap_socket(plain) as client,
                ):
                    client.sendall(b"set q 0 0 1\r\nx\r\nquit\r\n")
                    received = client.makefile("rb").read()
            self.assertEqual(received, replies, certificate)
        self.assertEqual(server.stop(), 0)

    def test_mode_of_a_unix_socket(self) -> None:
        directory = make_directory(self)
        path = directory / "s"
        server = Server(self, "--port=0", f"--listen=unix:{path}:mode=620", directory=directory)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o620)
        self.serves(server.client(str(path)))
        self.assertEqual(server.stop(), 0)

    def test_passwords(self) -> None:
        """Users by a file that ``darner-passwd`` wrote, with rights by the configuration."""
        directory = make_directory(self)
        (directory / "darner.toml").write_text(
            'port = 0\npassword_file = "passwords"\n[users.reader]\nread = ["jobs*"]\nwrite = []\n'
        )
        for user in ("reader", "writer"):
            done = subprocess.run(
                [sys.executable, "-c", "import sys; from darner.cli.passwd import main; sys.exit(main())",
                 "passwords", user],
                input=f"{user}-secret\n", text=True, cwd=directory, env=environment(), timeout=60,
            )  # fmt: skip
            self.assertEqual(done.returncode, 0)
        server = Server(self, "--config=darner.toml", directory=directory)
        with server.client() as writer, server.client() as reader, server.client() as nobody:
            self.assertEqual(nobody.ask(b"get jobs"), b"CLIENT_ERROR unauthenticated")
            self.assertEqual(nobody.set(b"auth", b"reader writer-secret"), b"CLIENT_ERROR authentication failure")
            self.assertEqual(nobody.rest(), b"")
            for client, user in ((writer, b"writer"), (reader, b"reader")):
                self.assertEqual(client.set(b"auth", b"%b %b-secret" % (user, user)), b"STORED")
            self.assertEqual(writer.set(b"jobs", b"x"), b"STORED")
            self.assertEqual(reader.set(b"jobs", b"x"), b"CLIENT_ERROR not allowed")
            self.assertEqual(reader.get(b"jobs"), b"x")
            self.assertEqual(reader.ask(b"get other"), b"CLIENT_ERROR not allowed")
        self.assertEqual(server.stop(), 0)
        self.assertNotIn("secret", server.text)
        self.assertIn("[darner.audit#warn] user reader failed to log in from 127.0.0.1:", server.text)
        self.assertIn("[darner.audit#warn] refused: get other of user reader from 127.0.0.1:", server.text)

    def test_private(self) -> None:
        """Directories are for their owner alone, and so is every file in them."""
        server = Server(self)
        with server.client() as client:
            for _ in range(10):
                client.set(b"q", b"x" * 1_000_000)
        for path in (server.data, *server.data.rglob("*")):
            with contextlib.suppress(FileNotFoundError):  # LevelDB removes what it has merged
                mode = path.stat().st_mode
                self.assertEqual(stat.S_IMODE(mode), 0o700 if stat.S_ISDIR(mode) else 0o600, path)
        self.assertEqual(server.stop(), 0)

    def test_systemd(self) -> None:
        """A socket that the process was started with is served."""
        server = Server(
            self, "--listen=systemd:domain=INET:index=0", program=(sys.executable, "-c", _ACTIVATE, *FOREGROUND[1:])
        )
        self.serves(server.client())
        self.assertEqual(server.stop(), 0)

    def test_debug(self) -> None:
        """Connections and refused requests are logged only where that is asked for."""
        for options in [], ["--debug"]:
            server = Server(self, "--port=0", *options)
            with server.client() as client:
                self.assertEqual(client.ask(b"nonsense"), b"ERROR")
            if options:
                server.wait_for("was refused")
                server.wait_for("disconnected", 2)
            server.stop()
            self.assertEqual("connected" in server.text, bool(options))

    def test_log_that_nobody_reads(self) -> None:
        """Clients are served, the log says how many lines are lost, and the server stops."""
        directory = make_directory(self)
        path = str(directory / "socket")
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        process = subprocess.Popen(
            [*FOREGROUND, "--debug", f"--listen=unix:{path}"], cwd=directory, env=environment(), stdout=writer,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        os.close(writer)
        assert process.stderr is not None
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

        def serves() -> bool:
            with socket.socket(socket.AF_UNIX) as probe:
                return probe.connect_ex(path) == 0

        until(serves, "the server to accept clients")

        def ask_for_nonsense(thousands: int) -> None:
            with Client(path) as client:
                for _ in range(thousands):
                    client.send(b"nonsense\r\n" * 1000)
                    self.assertEqual(client.read(7000), b"ERROR\r\n" * 1000)

        ask_for_nonsense(20)
        lost = 0
        said = b""
        while not lost:
            piece = os.read(reader, 65536)
            self.assertTrue(piece)
            said += piece
            found = re.search(rb"([0-9]+) lines of the log are lost", said)
            lost = int(found[1]) if found else 0
        refused = said.count(b"was refused")
        self.assertGreater(refused, 5000)
        self.assertGreaterEqual(refused + lost, 20_000)
        ask_for_nonsense(1)
        until(lambda: b"was refused" in os.read(reader, 65536), "the log to go on")
        ask_for_nonsense(20)
        process.terminate()
        self.assertEqual(process.wait(PATIENCE), 0)
        self.assertEqual(process.stderr.read(), b"")

    def test_version(self) -> None:
        for program in [*TWISTD, "darner"], MODULE:
            done = run(*program, "--version", cwd=make_directory(self))
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, f"darner {darner.__version__}\n", ""))

    def test_help(self) -> None:
        """The help explains every option."""
        done = run(*TWISTD, "darner", "--help", cwd=make_directory(self))
        self.assertEqual(done.returncode, 0)
        options = (
            "-d, --data-dir=", "-p, --port=", "-i, --interface=", "-c, --config=", "--listen=", "--debug",
            "--dialect=", "--check", "--repair", "--version",
        )  # fmt: skip
        for option in options:
            self.assertRegex(done.stdout, option + r" +\w+")

    def test_help_that_nobody_reads(self) -> None:
        """As with C{--help | head -1}."""
        bench, passwd = (
            (sys.executable, "-c", f"import sys; from darner.cli.{name} import main; sys.exit(main())")
            for name in ("bench", "passwd")
        )
        for program in ([*MODULE, "--help"], [*MODULE, "--version"], [*bench, "--help"], [*bench, "-v"],
                        [*passwd, "-h"]):  # fmt: skip
            reader, writer = os.pipe()
            os.close(reader)
            done = subprocess.run(
                program, cwd=make_directory(self), env=environment(), stdout=writer, stderr=subprocess.PIPE
            )
            os.close(writer)
            self.assertEqual((done.returncode, done.stderr), (0, b""), program)

    def test_twistd_lists_it(self) -> None:
        done = run(*TWISTD, "--help", cwd=make_directory(self))
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"(?m)^ +darner +A durable message queue")

    def test_config_file(self) -> None:
        """A TOML file has the same names; the command line wins."""
        directory = make_directory(self)
        path = str(directory / "socket")
        (directory / "darner.toml").write_text(
            f'data_dir = "from file"\nport = 1\ninterface = "127.0.0.2"\nlisten = ["unix:{path}"]\n'
            'debug = true\n[defaults]\nmax_item_bytes = "4 KiB"\n[queues.q]\nmax_open_reads = 2\n'
        )
        server = Server(self, "--config=darner.toml", "--port=0", "--interface=127.0.0.3", directory=directory)
        self.assertEqual([host for host, _ in server.addresses], ["127.0.0.3"])
        self.assertTrue((directory / "from file" / "darner").exists())
        with server.client(path) as client:
            self.assertEqual(client.set(b"q", bytes(4097)), b"SERVER_ERROR object too large")
            for payload in b"1", b"2", b"3":
                self.assertEqual(client.set(b"q", payload), b"STORED")
            self.assertEqual([client.get(b"q/open"), client.get(b"q/open")], [b"1", b"2"])
            self.assertEqual(client.ask(b"get q/open"), b"CLIENT_ERROR close current item first")
        server.wait_for("disconnected", 2)

    def assert_refused(self, *options: str) -> str:
        directory = make_directory(self)
        (directory / "wrong.toml").write_text('port = 22133\nprot = "x"\n')
        (directory / "not.toml").write_text("port: 22133\n")
        before = contents(directory)
        done = run(*TWISTD, "--nodaemon", "darner", *options, cwd=directory)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(contents(directory), before)
        return done.stdout + done.stderr

    def test_wrong_settings(self) -> None:
        """The error is one line, and nothing is created."""
        for options, said in [
            (["--config=missing.toml"], "cannot read missing.toml: No such file or directory"),
            (["--config=wrong.toml"], "wrong.toml: unknown setting prot"),
            (["--config=not.toml"], "not.toml is not TOML: "),
            (["--port=65536"], "port"),
            (["--dialect=other"], "dialect"),
            (["--listen=carrier-pigeon:1"], "bad endpoint to listen at: "),
        ]:
            text = self.assert_refused(*options)
            self.assertRegex(text, r"\Adarner: .*\n\Z")
            self.assertIn(said, text)

    def test_unknown_option(self) -> None:
        self.assertIn("option --nonsense not recognized", self.assert_refused("--nonsense"))

    def test_port_is_no_number(self) -> None:
        self.assertIn("--port is not a number: many", self.assert_refused("--port=many"))


_ACTIVATE = """
import os, socket, sys
listening = socket.create_server(("127.0.0.1", 0))
if listening.fileno() != 3:
    os.dup2(listening.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="darner")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""What systemd does for a service with a socket: the arguments are those of Python."""


def _has_address(host: str) -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
        return True


class UnusableTests(SynchronousTestCase):
    """An unusable data directory is left as it is, and one line says what is wrong and what to do."""

    def setUp(self) -> None:
        self.directory = make_directory(self)
        self.data = self.directory / "data"

    def assert_refused(self, said: str, *options: str) -> None:
        before = contents(self.directory)
        done = run(
            *TWISTD, "--nodaemon", "darner", *(options or ("--port=0", f"--data-dir={self.data}")),
            cwd=self.directory, allowed=["cannot start: "],
        )  # fmt: skip
        self.assertRegex(done.stderr, r"\Adarner: .*\n\Z")
        self.assertIn(said, done.stderr)
        self.assertGreater(done.returncode, 0)
        self.assertEqual(contents(self.directory), before)

    def test_in_use(self) -> None:
        """The data directory of a running server is refused, and the server does not notice."""
        server = Server(self, directory=self.directory)
        with server.client() as client:
            client.set(b"q", b"mine")
            self.assert_refused(f"the data directory {self.data} is in use by another process: stop that one")
            self.assertEqual(client.get(b"q"), b"mine")
            self.assertEqual(client.set(b"q", b"more"), b"STORED")
        self.assertEqual(server.stop(), 0)
        server.start()
        self.assertEqual(server.client().get(b"q"), b"more")

    def test_in_use_by_a_tool(self) -> None:
        """A tool that has the database open is noticed too."""
        LevelStore(self.data).close()
        with contextlib.closing(plyvel.DB(str(self.data / "leveldb"))):
            error = self.assertRaises(StoreUnusable, LevelStore, self.data)
        self.assertIn("is in use by another process", str(error))
        LevelStore(self.data).close()

    def test_free_again_after_crash(self) -> None:
        """What a killed server held does not keep the next one from starting."""
        Server(self, directory=self.directory).kill()
        self.assertEqual(Server(self, directory=self.directory).stop(), 0)

    def test_cannot_be_made(self) -> None:
        self.assert_refused(
            "cannot create the data directory /proc/darner/data: ", "--port=0", "--data-dir=/proc/darner/data"
        )

    def test_below_a_file(self) -> None:
        self.data.write_bytes(b"a file")
        self.assert_refused("cannot create the data directory", "--port=0", f"--data-dir={self.data / 'below'}")

    def test_file_in_the_way(self) -> None:
        self.data.write_bytes(b"a file")
        self.assert_refused("is not a directory: name another data directory")

    def test_foreign_files(self) -> None:
        self.data.mkdir()
        (self.data / "letter.txt").write_text("Dear Sir\n")
        self.assert_refused("holds files that are not darner's (letter.txt, ...): name an empty directory")

    def test_foreign_database(self) -> None:
        self.data.mkdir()
        (self.data / "CURRENT").write_text("MANIFEST-000002\n")
        (self.data / "MANIFEST-000002").write_bytes(b"")
        self.assert_refused("holds a LevelDB of something else: name an empty directory")

    def test_the_cpp_darner(self) -> None:
        """The C++ Darner keeps a LevelDB for each queue, named as the queue is."""
        queue = self.data / "jobs"
        queue.mkdir(parents=True)
        (queue / "CURRENT").write_text("MANIFEST-000002\n")
        for name in "LOCK", "LOG", "MANIFEST-000002", "000003.log":
            (queue / name).write_bytes(b"")
        self.assert_refused("holds queues of the C++ Darner: name an empty directory")

    def test_kestrel(self) -> None:
        """Kestrel keeps journals, named as the queue is."""
        self.data.mkdir()
        item = b"\0" * 8 + b"hello"
        (self.data / "jobs").write_bytes(b"\2" + struct.pack("<I", len(item)) + item)
        (self.data / "jobs.1300000000000").write_bytes(b"\1")
        self.assert_refused("holds journals of Kestrel: name an empty directory")

    def test_unknown_format(self) -> None:
        self.data.mkdir()
        (self.data / "darner").write_bytes(b"darner data directory, format 99\n")
        self.assert_refused("is in a format that this version does not know: serve it with the version that created it")

    def test_port_taken(self) -> None:
        Server(self, directory=self.directory).stop()
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            elsewhere = self.directory / "elsewhere"
            done = run(
                *TWISTD, "--nodaemon", "darner", f"--port={port}", f"--data-dir={elsewhere}",
                cwd=self.directory, allowed=["cannot start: "],
            )  # fmt: skip
        self.assertRegex(done.stderr, rf"\Adarner: cannot listen: .*127\.0\.0\.1:{port}.*in use.*\n\Z")
        self.assertGreater(done.returncode, 0)
        self.assertFalse((self.directory / "twistd.pid").exists())

    def test_daemon_that_cannot_start(self) -> None:
        """The process that was to become a daemon says so and exits as any other; no pid file stays behind."""
        server = Server(self, directory=self.directory)
        pid_file = self.directory / "pid"
        log = self.directory / "log"
        done = run(
            *TWISTD, f"--pidfile={pid_file}", f"--logfile={log}", "darner", *server.options, cwd=self.directory
        )
        self.assertGreater(done.returncode, 0)
        self.assertIn("the data directory", done.stderr)
        until(lambda: not pid_file.exists(), "the pid file is removed")
        self.assertIn("is in use by another process: stop that one, or name another", log.read_text())


class DamageTests(SynchronousTestCase):
    """A damaged store: what an operator is told, and what the server does when it is told to repair."""

    def setUp(self) -> None:
        self.server = Server(self)
        with self.server.client() as client:
            put_many(client, b"jobs", 20_000)
            client.set(b"large", bytes(1_000_000))
        self.server.stop()
        # The log is in a table after the next start.
        self.server.start()
        self.server.stop()

    def damage(self) -> Path:
        """Flip a bit of the largest table."""
        table = max(live_tables(self.server.data).values(), key=lambda table: table.stat().st_size)
        contents = bytearray(table.read_bytes())
        contents[contents.index(b"00010000") + 4] ^= 1
        table.write_bytes(contents)
        return table

    def check(self) -> tuple[int, list[str]]:
        before = contents(self.server.data)
        done = run(*MODULE, "--check", f"--data-dir={self.server.data}", cwd=self.server.directory)
        self.assertEqual(done.stderr, "")
        self.assertEqual(contents(self.server.data), before)
        return done.returncode, done.stdout.splitlines()

    @skipUnless(os.getuid() == 0, "only root can give up root's right to read everything")
    def test_what_may_not_be_read_is_not_damaged(self) -> None:
        directory = make_directory(self)
        directory.chmod(0o755)
        data = directory / "data"
        LevelStore(data).close()
        log = next((data / "leveldb").glob("*.log"))
        log.chmod(0)
        for options in ([], ["--check"], ["--repair"]):
            program = (*TWISTD, "--nodaemon", "--pidfile=", "darner", "--port=0", f"--data-dir={data}", *options)
            # Who has the files, so that the checkout and Python may lie where others cannot go.
            user = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
            done = run(*user, *program, cwd=directory, allowed=["cannot start"])
            self.assertEqual(done.returncode, 1, options)
            self.assertIn(f"{log.name}: Permission denied: nothing is damaged", done.stdout + done.stderr)
        self.assertEqual([path for path in data.iterdir() if path.name.startswith("damaged")], [])

    def test_sound(self) -> None:
        self.assertEqual(
            self.check(), (0, ["2 queues are whole, with 20001 items", "total: 20001 items found, 0 lost"])
        )

    def test_check_of_what_is_no_store(self) -> None:
        done = run(*MODULE, "--check", "--data-dir=nowhere", cwd=self.server.directory)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertEqual(done.stderr, "darner: there is no data directory nowhere\n")

    def test_refused(self) -> None:
        """Damage that is found at the start ends it with one line, and nothing is changed."""
        table = max(live_tables(self.server.data).values())
        os.truncate(table, table.stat().st_size - 100)
        before = contents(self.server.data)
        for program in [*TWISTD, "--nodaemon", "--pidfile=", "darner"], MODULE:
            done = run(
                *program, "--port=0", f"--data-dir={self.server.data}",
                cwd=self.server.directory, allowed=["cannot start: "],
            )  # fmt: skip
            self.assertEqual(done.returncode, 1)
            self.assertRegex(
                done.stderr,
                rf"\Adarner: the store in {self.server.data} is damaged: {table.name}: it has \d+ bytes and not \d+: "
                r"start with --repair to save what can be read\n\Z",
            )
            self.assertNotIn("Traceback", done.stdout)
        self.assertEqual(contents(self.server.data), before)

    def test_repair(self) -> None:
        """Damage inside a table is reported when it is read; the rest is served, and saved by a repair."""
        table = self.damage()
        self.server.allow("is damaged")
        self.server.start()
        refused = b"SERVER_ERROR cannot read: the store is damaged (Corruption: block checksum mismatch): "
        with self.server.client() as client:
            self.assertEqual(client.get(b"large"), bytes(1_000_000))
            self.assertEqual(client.set(b"other", b"x"), b"STORED")
            client.send(b"get jobs\r\n" * 20_000 + b"quit\r\n")
            replies = client.rest()
            taken = replies.count(b"VALUE jobs 0 8\r\n")
            self.assertEqual(replies.count(refused), 20_000 - taken)
        self.server.wait_for("some items cannot be read.  To repair it, stop the server and start it with --repair")
        self.assertEqual(self.server.stop(), 0)
        status, lines = self.check()
        self.assertEqual(status, 1)
        self.assertRegex(lines[0], rf"\Adamaged: {table.name}: the checksum of a block is wrong, at \d+ of \d+\Z")
        self.assertRegex(lines[1], r"\Aqueue jobs: \d+ items found, \d+ lost\Z")
        self.server.options = (*self.server.options, "--repair")
        self.server.start()
        self.server.wait_for("the store is repaired")
        for line in lines:
            self.assertIn(line, self.server.text)
        with self.server.client() as client:
            left, lost = (int(word) for word in lines[1].split() if word.isdigit())
            self.assertEqual((taken + left + lost, client.count(b"jobs")), (20_000, left))
            client.send(b"get jobs\r\n" * left + b"quit\r\n")
            self.assertEqual(client.rest().count(b"VALUE jobs 0 8\r\n"), left)
        self.assertEqual(self.server.stop(), 0)
        self.assertEqual(self.check()[0], 0)
        self.server.start()
        self.server.wait_for("found no damage")

    def test_repair_without_marker(self) -> None:
        (self.server.data / "darner").unlink()
        done = run(
            *MODULE, "--port=0", f"--data-dir={self.server.data}",
            cwd=self.server.directory, allowed=["cannot start: "],
        )  # fmt: skip
        self.assertIn("is damaged: darner: it is missing: start with --repair", done.stderr)
        self.server.options = (*self.server.options, "--repair")
        self.server.start()
        with self.server.client() as client:
            self.assertEqual(client.count(b"jobs"), 20_000)

    def test_repair_of_what_is_not_ours(self) -> None:
        (self.server.data / "darner").write_bytes(b"darner data directory, format 99\n")
        before = contents(self.server.data)
        done = run(
            *MODULE, "--port=0", "--repair", f"--data-dir={self.server.data}",
            cwd=self.server.directory, allowed=["cannot start: "],
        )  # fmt: skip
        self.assertEqual(done.returncode, 1)
        self.assertIn("is in a format that this version does not know", done.stderr)
        self.assertEqual(contents(self.server.data), before)


class StopTests(SynchronousTestCase):
    """
    A clean stop takes less than five seconds, loses nothing and ends with status 0.

    The seconds are those that the server works, as a busy machine gives it less.  For how long it waits for clients is
    shown by L{test.test_service}; what it would wait for otherwise, a client that stalls, takes longer than L{LONG}.
    """

    LONG = 50.0
    """Seconds by the clock, for a machine that is busy with other things."""

    def assert_stops(self, server: Server, number: int = signal.SIGTERM) -> None:
        before = processor_time(server.pid)
        server.process.send_signal(number)
        ended = os.WEXITED | os.WNOWAIT | os.WNOHANG
        until(lambda: os.waitid(os.P_PID, server.pid, ended) is not None, "it ends", self.LONG)
        self.assertLess(processor_time(server.pid) - before, STOPS_WITHIN)
        self.assertEqual(server.process.wait(), 0)
        self.assertEqual(server.errors, "")
        self.assertNotIn("Traceback", server.text)

    def test_sigterm(self) -> None:
        self.assert_stops(Server(self), signal.SIGTERM)

    def test_at_the_first_moment(self) -> None:
        """As soon as anybody can connect, a stop is a clean one."""
        directory = make_directory(self)
        port = reserve_port()
        for number in range(4):
            server = Server(
                self, f"--port={port}", f"--data-dir={directory / str(number)}", directory=directory, ready=False
            )

            def connects() -> bool:
                with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)):
                    return True
                return False

            until(connects, "somebody who accepts")
            self.assertEqual(server.stop(), 0)

    def test_sigusr1(self) -> None:
        """It rotates twistd's log, where there is a file; where there is none it is ignored."""
        server = Server(self)
        server.process.send_signal(signal.SIGUSR1)
        with server.client() as client:
            self.assertEqual(client.ask(b"version")[:7], b"VERSION")
        self.assertEqual(server.stop(), 0)

    def test_sigint(self) -> None:
        self.assert_stops(Server(self), signal.SIGINT)

    def test_impatience(self) -> None:
        """A second signal, while it stops, changes nothing."""
        server = Server(self)
        with server.client() as stubborn, server.client() as other:
            other.set(b"large", bytes(8 * 1024 * 1024))
            stubborn.send(b"get large/open\r\n")
            until(lambda: other.count(b"large") == 0, "it is being sent")
            server.process.send_signal(signal.SIGTERM)
            server.wait_for("stopping: finishing running requests")
            # Twisted says that it stops already, and that is all.
            server.allow("Can't stop reactor that isn't running.")
            self.assertEqual(server.stop(signal.SIGTERM), 0)
        server.start()
        with server.client() as client:
            self.assertEqual(client.get(b"large"), bytes(8 * 1024 * 1024))

    def test_backlog(self) -> None:
        server = Server(self)
        with server.client() as client:
            put_many(client, b"q", 100_000)
            self.assert_stops(server)
        server.start()
        with server.client() as client:
            self.assertEqual(client.count(b"q"), 100_000)
            self.assertEqual(client.get(b"q"), b"00000000")

    def test_flushed_and_deleted_backlog(self) -> None:
        """Space that is still to be reclaimed does not delay the stop."""
        server = Server(self)
        with server.client() as client:
            for queue in b"flushed", b"deleted":
                put_many(client, queue, 50_000)
            client.ask(b"flush flushed")
            client.ask(b"delete deleted")
            self.assert_stops(server)
        server.start()
        with server.client() as client:
            self.assertEqual(client.count(b"flushed") + client.count(b"deleted"), 0)

    def test_open_reads(self) -> None:
        """They are given back, in their old order, ahead of all else."""
        server = Server(self)
        clients = [server.client() for _ in range(20)]
        put_many(clients[0], b"q", 30)
        for number, client in enumerate(clients):
            self.assertEqual(client.get(b"q/open"), b"%08d" % number)
        for client in clients[5:10]:
            self.assertEqual(client.ask(b"get q/close"), b"END")
        self.assert_stops(server)
        for client in clients:
            self.assertEqual(client.rest(), b"")
            client.close()
        server.start()
        with server.client() as client:
            left = [number for number in range(30) if number not in range(5, 10)]
            self.assertEqual([client.get(b"q") for _ in left], [b"%08d" % number for number in left])
            self.assertIsNone(client.get(b"q"))

    def test_waiting_clients(self) -> None:
        """Waiting clients are disconnected without an item."""
        server = Server(self)
        clients = [server.client() for _ in range(20)]
        for client in clients:
            client.send(b"get q/t=600000\r\n")
        with server.client() as client:
            until(lambda: client.stats().get(b"cmd_get") == b"20", "everybody waits")
        self.assert_stops(server)
        for client in clients:
            self.assertEqual(client.rest(), b"")
            client.close()

    def test_client_that_does_not_read(self) -> None:
        """A client that reads none of its replies cannot delay the stop."""
        server = Server(self)
        with server.client() as stubborn, server.client() as other:
            for _ in range(4):
                self.assertEqual(other.set(b"large", bytes(8 * 1024 * 1024)), b"STORED")
            stubborn.send(b"get large/open\r\nget large/close/open\r\n" + b"get other/peek\r\n" * 1000)
            until(lambda: other.count(b"large") < 4, "the first is being sent")
            self.assert_stops(server)
        server.start()
        with server.client() as client:
            self.assertEqual(client.count(b"large"), 4)

    def test_set_under_way(self) -> None:
        """A set that is half sent leaves nothing behind."""
        server = Server(self)
        with server.client() as client:
            client.set(b"q", b"whole")
            client.send(b"set q 0 0 3000000\r\n" + os.urandom(2_000_000))
            until(lambda: disk_usage(server.data) > 1_000_000, "chunks are written")
            self.assert_stops(server)
        server.start()
        with server.client() as client:
            self.assertEqual(client.count(b"q"), 1)
            self.assertEqual(client.get(b"q"), b"whole")

    def test_replies_under_way(self) -> None:
        """Every set that was not answered when the stop came is answered, or is not stored."""
        server = Server(self)
        with server.client() as client:
            client.send(b"".join(b"set q 0 0 8\r\n%08d\r\n" % number for number in range(20_000)))
            self.assertEqual(client.line(), b"STORED")
            self.assert_stops(server)
            try:
                acknowledged = 1 + client.rest().count(b"STORED\r\n")
            except ConnectionResetError:
                acknowledged = 1
        server.start()
        with server.client() as client:
            self.assertGreaterEqual(client.count(b"q"), acknowledged)


class RunningTests(SynchronousTestCase):
    """From the start to the stop."""

    def test_module(self) -> None:
        """``python -m darner`` is the same in short."""
        server = Server(self, program=MODULE)
        with server.client() as client:
            self.assertEqual(client.set(b"q", b"x"), b"STORED")
        for number in signal.SIGTERM, signal.SIGINT:
            self.assertEqual(server.stop(number), 0)
            server.start()
        self.assertEqual(sorted(entry.name for entry in server.directory.iterdir()), ["data", "err", "out"])

    def test_log(self) -> None:
        """The log has the version, the addresses, the data directory, and at the end the stop."""
        server = Server(self)
        self.assertEqual(server.stop(), 0)
        said = [
            f"darner: queue server, version {darner.__version__}",
            f"listening on IPv4Address(type='TCP', host='127.0.0.1', port={server.address[1]})",
            f"data directory: {server.data}",
            "starting up",
            "stopping: finishing running requests",
            "stopped",
        ]
        lines = [line.partition("] ")[2] for line in server.text.splitlines()]
        self.assertEqual([line for line in lines if line in said], said)

    def test_daemon(self) -> None:
        directory = make_directory(self)
        pid_file = directory / "pid"
        log = directory / "log"
        done = run(
            *TWISTD, f"--pidfile={pid_file}", f"--logfile={log}", "darner", "--port=0", "--data-dir=data",
            cwd=directory,
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        pid = int(pid_file.read_text())
        self.addCleanup(_kill, pid)
        until(lambda: "] starting up" in log.read_text(), "it serves")
        port = int(log.read_text().partition("port=")[2].partition(")")[0])
        with Client(("127.0.0.1", port)) as client:
            self.assertEqual(client.set(b"q", b"x"), b"STORED")
        os.kill(pid, signal.SIGTERM)
        until(lambda: not pid_file.exists(), "it ends")
        self.assertIn("] stopped\n", log.read_text())
        server = Server(self, directory=directory)
        with server.client() as client:
            self.assertEqual(client.get(b"q"), b"x")

    @skipUnless(os.getuid() == 0, "only root can give up root's rights")
    def test_another_user(self) -> None:
        """The data directory is made with the rights with which it is used; the log is rotated with them too."""
        directory = make_directory(self)
        directory.chmod(0o755)
        home = directory / "home"
        home.mkdir()
        os.chown(home, 65534, 65534)
        log = home / "log"
        log.touch()
        os.chown(log, 65534, 65534)
        server = Server(
            self, "--port=0", f"--data-dir={home / 'data'}", directory=directory, ready=False,
            program=(*TWISTD, "--nodaemon", "--pidfile=", "--uid=65534", "--gid=65534", f"--logfile={log}", "darner"),
        )  # fmt: skip
        server.log = log
        server.wait_for("] starting up")
        with server.client(server.addresses[0]) as client:
            for _ in range(3):
                server.process.send_signal(signal.SIGUSR1)
                self.assertEqual(client.set(b"q", bytes(100_000)), b"STORED")
        until((home / "log.3").exists, "three rotations")
        self.assertEqual(server.stop(), 0)
        for path in (home / "data", *(home / "data").rglob("*")):
            self.assertEqual((path.stat().st_uid, path.stat().st_mode & 0o077), (65534, 0), path)

    def test_run_directory(self) -> None:
        """A relative data directory is meant from where twistd was called, also where it goes elsewhere to run."""
        directory = make_directory(self)
        (directory / "run").mkdir()
        server = Server(
            self, "--port=0", "--data-dir=data", directory=directory,
            program=(*TWISTD, "--nodaemon", "--pidfile=", "--rundir=run", "darner"),
        )  # fmt: skip
        self.assertEqual(server.stop(), 0)
        self.assertTrue((directory / "data" / "leveldb").exists())
        self.assertEqual(list((directory / "run").iterdir()), [])

    def test_stray_files(self) -> None:
        """Files that somebody leaves in the data directory do not stop the start, and stay."""
        server = Server(self)
        with server.client() as client:
            client.set(b"q", b"x")
        server.stop()
        strays = [server.data / "stray", server.data / "leveldb" / "stray", server.data / "folder" / "stray"]
        strays[2].parent.mkdir()
        for stray in strays:
            stray.write_text("stray")
        server.start()
        with server.client() as client:
            self.assertEqual(client.get(b"q"), b"x")
        self.assertEqual([stray.read_text() for stray in strays], ["stray"] * 3)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class CrashTests(SynchronousTestCase):
    """Everything acknowledged before a kill -9 is kept."""

    ROUNDS = 6
    PLENTY = 120_000
    """More items than are read between the crashes."""

    def test_sets(self) -> None:
        """Everything acknowledged is there, in order, once; what was not acknowledged may be."""
        server = Server(self)
        acknowledged: list[list[bytes]] = [[], [], []]
        sent = [0, 0, 0]

        def work(worker: int, at_once: int) -> None:
            try:
                with server.client() as client:
                    while True:
                        numbers = range(sent[worker], sent[worker] + at_once)
                        sent[worker] += at_once
                        payloads = [b"%d/%09d" % (worker, number) for number in numbers]
                        option = b"/sync" if worker == 2 else b""
                        client.send(
                            b"".join(
                                b"set q%d%b 0 0 %d\r\n%b\r\n" % (worker, option, len(payload), payload)
                                for payload in payloads
                            )
                        )
                        for payload in payloads:
                            if client.line() != b"STORED":
                                return
                            acknowledged[worker].append(payload)
            except (OSError, AssertionError):
                pass

        for round in range(self.ROUNDS):
            threads = [threading.Thread(target=work, args=(0, 1)), threading.Thread(target=work, args=(1, 200)),
                       threading.Thread(target=work, args=(2, 3))]  # fmt: skip
            for thread in threads:
                thread.start()
            time.sleep(0.05 + 0.05 * round)
            # Each round more is acknowledged, on a slow machine as well.
            until(lambda: min(map(len, acknowledged)) > round + 1, "all are served")  # noqa: B023
            server.kill()
            for thread in threads:
                thread.join()
            server.start()
        with server.client() as client:
            for worker in range(3):
                queue = b"q%d" % worker
                got = [client.get(queue) for _ in range(client.count(queue))]
                self.assertIsNone(client.get(queue))
                self.assertEqual(got, sorted(set(got)))
                self.assertGreater(len(acknowledged[worker]), self.ROUNDS)
                self.assertEqual(set(acknowledged[worker]) - set(got), set())
                self.assertLessEqual(len(got), sent[worker])

    def test_gets(self) -> None:
        """No plain get hands out again what one has handed out before the crash; nothing else is lost."""
        server = Server(self)
        with server.client() as client:
            put_many(client, b"q", self.PLENTY)
        got: list[bytes] = []

        def work(most: int = self.PLENTY) -> None:
            try:
                with server.client() as client:
                    for _ in range(most):
                        if (payload := client.get(b"q")) is None:
                            return
                        got.append(payload)
            except (OSError, AssertionError, ValueError):
                pass

        for round in range(self.ROUNDS):
            # However late the crash comes, something is left for the next rounds and the end.
            thread = threading.Thread(target=work, args=(self.PLENTY // (self.ROUNDS + 1),))
            thread.start()
            time.sleep(0.03 + 0.03 * round)
            until(lambda: len(got) > round + 1, "items are had")  # noqa: B023
            server.kill()
            thread.join()
            server.start()
        before = len(got)
        work()
        self.assertGreater(before, self.ROUNDS)
        self.assertGreater(len(got), before)
        self.assertEqual(got, sorted(set(got)))
        # What was on its way when the crash came may be gone: one item each time.
        self.assertGreaterEqual(len(got), self.PLENTY - self.ROUNDS)

    def test_delayed(self) -> None:
        """Killed again and again while items come due: each is had once, in the order of their times."""
        server = Server(self)
        count = 20_000
        with server.client() as client:
            # About twenty a millisecond, from the first crash to after the last one.
            delays = [500 + (number * 7919) % 1000 for number in range(count)]
            client.send(
                b"".join(b"set q/delay=%d 0 0 5\r\n%05d\r\n" % (delay, at) for at, delay in enumerate(delays))
            )
            self.assertEqual({client.line() for _ in range(count)}, {b"STORED"})
        for round in range(self.ROUNDS):
            time.sleep(0.1 + 0.05 * round)
            server.kill()
            server.start()
        with server.client() as client:
            until(lambda: client.stats()[b"queue_q_delayed"] == b"0", "all are due")
            self.assertEqual(client.count(b"q"), count)
            client.send(b"get q\r\n" * (count + 1))
            got = [int(payload) for _, payload in iter(client.value, None)]  # type: ignore[misc]
        self.assertEqual(sorted(got), list(range(count)))
        dues = [delays[number] for number in got]
        # They were set within some seconds, so that of two neighbours the first may have been set later.
        self.assertLess(dues[0], dues[-1])
        for one, other in pairwise(got):
            self.assertTrue(one < other or delays[one] < delays[other], (one, other))

    def test_open_reads(self) -> None:
        """Open reads are given back by a crash; what was closed stays closed."""
        server = Server(self)
        with server.client() as first, server.client() as second:
            put_many(first, b"q", 4)
            for client in first, second:
                client.get(b"q/open")
            self.assertEqual(second.get(b"q/close/open"), b"%08d" % 2)
            server.restart()
        with server.client() as client:
            self.assertEqual([client.get(b"q") for _ in range(4)], [b"%08d" % 0, b"%08d" % 2, b"%08d" % 3, None])

    def test_one_item(self) -> None:
        """The only item of a queue is there after a crash, also where it was never read."""
        server = Server(self)
        with server.client() as client:
            for queue in b"a", b"b", b"c":
                self.assertEqual(client.set(queue, queue), b"STORED")
            self.assertEqual(client.get(b"b"), b"b")
            self.assertEqual(client.set(b"b", b"another"), b"STORED")
        server.restart()
        server.restart()
        with server.client() as client:
            self.assertEqual([client.get(queue) for queue in (b"a", b"b", b"c")], [b"a", b"another", b"c"])

    def test_a_set_of_one_chunk(self) -> None:
        """The only chunk of a set that a crash cuts off is reclaimed as well."""
        server = Server(self)
        with server.client() as client:
            client.send(b"set q 0 0 10000000\r\n" + bytes(CHUNK_BYTES + 1))
            until(lambda: disk_usage(server.data) > CHUNK_BYTES, "the chunk is written")
            server.restart()
        until(lambda: self._reclaimed(server), "it is reclaimed")

    def _reclaimed(self, server: Server) -> bool:
        self.assertEqual(server.stop(), 0)
        with contextlib.closing(plyvel.DB(str(server.data / "leveldb"))) as database:
            found = any(key[:1] in (b"C", b"S") for key in database.iterator(include_value=False))
        server.start()
        return not found

    def test_half_a_large_set(self) -> None:
        """A large set that a crash cuts off leaves neither an item nor bytes on disk."""
        server = Server(self)
        with server.client() as client:
            client.set(b"q", b"whole")
            client.send(b"set q 0 0 40000000\r\n" + bytes(30_000_000))
            until(lambda: disk_usage(server.data) > 20_000_000, "chunks are written")
            server.restart()
        until(lambda: disk_usage(server.data) < 2_000_000, "the room is reclaimed")
        with server.client() as client:
            self.assertEqual([client.get(b"q"), client.get(b"q")], [b"whole", None])


class ShortageTests(SynchronousTestCase):
    """No shortage ends the process, and service goes on by itself when the shortage ends."""

    def limit(self, server: Server, which: int, limit: int) -> None:
        _, hard = resource.prlimit(server.process.pid, which)
        resource.prlimit(server.process.pid, which, (limit, hard))

    def test_disk_full(self) -> None:
        """Sets are refused, reads and closes still work, and sets work again without a restart."""
        server = Server(self)
        with server.client() as client, server.client() as other:
            for number in range(6):
                self.assertEqual(client.set(b"q", b"%d" % number), b"STORED")
            self.assertEqual(client.get(b"q/open"), b"0")
            # Room for the mark of what was read, and not for an item.
            self.limit(server, resource.RLIMIT_FSIZE, 16 * 1024)
            for payload in bytes(60_000), bytes(3_000_000):
                reply = client.set(b"q", payload)
                self.assertRegex(reply, b"^SERVER_ERROR cannot write: ")
                self.assertEqual(client.get(b"new"), None)
            self.assertEqual(other.get(b"q"), b"1")
            self.assertEqual(other.get(b"q/open"), b"2")
            self.assertEqual(client.get(b"q/close/open"), b"3")
            self.assertEqual(other.ask(b"get q/abort"), b"END")
            self.assertEqual(client.ask(b"get q/close"), b"END")
            self.assertEqual(client.count(b"q"), 3)
            self.limit(server, resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
            self.assertEqual(client.set(b"q", bytes(60_000)), b"STORED")
            self.assertEqual(client.set(b"q", bytes(3_000_000)), b"STORED")
            server.restart()
        with server.client() as client:
            expected = [b"2", b"4", b"5", bytes(60_000), bytes(3_000_000), None]
            self.assertEqual([client.get(b"q") for _ in expected], expected)

    def test_disk_full_to_the_last_byte(self) -> None:
        """If nothing at all can be written, reads are refused too."""
        server = Server(self)
        with server.client() as client, server.client() as other:
            for number in range(4):
                self.assertEqual(client.set(b"q", b"%d" % number), b"STORED")
            self.limit(server, resource.RLIMIT_FSIZE, 0)
            for _ in range(3):
                self.assertRegex(client.set(b"q", b"refused"), b"^SERVER_ERROR cannot write: ")
                self.assertRegex(client.set(b"new", b"refused"), b"^SERVER_ERROR cannot write: ")
                self.assertRegex(client.ask(b"get q"), b"^SERVER_ERROR cannot write: ")
            self.assertEqual(other.get(b"q/peek"), b"0")
            self.assertEqual(other.get(b"q/open"), b"0")
            self.assertEqual(client.get(b"q/open"), b"1")
            self.assertEqual(client.ask(b"get q/abort"), b"END")
            self.assertEqual(client.count(b"q"), 3)
            self.assertEqual(client.count(b"new"), 0)
            self.limit(server, resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
            self.assertEqual(other.ask(b"get q/close"), b"END")
            self.assertEqual(client.set(b"q", b"4"), b"STORED")
            self.assertEqual(client.set(b"new", b"5"), b"STORED")
            server.restart()
        with server.client() as client:
            self.assertEqual([client.get(b"q") for _ in range(5)], [b"1", b"2", b"3", b"4", None])
            self.assertEqual([client.get(b"new"), client.get(b"new")], [b"5", None])

    def test_disk_full_in_the_middle(self) -> None:
        """Of many sets in a row exactly those are stored that were acknowledged."""
        server = Server(self)
        stored: list[bytes] = []
        refused = 0
        with server.client() as client:
            for number in range(400):
                if number % 100 == 50:
                    self.limit(server, resource.RLIMIT_FSIZE, 1024 * 1024)
                elif number % 100 == 0:
                    self.limit(server, resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
                payload = b"%03d" % number + bytes(2_000_000 if number % 40 == 15 else 20_000)
                reply = client.set(b"q", payload)
                if reply == b"STORED":
                    stored.append(payload)
                else:
                    self.assertRegex(reply, b"^SERVER_ERROR cannot write: ")
                    refused += 1
            self.limit(server, resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
            server.restart()
        self.assertGreater(refused, 0)
        self.assertGreaterEqual(len(stored), 200)
        with server.client() as client:
            got = [client.get(b"q") for _ in range(client.count(b"q"))]
            self.assertEqual([payload and payload[:3] for payload in got], [payload[:3] for payload in stored])
            self.assertEqual(got, stored)

    def assert_survives_a_crowd(self, server: Server, limit: int, size: int) -> None:
        """Clients beyond the limit do not affect the others; when clients leave, new ones are served."""
        with server.client() as client:
            self.assertEqual(client.set(b"q", b"1"), b"STORED")
            self.limit(server, resource.RLIMIT_NOFILE, len(os.listdir(f"/proc/{server.process.pid}/fd")) + limit)
            crowd = [socket.create_connection(server.address, PATIENCE) for _ in range(size)]
            for member in crowd:
                with contextlib.suppress(ConnectionError):
                    member.sendall(b"version\r\n")
            self.assertEqual(client.get(b"q"), b"1")
            self.assertEqual(client.set(b"q", b"2"), b"STORED")
            self.assertEqual(client.set(b"q", bytes(200_000)), b"STORED")
            served = sum(_is_served(member) for member in crowd)
            self.assertTrue(0 < served < size, served)
            for member in crowd:
                member.close()
            until(lambda: _is_served(socket.create_connection(server.address, PATIENCE)), "newcomers are served")
            self.assertEqual([client.get(b"q"), client.get(b"q")], [b"2", bytes(200_000)])
        self.assertEqual(server.stop(), 0)

    def test_too_many_clients(self) -> None:
        """The fast port refuses clients for which it has no descriptor, and logs that."""
        server = Server(self)
        self.assert_survives_a_crowd(server, 128 + 50, 200)
        self.assertIn("too many connections", server.text)

    def test_too_many_clients_of_an_endpoint(self) -> None:
        directory = make_directory(self)
        server = Server(self, "--listen=tcp:0:interface=127.0.0.1", f"--data-dir={directory}/data")
        self.assert_survives_a_crowd(server, 50, 200)

    def test_no_descriptors_at_all(self) -> None:
        """Without even a descriptor to refuse them, new clients wait; they are served when there are descriptors."""
        server = Server(self)
        with server.client() as client:
            client.stats()
            old = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[0]
            self.limit(server, resource.RLIMIT_NOFILE, len(os.listdir(f"/proc/{server.process.pid}/fd")))
            crowd = [server.client() for _ in range(20)]
            server.wait_for("cannot accept connections: Too many open files")
            self.assertEqual(client.set(b"q", b"x"), b"STORED")
            self.assertEqual(client.get(b"q"), b"x")
            self.limit(server, resource.RLIMIT_NOFILE, old)
            for member in crowd:
                self.assertEqual(member.ask(b"version"), b"VERSION %b" % darner.__version__.encode())
                member.close()
        self.assertEqual(server.stop(), 0)


def _is_served(member: socket.socket) -> bool:
    """@return: whether a client that asks for the version gets it."""
    member.settimeout(PATIENCE)
    try:
        member.sendall(b"version\r\n")
        return member.recv(100).startswith(b"VERSION ")
    except ConnectionError:
        return False
