"""
How long other clients wait while one works on very many queues, and how long a start and a stop take then.

``python -m bench.many [--queues N] [--children N]`` starts a server and prints a line for each operation.
"""

from __future__ import annotations

import argparse
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Optional

from bench.conditions import mib
from bench.servers import PATIENCE, Darner

AT_ONCE: Final = 250
"""The number of requests in flight on the connection that sends many."""
UNREAD: Final = 60
"""The number of clients that ask for statistics and do not read them."""
PING: Final = 0.001
"""Seconds between two requests of the client whose waits are measured."""
BASE: Final = 'max_children = 0\n[queues."many*"]\nmax_items = 10\n'


class Configured(Darner):
    """This server, with a file of settings."""

    def options(self) -> Sequence[str]:
        return (*super().options(), "--config", str(self.directory / "darner.toml"))

    def configure(self, text: str) -> None:
        """Write the settings for its start or a C{reload}."""
        (self.directory / "darner.toml").write_text(text)


class Bystander(threading.Thread):
    """
    A client with few requests, whose waits are measured.

    @ivar longest: its longest wait for a reply, in seconds.
    """

    def __init__(self, server: Darner) -> None:
        super().__init__(daemon=True)
        self._client = socket.create_connection((server.host, server.port), timeout=PATIENCE)
        self._ended = False
        self.longest = 0.0

    def run(self) -> None:
        while not self._ended:
            asked = time.perf_counter()
            self._client.sendall(b"get nothing_in_it\r\n")
            if not self._client.recv(64):
                return
            self.longest = max(self.longest, time.perf_counter() - asked)
            time.sleep(PING)

    def end(self) -> None:
        self._ended = True
        self.join(PATIENCE)
        self._client.close()


def send_many(address: tuple[str, int], request: Callable[[int], bytes], count: int) -> None:
    """Send so many requests, each with a reply of one line, to the server at an address."""
    with socket.create_connection(address, timeout=PATIENCE) as client:
        for start in range(0, count, AT_ONCE):
            numbers = range(start, min(count, start + AT_ONCE))
            client.sendall(b"".join(map(request, numbers)))
            left = len(numbers)
            while left:
                received = client.recv(65536)
                if not received:
                    raise ConnectionError("hung up")
                left -= received.count(b"\n")


class Trial:
    """Operations on one server, one after the other."""

    def __init__(self, server: Configured, queues: int, children: int) -> None:
        self._server = server
        self._queues = queues
        self._children = children

    @contextmanager
    def _measured(self, operation: str) -> Iterator[None]:
        bystander = Bystander(self._server)
        bystander.start()
        time.sleep(0.2)
        bystander.longest = 0.0
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        time.sleep(0.2)
        bystander.end()
        memory = mib(self._server.memory().resident)
        print(f"{operation:36} {seconds:8.2f} s   others waited {bystander.longest * 1000:7.1f} ms   {memory:>6} MiB")
        sys.stdout.flush()

    def _connect(self) -> socket.socket:
        return socket.create_connection((self._server.host, self._server.port), timeout=PATIENCE)

    def _many(self, request: Callable[[int], bytes], count: int) -> None:
        send_many((self._server.host, self._server.port), request, count)

    def _ask(self, request: bytes, end: bytes) -> None:
        with self._connect() as client:
            client.sendall(request)
            tail = b""
            while not tail.endswith(end):
                received = client.recv(2**20)
                if not received:
                    raise ConnectionError("hung up")
                tail = (tail + received)[-64:]

    def _fill(self) -> None:
        self._many(lambda number: b"set many%07d 0 0 1\r\nx\r\n" % number, self._queues)

    def _leave_unread(self) -> None:
        clients = []
        for _ in range(UNREAD):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
            client.connect((self._server.host, self._server.port))
            client.sendall(b"stats\r\n")
            clients.append(client)
        time.sleep(10)
        mostly = mib(self._server.memory().resident)
        print(f"{UNREAD} clients that do not read: {mostly} MiB")
        for client in clients:
            client.close()

    def _await_none(self) -> None:
        """Wait until all the queues are gone."""
        last = b"STAT queue_many%07d_items" % (self._queues - 1)
        with self._connect() as client:
            for _ in range(60):
                client.sendall(b"dump_stats many0000000 many%07d\r\n" % (self._queues - 1))
                reply = b""
                while not reply.endswith(b"END\r\n"):
                    reply += client.recv(65536)
                if reply == b"END\r\n":
                    return
                time.sleep(0.5)
        raise ConnectionError(f"{last.decode()} is still there")

    def run(self) -> None:
        server = self._server
        print(f"{self._queues:,} queues, {self._children:,} children")
        with self._measured("create"):
            self._fill()
        for request in (b"stats", b"dump_stats", b"dump_config"):
            with self._measured(request.decode()):
                self._ask(request + b"\r\n", b"END\r\n")
        with self._measured(f"stats, {UNREAD} clients do not read"):
            self._leave_unread()
        server.configure(BASE + "[queues.other]\nmax_items = 1\n")
        with self._measured("reload"):
            self._ask(b"reload\r\n", b"\r\n")
            time.sleep(2)
        with self._measured("flush_all"):
            self._ask(b"flush_all\r\n", b"\r\n")
        with self._measured("delete each"):
            self._many(lambda number: b"delete many%07d\r\n" % number, self._queues)
            time.sleep(2)
        with self._measured("create again"):
            self._fill()
        print(f"stop {server.stop():.2f} s")
        print(f"start {server.start():.2f} s, {mib(server.memory().resident)} MiB")
        server.kill()
        print(f"start after a kill {server.start():.2f} s")
        with self._measured("flush_all after the start"):
            self._ask(b"flush_all\r\n", b"\r\n")
        server.configure(BASE + "max_queue_age = '1s'\n")
        with self._measured("max_queue_age deletes all"):
            self._ask(b"reload\r\n", b"\r\n")
            self._await_none()
        with self._measured("children"):
            self._many(lambda number: b"set parent+%d 0 0 1\r\nx\r\n" % number, self._children)
        with self._measured("20 sets on their parent"):
            self._many(lambda number: b"set parent 0 0 10\r\n0123456789\r\n", 20)
        print(f"stop {server.stop():.2f} s")


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser("python -m bench.many", description=__doc__)
    parser.add_argument("--queues", type=int, default=20_000)
    parser.add_argument("--children", type=int, default=20_000)
    options = parser.parse_args(arguments)
    server = Configured()
    server.launch()  # it creates the directory
    server.kill()
    server.configure(BASE)
    server.start()
    try:
        Trial(server, options.queues, options.children).run()
    finally:
        server.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
