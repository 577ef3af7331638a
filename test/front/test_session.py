"""One client's dealings with the queues: `darner.front.session`."""

from __future__ import annotations

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

import darner
from darner.front import memcache, memcache_requests
from darner.net.log_limits import PERIOD
from darner.values import requests
from darner.values.vocabulary import CHUNK_BYTES
from test.harness import REFUSED, Client, Server, value

TOO_MANY = b"CLIENT_ERROR close current item first\r\n"
UNREADABLE = b"SERVER_ERROR unreadable\r\n"
LARGE = bytes(range(256)) * 1000


class SessionTestCase(SynchronousTestCase):
    max_open_reads = 1

    def setUp(self) -> None:
        self.server = Server(max_open_reads=self.max_open_reads, max_item_bytes=1_000_000)
        self.store = self.server.store
        self.a = self.server.client()
        self.b = self.server.client()

    def restart_unreadable(self) -> None:
        """Nothing is in memory, and nothing can be read."""
        self.server.start()
        self.a = self.server.client()
        self.b = self.server.client()
        self.store.unreadable = True

    def check(self, client: Client, line: bytes, reply: bytes) -> None:
        self.assertEqual((line, client.does(line)), (line, reply))


class QuietTests(SessionTestCase):
    """With C{noreply}, a refusal gets no reply either."""

    def test_refused(self) -> None:
        client = self.server.client()
        client.does(b"status readonly")
        self.assertEqual(client.does(b"delete q noreply"), b"")
        self.assertEqual(client.does(b"delete q"), b"SERVER_ERROR server is readonly\r\n")


class GetTests(SessionTestCase):
    def test_set_and_get(self) -> None:
        self.assertEqual(self.a.sets(b"q", b"one", flags=7), memcache.STORED)
        self.assertEqual(self.a.sets(b"q", b"", end=b" noreply"), b"")
        self.check(self.b, b"get q", value(b"q", b"one", 7))
        self.check(self.b, b"get q", value(b"q", b""))
        self.check(self.b, b"get q", memcache.END)

    def test_reads_make_no_queue(self) -> None:
        for line in (b"get q", b"get q/open", b"get q/close", b"get q/abort", b"get q/peek", b"get q r", b"flush q"):
            self.check(self.a, line, memcache.END)
        self.check(self.a, b"delete q", memcache.DELETED)
        self.assertEqual(self.server.queues.names(), [])

    def test_the_key_as_it_was_sent(self) -> None:
        self.a.sets(b"q", b"1")
        client = self.server.client(memcache.MEMCACHE)
        self.check(client, b"get q/peek", value(b"q/peek", b"1"))
        self.check(client, b"get q/t=10/open", value(b"q/t=10/open", b"1"))
        self.check(client, b"get q/close/open", memcache.END)

    def test_peek(self) -> None:
        self.a.sets(b"q", b"1")
        self.check(self.a, b"get q/peek", value(b"q", b"1"))
        self.check(self.a, b"get q/open", value(b"q", b"1"))
        self.check(self.a, b"get q/peek", memcache.END)
        figures = self.server.queues.figures("")
        self.assertEqual((figures["cmd_peek"], figures["cmd_get"], figures["get_hits"]), (2, 1, 1))
        self.assertEqual(figures["get_misses"], 0)

    def test_several_queues(self) -> None:
        self.a.sets(b"q", b"1")
        self.a.sets(b"q", b"2")
        self.a.sets(b"r", LARGE)
        self.a.sets(b"s", b"4")
        reply = value(b"q", b"1", end=b"") + value(b"r", LARGE, end=b"") + value(b"s", b"4")
        self.check(self.a, b"get q none r q s", reply)
        self.check(self.a, b"get r s", memcache.END)
        figures = self.server.queues.figures("")
        self.assertEqual((figures["cmd_get"], figures["get_hits"], figures["get_misses"]), (6, 3, 3))

    def test_several_queues_of_which_one_is_open(self) -> None:
        self.a.sets(b"q", b"1")
        self.a.sets(b"r", b"2")
        self.a.does(b"get q/open")
        self.check(self.a, b"get r q", TOO_MANY)
        self.check(self.b, b"get q r", value(b"r", b"2"))

    def test_what_cannot_be_read(self) -> None:
        self.a.sets(b"q", b"1")
        self.restart_unreadable()
        self.check(self.a, b"get q", UNREADABLE)
        self.check(self.a, b"get q/open", UNREADABLE)
        self.check(self.a, b"get q/t=10", UNREADABLE)
        self.store.unreadable = False
        self.check(self.a, b"get q", value(b"q", b"1"))

    def test_what_cannot_be_read_of_several_queues(self) -> None:
        """Items that were read are handed out, and the error replaces C{END}."""
        self.a.sets(b"q", b"1")
        self.restart_unreadable()
        self.a.sets(b"r", b"2")
        self.check(self.a, b"get r q none", value(b"r", b"2", end=b"") + UNREADABLE)


