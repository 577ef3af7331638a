"""
Tests of the statistics as a whole: by which names, and that each is right from the start.
"""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from darner.values.stats import QueueStats, Removal, ServerStats, queue_counters, server_counters
from darner.values.vocabulary import CHUNK_BYTES
from test.harness import EPOCH, Server

DOCS = Path(__file__).resolve().parents[2] / "docs" / "operations.rst"

KESTREL_SERVER = """
    uptime time version curr_items total_items bytes reserved_memory_ratio curr_connections total_connections cmd_get
    cmd_set cmd_peek get_hits get_misses bytes_read bytes_written queue_creates queue_deletes queue_expires
"""  # what its ``stats`` has for the server

KESTREL_QUEUE = """
    items bytes total_items logsize expired_items mem_items mem_bytes age discarded waiters open_transactions
    transactions canceled_transactions total_flushes journal_rewrites journal_rotations age_msec create_time
"""  # what it has for a queue, there and in its documentation

NOT_HERE_QUEUE = {"journal_rewrites", "journal_rotations"}


def told(lines: bytes) -> dict[str, str]:
    """@return: the figures of `stats`, by name."""
    return dict(line.split(" ")[1:] for line in lines.decode().splitlines() if line != "END")


class CountersTests(SynchronousTestCase):
    def test_every_counter_is_told(self) -> None:
        """To add one is to add a field."""
        self.assertEqual(server_counters(ServerStats(cmd_get=3))["cmd_get"], 3)
        self.assertEqual(queue_counters(QueueStats(discarded=2))["discarded"], 2)
        server = Server()
        server.client().sets(b"q", b"x")
        figures, of_queue = server.queues.figures("1"), server.queues.queue_figures(b"q")
        self.assertLessEqual(set(ServerStats.__annotations__), set(figures))
        self.assertLessEqual(set(QueueStats.__annotations__), set(of_queue))


class NamesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.client = self.server.client()
        self.client.sets(b"q", b"x")

    def test_names_of_kestrel(self) -> None:
        figures = self.server.queues.figures("1")
        self.assertEqual(set(KESTREL_SERVER.split()) - set(figures), set())
        self.assertEqual(set(KESTREL_QUEUE.split()) - set(self.server.queues.queue_figures(b"q")), NOT_HERE_QUEUE)

    def test_described(self) -> None:
        """The documentation has each of them in one of its tables, and those of Kestrel in the comparison."""
        text = DOCS.read_text()
        named = set(re.findall(r"^``([a-z_]+)`` ", text, re.MULTILINE))
        figures = {*self.server.queues.figures("1"), *self.server.queues.queue_figures(b"q")}
        self.assertEqual(figures - named, set())
        comparison = text.partition("Kestrel's figures\n")[2].partition("\n\n\n")[0]
        compared = set(re.findall(r"``([a-z_]+)``", comparison))
        self.assertEqual(set((KESTREL_SERVER + KESTREL_QUEUE).split()) - compared, set())

    def test_words_behind_it(self) -> None:
        """They are ignored, as in Kestrel, and what is pipelined behind it is answered in its order."""
        self.client.ask(b"stats items")
        self.client.ask(b"get q")
        self.client.ask(b"version of the server")
        said = self.client.does(b"stats slabs")
        figures, found, rest = said.partition(b"END\r\nVALUE q 0 1\r\nx\r\nEND\r\nVERSION ")
        self.assertTrue(found)
        self.assertEqual(told(figures)["queue_q_items"], "1")
        self.assertEqual(told(rest.partition(b"\r\n")[2])["queue_q_items"], "0")

    def test_numbers_are_unsigned(self) -> None:
        figures = told(self.client.does(b"stats"))
        for name, figure in figures.items():
            if name not in ("version", "status"):
                self.assertTrue(figure.isdigit(), (name, figure))


