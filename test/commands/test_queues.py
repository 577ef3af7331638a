"""
L{darner.commands.queues}, L{darner.commands.figures} and L{darner.commands.states}: looking at servers and their
queues, and changing them.
"""

from __future__ import annotations

import json
import re
import threading

from bench.ports import reserve_port
from darner.client.blocking import Client
from test.commands.harness import ProgramTestCase, call, until
from test.servers import PATIENCE, Server, make_directory


class QueuesTests(ProgramTestCase):
    def test_list(self) -> None:
        self.client.put_many(self.queue, [b"x" * 600, b"y" * 600])
        self.client.put(self.queue + "_2", b"later", delay=3600)
        lines = self.well("queues", self.queue + "*").splitlines()
        self.assertEqual(" ".join(lines[0].split()), "queue items bytes open delayed aside waiters oldest put")
        row = lines[1].split()
        self.assertEqual((row[:5], row[-1]), ([self.queue, "2", "1.2", "KiB", "0"], "2"))
        self.assertEqual(lines[2].split()[:6], [self.queue + "_2", "0", "0", "B", "0", "1"])
        self.assertEqual(len({len(line) for line in lines}), 1, "the last column is to the right")
        found = self.call("queues", self.queue, "--json").json
        self.assertEqual([(row["queue"], row["items"], row["bytes"]) for row in found], [(self.queue, 2, 1200)])

    def test_sorted(self) -> None:
        for length, name in ((1, "a"), (3, "b"), (2, "c")):
            self.client.put_many(f"{self.queue}_{name}", [b"x"] * length)
        rows = self.call("queues", self.queue + "_*", "--sort", "items", "--json").json
        self.assertEqual([row["items"] for row in rows], [3, 2, 1])

    def test_none(self) -> None:
        self.assertEqual(self.well("queues", "nothing_is_called_so"), "")
        self.assertEqual(self.call("queues", "nothing_is_called_so", "--json").json, [])

    def test_stats(self) -> None:
        self.client.put(self.queue, b"x")
        header, row = self.well("stats").splitlines()
        self.assertEqual(header.split()[:4], ["server", "status", "items", "bytes"])
        self.assertEqual(row.split()[:2], [self.address, "up"])
        facts = self.call("stats", "--json").json[self.address]
        self.assertEqual((facts["status"], facts["queues"][self.queue]["items"]), ("UP", 1))
        self.assertIn("\ncurr_items ", self.well("stats", "--all"))
        self.assertIn("\nitems                  1\n", self.well("stats", self.queue))
        self.assertEqual(self.call("stats", self.queue, "--json").json[self.queue]["items"], 1)
        self.fails(2, "there is no queue x-y", "stats", "x-y")

    def test_watch(self) -> None:
        """Below each other where no terminal is, with rates from the second on."""
        lines = self.well("stats", "--watch", "--interval", "0.1", "-n", "3").splitlines()
        self.assertEqual([line.split()[0] for line in lines], ["server", self.address] * 3)
        self.assertEqual([len(re.split(" {2,}", line)) for line in lines[1::2]], [8, 10, 10])
        lines = self.well("stats", "--watch", "--interval", "0.1", "-n", "2", "--json").splitlines()
        self.assertEqual([list(json.loads(line)["servers"]) for line in lines], [[self.address]] * 2)
        self.fails(2, "--count is for --watch", "stats", "-n", "3")
        self.fails(2, "--watch shows all queues", "stats", "--watch", "q")

    def test_flush(self) -> None:
        self.client.put_many(self.queue, [b"a", b"b"])
        self.assertEqual(self.well("flush", self.queue), "dropped 2 items\n")
        self.assertEqual(self.items(), [])
        self.assertEqual(self.call("flush", "--expired", self.queue, "--json").json, {"dropped": 0})
        self.assertEqual(self.well("flush", "--expired", "--all"), "0 expired items dropped\n")
        self.fails(2, "name queues, or --all", "flush")
        self.fails(2, "name no queue", "flush", "q", "--all")

    def test_delete(self) -> None:
        self.client.put(self.queue, b"a")
        self.assertEqual(self.well("delete", self.queue, "nothing"), f"deleted {self.queue}, nothing, with 1 item\n")
        self.assertNotIn(self.queue, self.client.stats().queues)

    def test_requeue(self) -> None:
        target = self.queue + "_2"
        self.client.put_many(self.queue, [b"a", b"b", b"c"])
        self.assertEqual(
            self.well("requeue", self.queue, target, "-n", "2"), f"2 items moved from {self.queue} to {target}\n"
        )
        self.assertEqual(self.call("requeue", self.queue, target, "--json").json, {"moved": 1})
        self.assertEqual(self.items(target), [b"a", b"b", b"c"])
        self.assertEqual(self.call("requeue", self.queue, self.queue).status, 1)