class OpenTests(SessionTestCase):
    def setUp(self) -> None:
        super().setUp()
        for payload in (b"1", b"2", b"3"):
            self.a.sets(b"q", payload)

    def test_close(self) -> None:
        self.check(self.a, b"get q/open", value(b"q", b"1"))
        self.check(self.a, b"get q/close", memcache.END)
        self.check(self.a, b"get q/close", memcache.END)
        self.a.leave()
        self.check(self.b, b"get q", value(b"q", b"2"))

    def test_close_and_open(self) -> None:
        for payload in (b"1", b"2", b"3"):
            self.check(self.a, b"get q/close/open", value(b"q", payload))
        self.check(self.a, b"get q/close/open", memcache.END)
        self.a.leave()
        self.check(self.b, b"get q", memcache.END)

    def test_abort(self) -> None:
        self.check(self.a, b"get q/open", value(b"q", b"1"))
        self.check(self.b, b"get q", value(b"q", b"2"))
        self.check(self.a, b"get q/abort", memcache.END)
        self.check(self.a, b"get q/abort", memcache.END)
        self.check(self.b, b"get q", value(b"q", b"1"))

    def test_one_open_read_for_a_queue(self) -> None:
        self.check(self.a, b"get q/open", value(b"q", b"1"))
        self.check(self.a, b"get q/open", TOO_MANY)
        self.check(self.a, b"get q", TOO_MANY)
        self.check(self.a, b"get q/t=10", TOO_MANY)
        self.assertFalse(self.a.session.busy)
        self.check(self.b, b"get q/open", value(b"q", b"2"))

    def test_the_client_goes_away(self) -> None:
        self.a.sets(b"r", b"4")
        self.a.does(b"get q/open")
        self.a.does(b"get r/open")
        self.a.leave()
        self.a.leave()
        self.check(self.b, b"get q", value(b"q", b"1"))
        self.check(self.b, b"get r", value(b"r", b"4"))
        self.check(self.b, b"get q", value(b"q", b"2"))

    def test_after_a_flush_it_is_still_open(self) -> None:
        self.a.does(b"get q/open")
        self.check(self.b, b"flush q", memcache.END)
        self.check(self.a, b"get q", TOO_MANY)
        self.check(self.a, b"get q/abort", memcache.END)
        self.check(self.b, b"get q", value(b"q", b"1"))
        self.check(self.b, b"get q", memcache.END)

    def test_after_a_delete_it_has_nowhere_to_go_back_to(self) -> None:
        self.a.does(b"get q/open")
        self.check(self.b, b"delete q", memcache.DELETED)
        self.check(self.a, b"get q", memcache.END)
        self.b.sets(b"q", b"new")
        self.check(self.a, b"get q/open", value(b"q", b"new"))
        self.check(self.a, b"get q/close", memcache.END)
        self.check(self.b, b"get q", memcache.END)

    def test_an_open_read_of_what_is_then_refused(self) -> None:
        self.store.broken = 1
        self.a.set(b"r", b"4")
        self.b.ask(b"get r/open")
        self.server.commit()
        self.assertEqual((self.a.hears(), self.b.hears()), (REFUSED, REFUSED))
        self.check(self.b, b"get r", memcache.END)
        self.a.sets(b"r", b"5")
        self.check(self.b, b"get r/close/open", value(b"r", b"5"))


