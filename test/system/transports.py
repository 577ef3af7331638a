"""
Real servers with every kind of listener, and clients that speak to each: for the tests that hold over all transports.
"""

from __future__ import annotations

import atexit
import fcntl
import select
import socket
import ssl
import struct
import sys
import termios
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from signal import SIGTERM
from typing import Any, ClassVar, Final, Optional, Union

from darner.front.memcache import MEMCACHE
from test.servers import (
    FOREGROUND,
    PATIENCE,
    TWISTD,
    Address,
    Client,
    Owner,
    Server,
    make_certificate,
    make_directory,
    open_socket,
    until,
)
from test.system import set_clock

TRANSPORTS: Final = ("tcp", "endpoint", "ssl", "mtls", "unix")
"""The server's own port, Twisted's TCP, TLS without and with certificates of clients, and a unix socket."""

_AWAY = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_BROKEN = (ConnectionError, ssl.SSLError)


class UntilExit:
    """Whom servers belong to that several tests use."""

    def addCleanup(self, call: Callable[..., object], /, *arguments: object, **options: object) -> object:
        return atexit.register(call, *arguments, **options)


class TransportServer(Server):
    """
    A server that listens in every way, with the default settings but for those named.

    @ivar addresses_by_transport: where.
    """

    program: ClassVar[Sequence[str]] = FOREGROUND

    def __init__(self, owner: Owner, settings: Sequence[str] = ()) -> None:
        """@param settings: lines of the configuration file."""
        self._settings = settings
        directory = make_directory(owner)
        self.own, self.friend = (make_certificate(directory, name) for name in ("server", "friend"))
        self.config = directory / "darner.toml"
        self.configure()
        self._path = str(directory / "socket")
        files = f"interface=127.0.0.1:privateKey={self.own}:certKey={self.own}"
        super().__init__(
            owner, "--config=darner.toml", "--port=0", f"--data-dir={directory / 'data'}",
            "--listen=tcp:0:interface=127.0.0.1", f"--listen=ssl:0:{files}",
            f"--listen=mtls:0:{files}:clientCA={self.friend}", f"--listen=unix:{self._path}",
            program=self.program, directory=directory, ready=False,
        )  # fmt: skip

    def start(self, ready: bool = True) -> None:
        super().start(ready=False)
        self.wait_for("] starting up")
        self.addresses_by_transport: dict[str, Address] = {
            "unix": self._path, **dict(zip(TRANSPORTS, self.addresses, strict=False))
        }  # fmt: skip
        self.address = self.addresses[0]
        with self.client() as client:
            client.ask(b"version")

    def configure(self, *more: str) -> None:
        """Write the configuration file."""
        self.config.write_text("\n".join([*self._settings, *more, ""]))

    def context(self, transport: str) -> Optional[ssl.SSLContext]:
        """@return: what a client needs for TLS, where it needs that."""
        if transport not in ("ssl", "mtls"):
            return None
        context = ssl.create_default_context(cafile=str(self.own))
        context.check_hostname = False
        if transport == "mtls":
            context.load_cert_chain(self.friend)
        return context

    def blocking_client(self, transport: str) -> Client:
        return Client(self.addresses_by_transport[transport], tls=self.context(transport))

    def _look(self) -> Optional[int]:
        """@return: how often its threads have gone to sleep so far; C{None} while one of them is awake."""
        switches = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            try:
                status = (task / "status").read_text()
            except OSError:
                return None
            if "\nState:\tS" not in status:
                return None
            switches += int(status.rpartition("\nvoluntary_ctxt_switches:\t")[2].partition("\n")[0])
        return switches

    def wait_until_idle(
        self, take: Callable[[], bool] = lambda: False, comes: Callable[[], bool] = lambda: False, patience: float = 30
    ) -> None:
        """
        Wait until every thread sleeps and has slept since the last look: it has done all that there is to do now.

        @param take: called after each look; returns whether there was something, which means that it was not idle.
        @param comes: called in the end; returns whether something is on its way.
        """
        before = None
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            # First the look: what is sent before the server goes to sleep is then there to be taken.
            now = self._look()
            if not take() and now is not None and now == before and not comes():
                return
            before = now
            time.sleep(0.001)
        raise AssertionError("the server is never idle")


