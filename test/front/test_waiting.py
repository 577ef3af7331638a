"""
Waiting on several queues, and monitoring one: `darner.front.client_reads`, and what `darner.front.session` makes of it.
"""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from darner.front import memcache
from darner.values.vocabulary import CHUNK_BYTES
from test.harness import EPOCH, REFUSED, Client, Server, value

TOO_MANY = b"CLIENT_ERROR close current item first\r\n"
UNREADABLE = b"SERVER_ERROR unreadable\r\n"
LARGE = bytes(range(256)) * 1000


class WaitsTestCase(SynchronousTestCase):
    max_open_reads = 1

    def setUp(self) -> None:
        self.server = Server(max_open_reads=self.max_open_reads)
        self.store = self.server.store
        self.a = self.server.client()
        self.b = self.server.client()

    def sets(self, *puts: bytes) -> None:
        """Set items in one turn: each is a queue and, behind a colon, a payload."""
        for put in puts:
            queue, _, payload = put.partition(b":")
            self.b.set(queue, payload)
        self.server.commit()
        self.assertEqual(self.b.hears(), memcache.STORED * len(puts))

    def does(self, line: bytes, reply: bytes) -> None:
        self.assertEqual((line, self.a.does(line)), (line, reply))

    def hears(self, reply: bytes) -> None:
        self.assertEqual(self.a.hears(), reply)

    def advance(self, seconds: float) -> None:
        self.server.clock.advance(seconds)
        self.server.commit()

    def idle(self) -> None:
        """Nobody waits for anything, and no queue is known for that."""
        queues = self.server.queues
        self.assertEqual(sorted(queues._fifos), queues.names())
        self.assertFalse(any(fifo.waiters for fifo in queues._fifos.values()))
        self.assertFalse(self.a.session.busy)