class SeveralOpenReadsTests(SessionTestCase):
    max_open_reads = 3

    def setUp(self) -> None:
        super().setUp()
        for payload in (b"1", b"2", b"3", b"4"):
            self.a.sets(b"q", payload)

    def test_as_many_as_are_allowed(self) -> None:
        for payload in (b"1", b"2", b"3"):
            self.check(self.a, b"get q/open", value(b"q", payload))
        self.check(self.a, b"get q/open", TOO_MANY)
        self.check(self.a, b"get q", TOO_MANY)
        self.check(self.a, b"get q/close/open", value(b"q", b"4"))

    def test_the_oldest_is_closed_first(self) -> None:
        for _ in range(3):
            self.a.does(b"get q/open")
        self.check(self.a, b"get q/close", memcache.END)
        self.a.leave()
        for payload in (b"2", b"3", b"4"):
            self.check(self.b, b"get q", value(b"q", payload))

    def test_one_that_was_refused_does_not_count(self) -> None:
        """Also where it stands between others."""
        self.a.does(b"flush q")
        self.a.sets(b"q", b"5")
        self.a.sets(b"q", b"6")
        self.check(self.a, b"get q/open", value(b"q", b"5"))
        six = self.server.client()
        six.does(b"get q/open")
        self.store.broken = 1
        self.b.set(b"q", b"refused")
        self.a.ask(b"get q/open")
        self.server.commit()
        self.assertEqual(self.a.hears(), REFUSED)
        six.leave()
        self.check(self.a, b"get q/open", value(b"q", b"6"))
        self.b.sets(b"q", b"7")
        self.check(self.a, b"get q/open", value(b"q", b"7"))
        self.b.sets(b"q", b"8")
        self.check(self.a, b"get q/open", TOO_MANY)


