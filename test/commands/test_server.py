"""
The commands that run a server, or what is a server's: L{darner.commands.server}, L{darner.commands.stores},
L{darner.commands.configuration} and L{darner.commands.measuring}.
"""

from __future__ import annotations

import signal
from pathlib import Path

from darner.config.passwords import Passwords
from test.commands.harness import PROGRAM, Done, ProgramTestCase, call
from test.servers import Server


class ServeTests(ProgramTestCase):
    def test_serve(self) -> None:
        """As ``twistd --nodaemon darner``, with a clean end."""
        server = Server(
            self, "--port=0", f"--data-dir={self.directory}/data", program=(*PROGRAM, "serve"), directory=self.directory
        )
        address = "{}:{}".format(*server.address)
        self.assertEqual(call("-s", address, "put", "q", "x").status, 0)
        self.assertEqual(server.stop(signal.SIGTERM), 0)
        self.assertEqual(server.errors, "")

    def test_usage(self) -> None:
        """It is that of the server, by the name that it was called."""
        done = call("serve", "--help")
        self.assertEqual(done.status, 0)
        self.assertTrue(done.text.startswith("Usage: darner serve [options]\n"), done)
        self.assertIn("--data-dir=", done.text)
        process = self.start("serve", "--prot=1")
        errors = process.communicate(timeout=30)[1].decode()
        self.assertEqual(process.returncode, 2)
        self.assertRegex(errors, r"^darner: option --prot not recognized.*; --help lists the options\n$")

    def test_cannot_start(self) -> None:
        process = self.start("serve", "--port=0", "--data-dir=/proc/none")
        errors = process.communicate(timeout=30)[1].decode()
        self.assertEqual((process.returncode, errors.count("\n")), (1, 1), errors)


