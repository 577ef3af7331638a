"""Tests of `darner.front.reports`: statistics and settings of many queues are made in pieces."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from darner.front import memcache
from darner.front.outbox import PIECES, Report
from darner.front.reports import COUNTED, QUEUES
from test.harness import Server

MANY = COUNTED + 10 * QUEUES + 3


class ReportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.client = self.server.client()
        self.other = self.server.client()
        for number in range(MANY):
            self.other.set(b"q%05d" % number, b"xy")
        self.server.commit()
        self.other.hears()

    def step(self) -> None:
        """Let one turn of the event loop pass."""
        call = self.server.clock.calls.pop(0)
        self.assertEqual(call.getTime(), self.server.clock.seconds())
        call.called = 1
        call.func(*call.args, **call.kw)

    def test_complete(self) -> None:
        for request, entry in ((b"stats", b"_create_time "), (b"dump_stats", b"queue '"), (b"dump_config", b"queue '")):
            said = self.client.does(request)
            self.assertEqual(said.count(entry), MANY)
            self.assertTrue(said.endswith(b"\r\n" + memcache.END))
            self.assertEqual(said.count(memcache.END), 1)
        said = self.client.does(b"stats")
        self.assertIn(b"STAT curr_items %d\r\n" % MANY, said)
        self.assertIn(b"STAT bytes %d\r\n" % (2 * MANY), said)
        names = [line[11:17] for line in said.splitlines() if line.startswith(b"STAT queue_q") and b"_items" in line]
        self.assertEqual(list(dict.fromkeys(names)), self.server.queues.names())

    def test_a_bounded_number_in_a_turn(self) -> None:
        for request in (b"stats", b"dump_stats", b"dump_config"):
            self.client.ask(request)
            self.client.ask(b"version")
            most = 0
            said = b""
            while self.client.session.busy:
                self.other.ask(b"status")
                self.step()
                self.assertEqual(self.other.hears(), b"UP\r\n")
                written = b"".join(self.client.writes)
                told = {line.split(b"'")[-2] for line in written.splitlines() if line.startswith(b"queue '")}
                told |= {line[5:17] for line in written.splitlines() if line.startswith(b"STAT queue_q")}
                most = max(most, len(told))
                said += self.client.hears()
            self.assertEqual(most, PIECES * QUEUES)
            self.server.commit()
            said += self.client.hears()
            self.assertIn(memcache.END + b"VERSION ", said)

    def test_who_does_not_read_gets_no_more(self) -> None:
        self.client.ask(b"stats")
        self.step()
        self.client.session.choke()
        self.server.commit()
        said = self.client.hears()
        self.assertNotIn(memcache.END, said)
        self.server.clock.advance(60)
        self.assertEqual(self.client.hears(), b"")
        self.client.session.unchoke()
        self.server.commit()
        self.assertTrue(self.client.hears().endswith(memcache.END))

    def test_queues_that_come_and_go(self) -> None:
        self.client.ask(b"dump_stats")
        self.step()
        self.other.set(b"q00000+", b"x")
        self.other.set(b"r", b"x")
        for number in range(20, 500):
            self.other.ask(b"delete q%05d" % number)
        self.server.commit()
        said = self.client.hears()
        self.assertIn(b"queue 'r'", said)
        self.assertIn(b"queue 'q%05d'" % (MANY - 1), said)
        self.assertTrue(said.endswith(memcache.END))
        self.assertLess(said.count(b"queue '"), MANY)

    def test_the_client_goes(self) -> None:
        """Before the report begins, and in the middle of it."""
        for steps in (0, 3):
            client = self.server.client()
            client.ask(b"stats")
            for _ in range(steps):
                self.step()
            client.leave()
            self.server.commit()
            self.assertNotIn(memcache.END, client.hears())
            self.assertFalse(self.server.clock.getDelayedCalls())

    def test_few_are_told_of_in_one_write(self) -> None:
        """Some clients, such as one for node, cannot read statistics that arrive in pieces."""
        server = type(self.server)()
        client = server.client()
        for name in (b"", b"a", b"b"):
            if name:
                client.sets(name, b"x")
            for request in (b"stats", b"dump_stats", b"dump_config"):
                client.hears()
                client.ask(request)
                server.commit()
                self.assertEqual(len(client.writes), 1, request)
                self.assertTrue(client.writes[0].endswith(memcache.END))

    def test_done_once(self) -> None:
        done: list[str] = []
        report = Report(iter([b"x"]), lambda: done.append("done"))
        self.assertEqual([report.piece(), report.piece(), report.piece()], [b"x", None, None])
        report.cancel()
        self.assertEqual(done, ["done"])

    def test_many_are_asked_for(self) -> None:
        names = [b"q%05d" % number for number in range(3 * QUEUES)]
        for request in (b"dump_stats", b"dump_config"):
            said = self.client.does(b" ".join([request, *names, b"none"]))
            self.assertEqual(said.count(b"queue 'q"), len(names))
            self.assertEqual(said.count(b"queue 'none'"), request == b"dump_config")
            self.assertTrue(said.endswith(memcache.END))