class WaitTests(SessionTestCase):
    def test_served_in_the_order_in_which_they_came(self) -> None:
        clients = [self.server.client() for _ in range(3)]
        for client in clients:
            self.check(client, b"get q/t=1000", b"")
        for payload in (b"1", b"2", b"3"):
            self.a.set(b"q", payload)
        self.server.commit()
        self.assertEqual([client.hears() for client in clients], [value(b"q", b"%d" % n) for n in (1, 2, 3)])
        self.assertEqual(self.server.queues.queue_figures(b"q")["waiters"], 0)

    def test_in_vain(self) -> None:
        self.check(self.a, b"get q/t=1000", b"")
        self.assertTrue(self.a.session.busy)
        self.server.clock.advance(0.999)
        self.assertEqual(self.a.hears(), b"")
        self.server.clock.advance(0.001)
        self.server.commit()
        self.assertEqual(self.a.hears(), memcache.END)
        self.assertFalse(self.a.session.busy)
        self.assertIsNone(self.server.queues.find(b"q"))
        self.assertEqual(self.server.queues.figures("")["get_misses"], 1)

    def test_the_time_is_no_longer_measured_once_it_is_served(self) -> None:
        self.a.does(b"get q/t=1000")
        self.b.sets(b"q", b"1")
        self.assertEqual(self.a.hears(), value(b"q", b"1"))
        self.server.clock.advance(10)
        self.assertEqual(self.a.hears(), b"")

    def test_commands_behind_a_wait_wait_too(self) -> None:
        self.a.ask(b"get q/t=1000")
        self.a.ask(b"get r")
        self.a.set(b"r", b"2")
        self.server.commit()
        self.assertEqual(self.server.figures(b"r"), (0, 0))
        self.b.sets(b"q", b"1")
        self.assertEqual(self.a.hears(), value(b"q", b"1") + memcache.END + memcache.STORED)

    def test_the_client_goes_away(self) -> None:
        """The next client gets the item."""
        self.a.does(b"get q/t=1000")
        self.b.does(b"get q/t=1000")
        self.a.leave()
        self.server.client().sets(b"q", b"1")
        self.assertEqual(self.b.hears(), value(b"q", b"1"))
        self.server.clock.advance(10)
        self.assertEqual(self.a.hears(), b"")

    def test_the_last_one_goes_away_and_nothing_stays(self) -> None:
        self.a.does(b"get q/t=1000")
        self.a.leave()
        self.assertIsNone(self.server.queues.find(b"q"))

    def test_close_comes_before_the_wait(self) -> None:
        self.b.sets(b"q", b"1")
        self.a.does(b"get q/open")
        self.check(self.a, b"get q/close/open/t=1000", b"")
        self.a.leave()
        self.check(self.b, b"get q", memcache.END)

    def test_for_an_open_read(self) -> None:
        self.a.does(b"get q/open/t=1000")
        self.b.sets(b"q", b"1")
        self.assertEqual(self.a.hears(), value(b"q", b"1"))
        self.check(self.b, b"get q", memcache.END)
        self.a.leave()
        self.check(self.b, b"get q", value(b"q", b"1"))

    def test_who_hurries_waits_no_longer_and_is_told_so(self) -> None:
        self.check(self.a, b"get q/t=1000", b"")
        self.a.ask(b"get q/open/t=1000")
        self.a.ask(b"version")
        self.a.session.reads.hurry()
        self.server.commit()
        self.assertEqual(self.a.hears(), memcache.END * 2 + memcache.KESTREL.version(darner.__version__))
        self.check(self.a, b"get q/t=1000", memcache.END)
        self.b.sets(b"q", b"1")
        self.check(self.a, b"get q/t=1000", value(b"q", b"1"))
        self.server.clock.advance(2)
        self.server.commit()
        self.assertEqual(self.a.hears(), b"")

    def test_to_peek(self) -> None:
        self.a.does(b"get q/peek/t=1000")
        self.b.does(b"get q/t=1000")
        self.server.client().sets(b"q", b"1")
        self.assertEqual(self.a.hears(), value(b"q", b"1"))
        self.assertEqual(self.b.hears(), value(b"q", b"1"))
        self.check(self.a, b"get q/peek/t=1000", b"")
        self.server.clock.advance(1)
        self.server.commit()
        self.assertEqual(self.a.hears(), memcache.END)

    def test_for_what_is_given_back(self) -> None:
        self.a.sets(b"q", b"1")
        self.a.does(b"get q/open")
        self.b.does(b"get q/t=1000")
        self.a.leave()
        self.server.commit()
        self.assertEqual(self.b.hears(), value(b"q", b"1"))

    def test_through_delete_and_flush(self) -> None:
        self.b.sets(b"q", b"0")
        self.b.does(b"get q")
        self.a.does(b"get q/t=1000")
        self.check(self.b, b"flush q", memcache.END)
        self.check(self.b, b"delete q", memcache.DELETED)
        self.check(self.b, b"flush_all", memcache.FLUSHED_ALL)
        self.assertEqual(self.a.hears(), b"")
        self.b.sets(b"q", b"1")
        self.assertEqual(self.a.hears(), value(b"q", b"1"))

    def test_an_item_that_cannot_be_read_when_it_is_there(self) -> None:
        self.a.does(b"get q/t=1000")
        other = Server(self.store.store)
        other.client().sets(b"q", b"1")
        fifo = self.server.queues.find(b"q")
        assert fifo is not None
        state = next(self.store.recover())
        fifo.storage._begin(state, True)
        fifo.storage.number = state.number
        self.store.unreadable = True
        for waiter in list(fifo.waiters.line):
            waiter.serve()
        self.server.commit()
        self.assertEqual(self.a.hears(), UNREADABLE)
        self.assertFalse(self.a.session.busy)


