"""Many queues."""

from __future__ import annotations

import socket
from typing import Optional

from bench.conditions import Conditions, mib
from bench.outcome import Outcome, Table
from bench.servers import CppDarner, Server
from darner.cli.workload import Workload

AT_ONCE = 200


def queues(conditions: Conditions) -> Outcome:
    """
    One item in each of many queues: how many descriptors and how much memory that costs, and how long a start takes.

    The C++ Darner keeps a database for each queue, with four descriptors or more, so it gets fewer queues.
    """
    outcome = Outcome()
    rows = []
    for count in conditions.choose((1, 1000, 20_000), (1, 100)):
        with conditions.servers("darner", "cpp", "redis") as servers:
            for server in servers:
                if count > 1000 and isinstance(server, CppDarner):
                    continue
                grown = _fill(conditions, server, count)
                if grown is None:
                    continue
                server.stop()
                seconds = server.start()
                memory = server.memory().resident
                rows.append([f"{count:,}", server.name, f"{grown}", f"{seconds:.2f}", mib(memory)])
                if server.name == "darner" and count == 20_000:
                    outcome.at_most("20,000 queues: descriptors more than for one", 0, "", grown)
                    outcome.at_most("20,000 queues: start", 3, "s", seconds)
    head = ["queues", "server", "descriptors more than for one", "start, s", "resident, MiB"]
    outcome.tables.append(Table("Queues with one item each", head, rows))
    return outcome


def _fill(conditions: Conditions, server: Server, count: int) -> Optional[int]:
    """
    Set an item on each of so many queues.

    @return: how many descriptors the server has more than with the first of them; C{None} where it failed.
    """
    first = 0
    try:
        with socket.create_connection((server.host, server.port), timeout=60) as client:
            for start in (0, *range(1, count, AT_ONCE)):
                names = [f"queue{number}" for number in range(start, min(count, start + AT_ONCE) if start else 1)]
                client.sendall(b"".join(server.dialect(Workload(queue=name)).requests[0] for name in names))
                replies = b""
                while replies.count(b"\r\n") < len(names):
                    received = client.recv(65536)
                    if not received:
                        raise ConnectionError("hung up")
                    replies += received
                if not start:
                    first = server.descriptors()
            return server.descriptors() - first
    except OSError as error:
        conditions.note(f"{server.name} failed with {count:,} queues: {error}")
        return None