class FirstOfSeveralTests(WaitsTestCase):
    def test_in_the_order_named(self) -> None:
        self.sets(b"low:1", b"high:2", b"low:3")
        self.does(b"get high low/t=100", value(b"high", b"2"))
        self.does(b"get high low/t=100", value(b"low", b"1"))
        self.does(b"get high low/t=0", value(b"low", b"3"))
        self.does(b"get high low/t=0", memcache.END)
        self.idle()

    def test_waits_on_all(self) -> None:
        for name in (b"low", b"high"):
            self.does(b"get high low/t=1000", b"")
            self.sets(name + b":1")
            self.hears(value(name, b"1"))
            self.idle()

    def test_two_at_once(self) -> None:
        """The one that was set first serves; the other item stays where it is."""
        self.does(b"get high low/t=1000", b"")
        self.sets(b"low:1", b"high:2")
        self.hears(value(b"low", b"1"))
        self.idle()
        self.does(b"get high", value(b"high", b"2"))

    def test_time_is_up(self) -> None:
        self.does(b"get high low/t=1000", b"")
        self.advance(1)
        self.hears(memcache.END)
        self.idle()
        figures = self.server.queues.figures("")
        self.assertEqual([figures[name] for name in ("cmd_get", "get_hits", "get_misses")], [1, 0, 1])

    def test_in_line(self) -> None:
        """In each line it stands where it came."""
        c = self.server.client()
        c.does(b"get low/t=1000")
        self.does(b"get high low/t=1000", b"")
        d = self.server.client()
        d.does(b"get low high/t=1000")
        self.sets(b"low:1", b"low:2", b"low:3")
        self.assertEqual(c.hears(), value(b"low", b"1"))
        self.hears(value(b"low", b"2"))
        self.assertEqual(d.hears(), value(b"low", b"3"))
        self.idle()

    def test_leaves(self) -> None:
        self.does(b"get high low/t=1000", b"")
        self.a.leave()
        self.sets(b"high:1", b"low:2")
        self.hears(b"")
        self.idle()
        self.assertEqual(self.b.does(b"get high low"), value(b"high", b"1", end=b"") + value(b"low", b"2"))

    def test_hangs_up(self) -> None:
        self.does(b"get high low/t=1000", b"")
        self.a.session.reads.hurry()
        self.server.commit()
        self.hears(memcache.END)
        self.does(b"get high low/t=1000", memcache.END)
        self.idle()

    def test_open(self) -> None:
        """A worker that reads queues by priority."""
        self.sets(b"low:1", b"high:2")
        self.does(b"get high low/open/t=100", value(b"high", b"2"))
        self.does(b"get high low/open/t=100", TOO_MANY)
        self.does(b"get high low/t=100", TOO_MANY)
        self.does(b"get low high/t=100", TOO_MANY)
        self.does(b"get high low/close/open/t=100", value(b"low", b"1"))
        self.does(b"get high low/close/open/t=100", b"")
        self.sets(b"high:3")
        self.hears(value(b"high", b"3"))
        self.does(b"get high/abort", memcache.END)
        self.does(b"get high low/peek/t=0", value(b"high", b"3"))
        self.does(b"get high low/close/t=0", memcache.END)
        self.does(b"get high low/t=0", value(b"high", b"3"))
        self.does(b"get high low/peek/t=100", b"")
        self.sets(b"low:4")
        self.hears(value(b"low", b"4"))
        self.assertEqual(self.server.figures(b"low"), (1, 1))
        self.assertEqual(self.server.queues.figures("")["cmd_peek"], 2)
        self.idle()

    def test_name(self) -> None:
        """Stock clients of memcache look for the key that they asked for."""
        self.a = self.server.client(memcache.MEMCACHE)
        self.sets(b"low:1", b"high:2")
        self.does(b"get high low/t=5", value(b"high", b"2"))
        self.does(b"get high low/t=5", value(b"low/t=5", b"1"))

    def test_large(self) -> None:
        self.does(b"get high low/t=1000", b"")
        self.b.sets(b"low", LARGE)
        self.hears(value(b"low", LARGE))
        self.idle()

    def test_given_back(self) -> None:
        self.sets(b"low:1")
        self.b.does(b"get low/open")
        self.does(b"get high low/t=1000", b"")
        self.b.leave()
        self.server.commit()
        self.hears(value(b"low", b"1"))

    def test_refused(self) -> None:
        """The item that served it is not in the store: it is told so, as with one queue."""
        self.does(b"get high low/t=1000", b"")
        self.store.full = True
        self.b.set(b"low", b"1")
        self.server.commit()
        self.hears(REFUSED)
        self.assertFalse(self.a.session.busy)

    def test_unreadable(self) -> None:
        self.sets(b"low:1")
        self.server.start()
        self.a = self.server.client()
        self.store.unreadable = True
        self.does(b"get high low/t=1000", UNREADABLE)
        self.assertFalse(self.a.session.busy)

    def test_deleted_while_waiting(self) -> None:
        self.sets(b"low:1")
        self.b.does(b"get low")
        self.does(b"get high low/t=1000", b"")
        self.b.does(b"delete low")
        self.sets(b"low:2")
        self.hears(value(b"low", b"2"))