class LargeItemTests(SessionTestCase):
    def test_in_and_out(self) -> None:
        for size in (CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 256_000):
            self.assertEqual(self.a.sets(b"q", LARGE[:size], flags=5), memcache.STORED)
            self.assertEqual(self.server.figures(b"q"), (1, size))
            self.check(self.a, b"get q", value(b"q", LARGE[:size], 5))
        self.server.clock.advance(1)
        self.assertEqual((self.store.store.chunks, self.store.store.unheld), ({}, set()))

    def test_over_the_limit(self) -> None:
        too_large = b"SERVER_ERROR object too large\r\n"
        self.assertEqual(self.a.sets(b"q", bytes(1_000_001)), too_large)
        self.assertEqual(self.a.sets(b"q", bytes(1_000_001), end=b" noreply"), b"")
        self.assertEqual(self.server.queues.names(), [])

    def test_a_client_that_does_not_read_gets_no_more_chunks(self) -> None:
        self.a.sets(b"q", LARGE)
        reader = SlowReader(self.server)
        reader.ask(b"get q")
        reader.ask(b"version")
        self.server.commit()
        received = b""
        while not received.endswith(b"END\r\n"):
            self.assertTrue(reader.session.busy)
            piece = reader.hears()
            self.assertTrue(0 < len(piece) <= CHUNK_BYTES + 100)
            received += piece
            reader.session.unchoke()
        self.assertEqual(received, value(b"q", LARGE))
        self.server.commit()
        self.assertEqual(reader.hears(), memcache.KESTREL.version(darner.__version__))

    def test_replies_behind_a_large_one_keep_their_order(self) -> None:
        self.a.sets(b"q", LARGE)
        reader = SlowReader(self.server)
        reader.ask(b"get q none")
        self.server.commit()
        reader.session.reply(b"next\r\n")
        self.server.commit()
        for _ in range(10):
            reader.session.unchoke()
        self.assertEqual(reader.hears(), value(b"q", LARGE) + b"next\r\n")

    def test_a_fast_reader_of_a_very_large_one_leaves_room_for_others(self) -> None:
        payload = LARGE * 3
        self.a.sets(b"q", payload)
        self.a.ask(b"get q")
        self.server.queues.commit.end()
        self.assertTrue(0 < len(b"".join(self.a.writes)) < len(payload))
        self.assertTrue(self.a.session.busy)
        self.server.commit()
        self.assertEqual(self.a.hears(), value(b"q", payload))
        self.assertFalse(self.a.session.busy)

    def test_the_reader_goes_away(self) -> None:
        """The item of a plain read is consumed and its chunks are reclaimed; no other client is delayed."""
        self.a.sets(b"q", LARGE)
        reader = SlowReader(self.server)
        reader.ask(b"get q")
        self.server.commit()
        reader.leave()
        reader.session.unchoke()
        self.server.clock.advance(1)
        self.assertEqual((self.store.store.chunks, self.store.store.unheld), ({}, set()))
        self.check(self.a, b"get q", memcache.END)

    def test_the_reader_of_an_open_read_goes_away(self) -> None:
        self.a.sets(b"q", LARGE)
        reader = SlowReader(self.server)
        reader.ask(b"get q/open")
        self.server.commit()
        reader.leave()
        self.check(self.a, b"get q", value(b"q", LARGE))

    def test_the_reader_goes_away_before_its_turn_ends(self) -> None:
        self.a.sets(b"q", LARGE)
        self.b.ask(b"get q/open")
        self.b.leave()
        self.check(self.a, b"get q", value(b"q", LARGE))
        self.assertEqual(self.b.hears(), b"")
        self.server.clock.advance(1)
        self.assertEqual(self.store.store.chunks, {})

    def test_flushed_and_deleted_while_it_is_read(self) -> None:
        for line in (b"flush q", b"delete q"):
            self.a.sets(b"q", LARGE)
            reader = SlowReader(self.server)
            reader.ask(b"get q")
            self.server.commit()
            self.a.does(line)
            self.server.clock.advance(2)
            for _ in range(10):
                reader.session.unchoke()
            self.assertEqual(reader.hears(), value(b"q", LARGE))
            self.server.clock.advance(2)
            self.assertEqual(self.store.store.chunks, {})

    def test_a_missing_chunk_cuts_the_connection(self) -> None:
        """A part of the item is sent, so closing the connection is the only way to report the error."""
        self.a.sets(b"q", LARGE)
        (chunks,) = self.store.store.chunks.values()
        del chunks[2]
        self.b.ask(b"get q")
        self.server.commit()
        self.assertTrue(self.b.aborted)
        said = self.b.hears()
        self.assertLess(len(said), len(LARGE))
        self.assertFalse(said.endswith(b"END\r\n"))
        self.b.leave()
        self.check(self.a, b"get q", memcache.END)

    def test_log_of_what_cannot_be_read(self) -> None:
        """Clients that read it again and again do not fill the log."""
        with capturedLogs() as logs:
            for _ in range(3):
                self.a.sets(b"q", LARGE)
                (chunks,) = self.store.store.chunks.values()
                del chunks[2]
                client = self.server.client()
                client.ask(b"get q")
                self.server.commit()
                self.assertTrue(client.aborted)
                client.leave()
                self.check(self.a, b"flush q", memcache.END)
                self.server.clock.pump([1] * 3)
            self.server.clock.advance(PERIOD)
        lines = [formatEvent(event) for event in logs if "cannot read a large item" in formatEvent(event)]
        self.assertEqual(len(lines), 2)
        self.assertIn("(2 more in the last", lines[1])

    def test_half_sent_when_the_queue_is_flushed_or_deleted(self) -> None:
        for line in (b"flush q", b"delete q", b"flush_all"):
            self.a.sets(b"q", b"old")
            request = memcache_requests.parse(b"set q 0 0 256000")
            assert isinstance(request, requests.Set)
            inflow = self.b.session.inflow()
            self.b.session.receive(inflow, LARGE[:200_000])
            self.server.commit()
            self.a.does(line)
            self.server.clock.advance(2)
            self.b.session.receive(inflow, LARGE[200_000:])
            self.b.session.put_flow(request, inflow)
            self.server.commit()
            self.assertEqual(self.b.hears(), memcache.STORED)
            self.check(self.a, b"get q", value(b"q", LARGE))

    def test_half_sent_when_the_client_goes_away(self) -> None:
        inflow = self.b.session.inflow()
        self.b.session.receive(inflow, LARGE[:200_000])
        self.server.commit()
        self.assertEqual(len(self.store.store.chunks), 1)
        inflow.abandon()
        self.b.leave()
        self.server.clock.advance(1)
        self.assertEqual((self.store.store.chunks, self.store.store.unheld), ({}, set()))
        self.assertEqual(self.server.queues.names(), [])

    def test_half_sent_when_the_process_ends(self) -> None:
        inflow = self.b.session.inflow()
        self.b.session.receive(inflow, LARGE[:200_000])
        self.server.commit()
        self.server.start()
        self.server.clock.advance(1)
        self.assertEqual((self.store.store.chunks, self.store.store.unheld), ({}, set()))

    def test_more_of_it_has_to_wait_while_a_thread_writes(self) -> None:
        self.server.holding = True
        self.a.set(b"q/sync", b"1")
        self.server.commit()
        self.assertTrue(self.b.session.congested)
        self.server.release()
        self.assertFalse(self.b.session.congested)

    def test_no_number_for_its_queue(self) -> None:
        """Its chunks, which are already written, are reclaimed."""
        request = memcache_requests.parse(b"set new 0 0 256000")
        assert isinstance(request, requests.Set)
        inflow = self.b.session.inflow()
        self.b.session.receive(inflow, LARGE)
        self.server.commit()
        self.store.numberless = True
        self.b.session.put_flow(request, inflow)
        self.server.clock.advance(1)
        self.assertEqual(self.b.hears(), b"SERVER_ERROR no numbers\r\n")
        self.assertEqual(self.store.store.chunks, {})

    def test_no_number_for_its_stream(self) -> None:
        self.a.sets(b"q", b"1")
        self.store.numberless = True
        self.assertEqual(self.a.sets(b"q", LARGE), b"SERVER_ERROR no numbers\r\n")
        self.assertEqual(self.a.sets(b"new", b"1"), b"SERVER_ERROR no numbers\r\n")
        self.assertEqual(self.a.sets(b"new", b"1", end=b" noreply"), b"")
        self.assertEqual(self.server.figures(b"q"), (1, 1))


