"""Many queues."""

from __future__ import annotations

import socket

from bench.conditions import Conditions, mib
from bench.outcome import Outcome, Table
from bench.servers import CppDarner, Server
from darner.load import Load

AT_ONCE = 200


def queues(conditions: Conditions) -> Outcome:
    """
    An item in each of many queues: what that costs in descriptors and memory, and what a start takes with them.

    The C++ Darner keeps a database of its own for each, with four descriptors or more, and so is asked for fewer.
    """
    outcome = Outcome()
    rows = []
    for count in conditions.choose((1, 1000, 20_000), (1, 100)):
        with conditions.servers("darner", "cpp", "redis") as servers:
            for server in servers:
                if count > 1000 and isinstance(server, CppDarner):
                    continue
                before = server.descriptors()
                if not _fill(conditions, server, count):
                    continue
                grown = server.descriptors() - before
                server.stop()
                seconds = server.start()
                memory = server.memory().resident
                open_now = server.descriptors()
                rows.append([f"{count:,}", server.name, f"{grown}", f"{open_now}", f"{seconds:.2f}", mib(memory)])
                if server.name == "darner" and count == 20_000:
                    outcome.at_most("20,000 queues: descriptors more than before", 0, "", max(grown, open_now - before))
                    outcome.at_most("20,000 queues: start", 3, "s", seconds)
    head = [
        "queues", "server", "descriptors more than before", "descriptors after a start", "start, s", "resident, MiB"
    ]  # fmt: skip
    outcome.tables.append(Table("Queues with one item each", head, rows))
    return outcome


def _fill(conditions: Conditions, server: Server, count: int) -> bool:
    """@return: whether an item could be set on each of so many queues."""
    try:
        with socket.create_connection((server.host, server.port), timeout=60) as client:
            for start in range(0, count, AT_ONCE):
                names = [f"queue{number}" for number in range(start, min(count, start + AT_ONCE))]
                client.sendall(b"".join(server.dialect(Load(queue=name)).requests[0] for name in names))
                replies = b""
                while replies.count(b"\r\n") < len(names):
                    received = client.recv(65536)
                    if not received:
                        raise ConnectionError("hung up")
                    replies += received
    except OSError as error:
        conditions.note(f"{server.name} failed with {count:,} queues: {error}")
        return False
    return True