class MonitorTests(WaitsTestCase):
    max_open_reads = 4

    def test_as_they_arrive(self) -> None:
        self.sets(b"q:1")
        self.does(b"monitor q 5", value(b"q", b"1"))
        self.sets(b"q:2", b"q:3")
        self.hears(value(b"q", b"2") + value(b"q", b"3"))
        self.a.ask(b"version")
        self.advance(5)
        self.assertTrue(self.a.hears().startswith(memcache.END + b"VERSION"))
        self.assertEqual(self.server.queues.queue_figures(b"q")["open_transactions"], 3)
        self.does(b"confirm q 2", memcache.END)
        self.a.leave()
        self.assertEqual(self.b.does(b"get q"), value(b"q", b"3"))
        self.assertEqual(self.server.queues.figures("")["get_hits"], 4)

    def test_framing(self) -> None:
        """As Kestrel frames it, byte for byte: each item is a whole reply to one read, and an empty one ends them."""
        self.sets(b"m:a", b"m:b")
        self.does(b"monitor m 0", b"VALUE m 0 1\r\na\r\nEND\r\nVALUE m 0 1\r\nb\r\nEND\r\nEND\r\n")

    def test_maximum(self) -> None:
        self.sets(b"q:1", b"q:2", b"q:3")
        self.does(b"monitor q 5 2", value(b"q", b"1") + value(b"q", b"2") + memcache.END)
        self.does(b"monitor q 5 0", memcache.END)
        self.does(b"monitor q 5 2", value(b"q", b"3"))
        self.sets(b"q:4", b"q:5")
        self.hears(value(b"q", b"4") + memcache.END)
        self.idle()
        self.assertEqual(self.server.clock.getDelayedCalls(), [])

    def test_as_many_as_may_be_open(self) -> None:
        self.sets(*(b"q:%d" % number for number in range(6)))
        self.does(b"get q/open", value(b"q", b"0"))
        self.does(b"monitor q 5", b"".join(value(b"q", b"%d" % number) for number in (1, 2, 3)) + memcache.END)
        self.does(b"monitor q 5", memcache.END)
        self.does(b"confirm q 1", memcache.END)
        self.does(b"monitor q 5 5", value(b"q", b"4") + memcache.END)
        self.does(b"get q/open", TOO_MANY)
        self.does(b"get q/close/open", value(b"q", b"5"))

    def test_at_once(self) -> None:
        """With a time of 0 the monitor opens the items that are there."""
        self.sets(b"q:1", b"q:2")
        self.does(b"monitor q 0", value(b"q", b"1") + value(b"q", b"2") + memcache.END)
        self.does(b"monitor q 0", memcache.END)
        self.idle()

    def test_no_such_queue(self) -> None:
        self.does(b"monitor q 1", b"")
        self.advance(1)
        self.hears(memcache.END)
        self.idle()

    def test_in_line(self) -> None:
        """After each item the monitor goes to the end of the line."""
        self.does(b"monitor q 5", b"")
        c = self.server.client()
        c.does(b"monitor q 5")
        d = self.server.client()
        d.does(b"get q/t=1000")
        self.sets(b"q:1", b"q:2", b"q:3", b"q:4", b"q:5")
        self.hears(value(b"q", b"1") + value(b"q", b"4"))
        self.assertEqual(c.hears(), value(b"q", b"2") + value(b"q", b"5"))
        self.assertEqual(d.hears(), value(b"q", b"3"))

    def test_leaves(self) -> None:
        self.sets(b"q:1")
        self.does(b"monitor q 5", value(b"q", b"1"))
        self.a.leave()
        self.sets(b"q:2")
        self.hears(b"")
        self.idle()
        self.assertEqual(self.b.does(b"get q"), value(b"q", b"1"))

    def test_hangs_up(self) -> None:
        self.does(b"monitor q 5", b"")
        self.a.session.reads.hurry()
        self.server.commit()
        self.hears(memcache.END)
        self.sets(b"q:1")
        self.does(b"monitor q 5", value(b"q", b"1") + memcache.END)
        self.idle()

    def test_deleted_meanwhile(self) -> None:
        """Also where it was not in line just then: it goes on with the queue that is made next."""
        self.does(b"monitor q 5", b"")
        self.a.session.choke()
        self.sets(b"q:1")
        fifo = self.server.queues.find(b"q")
        self.b.does(b"delete q")
        self.assertIsNone(self.server.queues.find(b"q"))
        self.sets(b"q:2")
        self.assertIsNot(self.server.queues.find(b"q"), fifo)
        self.a.session.unchoke()
        self.server.commit()
        self.hears(value(b"q", b"1") + value(b"q", b"2"))
        self.b.does(b"delete q")
        self.sets(b"q:3")
        self.hears(value(b"q", b"3"))

    def test_refused(self) -> None:
        """Items that the store refused are left out, and the monitor goes on."""
        self.does(b"monitor q 5", b"")
        for payload in (b"1", LARGE):
            self.store.full = True
            self.assertEqual(self.b.sets(b"q", payload), REFUSED)
            self.store.full = False
            self.hears(b"")
        self.sets(b"q:2")
        self.hears(value(b"q", b"2"))

    def test_refused_before_the_end(self) -> None:
        self.does(b"monitor q 5 1", b"")
        self.store.full = True
        self.b.set(b"q", b"1")
        self.server.commit()
        self.hears(memcache.END)
        self.assertEqual(self.server.queues.names(), [])
        self.assertFalse(self.a.session.busy)

    def test_unreadable(self) -> None:
        self.sets(b"q:1")
        for seconds in (0, 5):
            self.server.start()
            self.a = self.server.client()
            self.store.unreadable = True
            self.does(b"monitor q %d" % seconds, UNREADABLE)
            self.store.unreadable = False
            self.idle()

    def test_unreadable_later(self) -> None:
        self.does(b"monitor q 5", b"")
        self.a.session.choke()
        self.sets(b"q:1", b"q:2")
        fifo = self.server.queues.find(b"q")
        assert fifo is not None
        fifo.storage.contents.head.evict()
        self.store.unreadable = True
        self.a.session.unchoke()
        self.server.commit()
        self.hears(value(b"q", b"1") + UNREADABLE)
        self.idle()

    def test_expired(self) -> None:
        self.b.sets(b"q", b"1", expiry=-1)
        self.b.sets(b"q", b"2", expiry=EPOCH + 3)
        self.does(b"monitor q 5", value(b"q", b"2"))