class SetServer(TransportServer):
    """The same with a clock that goes on when it is told to, so that no time-out is over too soon."""

    program = (sys.executable, "-m", "test.system.set_clock", *FOREGROUND[len(TWISTD) :])

    def advance(self, seconds: float) -> None:
        """Have it be later, once it has done all that there is to do now, and do what is due then."""
        self.wait_until_idle()
        set_clock.advance(self.directory, seconds)
        self.wait_until_idle()

    def stop(self, signal: int = SIGTERM, patience: float = PATIENCE) -> int:
        """Time goes by while it stops: it waits for clients."""

        def ends() -> bool:
            with suppress(OSError):
                set_clock.advance(self.directory, 1)
            return self.process.poll() is not None

        self.process.send_signal(signal)
        until(ends, "it ends", patience)
        return self.process.wait()


@cache
def shared_set_server(*settings: str) -> SetServer:
    """@return: the server with these settings and such a clock that all tests share; it ends with the tests."""
    return SetServer(UntilExit(), settings)


@cache
def shared_server(*settings: str) -> TransportServer:
    """@return: the server with these settings that all tests share; it ends with the tests."""
    return TransportServer(UntilExit(), settings)


class PatientClient:
    """
    A client of L{test.protocol_contract}: what it sends the server has dealt with when it is told what has come.

    @ivar closed: whether the server has ended the connection, as far as this was noticed.
    """

    def __init__(self, server: TransportServer, transport: str) -> None:
        self._server = server
        self.closed = False
        self._received: list[bytes] = []
        address = server.addresses_by_transport[transport]
        self._server_port = 0 if isinstance(address, str) else address[1]
        connection = open_socket(address)
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        context = server.context(transport)
        self.socket: Union[socket.socket, ssl.SSLSocket] = connection
        if context is not None:
            self.socket = context.wrap_socket(connection)
        self.socket.setblocking(False)
        # It has been accepted when the next client comes.
        server.wait_until_idle()

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view and not self.closed:
            try:
                view = view[self.socket.send(view) :]
            except _AWAY:
                select.select([self.socket], [self.socket], [], 0.1)
            except _BROKEN:
                break
            self._take()

    def _take(self) -> bool:
        """@return: whether something has come."""
        taken = False
        with suppress(*_AWAY):
            while not self.closed:
                try:
                    data = self.socket.recv(1 << 18)
                except _AWAY:
                    raise
                except _BROKEN:
                    data = b""
                self._received.append(data)
                taken = True
                if not data:
                    # As clients do; over TLS the server waits for it.
                    self.closed = True
                    self.socket.close()
        return taken or self._on_the_way() > 0

    def _on_the_way(self) -> int:
        """@return: how many bytes the server's side has not got yet."""
        if self.closed or self.socket.fileno() < 0 or self.socket.family == socket.AF_UNIX:
            return 0
        (count,) = struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"\0" * 4))
        return int(count)

    def _comes(self) -> bool:
        """@return: whether the server's kernel has sent something that has not come here yet."""
        if self.closed or self.socket.fileno() < 0 or self.socket.family == socket.AF_UNIX:
            return False
        ends = f":{self._server_port:04X} ", f":{self.socket.getsockname()[1]:04X} "
        for line in Path("/proc/net/tcp").read_text().splitlines():
            place, here = line.find(ends[0]), line.find(ends[1])
            if 0 <= place < here:
                return int(line.split()[4].partition(":")[0], 16) > 0
        return False

    def receive(self) -> bytes:
        self._server.wait_until_idle(self._take, self._comes)
        received = b"".join(self._received)
        self._received.clear()
        return received

    def hang_up(self) -> None:
        self.socket.close()
        self._server.wait_until_idle()

    def close(self) -> None:
        self.socket.close()


def settings_of(options: dict[str, Any]) -> tuple[str, ...]:
    """@return: the lines of a configuration file for the options of the contract's C{connect}."""
    lines = []
    if options.get("spelling") is MEMCACHE:
        lines.append('dialect = "memcache"')
    limits = options.get("limits")
    if limits is not None:
        if limits.max_connections:
            lines.append(f"max_connections = {limits.max_connections}")
        lines += [
            f'{name} = "{round(1000 * getattr(limits, name))}ms"'
            for name in ("idle_timeout", "stall_timeout")
            if getattr(limits, name)
        ]
    return tuple(lines)
