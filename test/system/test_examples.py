"""
The programs in C{examples/}, each run for real in a process of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from typing import Optional

from twisted.trial.unittest import SynchronousTestCase

from test.servers import MODULE, ROOT, Server, check_output

EXAMPLES = ROOT / "examples"
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile="]
PATIENCE = 60

OUTPUT = {
    "fleet_worker.py": (
        "photo 3 failed: out of memory\nresized: photo 1, photo 2, photo 3, photo 4, photo 5\n5 succeeded, 1 failed\n"
    ),
    "iterate.py": "3\n2\n1\n0\nstill there: left over\n",
    "listener.py": "STORED\nHELLO\nstopped\n",
    "mailer.tac": (
        "accepted a mail for ann\nsent: Hello ann\naccepted a mail for bob\nsent: Hello bob\n"
        "accepted a mail for cid\nsent: Hello cid\n"
    ),
    "manage.py": (
        "put: blue 1, red 2\npeek: red an item 7\nstill there: blue 1, red 2\nflushed: blue 1, red 0\n"
        "deleted: blue 1\nunknown: 0 None\nrefused: bad queue name\n"
    ),
    "memcache_client.py": (
        "plain read: resize photo 1\nopen read: {'photo': 2, 'width': 640}\nnothing more: None\n"
        "given back: on stable storage\nitems: 1\ndeleted: None\n"
    ),
    "testing.py": "tests: 3 failed: 0\n",
    "two_services.py": "orders: [b'queue'] two lamps\nhints: [b'others', b'queue'] likes lamps\n",
    "wait.py": (
        "at once: None\nafter 50 ms: None\nwaited for: first\ncancelled\nnot lost: second\n"
        "stopped: server is stopping\n"
    ),
    "worker.py": (
        "printed page 1\ngave back page 2\nto be printed: 1\nprinted page 2\nto be printed: 0\n"
    ),
}
"""What each example prints."""


class UsageTests(SynchronousTestCase):
    def test_without_arguments(self) -> None:
        """They say how they are run, and print no traceback."""
        for name in OUTPUT:
            if name in ("testing.py", "mailer.tac"):
                continue
            done = subprocess.run(
                [sys.executable, EXAMPLES / name], capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            self.assertEqual((done.returncode, done.stdout), (1, ""), name)
            self.assertIn(f"    python {name} ", done.stderr)
            self.assertNotIn("Traceback", done.stderr)


class ExamplesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="darner-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.data_dir = os.path.join(self.directory, "data")
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def run_to_its_end(self, command: list[str]) -> str:
        """@return: what it prints; it must end by itself, with status 0 and without complaints."""
        done = subprocess.run(
            command, cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=PATIENCE
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        check_output(done.stdout)
        return done.stdout

    def check(self, name: str, argument: Optional[str] = None, *more: str) -> None:
        command = [sys.executable, str(EXAMPLES / name), self.data_dir if argument is None else argument, *more]
        self.assertEqual(self.run_to_its_end(command), OUTPUT[name])

    def test_every_example_has_a_test(self) -> None:
        names = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
        self.assertEqual(names, set(OUTPUT))
        for name in names:
            self.assertTrue(hasattr(self, "test_" + name.partition(".")[0]), name)

    def test_iterate(self) -> None:
        self.check("iterate.py")

    def test_listener(self) -> None:
        self.check("listener.py")

    def test_mailer(self) -> None:
        self.environment["DATA_DIR"] = self.data_dir
        log = self.run_to_its_end([*TWISTD, "--python", str(EXAMPLES / "mailer.tac")])
        self.assertEqual("".join(re.findall(r"\[stdout#info\] (.*\n)", log)), OUTPUT["mailer.tac"])

    def test_manage(self) -> None:
        self.check("manage.py")

    def check_with_server(self, name: str, *more: str) -> None:
        host, port = Server(self, "--port=0", "--dialect=memcache", program=MODULE).address
        self.check(name, f"{host}:{port}", *more)

    def test_testing(self) -> None:
        self.check("testing.py")

    def test_memcache_client(self) -> None:
        self.check_with_server("memcache_client.py")

    def test_fleet_worker(self) -> None:
        self.check_with_server("fleet_worker.py", "--until-idle")

    def test_two_services(self) -> None:
        self.check("two_services.py")

    def test_wait(self) -> None:
        self.check("wait.py")

    def test_worker(self) -> None:
        self.check("worker.py")

    def test_a_second_time_on_the_same_data(self) -> None:
        for _ in range(2):
            self.check("worker.py")
