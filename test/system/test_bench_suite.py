"""
The benchmarks in C{bench}: each runs, in small, with this server alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from bench import once
from bench.__main__ import BENCHMARKS
from bench.conditions import Conditions, ratio
from bench.dialects import Beanstalk, RedisLists
from bench.outcome import Outcome, Plot, Table
from bench.report import Section, as_text, write_page
from bench.servers import KINDS, CppDarner
from darner.cli.workload import FOLLOW_UP, GET, INCOMPLETE, SET, Reply, Workload
from test.servers import ROOT, make_directory


def bench(case: SynchronousTestCase, *arguments: str) -> tuple[int, str, str]:
    """@return: the exit status and the output of C{python -m bench --quick}, run where no peer is to be found."""
    home = str(make_directory(case))
    environment = {"PATH": home, "HOME": home, "TMPDIR": str(make_directory(case))}
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--rounds=1", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    case.assertEqual(os.listdir(environment["TMPDIR"]), [], "nothing is left behind")
    return done.returncode, done.stdout, done.stderr


class BenchmarkTests(SynchronousTestCase):
    """Each benchmark, once."""

    def check(self, name: str) -> None:
        status, out, err = bench(self, name)
        self.assertEqual(status, 0, err)
        self.assertIn(f"== {name}\n", out)
        self.assertNotIn("failed", out + err)
        self.assertNotIn(" logged: ", out + err)
        self.assertNotIn("wrong replies", out)
        if name != "figures":
            self.assertIn("darner", out)
            self.assertIn("missing: ", out)
            self.assertIn("C++ Darner", out.rpartition("missing: ")[2])

    def test_flood(self) -> None:
        self.check("flood")

    def test_pipelining(self) -> None:
        self.check("pipelining")

    def test_sync(self) -> None:
        self.check("sync")

    def test_connections(self) -> None:
        self.check("connections")

    def test_packing(self) -> None:
        self.check("packing")

    def test_memory(self) -> None:
        self.check("memory")

    def test_fairness(self) -> None:
        self.check("fairness")

    def test_queues(self) -> None:
        self.check("queues")

    def test_restart(self) -> None:
        self.check("restart")

    def test_policies(self) -> None:
        status, out, err = bench(self, "policies")
        self.assertEqual(status, 0, err)
        self.assertIn("darner, others configured", out)
        self.assertIn("a plain queue beside configured ones", out)
        self.assertNotIn("wrong replies", out + err)

    def test_shortages(self) -> None:
        self.check("shortages")

    def test_figures(self) -> None:
        self.check("figures")

    def test_all_are_tested(self) -> None:
        for name in BENCHMARKS:
            self.assertTrue(hasattr(self, f"test_{name}"), name)


class CommandTests(SynchronousTestCase):
    """The command line, and the page it writes."""

    def test_page(self) -> None:
        page = make_directory(self) / "docs" / "benchmarks.rst"
        status, _, err = bench(self, "queues", "sync", "--output", str(page))
        self.assertEqual(status, 0, err)
        text = page.read_text()
        self.assertIn("make bench ARGS=queues", text)
        self.assertIn("Missing on this machine, and left out: C++ Darner", text)
        self.assertIn(".. csv-table:: Requests a second", text)
        for image in (line.split()[-1] for line in text.splitlines() if line.startswith(".. image::")):
            self.assertLess((page.parent / image).stat().st_size, 100_000)

    def test_unknown_benchmark(self) -> None:
        status, _, err = bench(self, "speed")
        self.assertEqual(status, 2)
        self.assertIn("speed is not one of flood", err)

    def test_unknown_server(self) -> None:
        self.assertEqual(bench(self, "flood", "--servers=kestrel")[0], 2)

    def test_bad_address(self) -> None:
        status, _, err = bench(self, "flood", "--server=kestrel")
        self.assertEqual(status, 2)
        self.assertIn("NAME=HOST:PORT", err)

    def test_server_by_address(self) -> None:
        """A peer that runs already is measured from outside only."""
        kind = KINDS["darner"]()
        self.addCleanup(kind.remove)
        kind.start()
        status, out, err = bench(self, "sync", f"--server=other=127.0.0.1:{kind.port}", "--servers=darner")
        self.assertEqual(status, 0, err)
        self.assertRegex(out, r"clients +darner +other\n1 +[\d,]+ +[\d,]+\n")
        self.assertRegex(out, r"50 +[\d.]+ +-\n")


class ServersTests(SynchronousTestCase):
    """Peers are found, or named as missing."""

    def test_a_peer_by_environment(self) -> None:
        for path in ("", str(ROOT), str(ROOT / "no such file"), __file__):
            with mock.patch.dict(os.environ, {"DARNER_CPP": path}):
                self.assertIsNone(CppDarner.program(), path)
        with mock.patch.dict(os.environ, {"DARNER_CPP": sys.executable}):
            self.assertEqual(CppDarner.program(), sys.executable)

    def test_one_that_does_not_start(self) -> None:
        """A server that does not start is an error with its output."""
        with mock.patch.dict(os.environ, {"DARNER_CPP": "/bin/false"}):
            server = CppDarner()
            self.addCleanup(server.remove)
            with self.assertRaises(ConnectionError) as raised:
                server.start()
        self.assertIn("C++ Darner ended with 1", str(raised.exception))

    def test_what_a_process_uses(self) -> None:
        server = KINDS["darner"]()
        self.addCleanup(server.remove)
        self.assertGreater(server.start(), 0)
        self.assertGreater(server.cpu(), 0)
        memory = server.memory()
        self.assertTrue(2**20 < memory.anonymous < memory.resident <= memory.peak, memory)
        self.assertGreater(server.descriptors(), 3)
        before = server.disk()
        sample = Conditions(log=lambda line: None).measure(server, sets=100, gets=0, item_bytes=10_000)
        assert sample is not None
        self.assertGreater(server.disk() - before, 900_000)
        self.assertGreater(server.stop(), 0)

    def test_one_that_fails(self) -> None:
        """A load that a server fails is noted, and has no figure."""
        server = KINDS["darner"]()
        conditions = Conditions(log=lambda line: None)
        self.assertEqual(conditions.compare([server], sets=1, gets=0), {})
        self.assertIn("darner failed with sets 1, gets 0", conditions.notes[0])
        self.assertIsNone(ratio({}, CppDarner))


class OutcomeTests(SynchronousTestCase):
    """Judging and telling."""

    def outcome(self) -> Outcome:
        """The docstring of a benchmark."""
        outcome = Outcome([Table("Rates", ["clients", "a, b"], [["1", "2,000"]])], notes=["it was late"])
        outcome.plots.append(Plot("rates", "Rates", "clients", "rate", {"a": [(1, 2)]}))
        outcome.at_least("ratio", 1.2, 1.5)
        outcome.at_least("nothing to compare with", 1.2, None)
        outcome.at_most("time", 5, "s", 6.0)
        outcome.at_most("nobody knows", 5, "s", None)
        return outcome

    def section(self) -> Section:
        return Section("flood", lambda conditions: self.outcome(), self.outcome())

    def test_goals(self) -> None:
        self.assertEqual(
            [(goal.work, goal.figure, goal.met) for goal in self.outcome().goals],
            [("ratio", "1.50", True), ("time", "6.0 s", False)],
        )

    def test_text(self) -> None:
        text = as_text(self.section())
        self.assertIn("-- Rates\nclients   a, b\n1        2,000\n", text)
        self.assertIn("met   ratio: 1.50 (at least 1.2)\nMISS  time: 6.0 s (at most 5 s)\nnote: it was late", text)

    def test_page(self) -> None:
        page = make_directory(self) / "page.rst"
        with mock.patch.dict(sys.modules, {"matplotlib": None}):
            write_page(page, [self.section()], Conditions())
        text = page.read_text()
        self.assertNotIn("image::", text, "without matplotlib there are no plots")
        self.assertIn('   :header: clients,"a, b"\n\n   1,"2,000"\n', text)
        self.assertIn("   time,at most 5 s,6.0 s,**no**,``make bench ARGS=flood``\n", text)
        self.assertNotIn("Missing", text)


class OnceTests(SynchronousTestCase):
    def test_sets(self) -> None:
        said = StringIO()
        with redirect_stdout(said):
            once.main(200)
        lines = said.getvalue().splitlines()
        self.assertEqual(
            [line.partition(":")[0] for line in lines], ["without an id", "with a new id", "with a known id"]
        )


class DialectsTests(SynchronousTestCase):
    """The same load in the words of others."""

    load = Workload(queue="q", item_bytes=3)

    def setUp(self) -> None:
        self.patch(sys.modules["darner.cli.workload"], "make_payload", lambda size: b"abcdef"[:size])

    def check(self, dialect: object, kind: int, data: bytes, reply: Reply) -> None:
        """Whole, byte by byte, and with more around it."""
        read = dialect.read  # type: ignore[attr-defined]
        self.assertEqual(read(data, 0, kind), reply)
        for length in range(len(data)):
            self.assertEqual(read(data[:length], 0, kind), INCOMPLETE, data[:length])
        self.assertEqual(read(bytearray(b"xy" + data + b"xy"), 2, kind), reply)

    def test_redis(self) -> None:
        dialect = RedisLists(self.load)
        self.assertEqual(
            dialect.requests,
            (b"*3\r\n$5\r\nRPUSH\r\n$1\r\nq\r\n$3\r\nabc\r\n", b"*2\r\n$4\r\nLPOP\r\n$1\r\nq\r\n"),
        )
        self.check(dialect, SET, b":12\r\n", Reply(5))
        self.check(dialect, SET, b"-ERR\r\n", Reply(6, error="b'-ERR\\r\\n' in reply to a set"))
        self.check(dialect, GET, b"$3\r\nabc\r\n", Reply(9))
        self.check(dialect, GET, b"$-1\r\n", Reply(5, found=False))

    def test_beanstalkd(self) -> None:
        dialect = Beanstalk(self.load)
        self.assertEqual(dialect.requests[:2], (b"put 0 0 3600 3\r\nabc\r\n", b"reserve-with-timeout 0\r\n"))
        self.check(dialect, SET, b"INSERTED 7\r\n", Reply(12))
        self.check(dialect, GET, b"RESERVED 7 3\r\nabc\r\n", Reply(19, follow_up=b"delete 7\r\n"))
        self.check(
            dialect, GET, b"RESERVED 7 2\r\nab\r\n", Reply(18, error="another item", follow_up=b"delete 7\r\n")
        )
        self.check(dialect, GET, b"TIMED_OUT\r\n", Reply(11, found=False))
        self.check(dialect, FOLLOW_UP, b"DELETED\r\n", Reply(9))