class LongMonitorTests(WaitsTestCase):
    max_open_reads = 10_000

    def test_large(self) -> None:
        """One after the other, each when the one before is sent."""
        for number in range(3):
            self.b.sets(b"q", b"%d" % number + LARGE)
        figures: list[tuple[int, int]] = []
        write = self.a.write

        def write_and_note(data: bytes) -> None:
            write(data)
            sent = sum(map(len, self.a.writes))
            figures.append((sent, self.server.queues.queue_figures(b"q")["open_transactions"]))

        self.a.write = write_and_note  # type: ignore[method-assign]
        self.a.ask(b"monitor q 5")
        self.server.commit()
        self.assertGreater(len(figures), 6)
        for sent, open in figures:
            self.assertEqual(open, 1 + (sent - 1) // len(value(b"q", b"0" + LARGE)))
        self.hears(b"".join(value(b"q", b"%d" % number + LARGE) for number in range(3)))

    def test_many(self) -> None:
        """Not more at once than others get."""
        self.b.sets(b"q", b"x" * CHUNK_BYTES)
        for _ in range(2000):
            self.b.set(b"q", b"x" * 100)
        self.server.clock.pump([0] * 50)
        self.a.ask(b"monitor q 5 2001")
        self.server.commit()
        self.assertGreater(len(self.a.writes), 5)
        self.assertLess(max(map(len, self.a.writes)), 2 * CHUNK_BYTES)
        heard = self.a.hears()
        self.assertEqual(heard.count(b"VALUE q 0 100\r\n"), 2000)
        self.assertTrue(heard.endswith(memcache.END))
        self.does(b"confirm q 2001", memcache.END)
        self.assertEqual(self.server.queues.queue_figures(b"q")["open_transactions"], 0)

    def test_choked(self) -> None:
        """A client that does not read gets no more items; they stay in the queue for others."""
        self.sets(*(b"q:%d" % number for number in range(3)))
        self.does(b"monitor q 5 1", value(b"q", b"0") + memcache.END)
        self.does(b"monitor q 5", value(b"q", b"1") + value(b"q", b"2"))
        self.a.session.choke()
        self.sets(b"q:3", b"q:4")
        self.assertEqual(self.server.queues.queue_figures(b"q")["open_transactions"], 4)
        self.assertEqual(self.b.does(b"get q"), value(b"q", b"4"))
        self.a.session.unchoke()
        self.server.commit()
        self.hears(value(b"q", b"3"))
        self.sets(b"q:5")
        self.hears(value(b"q", b"5"))


class ConfirmTests(WaitsTestCase):
    max_open_reads = 5

    def test_nothing_open(self) -> None:
        self.does(b"confirm q 1", memcache.ERROR)
        self.sets(b"q:1")
        self.does(b"confirm q 1", memcache.ERROR)

    def test_more_than_are_open(self) -> None:
        """If fewer are open, none is closed, as in Kestrel."""
        self.sets(b"q:1", b"q:2")
        self.does(b"monitor q 0", value(b"q", b"1") + value(b"q", b"2") + memcache.END)
        self.does(b"confirm q 3", memcache.ERROR)
        self.does(b"confirm q 0", memcache.ERROR)
        self.assertEqual(self.server.queues.queue_figures(b"q")["open_transactions"], 2)
        self.does(b"confirm q 2", memcache.END)
        self.does(b"confirm q 2", memcache.ERROR)

    def test_oldest_first(self) -> None:
        self.sets(b"q:1", b"q:2", b"q:3")
        self.does(b"monitor q 0 3", value(b"q", b"1") + value(b"q", b"2") + value(b"q", b"3") + memcache.END)
        self.does(b"confirm q 2", memcache.END)
        self.a.leave()
        self.server.start()
        self.assertEqual(self.server.client().does(b"get q"), value(b"q", b"3"))

    def test_those_that_ended_by_themselves(self) -> None:
        """A confirm counts the late reads first; those behind them stay open."""
        self.sets(b"q:1", b"q:2")
        self.does(b"monitor q 0 2", value(b"q", b"1") + value(b"q", b"2") + memcache.END)
        fifo = self.server.queues.find(b"q")
        assert fifo is not None
        self.a.session.reads.opens._reads[b"q"][0].abort()
        self.does(b"confirm q 1", memcache.END)
        self.assertEqual(self.server.queues.queue_figures(b"q")["open_transactions"], 1)

    def test_not_written(self) -> None:
        self.sets(b"q:1")
        self.does(b"monitor q 0 1", value(b"q", b"1") + memcache.END)
        self.store.broken = 2
        self.does(b"confirm q 1", REFUSED)


# Any order of things ---------------------------------------------------------------------------------------------

NAMES = [b"a", b"b", b"c"]
actions = st.tuples(
    st.sampled_from(["set"] * 4 + ["first", "first open", "one", "monitor", "confirm", "leave", "time", "crash"]),
    st.integers(0, 2),
    st.permutations(NAMES),
    st.integers(1, 3),
)


class AnyOrderTests(SynchronousTestCase):
    """With any waits, no item is lost, and no client waits while there is an item for it."""

    @settings(max_examples=200, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.lists(actions, min_size=1, max_size=5), max_size=12))
    def test_nothing_is_lost(self, turns: list[list[tuple[str, int, list[bytes], int]]]) -> None:
        self.server = Server(max_open_reads=3)
        self.clients = [self.server.client() for _ in range(3)]
        self.setter = self.server.client()
        self.put: dict[bytes, list[bytes]] = {name: [] for name in NAMES}
        self.had: dict[bytes, list[bytes]] = {name: [] for name in NAMES}
        for commit in turns:
            crash = False
            for action, at, names, count in commit:
                crash = self.act(action, at, names, count) or crash
            self.server.commit()
            self.check()
            if crash:
                self.server.start()
                self.begin()
        for client in self.clients:
            client.leave()
        self.setter.leave()
        self.setter = self.server.client()
        for name in NAMES:
            while (reply := self.setter.does(b"get " + name)) != memcache.END:
                self.had[name].append(reply.split(b"\r\n")[1])
            self.assertEqual(sorted(set(self.had[name])), sorted(self.put[name]))
        self.assertFalse(any(fifo.waiters.line or fifo.open_count for fifo in self.server.queues._fifos.values()))

    def begin(self) -> None:
        self.clients = [self.server.client() for _ in range(3)]
        self.setter = self.server.client()

    def act(self, action: str, at: int, names: list[bytes], count: int) -> bool:
        client, name = self.clients[at], names[0]
        if action == "set":
            payload = b"%05d" % sum(map(len, self.put.values()))
            self.put[name].append(payload)
            self.setter.set(name, payload)
        elif action == "leave":
            self.server.commit()  # a plain read is not given back, once it is served
            self.note(client)
            client.leave()
            self.clients[at] = self.server.client()
        elif action == "time":
            self.server.clock.advance(count / 2)
        elif action == "crash":
            return True
        elif not client.session.busy:
            several = b" ".join(names[:count])
            client.ask({
                "first": b"get %b/t=1000" % several,
                "first open": b"get %b/close/open/t=1000" % several,
                "one": b"get %b/t=500" % name,
                "monitor": b"monitor %b 1 %d" % (name, count),
                "confirm": b"confirm %b %d" % (name, count),
            }[action])  # fmt: skip
        return False

    def check(self) -> None:
        for client in self.clients:
            self.note(client)
        for fifo in self.server.queues._fifos.values():
            self.assertFalse(fifo.waiters and fifo.count, "nobody waits for what is there")
            waiting = [client for client in self.clients if client.session.busy]
            self.assertLessEqual(len(fifo.waiters), len(waiting))

    def note(self, client: Client) -> None:
        for line in client.hears().splitlines():
            if line.startswith(b"VALUE "):
                name = line.split()[1]
            elif line.isdigit():
                self.had[name].append(line)
                self.assertIn(line, self.put[name])