class StatusTests(ProgramTestCase):
    """What changes the whole server has servers of its own."""

    def setUp(self) -> None:
        super().setUp()
        directory = make_directory(self)
        self.own = Server(
            self, f"--port={reserve_port()}", f"--data-dir={directory / 'data'}", directory=directory
        )  # fmt: skip
        self.address = "{}:{}".format(*self.own.address)
        self.client = Client(self.address, timeout=PATIENCE)
        self.addCleanup(self.client.close)

    def test_flush_all(self) -> None:
        self.client.put("a", b"1")
        self.client.put("b", b"2")
        self.fails(2, "there is nobody to ask", "flush", "--all")
        self.assertEqual(self.well("flush", "--all", "--yes"), "dropped 2 items\n")
        self.assertEqual(self.items("a"), [])

    def test_status(self) -> None:
        self.assertEqual(self.well("status"), "up\n")
        self.assertEqual(self.well("status", "readonly"), "readonly\n")
        self.assertEqual(self.call("status", "--json").json, {self.address: "readonly"})
        self.fails(1, "readonly", "put", "q", "x")
        self.fails(2, "'down' is not one of", "status", "down")

    def test_of_several(self) -> None:
        """What some of them cannot be asked is told, and ends it badly; the others have done it."""
        done = call("-s", f"{self.address},127.0.0.1:1", "status", "quiescent")
        self.assertEqual((done.status, self.client.status()), (4, "QUIESCENT"), done)
        self.assertEqual(done.errors.splitlines(), [
            "darner: no connection to 127.0.0.1:1: Connection refused",
            "darner: 1 of 2 servers have not done it",
        ])  # fmt: skip
        self.assertIn(f"{self.address}  quiescent\n", done.text)

    def test_drain(self) -> None:
        """It waits for what is open, too, and nothing is taken meanwhile."""
        self.client.put_many("jobs", [b"1", b"2"])
        read = self.client.open("jobs")
        assert read is not None
        process = self.start("drain")
        until(lambda: self.client.status() == "READONLY", "nothing is taken")
        self.fails(1, "readonly", "put", "jobs", "x")
        self.assertEqual(self.well("get", "jobs"), "2\n")
        self.assertIsNone(process.poll())
        read.close()
        out, errors = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, errors), (0, b""))
        self.assertRegex(out.decode(), r"^empty after [\d.]+ s: 2 items; the servers are readonly\n$")

    def test_drain_some(self) -> None:
        self.client.put("other", b"1")
        self.assertTrue(self.call("drain", "jobs", "--json").json["empty"])

    def test_drain_with_a_limit(self) -> None:
        self.client.put("jobs", b"1")
        self.fails(1, "1 item left after", "drain", "--limit", "0.05")
        self.assertEqual(self.items("jobs"), [b"1"])

    def test_watch_a_server_that_goes(self) -> None:
        """It is still in the list, and its figures are there again when it is."""
        terminal = self.terminal("stats", "--watch", "--interval", "0.1", columns=110)
        terminal.sees(lambda lines: any(self.address in line and " up " in line for line in lines))
        self.own.kill()
        terminal.sees(lambda lines: any(self.address in line and " unreachable" in line for line in lines))
        self.assertFalse(any("no connection" in line for line in terminal.lines))
        self.own.start()
        terminal.sees(lambda lines: any(self.address in line and " up " in line for line in lines))
        terminal.type("\x03")
        self.assertEqual(terminal.wait(), 130)

    def test_server_that_comes_back(self) -> None:
        """Who follows a queue does so through a restart."""
        process = self.start("get", "jobs", "--follow")
        assert process.stdout is not None
        until(lambda: self.client.stats().figures.get("waiters") == "1", "it waits")
        self.own.kill()
        self.own.start()
        putting = threading.Thread(target=lambda: self.client.put("jobs", b"x", timeout=PATIENCE))
        putting.start()
        self.addCleanup(putting.join)
        self.assertEqual(process.stdout.readline(), b"x\n")
