"""
L{darner.commands.program} and what it is made of: options, settings, errors and how a run ends.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from unittest import mock

import click
from twisted.trial.unittest import SynchronousTestCase

import darner
from darner.commands import entry, program, servers, versions
from darner.commands.client_settings import OF_FILE, ClientSettings, default_path
from darner.commands.exits import explain
from darner.commands.output import duration, printable, size
from darner.config.passwords import hash_password, set_password
from test.commands.harness import ProgramTestCase, call, environment
from test.servers import PATIENCE, ROOT, Server, make_certificate, make_directory


class UsageTests(ProgramTestCase):
    def test_one_line_and_a_hint(self) -> None:
        for said, *arguments in (
            ("no such command: putt (is put meant?); darner --help explains", "putt"),
            ("put: missing argument 'QUEUE'; darner put --help explains", "put"),
            ("get: no such option '--al'", "get", "q", "--al"),
            ("no such option '--sever'", "--sever", "x", "get"),
            ("get: invalid value for '-n' / '--count': 0 is not in the range x>=1; ", "get", "q", "-n", "0"),
            ("not the address of a server: 'a:b'", "-s", "a:b", "get", "q"),
            ("no server is named", "-s", ",", "get", "q"),
        ):
            done = call(*arguments)
            self.assertEqual((done.status, done.out), (2, b""), done)
            self.assertEqual(done.errors.count("\n"), 1, done)
            self.assertTrue(done.errors.startswith(f"darner: {said}"), done)
            if "--help" not in said:
                self.assertTrue(done.errors.endswith("explains\n") or arguments[0] == "-s", done)

    def test_nothing_said(self) -> None:
        """Who names no command is told what there is, on standard error."""
        done = call()
        self.assertEqual((done.status, done.out), (2, b""))
        self.assertIn("Items:", done.errors)

    def test_help(self) -> None:
        """Each command has help, and is listed."""
        listed = call("--help").text
        made = program.make_program()
        context = click.Context(made)
        for name in made.list_commands(context):
            self.assertRegex(listed, rf"(?m)^  {name} +\S")
            done = call(name, "--help")
            self.assertEqual((done.status, done.errors), (0, ""), name)
            self.assertIn(f"Usage: darner {name}", done.text)

    def test_options_behind_the_command(self) -> None:
        self.client.put(self.queue, b"x")
        done = call("peek", self.queue, "--servers", self.address, "--json")
        self.assertEqual(done.json["payload"], "x")

    def test_no_traceback(self) -> None:
        """Whatever goes wrong is said in one line, unless all of it is asked for."""
        with mock.patch("darner.commands.servers.Servers.each", side_effect=ZeroDivisionError("oh")):
            self.fails(1, "this should not happen: ZeroDivisionError: oh (DARNER_DEBUG=1 shows where)", "peek", "q")
            self.assertRaises(ZeroDivisionError, self.call, "peek", "q", DARNER_DEBUG="1")

    def test_unknown_host(self) -> None:
        done = call("-s", "no-such-host.invalid:22133", "get", "q")
        self.assertEqual(done.status, 4)
        self.assertRegex(done.errors, r"^darner: no connection to no-such-host\.invalid:22133: [^:]+\n$")

    def test_something_else_answers(self) -> None:
        """What speaks another protocol is told in a line, too."""
        import socket
        import threading

        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)

        def answer() -> None:
            for _ in range(2):
                connection = listening.accept()[0]
                connection.recv(100)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.close()

        answering = threading.Thread(target=answer, daemon=True)
        answering.start()
        done = call("-s", f"127.0.0.1:{listening.getsockname()[1]}", "--timeout", "1", "status")
        self.assertIn(done.status, (1, 4, 5), done)
        self.assertEqual(done.errors.count("\n"), 1, done)

    def test_explain(self) -> None:
        self.assertEqual(explain(ValueError("a\nb")), "a b")


class SettingsTests(ProgramTestCase):
    def test_file(self) -> None:
        """Its settings are for what neither the command line nor the environment says."""
        path = self.directory / "client.toml"
        path.write_text(f'servers = ["{self.address}"]\ntimeout = 5\n')
        self.client.put(self.queue, b"x")
        self.assertEqual(call("--settings", str(path), "peek", self.queue).status, 0)
        self.assertEqual(call("peek", self.queue, DARNER_SETTINGS=str(path)).status, 0)
        away = "127.0.0.1:1"
        self.assertEqual(call("--settings", str(path), "peek", self.queue, DARNER_SERVERS=away).status, 4)
        self.assertEqual(
            call("--settings", str(path), "-s", self.address, "peek", self.queue, DARNER_SERVERS=away).status, 0
        )
        path.write_text(f'servers = "{self.address}"\n')
        self.assertEqual(call("peek", self.queue, DARNER_SETTINGS=str(path)).status, 0)

    def test_default_file(self) -> None:
        path = self.directory / "darner" / "client.toml"
        path.parent.mkdir()
        path.write_text(f'servers = "{self.address}"\n')
        self.client.put(self.queue, b"x")
        self.assertEqual(call("peek", self.queue, XDG_CONFIG_HOME=str(self.directory)).status, 0)
        self.assertEqual(default_path({}).parts[-3:], (".config", "darner", "client.toml"))

    def test_wrong_files(self) -> None:
        path = self.directory / "client.toml"
        for text, reason in (
            ("sevrers = 1", "unknown setting sevrers; there are servers, "),
            ("servers = 1", "servers: 1 is of the wrong type"),
            ("timeout = true", "timeout: True is of the wrong type"),
            ("servers", "is not TOML"),
        ):
            path.write_text(text)
            done = call("--settings", str(path), "status")
            self.assertEqual((done.status, done.errors.count("\n")), (2, 1), done)
            self.assertIn(reason, done.errors)
        self.assertIn("cannot read", call("--settings", str(path) + "x", "status").errors)

    def test_every_setting_is_an_option(self) -> None:
        options = {option.name for option in program.make_program().params}
        self.assertLessEqual(set(OF_FILE), options)
        self.assertLessEqual(set(OF_FILE), set(ClientSettings.__dataclass_fields__))

    def test_password_files(self) -> None:
        path = self.directory / "password"
        self.fails(2, "cannot read the password from", "--user", "a", "--password-file", str(path), "status")
        path.touch()
        self.fails(2, "there is no password in the first line of", "-u", "a", "--password-file", str(path), "status")

    def test_certificates(self) -> None:
        self.fails(2, "cannot read the certificates in", "--ca-file", str(self.directory / "none"), "status")


class LogInTests(SynchronousTestCase):
    """A server with users, and with TLS."""

    def test_users_and_tls(self) -> None:
        self.patch(servers, "CONNECT_TIMEOUT", PATIENCE)
        directory = make_directory(self)
        set_password(directory / "passwords", b"ann", hash_password(b"secret"))
        set_password(directory / "passwords", b"bob", hash_password(b"secret"))
        certificate = make_certificate(directory, "localhost")
        (directory / "darner.toml").write_text('[users.bob]\nread = []\nwrite = ["*"]\n')
        server = Server(
            self, "--port=0", f"--listen=ssl:0:interface=127.0.0.1:privateKey={certificate}:certKey={certificate}",
            f"--data-dir={directory}/data", f"--password-file={directory}/passwords",
            f"--config={directory}/darner.toml", directory=directory, ready=False,
        )  # fmt: skip
        server.wait_for("] starting up")
        plain, tls = (f"localhost:{port}" for _, port in server.addresses)
        (directory / "secret").write_text("secret\n")
        secret = str(directory / "secret")
        self.assertEqual(call("-s", plain, "put", "q", "x").status, 6)
        done = call("-s", plain, "-u", "ann", "put", "q", "x", DARNER_PASSWORD="wrong")
        self.assertEqual((done.status, done.errors), (6, "darner: authentication failure\n"))
        done = call("-s", plain, "-u", "bob", "--password-file", secret, "peek", "q")
        self.assertEqual((done.status, done.errors), (6, "darner: not allowed\n"))
        self.assertEqual(call("-s", plain, "-u", "ann", "put", "q", "1", DARNER_PASSWORD="secret").status, 0)
        options = ("-s", tls, "-u", "ann", "--password-file", secret)
        done = call(*options, "--tls", "--timeout", "1", "get", "q")
        self.assertEqual((done.status, done.errors.count("\n")), (4, 1), done)
        done = call(*options, "--tls", "--ca-file", str(certificate), "get", "q")
        self.assertEqual((done.status, done.out), (0, b"1\n"), done)
        done = call(*options, "--ca-file", str(certificate), "put", "q", "2", DARNER_SERVER_HOSTNAME="elsewhere")
        self.assertEqual(done.status, 4, done)


class VersionTests(SynchronousTestCase):
    def test_version(self) -> None:
        done = call("--version")
        self.assertEqual(done.status, 0)
        self.assertRegex(done.text, rf"^darner {re.escape(darner.__version__)} \((not )?compiled")
        for name in ("Python", "Twisted", "plyvel", "click", "rich"):
            self.assertIn(name, done.text)

    def test_compiled(self) -> None:
        directory = make_directory(self)
        package = str(directory / "__init__.py")
        compiled = mock.patch.object(versions, "is_compiled", return_value=True)
        with compiled, mock.patch.object(darner, "__file__", package):
            self.assertIn("(compiled by mypyc)", versions.describe())
            (directory / versions.COMPILED_WITH).write_text("mypyc 9.9 and cc 1\n")
            self.assertIn("(compiled by mypyc 9.9 and cc 1)", versions.describe())

    def test_without_the_extra(self) -> None:
        """It says what to install."""
        code = (
            "import importlib.util as u, sys; find = u.find_spec\n"
            "u.find_spec = lambda name, *more: None if name == 'rich' else find(name, *more)\n"
            "from darner.commands.entry import main; sys.exit(main(['status']))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=PATIENCE
        )
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("darner: the command line needs rich: pip install 'darner[cli]'", done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1)
        self.assertEqual(entry.NEEDED, ("click", "rich"))


class CompletionTests(ProgramTestCase):
    def complete(self, line: str) -> list[str]:
        """@return: what bash is offered at the end of a line, by one who has more patience than a person."""
        words = line.split(" ")
        code = (
            f"from darner.commands import completing, entry; completing.PATIENCE = {PATIENCE}\n"
            "import sys; sys.argv[0] = 'darner'; sys.exit(entry.main())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE,
            env=environment(
                _DARNER_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1),
                DARNER_SERVERS=self.address,
            ),
        )  # fmt: skip
        self.assertEqual(done.stderr, "")
        return [row.partition(",")[2] for row in done.stdout.split()]

    def test_commands_and_options(self) -> None:
        self.assertEqual(self.complete("darner pee"), ["peek"])
        self.assertIn("--wait", self.complete("darner get --w"))

    def test_queues(self) -> None:
        """Names of queues are those that the servers have."""
        self.client.put(self.queue, b"x")
        self.assertEqual(self.complete(f"darner get {self.queue[:-1]}"), [self.queue])
        self.assertEqual(self.complete("darner -s 127.0.0.1:1 get x"), [])

    def test_scripts(self) -> None:
        for shell in ("bash", "zsh", "fish"):
            done = call("completion", shell)
            self.assertEqual(done.status, 0)
            self.assertIn("_DARNER_COMPLETE", done.text)
            path = shutil.which(shell)
            if path is not None:
                subprocess.run([path, "-n", "-c", done.text], check=True, timeout=PATIENCE)
        self.assertEqual(call("completion", "csh").status, 2)


class TextTests(SynchronousTestCase):
    def test_sizes_and_times(self) -> None:
        sizes = [size(n) for n in (0, 1023, 1536, 2**30, 2**40)]
        self.assertEqual(sizes, ["0 B", "1023 B", "1.5 KiB", "1.0 GiB", "1.0 TiB"])
        self.assertEqual(
            [duration(n) for n in (0, 0.25, 42.9, 61, 3700, 90000)], ["0s", "0.2s", "42s", "1m 1s", "1h 1m", "1d 1h"]
        )

    def test_nothing_gets_at_the_terminal(self) -> None:
        self.assertEqual(printable("a\x1b[2J\x9b\x7f\tä\n"), "a\\x1b[2J\\x9b\\x7f\tä\n")


