"""
L{darner.commands.admin} with the admin HTTP of a real server, where this darner has one.
"""

from __future__ import annotations

import importlib.util
import re
import threading

from darner.client.blocking import Client
from darner.commands.archive import Reader
from test.commands.harness import Done, ProgramTestCase, call, until
from test.servers import PATIENCE, Server

if importlib.util.find_spec("darner.web") is not None:

    class RealAdminTests(ProgramTestCase):
        def setUp(self) -> None:
            super().setUp()
            self.own = Server(self, "--port=0", "--http-port=0", f"--data-dir={self.directory}/data")
            self.address = "{}:{}".format(*self.own.address)
            self.client = Client(self.address, timeout=PATIENCE)
            self.addCleanup(self.client.close)
            found = re.search(r"http://127\.0\.0\.1:\d+", self.own.text)
            self.url = found[0] if found is not None else ""

        def ask(self, *arguments: str) -> Done:
            done = call("-s", self.address, "--http", self.url, *arguments)
            self.assertEqual((done.status, done.errors), (0, ""), done)
            return done

        def test_browse(self) -> None:
            """Items of each state, and what is said of them; nothing is consumed."""
            self.client.put_many("jobs", [b"%d" % number for number in range(300)], flags=3)
            self.client.put("jobs", b"later", delay=3600)
            self.client.put("jobs", bytes(range(256)) * 100)
            items = self.ask("browse", "jobs", "-n", "1000", "--json").json["items"]
            self.assertEqual([item.get("payload") for item in items[:300]], [str(number) for number in range(300)])
            self.assertEqual((items[0]["flags"], items[300]["size"], items[300]["truncated"]), (3, 25600, True))
            (later,) = self.ask("browse", "jobs", "--state", "delayed", "--json").json["items"]
            self.assertEqual(later["payload"], "later")
            behind = self.ask("browse", "jobs", "--from", items[299]["id"], "--json").json["items"]
            self.assertEqual([item["id"] for item in behind], [items[299]["id"], items[300]["id"]])
            self.assertEqual(self.client.stats().queues["jobs"].items, 301)

        def test_clients(self) -> None:
            read = None
            self.client.put("jobs", b"x")
            read = self.client.open("jobs")
            assert read is not None
            self.addCleanup(read.close)
            clients = self.ask("clients", "--json").json
            self.assertIn(1, [client["open_reads"] for client in clients])
            self.assertIn("protocol", self.ask("clients").text)

        def test_copy(self) -> None:
            self.client.put_many("jobs", [b"1", b"2" * 10_000], expiry=3600, flags=4)
            self.ask("copy", "jobs", "--to", self.address, "--as", "copied")
            (first, second) = self.ask("browse", "copied", "--json").json["items"]
            self.assertEqual((first["payload"], first["flags"], second["size"]), ("1", 4, 10_000))
            self.assertIsNotNone(first["expires"])
            self.assertEqual(self.client.stats().queues["jobs"].items, 2)

        def test_export(self) -> None:
            """
            While others put and take: what was there before and is there afterwards is in the file.

            They leave some of it, however long the export takes to begin.
            """
            self.client.put_many("jobs", [b"%d" % number for number in range(3000)])
            self.client.put("jobs", b"x" * 100_000, expiry=3600)
            self.client.put("jobs", b"later", delay=3600)
            stop = threading.Event()

            def others() -> None:
                with Client(self.address, timeout=PATIENCE) as client:
                    taken = 0
                    while not stop.is_set():
                        client.put("jobs", b"new")
                        if taken < 2000:
                            taken += len(client.get_many("jobs", 20))

            working = threading.Thread(target=others)
            working.start()
            until(lambda: self.client.stats().queues["jobs"].items < 3000, "others are at work")
            path = self.directory / "file"
            try:
                self.ask("export", "--all", "-o", str(path))
            finally:
                stop.set()
                working.join()
            left = [item.payload for item in self.client.get_many("jobs", 1_000_000)]
            with path.open("rb") as file:
                found = [(record, b"".join(payload)) for record, payload in Reader(file).records()]
            payloads = [payload for _, payload in found]
            self.assertEqual(set(left) - {b"new"} - set(payloads), set())
            numbers = [int(payload) for payload in payloads if payload.isdigit()]
            self.assertEqual(numbers, sorted(set(numbers)))
            self.assertEqual(payloads[-1], b"later")
            self.assertTrue(found[-1][0].due)
            for length in (path.stat().st_size // 2, path.stat().st_size - 10):
                path.write_bytes(path.read_bytes()[:length])
                self.ask("export", "--all", "--resume", "-o", str(path))
            with path.open("rb") as file:
                reader = Reader(file)
                self.assertEqual(len(list(reader.records())), reader.items)
                self.assertTrue(reader.complete)
