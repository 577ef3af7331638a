"""What clients that misbehave cost the others."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Final

from attrs import frozen

from bench.conditions import Conditions, mib
from bench.outcome import Outcome, Table
from bench.servers import Server, allow_descriptors
from darner.cli.bench import Result, run

ITEM: Final = 60_000
"""The size of an open item, in bytes: nearly the largest that is kept in memory whole."""
PATIENCE: Final = 10.0
"""Seconds without progress after which connections count as full."""


@frozen
class Misdeed:
    """The bytes that each of many clients sends, after which it sends nothing more."""

    name: str
    request: bytes


MISDEEDS: Final = (
    Misdeed("half a command", b"get " + b"q" * 2000),
    Misdeed("half a payload", b"set half 0 0 65536\r\n" + b"x" * 65000),
    Misdeed("1 MiB of a payload of 8 MiB", b"set half 0 0 8388608\r\n" + b"x" * 2**20),
    Misdeed("replies that are not read", b"get peeked/peek\r\n" * 400),
    Misdeed("requests ahead of a wait", b"get nothing/t=600000\r\n" + b"version\r\n" * 60_000),
    Misdeed("an open read", b"get opened/open\r\n"),
    Misdeed("a wait", b"get nothing/t=600000\r\n"),
)


def shortages(conditions: Conditions) -> Outcome:
    """
    1,000 clients each do one thing and stop in the middle of it.  The tables have the memory that this costs the
    server, and how 10 other clients that set and get 64 bytes are served meanwhile.  Items that clients hold have
    60,000 bytes.  In the last row, two threads connect, ask for the version and disconnect, one client after the other.
    """
    allow_descriptors()
    count = conditions.choose(1000, 20)
    outcome = Outcome()
    for kind in ("darner", "cpp"):
        with conditions.servers(kind) as servers:
            for server in servers:
                outcome.tables.append(_suffer(conditions, server, count))
    return outcome


def _suffer(conditions: Conditions, server: Server, count: int) -> Table:
    _prepare(server, count)
    idle = server.memory().resident
    rows = [["nobody", "0", "", *_cells(_serve(conditions, server))]]
    for misdeed in MISDEEDS:
        conditions.log(f"  {server.name}: {misdeed.name}")
        before = server.memory().resident
        clients = _misbehave(server, misdeed.request, count)
        try:
            held = server.memory().resident
            result = _serve(conditions, server)
        finally:
            for client in clients:
                client.close()
        growth = max(0, held - before)
        rows.append([misdeed.name, mib(growth), f"{growth / count / 1024:.1f}", *_cells(result)])
        time.sleep(conditions.choose(1.0, 0.1))
    rows.append(["comings and goings", *_come_and_go(conditions, server)])
    head = [
        f"{count:,} clients with", "memory, MiB", "a client, KiB", "the others, requests a second", "99 %, ms",
        "longest, ms",
    ]  # fmt: skip
    return Table(f"{server.name}, idle with {mib(idle)} MiB", head, rows)


def _prepare(server: Server, count: int) -> None:
    payload = b"x" * ITEM
    with socket.create_connection((server.host, server.port), 60) as client:
        replies = client.makefile("rb")
        for queue in [b"peeked"] + [b"opened"] * count:
            client.sendall(b"set %b 0 0 %d\r\n%b\r\n" % (queue, ITEM, payload))
            if replies.readline() != b"STORED\r\n":
                raise ConnectionError(f"{server.name} stores nothing")


def _misbehave(server: Server, request: bytes, count: int) -> list[socket.socket]:
    """@return: clients that have sent a request, or as much of it as the server accepts."""
    clients = [socket.create_connection((server.host, server.port), 60) for _ in range(count)]
    unsent = {client: memoryview(request) for client in clients}
    for client in clients:
        client.setblocking(False)
    last = time.monotonic()
    while unsent and time.monotonic() - last < PATIENCE:
        for client, rest in list(unsent.items()):
            sent = 0
            with contextlib.suppress(BlockingIOError):
                sent = client.send(rest)
            if sent:
                last = time.monotonic()
                unsent[client] = rest[sent:]
            if not unsent[client]:
                del unsent[client]
        if time.monotonic() - last > 0.2 and len(unsent) == count:
            break  # no client can send more
        time.sleep(0.01)
    time.sleep(0.3)
    return clients


def _serve(conditions: Conditions, server: Server) -> Result:
    return run(server.load(queue="good", clients=10, sets=1, gets=1, seconds=conditions.choose(2.0, 0.2)))


def _cells(result: Result) -> list[str]:
    wrong = f" ({result.tally.errors} wrong)" if result.tally.errors else ""
    return [
        f"{result.rate:,.0f}{wrong}", f"{result.percentile(99) / 1000:.1f}", f"{result.percentile(100) / 1000:.1f}"
    ]


def _come_and_go(conditions: Conditions, server: Server) -> list[str]:
    """@return: the number of clients that connected each second, and how the others were served."""
    ended = threading.Event()
    visits = [0, 0]

    def visit(index: int) -> None:
        while not ended.is_set():
            with socket.create_connection((server.host, server.port), 60) as client:
                client.sendall(b"version\r\n")
                client.recv(100)
            visits[index] += 1

    threads = [threading.Thread(target=visit, args=(index,)) for index in range(len(visits))]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    try:
        result = _serve(conditions, server)
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    return [f"{sum(visits) / (time.monotonic() - started):,.0f} a second", "", *_cells(result)]