class SlowReader(Client):
    """Takes nothing more once it was sent something, until its session is unchoked."""

    def write(self, data: bytes) -> None:
        super().write(data)
        self.session.choke()


class PipelineTests(SessionTestCase):
    def test_many_at_once_are_served_in_portions(self) -> None:
        """Replies come in order, and others get theirs in between."""
        for number in range(1000):
            self.a.set(b"q", b"%d" % number)
        self.assertTrue(self.a.session.busy)
        self.server.queues.commit.end()
        self.assertLess(len(self.a.hears()), 1000 * len(memcache.STORED))
        self.server.commit()
        self.assertEqual(self.server.figures(b"q"), (1000, 2890))
        self.a.hears()
        for _ in range(1000):
            self.a.ask(b"get q")
        self.server.commit()
        self.assertEqual(self.a.hears(), b"".join(value(b"q", b"%d" % number) for number in range(1000)))

    def test_a_client_that_does_not_read_is_not_served(self) -> None:
        self.a.session.choke()
        self.check(self.a, b"version", b"")
        self.a.session.unchoke()
        self.server.commit()
        self.assertEqual(self.a.hears(), memcache.KESTREL.version(darner.__version__))


class EndTests(SessionTestCase):
    def test_quit_while_a_thread_writes(self) -> None:
        """The connection is closed behind the answers of the turn that asks for that, not of one before."""
        self.server.holding = True
        self.a.set(b"q/sync", b"1")
        self.server.commit()
        self.a.set(b"q/sync", b"2")
        self.a.ask(b"quit")
        self.server.release()
        self.assertEqual((self.a.hears(), self.a.closed), (b"STORED\r\n", False))
        self.server.release()
        self.assertEqual((self.a.hears(), self.a.closed), (b"STORED\r\n", True))

    def test_quit(self) -> None:
        self.a.sets(b"q", b"1")
        self.a.ask(b"get q")
        self.a.ask(b"quit")
        self.a.ask(b"get q")
        self.server.commit()
        self.assertEqual(self.a.hears(), value(b"q", b"1"))
        self.assertTrue(self.a.closed)

    def test_a_line_after_which_nothing_can_be_understood(self) -> None:
        self.a.set(b"q", b"1")
        self.a.ask(b"set q 0 0 many")
        self.server.commit()
        self.assertEqual(self.a.hears(), memcache.STORED + b"CLIENT_ERROR bad command line format\r\n")
        self.assertTrue(self.a.closed)

    def test_a_line_that_is_refused(self) -> None:
        self.check(self.a, b"nonsense", memcache.ERROR)
        self.check(self.a, b"get q/peek/open", b"CLIENT_ERROR cannot open and peek\r\n")
        self.assertFalse(self.a.closed)

    def test_finish(self) -> None:
        self.a.set(b"q", b"1")
        self.a.session.finish()
        self.a.session.finish()
        self.a.ask(b"version")
        self.server.commit()
        self.assertEqual(self.a.hears(), memcache.STORED)
        self.assertTrue(self.a.closed)

    def test_finish_while_a_large_item_is_read(self) -> None:
        self.a.sets(b"q", LARGE)
        reader = SlowReader(self.server)
        reader.ask(b"get q")
        self.server.commit()
        reader.session.finish()
        self.server.commit()
        self.assertFalse(reader.closed)
        for _ in range(10):
            reader.session.unchoke()
        self.assertEqual(reader.hears(), value(b"q", LARGE))
        self.assertTrue(reader.closed)

    def test_going_away_in_the_middle_of_a_turn(self) -> None:
        """Puts are stored, plain reads are consumed, open reads are given back; nothing is sent."""
        for payload in (b"1", b"2", b"3"):
            self.b.sets(b"q", payload)
        self.a.set(b"q", b"4")
        self.a.ask(b"get r")
        self.a.ask(b"get q/open")
        self.a.leave()
        self.server.commit()
        self.assertEqual(self.a.hears(), b"")
        for payload in (b"1", b"2", b"3", b"4"):
            self.check(self.b, b"get q", value(b"q", payload))

    def test_going_away_when_a_reply_is_sent(self) -> None:
        class Fleeting(Client):
            def write(self, data: bytes) -> None:
                self.leave()

        self.a.sets(b"q", LARGE)
        client = Fleeting(self.server)
        client.ask(b"get q/open")
        self.server.commit()
        self.check(self.a, b"get q", value(b"q", LARGE))