class StoreTests(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        server = Server(self)
        self.data = server.data
        with server.client() as client:
            for number in range(50):
                client.set(b"jobs", b"%d" % number * 100)
        self.in_use = self.call("check", str(self.data))
        server.stop()

    def damage(self) -> None:
        (log,) = (self.data / "leveldb").glob("*.log")
        data = bytearray(log.read_bytes())
        data[len(data) // 2] ^= 1
        log.write_bytes(data)

    def test_sound(self) -> None:
        self.assertEqual(self.in_use.status, 1)
        self.assertIn("is in use by another process", self.in_use.errors)
        self.assertIn("total: 50 items found, 0 lost\n", self.well("check", str(self.data)))
        facts = self.call("check", str(self.data), "--json").json
        self.assertEqual((facts["sound"], facts["found"], facts["queues"][0]["queue"]), (True, 50, "jobs"))
        self.assertIn("total: 50 items found, 0 lost\n", self.well("repair", str(self.data)))

    def test_damaged(self) -> None:
        """Scripts see it by the exit status."""
        self.damage()
        done = self.call("check", str(self.data))
        self.assertEqual(done.status, 1)
        self.assertTrue(done.text.startswith("damaged: "), done)
        facts = self.call("repair", str(self.data), "--json").json
        self.assertEqual((facts["sound"], Path(facts["aside"]).parent), (False, self.data))
        self.assertEqual(self.call("check", str(self.data)).status, 0)

    def test_other_directories(self) -> None:
        self.fails(2, "does not exist", "check", str(self.directory / "none"))
        (self.directory / "mine").touch()
        self.fails(1, "holds files that are not darner's", "check", str(self.directory))

    def test_question(self) -> None:
        """At a terminal a repair asks; progress is not in its way."""
        self.damage()
        terminal = self.terminal("repair", str(self.data), columns=120)
        terminal.sees(lambda lines: any("[y/N]" in line for line in lines))
        terminal.type("n\n")
        self.assertEqual(terminal.wait(), 1)
        terminal = self.terminal("check", str(self.data), columns=120)
        self.assertEqual(terminal.wait(), 1)
        self.assertTrue(terminal.lines[0].startswith("damaged: "), terminal.lines)


class ConfigurationTests(ProgramTestCase):
    TEXT = """
port = 22199
max_connections = 100

[defaults]
max_age = "7d"

[queues."mail_*"]
max_items = 5

[queues.mail_out]
sync = "always"

[aliases]
all_mail = ["mail_in", "mail_out"]
"""

    def check(self, text: str, *arguments: str) -> Done:
        path = self.directory / "darner.toml"
        path.write_text(text)
        return self.call("check-config", str(path), *arguments)

    def test_what_each_queue_gets(self) -> None:
        done = self.check(self.TEXT, "mail_in", "jobs")
        self.assertEqual((done.status, done.errors), (0, ""))
        self.assertEqual(done.text, f"""{self.directory}/darner.toml is right

server:
  port             22199
  max_connections  100

all queues, unless something else is said of them:
  max_age  7d

queue jobs:
  max_age  7d

queue mail_in:
  max_items  5
  max_age    7d

queue mail_out:
  max_items  5
  max_age    7d
  sync       always

queues like mail_*, besides:
  max_items  5

alias all_mail:
  queues  mail_in, mail_out
""")  # fmt: skip

    def test_all(self) -> None:
        done = self.check(self.TEXT, "--all")
        self.assertIn("\n  max_open_reads         1\n", done.text)
        self.assertIn("  interface  ", done.text)

    def test_json(self) -> None:
        facts = self.check(self.TEXT, "jobs", "--json").json
        self.assertEqual(facts["queues"]["mail_out"]["sync"], "always")
        self.assertEqual(list(facts["queues"]), ["jobs", "mail_out"])
        self.assertEqual((facts["patterns"], facts["aliases"]), (["mail_*"], {"all_mail": ["mail_in", "mail_out"]}))

    def test_wrong(self) -> None:
        """What the server would not start with."""
        for text, reason in (
            ("prot = 1", "unknown setting prot (is port meant?)"),
            ("[queues.a]\nmax_items = 'x'", "max_items"),
            ("listen = ['tpc:1']", "bad endpoint to listen at: tpc:1"),
            ("password_file = '/nonexistent/x'", "/nonexistent/x"),
            ("port", "is not TOML"),
        ):
            done = self.check(text)
            self.assertEqual((done.status, done.out, done.errors.count("\n")), (1, b"", 1), done)
            self.assertIn(reason, done.errors)
        self.fails(1, "cannot read", "check-config", str(self.directory / "none"))

    def test_sample(self) -> None:
        """The file that comes with the server."""
        sample = Path(__file__).resolve().parents[2] / "docs" / "darner.toml"
        self.assertIn("darner.toml is right\n", self.well("check-config", str(sample)))

    def test_passwd(self) -> None:
        path = self.directory / "passwords"
        self.assertEqual(self.well("passwd", str(path), "ann", given=b"secret\n"), "")
        self.assertTrue(Passwords(path).check(b"ann", b"secret"))
        self.fails(1, "a password must have at least one character", "passwd", str(path), "ann", given=b"\n")
        self.well("passwd", str(path), "ann", "--delete")
        self.fails(1, "there is no user ann", "passwd", str(path), "ann", "--delete")


class BenchTests(ProgramTestCase):
    def test_bench(self) -> None:
        options = ("--queue", self.queue, "-n", "200", "-g", "200", "-c", "2", "-P", "1")
        self.assertIn("Requests per second:", self.well("bench", *options))
        facts = self.call("bench", *options, "--json").json
        self.assertEqual((facts["sets"], facts["gets"], facts["errors"]), (200, 200, 0))

    def test_wrong_usage(self) -> None:
        self.assertEqual(self.call("-s", "127.0.0.1:1", "bench", "-P", "1").status, 4)
        self.assertEqual(self.call("-s", "unix:/x", "bench").status, 2)
        self.fails(2, "bench knows neither users nor TLS", "--user", "x", "bench")
        self.fails(2, "0 is not in the range", "bench", "-c", "0")
