"""
``python -m bench.once [sets]``: the cost of an id for a set, in processor time and on disk.

In one process, without a network: 50 clients set items of 64 bytes, one each in a turn, on a queue with a
C{dedupe_window} in a LevelDB, first without an id, then each with one of its own, and then with the same again.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from bench.remains import disk_usage
from darner.config.policies import Policies, QueueSettings
from darner.front.protocol import QueueFactory
from darner.queues.collection import Queues
from darner.queues.surroundings import Surroundings
from darner.store.leveldb import LevelStore

CLIENTS = 50
PAYLOAD = b"x" * 64


class Producers:
    """Clients of one server."""

    def __init__(self, store: LevelStore) -> None:
        surroundings = Surroundings(Clock(), lambda _: None, maybeDeferred)
        self._queues = Queues(store, surroundings, Policies(QueueSettings(dedupe_window=3600.0)))
        self._queues.start()
        factory = QueueFactory(self._queues)
        self._clients: list[tuple[Any, StringTransport]] = []
        for _ in range(CLIENTS):
            client, transport = factory.buildProtocol(None), StringTransport()
            assert client is not None
            client.makeConnection(transport)
            self._clients.append((client, transport))

    def all(self, requests: list[bytes], reply: bytes) -> float:
        """@return: the seconds that a turn with a request of each took."""
        before = time.process_time()
        self._queues.commit.begin()
        for (client, _), request in zip(self._clients, requests, strict=True):
            client.dataReceived(request)
        self._queues.commit.end()
        took = time.process_time() - before
        for _, transport in self._clients:
            assert transport.value().startswith(reply), transport.value()
            transport.clear()
        return took

    def set(self, sets: int, ids: bool, reads: bool) -> float:
        """@return: the seconds that so many sets took."""
        took = 0.0
        for first in range(0, sets, CLIENTS):
            names = [b"/id=producer-%d" % number if ids else b"" for number in range(first, first + CLIENTS)]
            took += self.all([b"set q%b 0 0 64\r\n%b\r\n" % (name, PAYLOAD) for name in names], b"STORED")
            if reads:
                self.all([b"get q\r\n"] * CLIENTS, b"VALUE")
        return took


def main(sets: int) -> None:
    with tempfile.TemporaryDirectory(prefix="darner-") as directory:
        for name, rounds in (("plain", ["without an id"]), ("once", ["with a new id", "with a known id"])):
            path = Path(directory) / name
            with closing(LevelStore(path)) as store:
                producers = Producers(store)
                for what in rounds:
                    took = producers.set(sets, name == "once", "known" not in what)
                    size = disk_usage(path)
                    print(f"{what}: {took / sets * 1e6:.1f} us a set, {size / sets:.0f} bytes on disk", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000)
