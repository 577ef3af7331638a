"""
L{darner.cli.bench}, L{darner.cli.load_generator} and L{darner.cli.workload}: the load tool, against real servers and
against one that lies.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any
from unittest import mock

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

import darner
from bench.ports import reserve_port
from darner.cli.bench import Result, _shares, main, run
from darner.cli.load_generator import SPIN, Crowd
from darner.cli.workload import FOLLOW_UP, GET, SET, Dialect, Reply, Tally, Workload, make_payload, plan
from test.servers import MODULE, Server


class Conductor:
    """The other end of a crowd's connection, which says go and, once asked for progress often enough, stop."""

    def __init__(self, reports: float = float("inf")) -> None:
        self.heard: list[Any] = []
        self._reports = reports

    def send(self, message: Any) -> None:
        self.heard.append(message)

    def recv(self) -> str:
        return "go"

    def poll(self) -> bool:
        return len(self.heard) > self._reports


def make(load: Workload, conductor: Any = None) -> Tally:
    """Make a load in this process."""
    return Crowd(load).run(conductor or Conductor())


class Liar:
    """A server that answers as it likes, to one client after the other."""

    def __init__(self, case: SynchronousTestCase, answer: Callable[[bytes], bytes]) -> None:
        """@param answer: what to say to each that was received; nothing to hang up."""
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        case.addCleanup(self._stop)

    def _serve(self) -> None:
        while True:
            client, _ = self._socket.accept()
            with client, contextlib.suppress(ConnectionError):
                data = client.recv(65536)
                if data == b"stop":
                    return
                while data:
                    reply = self._answer(data)
                    if not reply:
                        break
                    client.sendall(reply)
                    data = client.recv(65536)

    def _stop(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(b"stop")
        self._thread.join(10)
        self._socket.close()


class PlanTests(SynchronousTestCase):
    """The order of requests."""

    def test_evenly_mixed(self) -> None:
        self.assertEqual(plan(3, 3, False), bytes([SET, GET] * 3))
        self.assertEqual(plan(4, 2, False), bytes([SET, SET, GET] * 2))

    def test_counts(self) -> None:
        for sets, gets in ((0, 0), (5, 0), (0, 7), (100, 17), (1, 1000), (640, 640)):
            sequence = plan(sets, gets, False)
            self.assertEqual((sequence.count(SET), sequence.count(GET)), (sets, gets))

    def test_endless(self) -> None:
        sequence = plan(3, 1, True)
        self.assertGreater(len(sequence), 100_000)
        self.assertEqual(sequence.count(SET), 3 * sequence.count(GET))

    def test_shares(self) -> None:
        load = Workload(sets=101, gets=50, clients=7, processes=3)
        shares = list(_shares(load))
        self.assertEqual(len(shares), 3)
        self.assertEqual(sum(share.sets for share in shares), 101)
        self.assertEqual(sum(share.gets for share in shares), 50)
        self.assertEqual(sum(share.clients for share in shares), 7)

    def test_no_process_without_a_client(self) -> None:
        self.assertEqual([share.clients for share in _shares(Workload(clients=2, processes=5))], [1, 1])

    def test_a_ratio_stays_whole_with_a_running_time(self) -> None:
        shares = _shares(Workload(sets=1, gets=1, clients=4, processes=2, seconds=1))
        self.assertEqual([(share.sets, share.gets, share.clients) for share in shares], [(1, 1, 2)] * 2)


class DialectTests(SynchronousTestCase):
    """The spelling of requests, and the parsing of replies."""

    def setUp(self) -> None:
        self.patch(sys.modules["darner.cli.workload"], "make_payload", lambda size: b"abcdef"[:size])
        self.dialect = Dialect(Workload(queue="q", item_bytes=3))
        self.value = b"VALUE q 0 3\r\nabc\r\nEND\r\n"

    def test_payload(self) -> None:
        payload = make_payload(10_000)
        self.assertEqual(payload, make_payload(10_000))
        self.assertRegex(payload, rb"\A[!-~]{10000}\Z")
        self.assertGreater(len(zlib.compress(payload)), 8000)

    def test_requests(self) -> None:
        self.assertEqual(self.dialect.requests, (b"set q 0 0 3\r\nabc\r\n", b"get q\r\n"))
        self.assertEqual(self.dialect.replies, (b"STORED\r\n", self.value))
        self.assertEqual(self.dialect.farewell, (b"", b""))

    def test_options(self) -> None:
        dialect = Dialect(Workload(queue="q", item_bytes=0, sync=True, reliable=True, wait=50))
        self.assertEqual(dialect.requests, (b"set q/sync 0 0 0\r\n\r\n", b"get q/close/open/t=50\r\n"))
        self.assertEqual(dialect.farewell, (b"get q/close\r\n", b"END\r\n"))

    def check(self, kind: int, data: bytes, reply: Reply) -> None:
        """Whole, byte by byte, and with more behind and before it."""
        self.assertEqual(self.dialect.read(data, 0, kind), reply)
        for length in range(len(data)):
            self.assertEqual(self.dialect.read(data[:length], 0, kind), Reply(0), data[:length])
        self.assertEqual(self.dialect.read(bytearray(b"END\r\n" + data + b"STORED\r\n"), 5, kind), reply)

    def test_stored(self) -> None:
        self.check(SET, b"STORED\r\n", Reply(8))

    def test_value(self) -> None:
        self.check(GET, self.value, Reply(len(self.value)))

    def test_miss(self) -> None:
        self.check(GET, b"END\r\n", Reply(5, found=False))

    def test_wrong(self) -> None:
        self.check(SET, b"SERVER_ERROR no\r\n", Reply(17, error="b'SERVER_ERROR no\\r\\n' in reply to a set"))
        self.check(SET, b"END\r\n", Reply(5, error="b'END\\r\\n' in reply to a set"))
        self.check(GET, b"ERROR\r\n", Reply(7, error="b'ERROR\\r\\n' in reply to a get"))

    def test_wrong_value(self) -> None:
        other_payload, other_flags = self.value.replace(b"abc", b"abd"), self.value.replace(b" 0 ", b" 1 ")
        for wrong in (other_payload, other_flags, b"VALUE q 0 0\r\n\r\nEND\r\n"):
            reply = self.dialect.read(wrong, 0, GET)
            self.assertEqual(reply.length, len(wrong))
            self.assertIn("VALUE q", reply.error)


class ResultTests(SynchronousTestCase):
    """The figures of a result."""

    def result(self, *latencies: int, **tally: Any) -> Result:
        result = Result(Workload(), Tally(started=10.0, ended=12.0, sets=len(latencies), **tally))
        for latency in latencies:
            result.tally.latencies[latency] += 1
        return result

    def test_rate(self) -> None:
        self.assertEqual(self.result(1, 2, 3, 4).rate, 2.0)

    def test_percentiles(self) -> None:
        percentiles = self.result(*range(1, 1001)).percentiles()
        self.assertEqual(percentiles["50"], 500)
        self.assertEqual(percentiles["99"], 990)
        self.assertEqual(percentiles["99.9"], 999)
        self.assertEqual(percentiles["100"], 1000)

    def test_percentiles_of_one(self) -> None:
        self.assertEqual(set(self.result(7).percentiles().values()), {7})

    def test_nothing(self) -> None:
        self.assertEqual(self.result().percentiles(), {})
        self.assertEqual(self.result().rate, 0.0)

    def test_limited_by_tool(self) -> None:
        self.assertTrue(self.result(1, busy=0.95).limited_by_tool)
        self.assertFalse(self.result(1, busy=0.5).limited_by_tool)

    def test_sum(self) -> None:
        total = Tally()
        total.add(Tally(sets=1, errors=1, started=5.0, ended=7.0, busy=0.5, cpu=1.0, first_error="no"))
        total.add(Tally(sets=2, started=4.0, ended=6.0, busy=0.9, cpu=2.0, first_error="never"))
        self.assertEqual((total.sets, total.started, total.ended, total.busy), (3, 4.0, 7.0, 0.9))
        self.assertEqual((total.cpu, total.errors, total.first_error), (3.0, 1, "no"))


class LoadTests(SynchronousTestCase):
    """Loads on a real server."""

    def setUp(self) -> None:
        self.server = Server(self, program=MODULE)
        self.load = Workload(port=self.server.address[1], queue="q", sets=300, gets=300, clients=5)

    def left(self) -> int:
        """How many items are in the queue."""
        with self.server.client() as client:
            count = 0
            while client.get(b"q") is not None:
                count += 1
            return count

    def assert_done(self, tally: Tally, sets: int = 300, gets: int = 300) -> None:
        self.assertEqual((tally.sets, tally.gets), (sets, gets))
        self.assertEqual((tally.errors, tally.hang_ups, tally.first_error), (0, 0, ""))
        self.assertEqual(sum(tally.latencies.values()), sets + gets)
        self.assertLess(tally.started, tally.ended)

    def test_counts(self) -> None:
        tally = make(evolve(self.load, gets=0))
        self.assert_done(tally, gets=0)
        self.assertEqual(tally.bytes_in, 300 * 8)
        self.assertEqual(tally.bytes_out, 300 * len(b"set q 0 0 64\r\n" + bytes(64) + b"\r\n"))
        tally = make(evolve(self.load, sets=0, gets=310))
        self.assert_done(tally, sets=0, gets=310)
        self.assertEqual(tally.misses, 10)

    def test_mixed(self) -> None:
        tally = make(self.load)
        self.assert_done(tally)
        self.assertEqual(self.left(), tally.misses)

    def test_in_flight(self) -> None:
        for in_flight in (2, 32, 1000):
            tally = make(evolve(self.load, in_flight=in_flight, gets=200))
            self.assert_done(tally, gets=200)
            self.assertEqual(self.left(), 100 + tally.misses)

    def test_large_items(self) -> None:
        load = evolve(self.load, item_bytes=3 * 2**20 + 1, sets=8, gets=8, in_flight=3)
        tally = make(load)
        self.assert_done(tally, 8, 8)
        self.assertEqual(self.left(), tally.misses)

    def test_sync(self) -> None:
        self.assert_done(make(evolve(self.load, sync=True, sets=20, gets=20)), 20, 20)

    def test_reliable(self) -> None:
        self.assert_done(make(evolve(self.load, gets=0)), gets=0)
        tally = make(evolve(self.load, sets=0, reliable=True))
        self.assert_done(tally, sets=0)
        self.assertEqual(tally.misses, 0)
        self.assertEqual(self.left(), 0, "nothing is left open")

    def test_wait(self) -> None:
        tally = make(evolve(self.load, sets=0, gets=5, wait=30))
        self.assert_done(tally, sets=0, gets=5)
        self.assertEqual(tally.misses, 5)
        self.assertGreater(min(tally.latencies), 25_000)

    def test_bad_clients(self) -> None:
        tally = make(evolve(self.load, bad=0.1, in_flight=4))
        self.assertEqual(tally.errors, 0)
        self.assertEqual(tally.hang_ups, 60)
        self.assertLessEqual(tally.sets + tally.gets, 540)

    def test_running_time(self) -> None:
        tally = make(evolve(self.load, seconds=0.3))
        self.assertEqual(tally.errors, 0)
        self.assertLess(abs(tally.sets - tally.gets), 10)
        self.assertGreater(tally.ended - tally.started, 0.3)

    def test_progress_and_stop(self) -> None:
        conductor = Conductor(3)
        tally = make(evolve(self.load, seconds=3600), conductor)
        ready, *reports = conductor.heard
        self.assertEqual(ready, "ready")
        self.assertEqual(reports, sorted(reports))
        self.assertLess(tally.ended - tally.started, 3600)

    def test_processes(self) -> None:
        result = run(evolve(self.load, processes=2))
        self.assert_done(result.tally)
        self.assertGreater(result.seconds, 0)

    def test_progress_line(self) -> None:
        with mock.patch("sys.stderr", io.StringIO()) as stderr:
            self.assert_done(run(self.load, progress=True).tally)
        self.assertIn("requests", stderr.getvalue())

    def test_without_tqdm(self) -> None:
        with mock.patch.dict(sys.modules, {"tqdm": None}):
            self.assert_done(run(self.load, progress=True).tally)

    def test_command(self) -> None:
        status, out, _ = command("-p", str(self.load.port), "-s", "50", "-g", "40", "-b", "0.1")
        self.assertEqual(status, 0)
        for line in ("Concurrency level:", "Hang-ups:", "Requests per second:", "99.9%", "100%"):
            self.assertIn(line, out)

    def test_json(self) -> None:
        status, out, _ = command("-p", str(self.load.port), "-s", "50", "-g", "40", "-c", "3", "--json")
        outcome = json.loads(out)
        self.assertEqual(status, 0)
        self.assertEqual((outcome["sets"], outcome["gets"], outcome["requests"], outcome["errors"]), (50, 40, 90, 0))
        self.assertEqual(outcome["load"]["clients"], 3)
        self.assertEqual(list(outcome["latency_us"])[-2:], ["99.9", "100"])


def command(*arguments: str) -> tuple[int, str, str]:
    """@return: the exit status and the output of C{darner-bench}."""
    with mock.patch("sys.stdout", io.StringIO()) as out, mock.patch("sys.stderr", io.StringIO()) as err:
        status = 0
        try:
            status = main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        return status, out.getvalue(), err.getvalue()


class _Poll:
    """Replies that come when they are said to, by a clock of their own."""

    LOOK = 1e-6
    """Seconds that a look takes."""

    def __init__(self, *waits: float) -> None:
        """@param waits: seconds until there are some, from one to the next."""
        self._waits = list(waits)
        self._due = self._waits.pop(0)
        self.now = 0.0
        self.slept = 0

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        self.now += self.LOOK
        if timeout:
            self.slept += 1
            self.now = max(self.now, self._due)
        if self.now < self._due:
            return []
        if self._waits:
            self._due = self.now + self._waits.pop(0)
        return [(7, 1)]


class WaitTests(SynchronousTestCase):
    """Waiting for replies, with and without sleep."""

    def waits(self, *waits: float, processors: int = 2) -> tuple[list[bool], float]:
        """@return: of waits that take so long, whether each was ended asleep; and how long was waited awake."""
        self.patch(os, "sched_getaffinity", lambda _: set(range(processors)))
        crowd: Any = Crowd(Workload())
        poll = crowd._poll = _Poll(*waits)
        self.patch(time, "perf_counter", lambda: poll.now)
        self.patch(time, "process_time", lambda: poll.now)
        asleep = []
        for _ in waits:
            before = poll.slept
            self.assertEqual(crowd._wait(), [(7, 1)])
            asleep.append(poll.slept > before)
        return asleep, crowd._spun

    def test_awake(self) -> None:
        """The load process polls as long as replies come soon; that counts as idle time."""
        asleep, awake = self.waits(0.0, SPIN / 2, SPIN / 2, SPIN / 2)
        self.assertEqual(asleep, [True, False, False, False])
        self.assertTrue(abs(awake - 3 * SPIN / 2) < 9 * _Poll.LOOK, awake)

    def test_there_already(self) -> None:
        asleep, awake = self.waits(0.0, 0.0, 0.0)
        self.assertEqual(asleep, [True, False, False])
        self.assertEqual(awake, 0.0)

    def test_not_for_long(self) -> None:
        """While replies take long, it sleeps at once, until they come soon again."""
        asleep, awake = self.waits(0.0, 20 * SPIN, 20 * SPIN, 20 * SPIN, SPIN / 2, SPIN / 2)
        self.assertEqual(asleep, [True, True, True, True, True, False])
        self.assertTrue(SPIN <= awake < 2 * SPIN, awake)

    def test_no_processor_to_spare(self) -> None:
        self.assertEqual(self.waits(0.0, 0.0, SPIN / 2, processors=1), ([True, True, True], 0.0))


class FaultTests(SynchronousTestCase):
    """Servers with wrong replies, and wrong options."""

    def test_wrong_replies_are_counted(self) -> None:
        liar = Liar(self, lambda request: b"STORED\r\n" if request.startswith(b"set") else b"ERROR\r\n")
        tally = make(Workload(port=liar.port, sets=10, gets=10, clients=1))
        self.assertEqual((tally.sets, tally.gets, tally.errors), (10, 10, 10))
        self.assertEqual(tally.first_error, "b'ERROR\\r\\n' in reply to a get")

    def test_status(self) -> None:
        liar = Liar(self, lambda request: b"NOT_STORED\r\n")
        status, out, _ = command("-p", str(liar.port), "-s", "5", "-g", "0", "-c", "1")
        self.assertEqual(status, 1)
        self.assertIn("5 (first: b'NOT_STORED\\r\\n' in reply to a set)", out)

    def test_more_than_was_asked_for(self) -> None:
        liar = Liar(self, lambda request: b"STORED\r\nSTORED\r\n")
        with self.assertRaises(ConnectionError):
            make(Workload(port=liar.port, sets=10, gets=0, clients=1))

    def test_hangs_up(self) -> None:
        liar = Liar(self, lambda request: b"")
        status, _, err = command("-p", str(liar.port), "-s", "5", "-g", "0", "-c", "1")
        self.assertEqual(status, 1)
        self.assertIn("Connection", err)

    def test_silence(self) -> None:
        liar = Liar(self, lambda request: b"STO")
        self.patch(sys.modules["darner.cli.load_generator"], "PATIENCE", 0.1)
        with self.assertRaises(ConnectionError) as raised:
            make(Workload(port=liar.port, sets=10, gets=0, clients=1))
        self.assertIn("has not answered", str(raised.exception))

    def test_nobody_there(self) -> None:
        status, _, err = command("-p", str(reserve_port()))
        self.assertEqual(status, 1)
        self.assertIn("refused", err)

    def test_wrong_options(self) -> None:
        for options in (["-c", "0"], ["-f", "0"], ["-b", "1"], ["-s", "-1"], ["-t", "-1"], ["-P", "0"], ["-p", "x"]):
            status, _, err = command(*options)
            self.assertEqual(status, 2, options)
            self.assertIn("darner-bench: error", err)

    def test_version(self) -> None:
        self.assertEqual(command("--version"), (0, f"darner {darner.__version__}\n", ""))


class _Twice(Dialect):
    """A protocol in which a get takes two round trips."""

    def __init__(self, load: Workload) -> None:
        super().__init__(load)
        self.requests = (b"put\n", b"reserve\n", b"")
        self.replies = (b"INSERTED\r\n", b"-", b"DELETED\r\n")

    def read(self, data: Any, at: int, kind: int) -> Reply:
        if kind == GET and data.startswith(b"RESERVED\r\n", at):
            return Reply(10, follow_up=b"delete\n")
        return super().read(data, at, kind)


class DialectOfOthersTests(SynchronousTestCase):
    """Protocols in which a get is two requests."""

    def test_follow_up(self) -> None:
        heard = []

        def answer(data: bytes) -> bytes:
            words = data.split()
            heard.extend(words)
            replies = {b"put": b"INSERTED\r\n", b"reserve": b"RESERVED\r\n", b"delete": b"DELETED\r\n"}
            return b"".join(replies[word] for word in words)

        liar = Liar(self, answer)
        tally = make(Workload(port=liar.port, sets=30, gets=30, clients=1, in_flight=3, dialect=_Twice))
        self.assertEqual((tally.sets, tally.gets, tally.errors, tally.misses), (30, 30, 0, 0))
        self.assertEqual({word: heard.count(word) for word in heard}, {b"put": 30, b"reserve": 30, b"delete": 30})
        self.assertEqual(sum(tally.latencies.values()), 60)

    def test_it_is_no_request_of_its_own(self) -> None:
        self.assertNotIn(FOLLOW_UP, plan(5, 5, False))
