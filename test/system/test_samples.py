"""
The samples of all documents, run as L{test.system.samples} says.
"""

from __future__ import annotations

import asyncio
import contextlib
import doctest
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from bench.ports import reserve_port
from darner.config.settings import make_settings, read_toml
from darner.errors import Stopped
from darner.service import QueueService
from darner.testing import MemoryQueueService
from test.migrate import journals
from test.migrate.reading import unpacked
from test.servers import MODULE, PATIENCE, ROOT, Server, make_directory, until
from test.system.samples import PAGES, Sample, samples

KINDS = {
    "session", "http", "import", "tutorial", "shell", "serve", "file", "client", "embedding", "toml",
    "prometheus", "wire", "output", "by", "long", "not", "install",
}  # fmt: skip

MOST_NOT_RUN = 12
"""How many samples may be marked as not run."""

PLACES = {
    "/var/lib/darner": "data", "/var/lib/myapp": "myapp", "/run/darner": "run", "/var/log/darner": "log",
    "/etc/darner": "etc", "/etc/prometheus": "etc", "/var/spool/darner": "source", "/var/spool/kestrel": "kestrel",
    "/var/lib/beanstalkd": "beanstalkd", "=DIR": "=data",
}  # fmt: skip
"""What samples have in place of directories of a test."""


SOURCES = {"cpp-darner": ("cpp-darner-clean", "source"), "beanstalkd": ("beanstalkd-stopped", "beanstalkd")}
"""Archives of the tests with data of other servers, and where their samples look for it."""


def is_running(pid: int) -> bool:
    """@return: whether there is a process, and it has not ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    return False


def end(pid_file: Path) -> None:
    """End the process whose number is in a file, if there is one, and wait until it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        until(lambda: not is_running(pid), f"process {pid} goes on")


class Page:
    """The directory of a page's samples, and the server that its sessions use."""

    def __init__(self, case: SynchronousTestCase, *options: str) -> None:
        self.case = case
        self.directory = make_directory(case)
        for name in {*PLACES.values()} - {"=data", "data"}:
            (self.directory / name).mkdir(exist_ok=True)
        self.ports: dict[str, str] = {}
        self.options: dict[str, str] = {}
        self.environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "HOME": str(self.directory),
            "COLUMNS": "100", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }  # fmt: skip
        self.environment.pop("DARNER_SERVERS", None)

    def serve(self, *options: str) -> None:
        """Start the server that 22133 and 2223 stand for."""
        directory = make_directory(self.case)
        server = Server(
            self.case, "--port=0", f"--data-dir={directory / 'data'}", *options, program=MODULE, directory=directory
        )
        self.ports["22133"] = str(server.address[1])
        self.environment["DARNER_SERVERS"] = "127.0.0.1:" + self.ports["22133"]
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", server.text)
        if found is not None:
            self.ports["2223"] = found[1]

    def here(self, text: str) -> str:
        """@return: it with the places and the ports of the test."""
        for option, other in self.options.items():
            text = text.replace(option, other)
        for place, name in PLACES.items():
            text = text.replace(place, name if name.startswith("=") else str(self.directory / name))
        for port, other in self.ports.items():
            text = re.sub(rf"\b{port}\b", other, text)
        return text

    def there(self, text: str) -> str:
        """@return: it with those of the page."""
        for place, name in PLACES.items():
            text = text.replace(str(self.directory / name), place)
        for port, other in self.ports.items():
            text = re.sub(rf"\b{other}\b", port, text)
        return text

    def type(self, command: str, typed: str = "") -> tuple[int, str]:
        """@return: the exit status of a command, and what it writes."""
        done = subprocess.run(
            ["bash", "-c", self.here(command)], cwd=self.directory, input=typed, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=4 * PATIENCE, env=self.environment,
        )  # fmt: skip
        return done.returncode, self.there(done.stdout)

    def hold(self, sample: Sample) -> None:
        """Type the lines of a session with C{$}, and expect what is below them."""
        commands = re.findall(r"^\$ (.*(?:\n      .*)*)\n?((?:(?!\$ ).*(?:\n|$))*)", sample.text, re.MULTILINE)
        checker = doctest.OutputChecker()
        self.case.assertTrue(commands, sample)
        for command, expected in commands:
            _, written = self.type(command)
            flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            told = f"{sample}\n$ {command}\n{written}-- is expected to be\n{expected}"
            wanted, got = expected.strip("\n") + "\n", written.strip("\n") + "\n"
            self.case.assertTrue(checker.check_output(wanted, got, flags), told)


