"""
``python -m bench.expiry [items]``: the latency of other clients while many items expire at once.

One queue gets so many items of 100 bytes that expire at the same moment.  A client that sends a set and a get for
another queue in turn measures how long each takes: before that moment, and from then on until
the items are gone.  With C{read} after the number, a client reads from the queue at that moment; otherwise the server's
timer finds the items.  With C{delay} they do not expire, but are delayed and come due at that moment.  The server's
resident memory is printed before the sets, after them, and at the end.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from typing import Final

from bench.remains import resident

PAYLOAD: Final = b"x" * 100
AT_ONCE: Final = 1000


class Swarm:
    """A connection to the server under test."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")

    def ask(self, request: bytes) -> None:
        self._socket.sendall(request)

    def line(self) -> bytes:
        return self._file.readline()

    def fill(self, count: int, due: int, delayed: bool) -> None:
        """@param due: when the items expire, or come due if they are C{delayed}, in Unix time."""
        for _ in range(0, count, AT_ONCE):
            delay = b"/delay=%d" % ((due - time.time()) * 1000) if delayed else b""
            item = b"set swarm%b 0 %d %d noreply\r\n%b\r\n" % (delay, 0 if delayed else due, len(PAYLOAD), PAYLOAD)
            self.ask(item * AT_ONCE)
        self.ask(b"version\r\n")
        self.line()

    def figure(self, name: bytes) -> int:
        """@return: a statistic of the queue."""
        self.ask(b"dump_stats swarm\r\n")
        figure = -1
        while (line := self.line()) != b"END\r\n":
            if line.startswith(b"  %b=" % name):
                figure = int(line.partition(b"=")[2])
        return figure

    def pings(self, until: float) -> list[float]:
        """@return: the seconds of each set and each get of another queue until then."""
        took = []
        before = time.monotonic()
        while before < until:
            for request, lines in ((b"set other 0 0 5\r\nhello\r\n", 1), (b"get other\r\n", 3)):
                self.ask(request)
                for _ in range(lines):
                    self.line()
                now = time.monotonic()
                took.append(now - before)
                before = now
        return took


def _connect(port: int) -> Swarm:
    for _ in range(100):
        try:
            return Swarm(port)
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise SystemExit("the server does not start")


def _tell(when: str, took: list[float]) -> None:
    took.sort()
    median, late = took[len(took) // 2], took[len(took) * 999 // 1000]
    print(
        f"{when}: {len(took)} requests, median {median * 1000:.2f} ms, 99.9 % within {late * 1000:.1f} ms, "
        f"longest {took[-1] * 1000:.1f} ms",
        flush=True,
    )


def measure(port: int, process: int, count: int, read: bool, delayed: bool) -> None:
    client = _connect(port)
    print(f"{resident(process):.1f} MiB resident", flush=True)
    due = int(time.time()) + 10 + count // 20_000
    client.fill(count, due, delayed)
    swarm = b"delayed" if delayed else b"items"
    print(f"{client.figure(swarm)} items, {due - time.time():.1f} s before their time", flush=True)
    _tell("before", client.pings(time.monotonic() + 3))
    print(f"{resident(process):.1f} MiB resident", flush=True)
    time.sleep(max(0.0, due - time.time()))
    began = time.monotonic()
    reader = _connect(port)
    if read:
        reader.ask(b"get swarm\r\n")
    took: list[float] = []
    while client.figure(swarm):
        took += client.pings(time.monotonic() + 0.25)
    print(f"done in {time.monotonic() - began:.1f} s; {client.figure(b'items')} items are available", flush=True)
    print(f"{resident(process):.1f} MiB resident", flush=True)
    if read:
        print(f"the reader got {reader.line()!r}")
    _tell("meanwhile", took)


def main(words: list[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        server = subprocess.Popen(
            [sys.executable, "-m", "darner", f"--data-dir={directory}", f"--port={port}"], stdout=subprocess.DEVNULL
        )
        try:
            measure(port, server.pid, int(words[0]) if words else 1_000_000, "read" in words, "delay" in words)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