class FiguresTests(SessionTestCase):
    def test_stats(self) -> None:
        self.server.clock.advance(3)
        self.a.sets(b"q", b"12345")
        self.a.sets(b"q", b"12345")
        self.a.does(b"get q")
        self.a.does(b"get q")
        self.a.does(b"get q")
        self.a.sets(b"r", b"123")
        lines = self.b.does(b"stats").split(b"\r\n")
        for line in (
            b"STAT uptime 3", b"STAT time 1700000003", b"STAT curr_items 1", b"STAT total_items 3", b"STAT bytes 3",
            b"STAT cmd_get 3", b"STAT cmd_set 3", b"STAT get_hits 2", b"STAT get_misses 1", b"STAT queue_creates 2",
            b"STAT queue_deletes 0", b"STAT queue_q_items 0", b"STAT queue_r_bytes 3", b"STAT queue_q_total_items 2",
        ):  # fmt: skip
            self.assertIn(line, lines)
        self.assertEqual(lines[-2:], [b"END", b""])

    def test_the_backlog_is_counted_and_deletions_are(self) -> None:
        self.a.sets(b"q", b"12345")
        self.a.sets(b"r", b"12345")
        self.server.restart()
        client = self.server.client()
        self.assertIn(b"STAT curr_items 2\r\n", client.does(b"stats"))
        client.does(b"delete r")
        client.does(b"delete none")
        said = client.does(b"stats")
        for line in (b"STAT curr_items 1\r\n", b"STAT bytes 5\r\n", b"STAT queue_deletes 1\r\n"):
            self.assertIn(line, said)
        self.assertNotIn(b"queue_r_", said)

    def test_dump_stats(self) -> None:
        self.check(self.a, b"dump_stats", memcache.END)
        self.a.sets(b"q", b"12345")
        self.a.sets(b"r", b"1")
        said = self.a.does(b"dump_stats q none")
        self.assertTrue(said.startswith(b"queue 'q' {\r\n  items=1\r\n  bytes=5\r\n"), said)
        self.assertTrue(said.endswith(b"}\r\nEND\r\n"))
        self.assertEqual(self.a.does(b"dump_stats").count(b"queue '"), 2)

    def test_flush_all(self) -> None:
        self.a.sets(b"q", b"1")
        self.a.sets(b"r", b"1")
        self.check(self.a, b"flush_all noreply", b"")
        self.check(self.a, b"flush_all 0", memcache.OK)
        self.check(self.a, b"flush_all", memcache.FLUSHED_ALL)
        self.check(self.a, b"get q r", memcache.END)
        self.check(self.a, b"delete q noreply", b"")
        self.assertEqual(self.server.queues.names(), [b"r"])
