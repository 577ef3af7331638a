"""What settings of other queues cost a plain one."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Final

from bench.conditions import Conditions, Grid, tables
from bench.outcome import Outcome
from bench.servers import Darner, Server

CONFIGURATION: Final = """
[queues.limited]
max_items = 1000
max_bytes = "1MiB"
discard_old_when_full = true

[queues.expiring]
max_age = "1h"
expire_to_queue = "expired"
max_queue_age = "1d"
dedupe_window = "1h"

[queues.delayed]
default_delay = "1h"

[queues.in_memory]
durable = false
max_bytes = "16MiB"

[queues.retried]
open_timeout = "5min"
retry_delay = "10s"
max_attempts = 3
dead_letter_queue = "dead"

[queues.parent]
fanout_only = true
max_open_reads = 100

[queues."synced_*"]
sync = "1s"

[aliases]
several = ["limited", "expiring"]
"""
OTHERS: Final = (
    "delayed", "in_memory", "limited", "expiring", "retried", "parent+child", "parent", "synced_1", "several",
)  # fmt: skip


class Configured(Darner):
    """This server, with settings of other queues, which have items."""

    name = "darner, others configured"

    def options(self) -> Sequence[str]:
        path = self.directory / "darner.toml"
        path.write_text(CONFIGURATION)
        return (*super().options(), f"--config={path}")

    def start(self) -> float:
        taken = super().start()
        with socket.create_connection((self.host, self.port), timeout=60) as client:
            for queue in OTHERS:
                client.sendall(b"set %b 0 0 1\r\nx\r\n" % queue.encode())
                if not client.recv(100).startswith(b"STORED"):
                    raise ConnectionError(f"{queue} stores nothing")
        return taken


def policies(conditions: Conditions) -> Outcome:
    """
    The same as flood, through a queue without settings of its own: on a server without any settings, and on one where
    seven other queues and an alias have settings of every kind, and items.
    """
    servers: list[Server] = [Darner(), Configured()]
    grid: Grid = {}
    try:
        for server in servers:
            server.start()
        for clients in conditions.choose((1, 10, 50), (10,)):
            seconds = conditions.choose(3.0, 0.2)
            grid[clients] = conditions.compare(servers, clients=clients, seconds=seconds)
    finally:
        for server in servers:
            server.remove()
    outcome = Outcome(tables(grid, "clients"))
    for clients, samples in grid.items():
        if len(samples) == len(servers):
            rates = [samples[server.name].rate for server in servers]
            who = f"{clients} client{'s' * (clients > 1)}"
            what = f"a plain queue beside configured ones, {who}, relative to a server without settings"
            outcome.at_least(what, 0.95, rates[1] / rates[0])
    return outcome
