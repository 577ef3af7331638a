"""
Tests of `darner.migrate.online`: into running servers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Optional

from twisted.trial.unittest import SynchronousTestCase

from darner.client.blocking import Client
from darner.errors import DarnerError, QueueFull, StoreError
from darner.migrate import online
from darner.migrate.importing import ImportRefused, run_import
from darner.migrate.online import ServerImport
from darner.migrate.report import Report
from darner.migrate.sources import Findings, Source, SourceItem
from test.migrate.test_offline import GivenQueue, GivenSource, item, torn
from test.servers import Server, make_directory

CONFIG = """
[queues."*"]
dedupe_window = "1d"
[queues.none]
dedupe_window = "none"
[queues.small]
max_items = 3
"""
CENTURY = 100 * 365 * 24 * 3600


class OnlineCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.servers: list[Server] = []
        self.places: list[str] = []
        self.start()

    def start(self) -> None:
        directory = make_directory(self)
        (directory / "config").write_text(CONFIG)
        options = ("--port=0", f"--data-dir={directory / 'data'}", f"--config={directory / 'config'}")
        self.servers.append(Server(self, *options, directory=directory))
        self.places.append(f"127.0.0.1:{self.servers[-1].address[1]}")

    def put(self, source: Source, servers: int = 1, timeout: float = 60.0) -> Report:
        now = time.time()
        with closing(ServerImport(self.places[:servers], time.time, timeout=timeout)) as destination:
            return run_import(source, destination, int(now * 1000))

    def taken(self, server: int = 0, queue: str = "q") -> list[bytes]:
        with Client(self.places[server]) as client:
            return [item.payload for item in iter(lambda: client.get(queue), None)]

    def figure(self, name: str, server: int = 0, queue: str = "q") -> Optional[str]:
        with Client(self.places[server]) as client:
            return client.dump_stats(queue)[queue].get(name)


class OnlineTests(OnlineCase):
    def test_items(self) -> None:
        """Of what cannot be read nothing is put, large or small."""
        now = int(time.time() * 1000)
        payloads = [b"a", b"", b"x" * 300_000, bytes(range(256)) * 40, b"last"]
        report = self.put(GivenSource(GivenQueue(b"q", [
            *map(item, payloads), item(b"expired", expiry=5), item(b"later", expiry=now + CENTURY),
            item(b"delayed", due=now + CENTURY), item(b"due", due=5), torn(b"small", 9), torn(b"c" * 200_000, 400_000),
            item(b"d" * 400_000),
        ])))  # fmt: skip
        self.assertEqual(self.figure("delayed"), "1")
        self.assertEqual(self.taken(), [*payloads, b"later", b"due", b"d" * 400_000])
        self.assertEqual((report.items, report.queues[0].expired, report.queues[0].lost), (9, 1, 2))

    def test_again(self) -> None:
        """Also where the first run was interrupted, and where some items were taken meanwhile."""
        items = [item(b"%d" % i * (1 if i % 50 else 90_000)) for i in range(1, 1200)]

        class Broken(GivenQueue):
            def items(self, findings: Findings) -> Iterator[SourceItem]:
                yield from items[:700]
                raise StoreError("the source fails")

        self.assertRaises(StoreError, self.put, GivenSource(Broken(b"q", [])))
        with Client(self.places[0]) as client:
            first = [item.payload for item in client.get_many("q", 100)]
        self.put(GivenSource(GivenQueue(b"q", items)))
        self.assertEqual([*first, *self.taken()], [b"".join(item.pieces) for item in items])
        self.put(GivenSource(GivenQueue(b"q", items), place="there"))
        self.assertEqual(self.taken(), [])

    def test_several_servers(self) -> None:
        """Each gets a part, and the same one again."""
        self.start()
        self.patch(online, "_AT_ONCE", 10)
        items = [item(b"%d" % i) for i in range(100)]
        for _ in range(2):
            self.put(GivenSource(GivenQueue(b"q", items)), 2)
            self.places.reverse()
        found = [self.taken(0), self.taken(1)]
        self.assertEqual(list(map(len, found)), [50, 50])
        self.assertEqual(sorted(found[0] + found[1]), sorted(b"%d" % i for i in range(100)))

    def test_refused(self) -> None:
        """The import ends with what the server says; what was put before is not put again."""
        source = GivenSource(GivenQueue(b"small", [item(b"%d" % i) for i in range(5)]))
        self.assertRaises(QueueFull, self.put, source)
        self.assertEqual(self.taken(queue="small"), [b"0", b"1", b"2"])
        self.put(source)
        self.assertEqual(self.taken(queue="small"), [b"3", b"4"])


class RefusalTests(OnlineCase):
    """What is refused before anything is put."""

    def refusal(self, *names: bytes) -> str:
        source = GivenSource(*(GivenQueue(name, [item(b"a")]) for name in names))
        return str(self.assertRaises(ImportRefused, self.put, source))

    def test_queues(self) -> None:
        """
        Without a window an import that is begun again would put items twice; and what is put on a queue comes to its
        children as well, also to those that are there already.
        """
        self.assertIn('[queues."none"] dedupe_window = "1d"', self.refusal(b"a", b"none"))
        self.assertEqual(self.taken(queue="a"), [])
        self.assertIn("queue a has children (fan-out)", self.refusal(b"a", b"a+b"))
        with Client(self.places[0]) as client:
            client.put("c+d", b"")
        self.assertIn("queue c has children (fan-out)", self.refusal(b"c"))

    def test_servers(self) -> None:
        self.assertRaises(ImportRefused, ServerImport, ["host:port"], time.time)
        self.servers[0].stop()
        self.assertRaises(DarnerError, self.put, GivenSource(), timeout=0.1)