class MemoryTests(SynchronousTestCase):
    """What is in memory of a queue, and what the store has of it."""

    def setUp(self) -> None:
        self.server = Server()
        self.client = self.server.client()

    def check(self, queue: bytes, *figures: int) -> None:
        told = self.server.queues.queue_figures(queue)
        self.assertEqual(tuple(told[name] for name in ("logsize", "mem_items", "mem_bytes")), figures)

    def test_durable(self) -> None:
        for payload in (b"a", b"bb", bytes(CHUNK_BYTES + 1)):
            self.client.sets(b"q", payload)
        self.check(b"q", CHUNK_BYTES + 4, 3, 3)
        self.client.does(b"get q/open")
        self.check(b"q", CHUNK_BYTES + 3, 2, 2)
        self.client.does(b"get q/abort")
        self.check(b"q", CHUNK_BYTES + 4, 2, 2)
        self.client.does(b"flush q")
        self.check(b"q", 0, 0, 0)

    def test_in_memory(self) -> None:
        self.server = Server(durable=False, max_bytes=1000)
        self.server.client().sets(b"q", b"abc")
        self.check(b"q", 0, 1, 3)


class RestartTests(SynchronousTestCase):
    """Right after a restart, too: what there is follows from the store, and what was done since from nothing."""

    def setUp(self) -> None:
        self.server = Server()
        client = self.server.client()
        for payload in (b"a", b"bb", b"ccc", b"dddd"):
            client.sets(b"q", payload)
        client.sets(b"r", b"x")
        client.does(b"get q")
        client.does(b"get q/open")
        client.does(b"get r")
        self.server.clock.advance(100)
        client.leave()
        self.server.restart()
        self.client = self.server.client()

    def test_before_anything_is_asked(self) -> None:
        figures = told(self.client.does(b"stats"))
        self.assertEqual(
            {name: figure for name, figure in figures.items() if not name.startswith("queue_")},
            {
                **{name: "0" for name in ServerStats.__annotations__ if not name.startswith("queue_")},
                "uptime": "0", "time": str(EPOCH + 100), "version": figures["version"], "status": "UP",
                "curr_items": "3", "bytes": "9", "reserved_memory_ratio": "0", "store_writable": "1",
            },
        )  # fmt: skip
        for queue, items, size in (("q", 3, 9), ("r", 0, 0)):
            expected = dict.fromkeys(self.server.queues.queue_figures(b"q"), 0)
            oldest = 100_000 if items else 0
            expected.update({"items": items, "bytes": size, "logsize": size, "oldest_msec": oldest})
            expected["create_time"] = EPOCH * 1000
            self.assertEqual(self.server.queues.queue_figures(queue.encode()), expected)

    def test_what_follows(self) -> None:
        self.client.does(b"get q/open")
        figures = self.server.queues.queue_figures(b"q")
        self.assertEqual(
            (figures["items"], figures["bytes"], figures["open_transactions"], figures["transactions"]), (2, 7, 1, 1)
        )
        self.assertEqual((figures["age"], figures["age_msec"]), (100_000, 100_000))

    def test_delete_forgets(self) -> None:
        """Of a queue that is deleted nothing is told any more, and one of the same name begins anew."""
        self.client.does(b"get q")
        self.client.does(b"flush q")
        self.client.does(b"delete q")
        self.assertNotIn(b"queue_q_", self.client.does(b"stats"))
        self.assertEqual(self.client.does(b"dump_stats q"), b"END\r\n")
        self.assertIsNone(self.server.queues.find(b"q"), "nor is it kept in memory")
        self.server.clock.advance(7)
        self.client.sets(b"q", b"new")
        figures = self.server.queues.queue_figures(b"q")
        expected = dict.fromkeys(figures, 0)
        expected.update({
            "items": 1, "bytes": 3, "logsize": 3, "mem_items": 1, "mem_bytes": 3, "total_items": 1,
            "create_time": (EPOCH + 107) * 1000,
        })  # fmt: skip
        self.assertEqual(figures, expected)


class RemovalTests(SynchronousTestCase):
    """Why an item left its queue says what is counted."""

    def test_counters(self) -> None:
        for removal, of_queue, of_server in (
            (Removal.MOVED, [], []),
            (Removal.EXPIRED, ["expired_items"], ["expired_items"]),
            (Removal.DISCARDED, ["discarded"], ["discarded"]),
            (Removal.DEAD, ["dead"], []),
        ):
            queue, server = QueueStats(), ServerStats()
            queue.count_removal(removal, 3)
            server.count_removal(removal, 3)
            self.assertEqual([name for name, count in queue_counters(queue).items() if count == 3], of_queue)
            self.assertEqual([name for name, count in server_counters(server).items() if count == 3], of_server)
            queue.count_removal(removal, -3)
            server.count_removal(removal, -3)
            self.assertEqual((queue, server), (QueueStats(), ServerStats()))
