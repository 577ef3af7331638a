"""
The servers that are compared: each runs in its own directory on a free loopback port, and is measured from outside.

darner is the package that this program imports; if that is compiled (``make bench``), its Python source is a second
server.  Peers are found on C{PATH}, the C++ Darner by C{DARNER_CPP}, the path of its
binary.  A running server with this protocol may be named by its address; figures that only its process could give are
then left out.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Optional

from attrs import frozen

import darner.front.session
from bench.dialects import Beanstalk, RedisLists
from bench.ports import reserve_port
from bench.server_log import unhandled
from darner.cli.workload import Dialect, Workload

PATIENCE: Final = 300.0
"""The longest time for the start or stop of a server, in seconds."""
_ROOT: Final = Path(__file__).resolve().parent.parent
_PACKAGE: Final = Path(darner.__file__).resolve().parent.parent
COMPILED: Final = not darner.front.session.__file__.endswith(".py")
"""Whether darner is compiled."""
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@frozen
class Memory:
    """The memory of a process, in bytes."""

    resident: int
    """Resident memory, including pages of mapped files."""
    anonymous: int
    """Resident memory without these pages."""
    peak: int
    """The peak of resident memory so far."""


class Server:
    """A server; subclasses for other protocols override the dialect."""

    name: ClassVar[str]
    """Its name in tables."""
    dialect: ClassVar[type[Dialect]] = Dialect
    replies_by_write: ClassVar[bool] = True
    """Whether the kernel counts what it sends as written: that is so for write, and not for send."""
    package: ClassVar[Path] = _PACKAGE
    """The directory of its Python source."""

    def __init__(self) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self.process: Optional[subprocess.Popen[bytes]] = None
        self.directory = Path()

    @classmethod
    def program(cls) -> Optional[str]:
        """@return: the program to run; C{None} if it is missing."""
        raise NotImplementedError

    @classmethod
    def version(cls) -> str:
        """@return: its version, as it prints it."""
        program = cls.program()
        assert program is not None
        said = subprocess.run([program, *cls.version_option], capture_output=True, text=True, check=False).stdout
        match = re.search(r"\d+(\.\d+)+", said)
        return match[0] if match else "of an unknown version"

    version_option: ClassVar[Sequence[str]] = ("--version",)

    def options(self) -> Sequence[str]:
        """@return: its command line."""
        raise NotImplementedError

    # Running

    @property
    def log_path(self) -> Path:
        """Its log file."""
        return self.directory / "log"

    def start(self) -> float:
        """
        Start it; if it was stopped before, with the data it had then.

        @return: the seconds until it answered.
        """
        started = time.perf_counter()
        process = self.launch()
        while not self._answers():
            if process.poll() is not None:
                raise ConnectionError(f"{self.name} ended with {process.returncode}: {self._last_words()}")
            if time.perf_counter() - started > PATIENCE:
                raise ConnectionError(f"{self.name} does not answer")
            time.sleep(0.002)
        return time.perf_counter() - started

    def launch(self) -> subprocess.Popen[bytes]:
        """Start its process without waiting until it answers."""
        if not self.port:
            self.port = reserve_port()
            self.directory = Path(tempfile.mkdtemp(prefix="bench-"))
        program = self.program()
        assert program is not None
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [program, *self.options()],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory, env=_environment(self.package),
            )  # fmt: skip
        return self.process

    def _last_words(self) -> str:
        return self._said()[-300:]

    def _said(self) -> str:
        return self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""

    def unhandled(self) -> list[str]:
        """@return: the entries of its log with unhandled errors; none for peers."""
        return []

    def _answers(self) -> bool:
        """Whether it serves requests: it may listen before it has read its data."""
        try:
            with socket.create_connection((self.host, self.port), timeout=PATIENCE) as client:
                client.sendall(self.dialect(Workload(queue="nothing_in_it")).requests[1])
                reply = client.recv(64)
        except OSError:
            return False
        return bool(reply) and not reply.startswith(b"-LOADING")

    def stop(self) -> float:
        """
        Stop it in its clean way.

        @return: the seconds that it took.
        """
        process, self.process = self.process, None
        if process is None:
            return 0.0
        started = time.perf_counter()
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return time.perf_counter() - started

    def kill(self) -> None:
        """Kill it, as in a crash."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def remove(self) -> None:
        """End it, and remove its data."""
        self.kill()
        if self.directory != Path():
            shutil.rmtree(self.directory, ignore_errors=True)

    def load(self, **load: Any) -> Workload:
        """@return: a load for this server."""
        return Workload(host=self.host, port=self.port, dialect=self.dialect, **load)

    # Measuring

    def cpu(self) -> float:
        """@return: the CPU seconds that it has used, including children that have ended."""
        if self.process is None:
            return 0.0
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS

    def memory(self) -> Memory:
        """@return: its memory now."""
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        figures = {name: int(size) * 1024 for name, size in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
        return Memory(figures["VmRSS"], figures["RssAnon"], figures["VmHWM"])

    def descriptors(self) -> int:
        """@return: the number of its open files and sockets."""
        assert self.process is not None
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def disk(self) -> int:
        """@return: the size of its data on disk, in bytes."""
        size = 0
        for directory, _, files in os.walk(self.directory):
            for file in files:
                try:
                    size += os.stat(os.path.join(directory, file)).st_blocks * 512
                except FileNotFoundError:
                    continue
        return size


class Darner(Server):
    """This server."""

    name = "darner"

    @classmethod
    def program(cls) -> Optional[str]:
        return sys.executable

    @classmethod
    def version(cls) -> str:
        return f"{darner.__version__}{', compiled' * (COMPILED and cls.package is _PACKAGE)}"

    def options(self) -> Sequence[str]:
        return ("-m", "darner", "-p", str(self.port), "-d", str(self.directory / "data"))

    def unhandled(self) -> list[str]:
        return unhandled(self._said())


class DarnerSource(Darner):
    """darner, not compiled."""

    name = "darner, not compiled"
    package = _ROOT

    @classmethod
    def program(cls) -> Optional[str]:
        return super().program() if COMPILED else None


class CppDarner(Server):
    """The C++ Darner."""

    name = "C++ Darner"
    replies_by_write = False

    @classmethod
    def program(cls) -> Optional[str]:
        path = os.environ.get("DARNER_CPP", "")
        return path if os.path.isfile(path) and os.access(path, os.X_OK) else None

    def options(self) -> Sequence[str]:
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        return ("-p", str(self.port), "-d", str(data))


class Redis(Server):
    """Redis with an append-only file that is written to stable storage every second."""

    name = "Redis everysec"
    dialect = RedisLists
    fsync = "everysec"

    @classmethod
    def program(cls) -> Optional[str]:
        return shutil.which("redis-server")

    def options(self) -> Sequence[str]:
        options = {
            "port": self.port, "bind": self.host, "dir": self.directory, "save": "", "maxclients": 20000,
            "appendonly": "yes", "appendfsync": self.fsync,
        }  # fmt: skip
        return [word for name, value in options.items() for word in (f"--{name}", str(value))]


class RedisAlways(Redis):
    """Redis that answers when the append-only file is on stable storage."""

    name = "Redis always"
    fsync = "always"


class Beanstalkd(Server):
    """beanstalkd with a binlog, and its default of an fsync every 50 ms."""

    name = "beanstalkd"
    dialect = Beanstalk
    fsync: ClassVar[Sequence[str]] = ()
    version_option = ("-v",)

    @classmethod
    def program(cls) -> Optional[str]:
        return shutil.which("beanstalkd")

    def options(self) -> Sequence[str]:
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        return ("-l", self.host, "-p", str(self.port), "-b", str(data), "-z", str(2**24), *self.fsync)


class BeanstalkdAlways(Beanstalkd):
    """beanstalkd with an fsync for every job."""

    name = "beanstalkd -f0"
    fsync = ("-f", "0")


class Memcached(Server):
    """memcached with one thread: an upper bound, as it keeps one value in memory and no queue."""

    name = "memcached"
    version_option = ("-V",)

    @classmethod
    def program(cls) -> Optional[str]:
        return shutil.which("memcached")

    def options(self) -> Sequence[str]:
        user = ("-u", "root") if os.getuid() == 0 else ()
        return ("-l", self.host, "-p", str(self.port), "-U", "0", "-t", "1", "-c", "20000", "-I", "32m", *user)


KINDS: Final[dict[str, type[Server]]] = {
    "darner": Darner,
    "darner-source": DarnerSource,
    "cpp": CppDarner,
    "redis": Redis,
    "redis-always": RedisAlways,
    "beanstalkd": Beanstalkd,
    "beanstalkd-always": BeanstalkdAlways,
    "memcached": Memcached,
}


def at_address(name: str, host: str, port: int) -> type[Server]:
    """@return: the class of a running server, which keeps running."""

    class Address(Server):
        def start(self) -> float:
            self.host, self.port = host, port
            return 0.0

    Address.name = name
    return Address


def _environment(package: Path) -> dict[str, str]:
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def allow_descriptors() -> int:
    """
    Raise the limit of descriptors of this process, and of those it starts, as far as possible.

    @return: the limit.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