def lines_of(sample: Sample) -> list[str]:
    """@return: the commands of a sample, without those of pip, which C{.ci/run} runs."""
    joined = sample.text.replace("\\\n", " ")
    return [line.removeprefix("$ ") for line in joined.splitlines() if line and not re.search(r"\bpip install\b", line)]


class SamplesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.samples = samples()

    def of(self, *words: str) -> list[tuple[Path, list[Sample]]]:
        """@return: by page, the samples of these kinds."""
        found = []
        for page in PAGES:
            there = [sample for sample in self.samples if sample.page == page and sample.word in words]
            if there:
                found.append((page, there))
        self.assertTrue(found, words)
        return found

    def test_every_sample_is_of_a_kind(self) -> None:
        self.assertEqual([f"{sample}: {sample.kind}" for sample in self.samples if sample.word not in KINDS], [])

    def test_few_are_not_run(self) -> None:
        not_run = [str(sample) for sample in self.samples if sample.word == "not"]
        self.assertLessEqual(len(not_run), MOST_NOT_RUN, "\n".join(not_run))
        for sample in self.samples:
            if sample.word == "not":
                self.assertRegex(sample.kind or "", r"not run: \w+")

    def test_by_others(self) -> None:
        """What is said to be run by other tests names some that are there."""
        for _, there in self.of("by", "install"):
            for sample in there:
                if sample.word == "by":
                    path = sample.rest if "/" in sample.rest else sample.rest.replace(".", "/") + ".py"
                    self.assertTrue((ROOT / path).is_file(), sample)

    def test_wire(self) -> None:
        """What clients and servers send is where it is held with a server."""
        self.assertEqual([page.name for page, _ in self.of("wire")], ["protocol.rst"])

    def test_sessions(self) -> None:
        for _, there in self.of("session", "http"):
            page = Page(self)
            page.serve("--http-port=0")
            for sample in there:
                page.hold(sample)

    def test_tutorial(self) -> None:
        """From nothing, with a server that it starts and kills."""
        for _, there in self.of("tutorial", "file"):
            page = Page(self)
            port = str(reserve_port())
            page.ports["22133"] = port
            page.environment["DARNER_SERVERS"] = f"127.0.0.1:{port}"
            page.options["--http-port=2223"] = f"--port={port} --http-port=0"
            self.addCleanup(end, page.directory / "server.pid")
            for sample in there:
                if sample.word == "file":
                    (page.directory / sample.rest).write_text(sample.text + "\n")
                else:
                    page.hold(sample)

    def test_shell(self) -> None:
        for _, there in self.of("shell"):
            page = Page(self)
            self.bring(page, "cpp-darner")
            # A data directory, for those that look at one.
            Server(self, "--port=0", f"--data-dir={page.directory / 'data'}", directory=page.directory).end()
            for sample in there:
                for line in lines_of(sample):
                    status, written = page.type(line, "correct-horse\ncorrect-horse\n")
                    self.assertEqual(status, 0, f"{sample}\n$ {line}\n{written}")

    def test_import(self) -> None:
        for _, there in self.of("import"):
            for sample in there:
                page = Page(self)
                if sample.rest == "kestrel":
                    (page.directory / "kestrel" / "jobs").write_bytes(journals.addx(b"resize photo 1"))
                else:
                    self.bring(page, sample.rest)
                page.hold(sample)

    def bring(self, page: Page, server: str) -> None:
        """Have a directory of another server where the samples say that it is."""
        archive, place = SOURCES[server]
        directory = unpacked(archive, page.directory / "unpacked")
        (page.directory / place).rmdir()
        directory.rename(page.directory / place)

    def test_serve(self) -> None:
        for _, there in self.of("serve"):
            page = Page(self)
            for sample in there:
                for line in lines_of(sample):
                    self.serve(page, line)

    def serve(self, page: Page, line: str) -> None:
        """Run a server, and stop it when it listens."""
        line = re.sub(r"--http-port=\d+", "--http-port=0", page.here(line)) + " --port=0"
        log = page.directory / "out"
        pid_file = re.search(r"--pidfile=(\S+)", line)
        log_file = re.search(r"--logfile=(\S+)", line)
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {line}"], cwd=page.directory, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, env=page.environment,
            )  # fmt: skip
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        if pid_file is not None:
            self.assertEqual(process.wait(PATIENCE), 0, line)
            self.addCleanup(end, Path(pid_file[1]))
        there = Path(log_file[1]) if log_file is not None else log
        until(lambda: there.exists() and "listening on" in there.read_text(), f"{line} does not listen")
        if pid_file is not None:
            end(Path(pid_file[1]))
            self.assertFalse(Path(pid_file[1]).exists(), line)
        else:
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(PATIENCE), 0, there.read_text())

    def test_client(self) -> None:
        """Programs, each with what it prints in the sample behind it."""
        for _, there in self.of("client"):
            page = Page(self)
            page.serve()
            for sample in there:
                printed = io.StringIO()
                names: dict[str, Any] = {}
                exec("async def main():\n" + textwrap.indent(page.here(sample.text), "    "), names)
                with contextlib.redirect_stdout(printed):
                    asyncio.run(names["main"]())
                expected = self.samples[self.samples.index(sample) + 1]
                self.assertEqual((expected.word, printed.getvalue()), ("output", expected.text + "\n"))

    def test_embedding(self) -> None:
        """Each has a service in memory with two jobs on it, and an application to put it under."""
        for _, there in self.of("embedding"):
            for sample in there:
                self.embed(Page(self), sample)

    def embed(self, page: Page, sample: Sample) -> None:
        done: list[bytes] = []

        async def resize(payload: bytes) -> None:
            done.append(payload)

        queues = MemoryQueueService()
        queues.startService()
        queues.result(queues.put(b"jobs", b"resize photo 1"))
        queues.result(queues.put(b"jobs", b"resize photo 2"))
        names: dict[str, Any] = {
            "resize": resize, "queues": queues, "application": Application("samples"), "reactor": reactor,
            "path": str(page.directory / "data"), "QueueService": QueueService,
        }  # fmt: skip
        before = "" if "queues = " in sample.text else "    global queues\n"
        text = textwrap.indent(page.here(sample.text), "    ")
        if "QueueService(" in sample.text and "await" in sample.text:
            # The service of the sample is one on a disk: it is made, and the one in memory is used.
            text = text.replace("await ", "queues = memory; await ", 1)
            names["memory"] = queues
        exec(f"async def main():\n{before}{text}", names)
        running = Deferred.fromCoroutine(names["main"]())
        ended: list[Any] = []
        running.addBoth(ended.append)
        queues.clock.pump([0.01] * 20)
        queues.result(queues.stopService())
        queues.clock.pump([0.01] * 20)
        self.assertEqual(len(ended), 1, f"{sample} does not end")
        if ended[0] is not None:
            # What iterates goes on until the service stops.
            self.assertIsInstance(ended[0].value, Stopped, f"{sample}: {ended[0]}")
        if "resize(" in sample.text:
            self.assertIn(b"resize photo 1", done)

    def test_settings(self) -> None:
        for _, there in self.of("toml"):
            for sample in there:
                path = Path(self.mktemp())
                text = sample.text
                if "[users." in text and "password_file" not in text:
                    text = 'password_file = "passwords"\n' + text
                path.write_text(text)
                make_settings(read_toml(path), str(path))

    def test_prometheus(self) -> None:
        if shutil.which("promtool") is None:
            raise SkipTest("there is no promtool: .ci/setup installs it")
        for _, there in self.of("prometheus"):
            page = Page(self)
            (page.directory / "etc" / "darner").write_text("a password")
            rules = ROOT / "darner" / "web" / "data" / "darner.rules.yml"
            (page.directory / "darner.rules.yml").write_bytes(rules.read_bytes())
            for sample in there:
                (page.directory / "prometheus.yml").write_text(page.here(sample.text) + "\n")
                status, written = page.type("promtool check config prometheus.yml")
                self.assertEqual(status, 0, f"{sample}\n{written}")

    def test_long(self) -> None:
        """The programs are there, and have the options."""
        helps: dict[str, str] = {}
        for _, there in self.of("long"):
            for sample in there:
                for line in lines_of(sample):
                    words = line.split()
                    if "twisted.trial" in words:
                        module = words[-1].replace(".", "/") + ".py"
                        self.assertTrue((ROOT / module).is_file(), f"{sample}: {module}")
                        continue
                    program = " ".join(words[:3] if words[:2] == ["python", "-m"] else words[:1])
                    if program not in helps:
                        status, helps[program] = Page(self).type(f"{program} --help")
                        self.assertEqual(status, 0, f"{sample}: {helps[program]}")
                    for option in re.findall(r"(--[a-z-]+)", line):
                        self.assertIn(option, helps[program], f"{sample}: {line}: {helps[program]}")
