"""
What a client sees, whatever transport carries it.

The tests of every way to listen inherit L{ProtocolContract}; they say how a client connects, everything else is here.
"""

from __future__ import annotations

from typing import Any, Protocol

from darner.config.policies import Policies, QueueSettings
from darner.front import memcache
from darner.net.limits import Limits
from darner.queues.collection import Queues
from darner.values.vocabulary import CHUNK_BYTES


class Client(Protocol):
    """A connection, from the client's side."""

    closed: bool
    """Whether the server has ended it."""

    def send(self, data: bytes) -> None:
        """Send bytes, and let the server do what there is to do."""

    def receive(self) -> bytes:
        """@return: what has come since the last call."""

    def hang_up(self) -> None:
        """Go away."""


LARGE = bytes(range(256)) * (CHUNK_BYTES // 256 * 3 + 7)


class ProtocolContract:
    """
    Needs C{connect(**options)}, C{advance(seconds)} and C{queues} of the class that inherits it; where the queues are
    in another process, L{apply} and L{check_nothing_left} in place of C{queues}.
    """

    queues: Queues

    def ask(self, request: bytes, client: Client | None = None) -> bytes:
        client = client or self.client
        client.send(request)
        return client.receive()

    def start(self) -> None:
        self.client = self.connect()

    def apply(self, **settings: Any) -> None:
        """Give all queues these settings."""
        self.queues.apply(Policies(QueueSettings(**settings)))

    def check_nothing_left(self) -> None:
        """There are no chunks of items, and nothing is left to be reclaimed."""
        self.assertEqual(self.queues.store.leftovers(), ([], []))

    def figures(self, client: Client) -> dict[bytes, bytes]:
        """@return: the server's statistics, as a client gets them."""
        words = [line.split(b" ", 2) for line in self.ask(b"stats\r\n", client).splitlines()[:-1]]
        return {name: figure for _, name, figure in words}

    def set(self, payload: bytes, queue: bytes = b"q", client: Client | None = None) -> None:
        request = b"set %b 0 0 %d\r\n%b\r\n" % (queue, len(payload), payload)
        self.assertEqual(self.ask(request, client), b"STORED\r\n")

    @staticmethod
    def value(payload: bytes, key: bytes = b"q", flags: int = 0) -> bytes:
        return b"VALUE %b %d %d\r\n%b\r\nEND\r\n" % (key, flags, len(payload), payload)

    # Sets and gets

    def test_fifo(self) -> None:
        for payload in (b"a", b"b", b"c"):
            self.set(payload)
        self.assertEqual(
            [self.ask(b"get q\r\n") for _ in range(4)],
            [self.value(b"a"), self.value(b"b"), self.value(b"c"), b"END\r\n"],
        )

    def test_any_bytes(self) -> None:
        for payload in (b"", b"\0", b"\0\0", b"\r\n", b"END\r\n", b"get q\r\n", bytes(range(256)), b"\xff" * 1000):
            self.set(payload)
            self.assertEqual(self.ask(b"get q\r\n"), self.value(payload))

    def test_flags_are_kept(self) -> None:
        self.ask(b"set q 4294967295 0 1\r\nx\r\n")
        self.assertEqual(self.ask(b"gets q\r\n"), self.value(b"x", flags=4294967295))

    def test_large_items_both_ways(self) -> None:
        for size in (CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, len(LARGE)):
            self.set(LARGE[:size])
            self.assertEqual(self.ask(b"get q\r\n"), self.value(LARGE[:size]))

    def test_large_item_by_pieces(self) -> None:
        request = b"set q 9 0 %d\r\n%b\r\nget q\r\n" % (len(LARGE), LARGE)
        for start in range(0, len(request), 10_007):
            self.client.send(request[start : start + 10_007])
        self.assertEqual(self.client.receive(), b"STORED\r\n" + self.value(LARGE, flags=9))

    def test_byte_by_byte(self) -> None:
        request = b"set q 1 0 5\r\nhello\r\nget q\r\nfoo\r\nset q/bad 0 0 2\r\nab\r\nversion\n"
        whole = self.ask(request, self.connect())
        client = self.connect()
        for at in range(len(request)):
            client.send(request[at : at + 1])
        self.assertEqual(client.receive(), whole)
        self.assertTrue(whole.startswith(b"STORED\r\nVALUE q 1 5\r\nhello\r\nEND\r\nERROR\r\nCLIENT_ERROR "))

    def test_trailing_bytes_wait_for_the_rest(self) -> None:
        self.assertEqual(self.ask(b"set q 0 0 1\r\nx\r\nge"), b"STORED\r\n")
        self.assertEqual(self.ask(b"t q\r\n"), self.value(b"x"))

    def test_pipelining(self) -> None:
        request = b"".join(b"set q 0 0 5\r\n%05d\r\nget q\r\n" % n for n in range(2000))
        expected = b"".join(b"STORED\r\n" + self.value(b"%05d" % n) for n in range(2000))
        self.assertEqual(self.ask(request), expected)

    def test_capitals_spaces_and_bare_line_feeds(self) -> None:
        self.assertEqual(self.ask(b"  SET  q  0 0   1  \r\nx\r\n"), b"STORED\r\n")
        self.assertEqual(self.ask(b"GET q \n"), self.value(b"x"))
        self.assertTrue(self.ask(b"STATS\n").startswith(b"STAT uptime "))

    def test_noreply(self) -> None:
        self.assertEqual(self.ask(b"set q 0 0 1 noreply\r\nx\r\ndelete w noreply\r\nget q\r\n"), self.value(b"x"))
        self.assertEqual(self.ask(b"flush_all noreply\r\nset q 0 0 x\r\n")[:12], b"CLIENT_ERROR")

    def test_get_many(self) -> None:
        self.set(b"1", b"a")
        self.set(LARGE, b"c")
        self.set(b"2", b"a")
        large = b"VALUE c 0 %d\r\n%b\r\n" % (len(LARGE), LARGE)
        self.assertEqual(self.ask(b"get a b c\r\n"), b"VALUE a 0 1\r\n1\r\n" + large + b"END\r\n")
        self.assertEqual(self.ask(b"get a c\r\n"), self.value(b"2", b"a"))

    def test_dialect(self) -> None:
        client = self.connect(spelling=memcache.MEMCACHE)
        self.set(b"x", client=client)
        self.assertEqual(self.ask(b"get q/t=5/open\r\n", client), self.value(b"x", b"q/t=5/open"))
        self.assertEqual(self.ask(b"flush_all\r\ndelete w\r\n", client), b"OK\r\nNOT_FOUND\r\n")

    # Reliable reads

    def test_open_and_close(self) -> None:
        for payload in (b"a", b"b"):
            self.set(payload)
        self.assertEqual(self.ask(b"get q/open\r\n"), self.value(b"a"))
        self.assertEqual(self.ask(b"get q/close/open\r\n"), self.value(b"b"))
        self.assertEqual(self.ask(b"get q/close\r\nget q/close\r\nget q\r\n"), b"END\r\n" * 3)

    def test_second_open_read_is_refused(self) -> None:
        self.set(b"a")
        self.set(b"b")
        self.ask(b"get q/open\r\n")
        refusal = b"CLIENT_ERROR close current item first\r\n"
        self.assertEqual(self.ask(b"get q\r\nget q/open\r\nget q w\r\n"), refusal * 3)
        self.assertEqual(self.ask(b"get q/peek\r\n"), self.value(b"b"))

    def test_abort_goes_ahead_of_what_came_after(self) -> None:
        self.set(b"a")
        self.set(b"b")
        self.ask(b"get q/open\r\n")
        given = self.ask(b"get q/abort\r\nget q\r\nget q\r\n")
        self.assertEqual(given, b"END\r\n" + self.value(b"a") + self.value(b"b"))

    def test_item_of_a_gone_client_is_the_next_to_be_had(self) -> None:
        self.set(b"a")
        self.set(b"b")
        dying = self.connect()
        self.assertEqual(self.ask(b"get q/open\r\n", dying), self.value(b"a"))
        dying.hang_up()
        self.assertEqual(self.ask(b"get q\r\n", self.connect()), self.value(b"a"))

    # Waiting

    def test_wait_is_served(self) -> None:
        other = self.connect()
        self.assertEqual(self.ask(b"get q/t=1000\r\nversion\r\n"), b"")
        self.set(b"x", client=other)
        self.client.send(b"")
        self.assertTrue(self.client.receive().startswith(self.value(b"x") + b"VERSION "))

    def test_wait_ends(self) -> None:
        self.assertEqual(self.ask(b"get q/t=1000/open\r\n"), b"")
        self.advance(1.1)
        self.assertEqual(self.client.receive(), b"END\r\n")

    def test_waiters_are_served_in_the_order_they_came(self) -> None:
        clients = [self.connect() for _ in range(3)]
        for client in clients:
            self.ask(b"get q/t=1000\r\n", client)
        for payload in (b"1", b"2", b"3"):
            self.set(payload)
        for client in clients:
            client.send(b"")
        self.assertEqual([c.receive() for c in clients], [self.value(b"1"), self.value(b"2"), self.value(b"3")])

    def test_waiter_that_has_gone_gets_nothing(self) -> None:
        gone = self.connect()
        self.ask(b"get q/t=100000\r\n", gone)
        gone.hang_up()
        self.set(b"x")
        self.assertEqual(self.ask(b"get q\r\n"), self.value(b"x"))

    def test_large_item_for_a_waiter(self) -> None:
        waiting = self.connect()
        self.ask(b"get q/t=1000\r\n", waiting)
        self.set(LARGE)
        waiting.send(b"version\r\n")
        self.assertTrue(waiting.receive().startswith(self.value(LARGE) + b"VERSION "))

    # Deleting and flushing

    def test_flush_and_delete(self) -> None:
        self.set(b"x")
        self.assertEqual(self.ask(b"flush q\r\nget q\r\ndelete q\r\n"), b"END\r\nEND\r\nDELETED\r\n")
        self.assertEqual(self.ask(b"flush nix\r\ndelete nix 0\r\ndump_stats\r\n"), b"END\r\nDELETED\r\nEND\r\n")

    def test_flush_all(self) -> None:
        self.set(b"x", b"a")
        self.set(b"x", b"b")
        self.assertEqual(self.ask(b"flush_all\r\nget a b\r\n"), b"Flushed all queues.\r\nEND\r\n")
        self.assertEqual(self.ask(b"FLUSH_ALL 0 \r\n"), b"OK\r\n")
        self.assertEqual(self.ask(b"flush_all 10\r\n"), b"CLIENT_ERROR flush_all cannot be delayed\r\n")

    def test_half_sent_set_is_stored_after_a_delete(self) -> None:
        other = self.connect()
        self.set(b"old")
        self.client.send(b"set q 0 0 %d\r\n" % len(LARGE) + LARGE[:100_000])
        self.assertEqual(self.ask(b"delete q\r\n", other), b"DELETED\r\n")
        self.assertEqual(self.ask(LARGE[100_000:] + b"\r\n"), b"STORED\r\n")
        self.assertEqual(self.ask(b"get q\r\n", other), self.value(LARGE))

    # What is refused

    def test_unknown_command(self) -> None:
        self.assertEqual(self.ask(b"foo bar\r\n\r\nget q\r\n"), b"ERROR\r\nERROR\r\nEND\r\n")

    def test_refused_set_keeps_the_stream_in_step(self) -> None:
        for line, reason in (
            (b"set a/b 0 0 9", b"unknown option of set"),
            (b"set " + b"n" * 251 + b" 0 0 9", b"bad queue name"),
            (b"set q x 0 9", b"bad flags"),
            (b"set q 4294967296 0 9", b"bad flags"),
            (b"set q 0 x 9", b"bad expiry"),
            (b"set q 0 0 9 what", b"bad command line format"),
        ):
            reply = self.ask(line + b"\r\nquit\r\nxyz\r\nget q\r\n")
            self.assertEqual(reply, b"CLIENT_ERROR " + reason + b"\r\nEND\r\n")

    def test_payload_of_what_is_not_served_is_skipped(self) -> None:
        """Run as a command it would do what nobody asked for; stock clients send these by themselves."""
        self.set(b"kept")
        for command in (b"add q 0 0 9", b"REPLACE q 0 0 9", b"append q 0 0 9", b"Prepend q 0 0 9", b"cas q 0 0 9 1"):
            self.assertEqual(self.ask(command + b"\r\nflush_all\r\n"), b"ERROR\r\n", command)
            self.assertEqual(self.ask(command + b" noreply\r\nflush_all\r\nversion\r\n")[:8], b"VERSION ", command)
        client = self.connect()
        self.assertEqual(self.ask(b"add q 0 0 x\r\nflush_all\r\n", client), b"ERROR\r\n")
        self.assertTrue(client.closed)
        self.assertEqual(self.ask(b"get q\r\n"), self.value(b"kept"))

    def test_refused_with_noreply(self) -> None:
        """It has no reply, which the client would take for that of its next request."""
        for request in (b"touch q 60", b"delete a/b", b"flush_all 10", b"incr q 1"):
            self.assertEqual(self.ask(request + b" noreply\r\nversion\r\n")[:8], b"VERSION ", request)
        self.ask(b"status readonly\r\n")
        self.addCleanup(self.ask, b"status up\r\n")
        for request in (b"delete q", b"flush_all", b"touch q"):
            self.assertEqual(self.ask(request + b" noreply\r\nversion\r\n")[:8], b"VERSION ", request)

    def test_browsers_are_hung_up_on(self) -> None:
        self.set(b"kept")
        form = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nflush_all\r\n"
        for sent in (form, b"GET / HTTP/1.1\r\n\r\nflush_all\r\n", b"Host: x\r\nflush_all\r\n"):
            client = self.connect()
            self.assertEqual(self.ask(sent, client), b"")
            self.assertTrue(client.closed)
        self.assertEqual(self.ask(b"get q\r\n"), self.value(b"kept"))

    def test_other_protocols_are_hung_up_on(self) -> None:
        """They end no line, and would wait for a reply that never comes."""
        for sent in (b"\x80\x0b" + bytes(22), b"\x16\x03\x01\x02\x00\x01"):
            client = self.connect()
            self.assertEqual(self.ask(sent, client), b"")
            self.assertTrue(client.closed)

    def test_payloads_of_other_protocols_are_no_commands(self) -> None:
        self.set(b"kept")
        for sent in (
            b"put q:\nflush_all\n\n", b"put 0 0 60 9\r\nflush_all\r\n", b"PUB subject 9\r\nflush_all\r\n",
            b"*3\r\n$3\r\nSET\r\n$1\r\nq\r\n$9\r\nflush_all\r\n",
        ):  # fmt: skip
            client = self.connect()
            self.assertEqual(self.ask(sent, client), b"ERROR\r\n")
            self.assertTrue(client.closed)
        self.assertEqual(self.ask(b"get q\r\n"), self.value(b"kept"))

    def test_many_keys(self) -> None:
        names = [b"queue-with-a-rather-long-name-%04d" % number for number in range(1500)]
        self.set(b"x", names[-1])
        self.assertEqual(self.ask(b"get " + b" ".join(names) + b"\r\n"), self.value(b"x", names[-1]))
        client = self.connect()
        self.assertEqual(self.ask(b"get " + b"q " * 40_000 + b"\r\n", client), b"CLIENT_ERROR line too long\r\n")
        self.assertTrue(client.closed)

    def test_unreadable_byte_count_ends_the_connection(self) -> None:
        for line in (b"set q 0 0", b"set q 0 0 -1", b"set q 0 0 1x", b"set q 0 0 " + b"9" * 30):
            client = self.connect()
            self.assertEqual(self.ask(line + b"\r\nget q\r\n", client), b"CLIENT_ERROR bad command line format\r\n")
            self.assertTrue(client.closed)

    def test_payload_without_line_end_ends_the_connection(self) -> None:
        for request in (b"set q 0 0 3\r\nabcdefg\r\n", b"set q 0 0 100000\r\n" + b"x" * 100_100):
            client = self.connect()
            self.assertEqual(self.ask(request, client), b"CLIENT_ERROR bad data chunk\r\n")
            self.assertTrue(client.closed)
        self.assertEqual(self.ask(b"get q\r\n"), b"END\r\n")

    def test_long_line_ends_the_connection(self) -> None:
        self.assertEqual(self.ask(b"g" * 2048 + b"\r\n"), b"ERROR\r\n")
        self.assertEqual(self.ask(b"g" * 2048 + b"\r") + self.ask(b"\n"), b"ERROR\r\n")
        for line in (b"g" * 2049 + b"\n", b"g" * 2049 + b"\r\n", b"g" * 2049, b"g" * 2049 + b"\r", b"g" * 5000):
            client = self.connect()
            self.assertEqual(self.ask(line, client), b"CLIENT_ERROR line too long\r\n")
            self.assertTrue(client.closed)

    def test_too_large_an_item_is_skipped(self) -> None:
        self.apply(max_item_bytes=10)
        for size in (11, 500_000):
            reply = self.ask(b"set q 0 0 %d\r\n%b\r\nget q\r\n" % (size, b"x" * size))
            self.assertEqual(reply, b"SERVER_ERROR object too large\r\nEND\r\n")

    def test_quit(self) -> None:
        self.assertEqual(self.ask(b"set q 0 0 1\r\nx\r\nquit\r\nget q\r\n"), b"STORED\r\n")
        self.assertTrue(self.client.closed)

    # Dying clients

    def test_client_that_dies_in_a_payload_leaves_nothing(self) -> None:
        for size in (10, len(LARGE)):
            dying = self.connect()
            dying.send(b"set q 0 0 %d\r\n%b" % (size, LARGE[: size - 1]))
            dying.hang_up()
        self.advance(1)
        self.assertEqual(self.ask(b"get q\r\n"), b"END\r\n")
        self.assertEqual(self.ask(b"dump_stats\r\n"), b"END\r\n")
        self.check_nothing_left()

    # Limits

    def test_too_many_connections(self) -> None:
        """One too many is told so and goes; the others are served, and whoever comes when one has left."""
        self.client.hang_up()
        options = {"limits": Limits(max_connections=3)}
        _, second, third = (self.connect(**options) for _ in range(3))
        before = int(self.figures(second)[b"rejected_connections"])
        for _ in range(3):
            late = self.connect(**options)
            late.send(b"")
            self.assertEqual(late.receive(), b"SERVER_ERROR too many connections\r\n")
            self.assertTrue(late.closed)
        self.set(b"x", client=second)
        third.hang_up()
        self.advance(0)
        self.set(b"y", client=self.connect(**options))
        figures = self.figures(second)
        self.assertEqual(figures[b"curr_connections"], b"3")
        self.assertEqual(int(figures[b"rejected_connections"]) - before, 3)

    def test_stalled_clients(self) -> None:
        """Who stops in the middle of a request is disconnected; who sleeps, waits or works is not."""
        stalled, patient = [], []
        for request, gone in (
            (b"get", True),
            (b"version\r\nset q 0 0 5\r\nhel", True),
            (b"set q 0 0 5\r\nhello", True),
            (b"set q 0 0 %d\r\n%b" % (len(LARGE), LARGE[:-1]), True),
            (b"", False),
            (b"version\r\n", False),
            (b"get nothing/t=100000\r\n", False),
            (b"get nothing/t=100000\r\nget", False),
        ):
            client = self.connect(limits=Limits(stall_timeout=10))
            client.send(request)
            client.receive()
            (stalled if gone else patient).append(client)
        slow = self.connect(limits=Limits(stall_timeout=10))
        before = int(self.figures(slow)[b"idle_kicks"])
        for piece in (b"se", b"t q 0 0", b" 5\r\nhe", b"llo", b"\r\n"):
            slow.send(piece)
            self.advance(6)
        self.assertEqual(slow.receive(), b"STORED\r\n")
        for client in (*stalled, *patient, slow):
            client.receive()
        self.assertEqual([client.closed for client in stalled], [True] * len(stalled))
        self.assertEqual([client.closed for client in patient], [False] * len(patient))
        figures = self.figures(slow)
        self.assertEqual(int(figures[b"idle_kicks"]) - before, len(stalled))
        self.assertEqual(figures[b"queue_q_items"], b"1")

    def test_idle_clients(self) -> None:
        """Who asks for nothing is disconnected where that is wanted, and what it had open goes back."""
        options = {"limits": Limits(idle_timeout=10)}
        idle, waiting, busy = (self.connect(**options) for _ in range(3))
        self.set(b"x", client=busy)
        self.assertEqual(self.ask(b"get q/open\r\n", idle), self.value(b"x"))
        waiting.send(b"get other/t=100000\r\n")
        for _ in range(4):
            self.ask(b"version\r\n", busy)
            self.advance(5)
        for client in (idle, waiting, busy):
            client.receive()
        self.assertEqual([idle.closed, waiting.closed, busy.closed], [True, False, False])
        self.assertEqual(self.ask(b"get q\r\n", busy), self.value(b"x"))
        self.advance(20)
        self.client.send(b"version\r\n")  # no limits were set for it
        self.assertFalse(self.client.closed)
