"""
L{darner.commands.moving}: from servers to others.
"""

from __future__ import annotations

import functools
import signal

from darner.client.blocking import Client
from test.commands.admin_http import NOW, AdminHTTP
from test.commands.harness import ProgramTestCase, lasting, until
from test.servers import PATIENCE, Server


@functools.cache
def other_server() -> Server:
    """@return: where items are moved to, for all tests of this process."""
    return Server(lasting)


class MoveTests(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.other = other_server()
        self.addCleanup(self.other.check_log)
        self.target = "{}:{}".format(*self.other.address)
        self.there = Client(self.target, timeout=PATIENCE)
        self.addCleanup(self.there.close)

    def moved(self, queue: str = "") -> list[bytes]:
        return [item.payload for item in self.there.get_many(queue or self.queue, 1_000_000)]

    def test_all(self) -> None:
        """In their order, with their flags."""
        payloads = [b"%d" % number for number in range(200)]
        self.client.put_many(self.queue, payloads, flags=3)
        said = self.well("move", self.queue, "--to", self.target)
        self.assertEqual(said, f"200 items moved to {self.queue} at {self.target}\n")
        self.assertEqual(self.items(), [])
        item = self.there.get(self.queue)
        self.assertTrue(item is not None and (item.payload, item.flags) == (b"0", 3))
        self.assertEqual(self.moved(), payloads[1:])

    def test_none(self) -> None:
        self.assertTrue(self.well("move", self.queue, "--to", self.target).startswith("0 items moved"))

    def test_so_many(self) -> None:
        self.client.put_many(self.queue, [b"a", b"b", b"c"])
        done = self.call("move", self.queue, "--to", self.target, "-n", "2", "--as", self.queue + "_2", "--json")
        self.assertEqual(done.json, {"moved": 2})
        self.assertEqual((self.items(), self.moved(self.queue + "_2")), ([b"c"], [b"a", b"b"]))

    def test_many_at_a_time(self) -> None:
        payloads = [b"%d" % number for number in range(300)]
        self.client.put_many(self.queue, payloads)
        self.well("move", self.queue, "--to", self.target, "-c", "8", "--sync")
        self.assertEqual(sorted(self.moved()), sorted(payloads))

    def test_follow(self) -> None:
        process = self.start("move", self.queue, "--to", self.target, "--follow")
        self.client.put(self.queue, b"x")
        item = self.there.get(self.queue, timeout=PATIENCE)
        self.assertEqual(item.payload if item is not None else None, b"x")
        until(lambda: self.client.stats().queues[self.queue].open_transactions == 0, "it is gone here")
        self.has_heard(process)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=PATIENCE)
        self.assertEqual((process.returncode, errors), (130, b"darner: interrupted\n"))
        self.assertIn(b"1 item moved", out)

    def test_refused(self) -> None:
        """What is not taken there stays here."""
        self.there.set_status("readonly")
        self.addCleanup(self.there.set_status, "up")
        self.client.put_many(self.queue, [b"a", b"b"])
        done = self.fails(1, "readonly", "move", self.queue, "--to", self.target, "--timeout", "1")
        self.assertEqual(done.out, b"")
        self.assertEqual(self.items(), [b"a", b"b"])

    def test_unreachable(self) -> None:
        self.client.put(self.queue, b"a")
        self.fails(4, "no connection to 127.0.0.1:1", "move", self.queue, "--to", "127.0.0.1:1")
        self.assertEqual(self.items(), [b"a"])

    def test_onto_itself(self) -> None:
        self.client.put(self.queue, b"a")
        self.fails(1, "is on both sides", "move", self.queue, "--to", self.address)
        self.well("move", self.queue, "--to", self.address, "--as", self.queue + "_2")
        self.assertEqual(self.items(self.queue + "_2"), [b"a"])

    def test_from_a_fleet(self) -> None:
        """What several servers have comes together on one."""
        self.client.put(self.queue, b"a")
        self.there.put(self.queue, b"b")
        fleet, target = f"{self.address},{self.target}", self.queue + "_2"
        self.well("-s", fleet, "move", self.queue, "--to", self.target, "--as", target)
        self.assertEqual(sorted(self.moved(target)), [b"a", b"b"])

    def test_copy(self) -> None:
        """They stay where they are."""
        admin = AdminHTTP(self)
        for number in range(250):
            admin.put("jobs", b"%d" % number, flags=1)
        admin.put("jobs", b"x" * 10_000, expires=NOW + 3_600_000)
        admin.gone.add(admin.put("jobs", b"y" * 10_000))
        admin.put("jobs", b"old", expires=5)
        admin.put("jobs", b"new", time=NOW + 1)
        said = self.well("--http", admin.url, "copy", "jobs", "--to", self.target, "--as", self.queue)
        self.assertEqual(said, f"251 items copied to {self.queue} at {self.target}\n")
        self.assertEqual(self.moved(), [*(b"%d" % number for number in range(250)), b"x" * 10_000])
        self.well("--http", admin.url, "copy", "jobs", "--to", self.target, "--as", self.queue, "-n", "205")
        self.assertEqual(len(self.moved()), 205)
        self.fails(2, "copy needs the admin HTTP", "copy", "jobs", "--to", self.target)
