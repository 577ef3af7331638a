"""
Real servers: twistd in a process of its own, for the tests that need one, and a small client that blocks.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Optional, Protocol, Union

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from bench.server_log import unhandled

ROOT = Path(__file__).resolve().parent.parent

TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")
"""Runs twistd; what follows are its options."""
FOREGROUND = (*TWISTD, "--nodaemon", "--pidfile=", "darner")
"""Runs the server in the foreground by twistd; what follows are darner's options."""
MODULE = (sys.executable, "-m", "darner")
"""The same by ``python -m darner``."""

PATIENCE = 120.0
"""Seconds after which something that does not happen is an error."""

Address = Union[tuple[str, int], str]
"""Host and port, or the path of a unix socket."""

_LISTENING = re.compile(r"listening on IPv[46]Address\(type='TCP', host='([^']*)', port=(\d+)[,)]")


class Owner(Protocol):
    """Whom a server belongs to: a test as a rule."""

    def addCleanup(self, call: Callable[..., object], /, *arguments: object, **options: object) -> object:
        """Call this in the end."""


def environment() -> dict[str, str]:
    """@return: what a server of this checkout needs in its environment."""
    return {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PYTHONUNBUFFERED": "1"}


def make_directory(case: Owner) -> Path:
    """@return: a new directory with a short path (unix sockets want one), which goes when the test is over."""
    path = Path(tempfile.mkdtemp(prefix="darner-"))
    case.addCleanup(shutil.rmtree, path, ignore_errors=True)
    return path


def _hear_interrupts() -> None:
    """Whoever runs the tests in the background may have had their children ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + patience
    late = False
    while not condition():
        if late:
            raise AssertionError(f"waited {patience} s in vain: {what}")
        # Before the last look, as this process may stand still at any place.
        late = time.monotonic() > deadline
        time.sleep(0.005)


class Server:
    """
    A server in a process of its own.

    Its log and its standard error are read when the test is over, those of each of its lives; an error in them that
    nobody handled fails the test, unless it is L{allow}ed.

    @ivar directory: where it runs; its data directory is C{data} in there.
    @ivar log: the file that has its standard output.
    @ivar address: the TCP address that it listens at first.
    """

    def __init__(
        self,
        case: Owner,
        *options: str,
        program: Sequence[str] = FOREGROUND,
        directory: Optional[Path] = None,
        ready: bool = True,
    ) -> None:
        """
        Start a server on a free port, and wait until it serves.

        @param options: of the server's; by default those for a free port and the directory's data.
        @param ready: whether to wait until it serves on a TCP port.
        """
        self.directory = directory or make_directory(case)
        self.data = self.directory / "data"
        self.options = options or ("--port=0", f"--data-dir={self.data}")
        self._program = program
        self.address = ("", 0)
        self._allowed: list[str] = []
        self._unhandled: list[str] = []
        self._reported: set[str] = set()
        case.addCleanup(self.end)
        self.start(ready)

    def start(self, ready: bool = True) -> None:
        """Start it, again if it has ended."""
        self._read_logs()
        self.log = self.directory / "out"
        self._errors = self.directory / "err"
        with self.log.open("wb") as out, self._errors.open("wb") as err:
            self.process = subprocess.Popen(
                [*self._program, *self.options],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=self.directory, env=environment(),
                preexec_fn=_hear_interrupts,
            )  # fmt: skip
        if ready:
            self.wait_for("] starting up")
            self.address = self.addresses[0]
            # It says that it starts before its reactor runs; when it answers, signals are heard as well.
            with self.client(self.addresses[-1]) as client:
                client.send(b"version\r\nquit\r\n")
                client.rest()

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until the log has a text that often."""

        def there() -> bool:
            if self.text.count(text) >= times:
                return True
            if self.process.poll() is not None and self.text.count(text) < times:
                raise AssertionError(f"the server has ended: {self.process.returncode}\n{self.text}{self.errors}")
            return False

        until(there, f"{text!r} in the log")

    @property
    def text(self) -> str:
        """The log so far."""
        return self.log.read_text()

    @property
    def errors(self) -> str:
        """What it wrote to its standard error."""
        return self._errors.read_text()

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Every TCP address it listens at."""
        return [(host, int(port)) for host, port in _LISTENING.findall(self.text)]

    @property
    def pid(self) -> int:
        return self.process.pid

    def client(self, address: Optional[Address] = None) -> Client:
        """@return: a new connection to it."""
        return Client(address or self.address)

    def pause(self) -> None:
        """Let it stand still; its connections stay.  When this returns, all its threads do."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on after L{pause}."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash does.  Harmless when it has ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """
        L{kill} it, and read its log.

        @raise AssertionError: it has logged an error that nobody handled.
        """
        self.kill()
        self.check_log()

    # Its log

    def allow(self, *texts: str) -> None:
        """Entries of the log, and lines of the standard error, that have one of these texts are expected."""
        self._allowed += texts

    def _read_logs(self) -> None:
        """Keep what is wrong in the log of the life that has ended, before the next one's is begun."""
        if hasattr(self, "log"):
            self._unhandled += unhandled(self.text) + unhandled(self.errors)

    def check_log(self) -> None:
        """@raise AssertionError: it has logged an error that nobody handled, in any life, since the last call."""
        self._read_logs()
        new = [entry for entry in self._unhandled if entry not in self._reported]
        self._reported.update(new)
        self._unhandled.clear()
        wrong = [entry for entry in new if not any(text in entry for text in self._allowed)]
        if wrong:
            raise AssertionError("the server logged:\n" + "\n".join(wrong))

    def stop(self, signal: int = signal.SIGTERM, patience: float = PATIENCE) -> int:
        """
        Tell it to stop.

        @return: its exit status.
        """
        self.process.send_signal(signal)
        return self.process.wait(patience)

    def restart(self) -> None:
        """Kill it and start it anew on the same data."""
        self.kill()
        self.start()

    def memory(self, name: str) -> int:
        """@return: a figure of ``/proc/PID/status`` that is in kB, such as VmRSS and VmHWM, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        match = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
        if match is None:
            raise AssertionError(f"no {name} in {status}")
        return int(match[1]) * 1024

    def reset_peak_memory(self) -> None:
        """Have VmHWM start anew from what is resident now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


class _Process:
    """This process, as the owner of what lasts until its end."""

    def addCleanup(self, call: Callable[..., object], /, *arguments: object, **options: object) -> None:
        atexit.register(call, *arguments, **options)


lasting = _Process()

_idle: dict[tuple[object, ...], list[Server]] = {}
"""Servers that the next test can have, by how they were made."""


def lend_server(case: Owner, make: Callable[..., Server], *arguments: object) -> Server:
    """
    A running server without queues, that the tests of this process have one after the other: starting one takes longer
    than most tests.  Its figures go on from test to test.  One that the test has ended, or started anew, is not lent
    again.

    @param make: makes one that L{lasting} owns, with those arguments, where none is idle.
    """
    idle = _idle.setdefault((make, *arguments), [])
    server = idle.pop() if idle else None
    if server is not None and not _is_left(server):
        server.end()
        server = None
    lent = server or make(lasting, *arguments)
    life = lent.process

    def take_back() -> None:
        if lent.process is life and life.poll() is None and _is_emptied(lent):
            lent.check_log()
            lent._allowed.clear()
            idle.append(lent)
        else:
            lent.end()

    case.addCleanup(take_back)
    return lent


def _is_left(server: Server) -> bool:
    """@return: whether the clients of the last test are gone, within a second, and have left nothing."""
    deadline = time.monotonic() + 1
    with server.client() as client:
        while (stats := client.stats())[b"curr_connections"] != b"1":
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
    return not _queues(stats)


def _is_emptied(server: Server) -> bool:
    """Delete its queues.  @return: whether it is as good as new."""
    with server.client() as client:
        for queue in _queues(client.stats()):
            client.ask(b"delete " + queue)
        stats = client.stats()
        return not _queues(stats) and stats[b"status"] == b"UP"


def _queues(stats: dict[bytes, bytes]) -> list[bytes]:
    return [name[len("queue_") : -len("_items")] for name in stats if re.fullmatch(rb"queue_.*_items", name)]


def run(
    *command: str, cwd: Path, patience: float = PATIENCE, allowed: Collection[str] = ()
) -> subprocess.CompletedProcess[str]:
    """
    Run a program to its end.

    @param allowed: texts that unhandled errors in its output may have.
    @raise AssertionError: there are others in it.
    """
    done = subprocess.run(
        command, cwd=cwd, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=patience
    )
    check_output(done.stdout, done.stderr, allowed=allowed)
    return done


def check_output(*texts: str, allowed: Collection[str] = ()) -> None:
    """@raise AssertionError: there is an unhandled error in what a program wrote."""
    wrong = [entry for text in texts for entry in unhandled(text, allowed)]
    if wrong:
        raise AssertionError("the program wrote:\n" + "\n".join(wrong))


def make_certificate(directory: Path, name: str) -> Path:
    """
    Make a key and a certificate that vouches for itself, with all that a strict client wants.

    @return: the file that has both.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(timezone.utc)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign", "encipher_only",
         "decipher_only"), False
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(digital_signature=True, key_cert_sign=True, **usage), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)
    )
    return path


def open_socket(address: Address, patience: float = PATIENCE) -> socket.socket:
    """@return: a connection to a TCP address or a unix socket."""
    if not isinstance(address, str):
        return socket.create_connection(address, patience)
    connection = socket.socket(socket.AF_UNIX)
    # With a time-out of Python's it would not wait where the backlog is full.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", *divmod(int(patience * 1e6), 10**6)))
    connection.connect(address)
    connection.settimeout(patience)
    return connection


class Client:
    """A raw connection that blocks."""

    def __init__(self, address: Address, patience: float = PATIENCE, tls: Optional[ssl.SSLContext] = None) -> None:
        """@param tls: how to speak TLS; C{None} for not at all."""
        self.socket = open_socket(address, patience)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket)
        self._reader = self.socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._reader.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        """@return: the next line without its end; empty where the server has closed the connection."""
        line = self._reader.readline()
        if line and not line.endswith(b"\r\n"):
            raise AssertionError(f"a torn line: {line!r}")
        return line[:-2]

    def read(self, size: int) -> bytes:
        """@return: that many bytes, fewer only where the connection ends."""
        return self._reader.read(size)

    def rest(self) -> bytes:
        """@return: all that comes until the server closes the connection."""
        return self._reader.read()

    def ask(self, request: bytes) -> bytes:
        """@return: the one line that answers a request."""
        self.send(request + b"\r\n")
        return self.line()

    def send_set(self, queue: bytes, payload: bytes, flags: int = 0, more: bytes = b"") -> None:
        self.send(b"set %b %d 0 %d%b\r\n%b\r\n" % (queue, flags, len(payload), more, payload))

    def set(self, queue: bytes, payload: bytes, flags: int = 0) -> bytes:
        self.send_set(queue, payload, flags)
        return self.line()

    def value(self) -> Optional[tuple[int, bytes]]:
        """@return: flags and payload that a get was answered with; C{None} where there was nothing."""
        header = self.line()
        if header == b"END":
            return None
        if not header.startswith(b"VALUE "):
            raise AssertionError(f"no item: {header!r}")
        _, _, flags, size = header.split()
        payload = self.read(int(size) + 2)
        if payload[-2:] != b"\r\n" or self.line() != b"END":
            raise AssertionError("a torn item")
        return int(flags), payload[:-2]

    def get(self, target: bytes) -> Optional[bytes]:
        """@return: an item's payload; C{None} where there was nothing."""
        self.send(b"get %b\r\n" % target)
        value = self.value()
        return None if value is None else value[1]

    def stats(self) -> dict[bytes, bytes]:
        self.send(b"stats\r\n")
        figures = {}
        while (line := self.line()) != b"END":
            _, name, figure = line.split(b" ", 2)
            figures[name] = figure
        return figures

    def count(self, queue: bytes) -> int:
        """@return: how many items a queue has."""
        return int(self.stats().get(b"queue_%b_items" % queue, 0))
