"""
Tests of the log in etcd while etcd fails: three real etcds, which are killed and paused.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
from base64 import b64encode
from itertools import count
from typing import Any, ClassVar, Optional

from twisted.internet import reactor
from twisted.internet.defer import DeferredList, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from darner.cluster.etcd.log import EtcdLog
from darner.cluster.etcd.settings import Timings
from darner.errors import LogConflict, LogInDoubt, LogUnavailable
from test.cluster.etcd_servers import EtcdServers
from test.cluster.log_contract import EVERYTHING, Reading, outcomes, until
from test.cluster.test_etcd_log import needs_etcd
from test.servers import PATIENCE, ROOT

TIMINGS = Timings(attempt=1, patience=120, silence=2)
"""Long enough for a machine that is ten times slower."""

SHORT = Timings(attempt=0.5, patience=3, silence=1)
"""For what is to fail."""


_names = count()


class Leader:
    """
    Appends record after record, two at once, as long as it can.

    @ivar acknowledged: the records that it was told are appended, by number.
    @ivar failed: the errors of the others, by number.
    """

    def __init__(self, log: EtcdLog, next_number: int = 1, name: bytes = b"one") -> None:
        self.log = log
        self.name = name
        self.next = next_number
        self.given: dict[int, bytes] = {}
        self.acknowledged: dict[int, bytes] = {}
        self.failed: dict[int, Exception] = {}
        self.running = False
        self.large_every = 0

    def start(self, in_flight: int = 2) -> None:
        self.running = True
        for _ in range(in_flight):
            self._append()

    def _append(self) -> None:
        number = self.next
        self.next += 1
        size = 600_000 if self.large_every and number % self.large_every == 0 else 10
        record = self.given[number] = b"%b %d " % (self.name, number) + bytes(size)
        self.log.append(number, record).addCallbacks(
            self._appended, self._failed, callbackArgs=(number, record), errbackArgs=(number,)
        )

    def _appended(self, _: object, number: int, record: bytes) -> None:
        self.acknowledged[number] = record
        if self.running:
            self._append()

    def _failed(self, failure: Any, number: int) -> None:
        self.failed[number] = failure.value
        self.running = False

    async def more(self, count: int) -> None:
        """Wait until so many more are acknowledged."""
        goal = len(self.acknowledged) + count
        await until(lambda: self.failed or len(self.acknowledged) >= goal, f"{goal} records are acknowledged")
        if self.failed:
            raise AssertionError(f"it failed: {self.failed}")

    async def end(self) -> None:
        """Append no more, and wait for what is under way."""
        self.running = False
        await until(lambda: len(self.acknowledged) + len(self.failed) == len(self.given), "all is answered")


class FaultTests(TestCase):
    """Three etcds, the same ones for all tests; each has a log of its own."""

    timeout = 300

    started: ClassVar[Optional[EtcdServers]] = None

    def setUp(self) -> None:
        if FaultTests.started is None:
            FaultTests.started = EtcdServers(election=500, heartbeat=50)
            atexit.register(FaultTests.started.end)
        self.servers = FaultTests.started
        self.addCleanup(self.mend)
        self.name = f"faults{next(_names)}"

    def mend(self) -> None:
        """Have all serve again, for the next test."""
        for server in self.servers.servers:
            server.resume()
        self.servers.start()

    def member(self, timings: Timings = TIMINGS, first: int = 0) -> EtcdLog:
        """@param first: which of the etcds is preferred."""
        endpoints = self.servers.endpoints
        log = EtcdLog(reactor, endpoints[first:] + endpoints[:first], self.name, timings=timings)
        self.addCleanup(log.close)
        return log

    async def check(self, leader: Leader, reading: Optional[Reading] = None) -> None:
        """All that was acknowledged is there once, and who followed has all of it."""
        log = self.member(Timings(attempt=5, patience=120))
        last = await log.last()
        records = []
        while len(records) < last:
            records += await log.read(len(records), EVERYTHING)
        self.assertEqual([number for number, _ in records], list(range(1, last + 1)))
        there = dict(records)
        wrong = [number for number, record in leader.acknowledged.items() if there[number] != record]
        self.assertEqual(wrong, [])
        if reading is not None:
            await reading.until(last)
            self.assertEqual(reading.got, records)


@needs_etcd
class KillTests(FaultTests):
    """Nothing is lost, and nothing fails, as long as two of three come back in time."""

    async def test_one_after_the_other_is_killed(self) -> None:
        """Also the leader, and the one that the log talks to, while large records are under way."""
        leader = Leader(self.member())
        leader.large_every = 7
        reading = Reading(self.member(first=1))
        leader.start()
        await leader.more(20)
        victims = [await deferToThread(self.servers.leader), *self.servers.servers]
        for victim in victims:
            victim.kill()
            await leader.more(10)
            victim.start()
            await deferToThread(self.servers.wait, victim)
        await leader.end()
        self.assertEqual(leader.failed, {})
        await self.check(leader, reading)

    async def test_all_are_killed_and_come_back(self) -> None:
        leader = Leader(self.member())
        reading = Reading(self.member(first=2))
        leader.start(in_flight=4)
        await leader.more(20)
        self.servers.kill()
        self.servers.start(wait=False)
        await leader.more(20)
        await leader.end()
        self.assertEqual(leader.failed, {})
        await self.check(leader, reading)

    async def test_paused(self) -> None:
        """A server that stands still, with its connections open, is left for another one."""
        log = self.member()
        leader = Leader(log)
        reading = Reading(self.member())
        leader.start()
        await leader.more(10)
        for victim in (self.servers.servers[0], await deferToThread(self.servers.leader)):
            victim.pause()
            await leader.more(10)
            await reading.until(leader.next - 5)
            victim.resume()
        await leader.end()
        self.assertEqual(leader.failed, {})
        await self.check(leader, reading)


@needs_etcd
class QuorumTests(FaultTests):
    """Without a majority nothing is acknowledged, and what is told is true."""

    def pause(self, *servers: Any) -> None:
        for server in servers:
            server.pause()
            self.addCleanup(server.resume)

    async def short(self) -> EtcdLog:
        """@return: a log of little patience, that has appended record 1."""
        for _ in range(20):
            log = self.member(SHORT)
            if await outcomes([log.append(1, b"first")]) == [None]:
                return log
            self.name = f"faults{next(_names)}"  # the machine was slower than that, and who knows what is there
        raise AssertionError("no log appends anything in time")

    async def test_in_doubt(self) -> None:
        """
        The majority stands still when the records are under way: whether they will be appended is unknown.  It is not
        said to be known, and once the majority is back, the log tells.
        """
        log = await self.short()
        self.pause(*self.servers.servers)
        errors = await outcomes([log.append(2, b"second"), log.append(3, b"third"), log.append(4, b"4" * 600_000)])
        self.assertEqual(errors, [LogInDoubt, LogInDoubt, LogConflict])
        with self.assertRaises(LogUnavailable):
            await log.last()
        for server in self.servers.servers:
            server.resume()
        await deferToThread(self.servers.wait)
        new = self.member()
        last = await new.last()
        # Whatever it is: from here on it is settled.
        results = await DeferredList([new.append(last + 1, b"new"), new.append(last + 2, b"newer")], consumeErrors=True)
        records = await new.read(0, EVERYTHING)
        for (good, _), record in zip(results, (b"new", b"newer"), strict=True):
            self.assertEqual(good, record in dict(records).values())
        old = [(1, b"first"), (2, b"second"), (3, b"third")]
        kept = [record for record in records if not record[1].startswith(b"new")]
        self.assertEqual(kept, old[: len(kept)])

    async def test_unavailable_before_anything_was_sent(self) -> None:
        """What was not sent is surely not appended."""
        self.pause(*self.servers.servers)
        log = self.member(SHORT)
        self.assertEqual(await outcomes([log.append(1, b"x"), log.append(2, b"y")]), [LogUnavailable, LogConflict])
        with self.assertRaises(LogUnavailable):
            await log.note("n1", b"x")

    async def test_late_transactions_are_fenced(self) -> None:
        """
        Records whose transactions lie in a server that stands still are appended by way of another one, once; what
        comes late is refused.
        """
        log = self.member()
        await log.append(1, b"first")
        stuck = await deferToThread(self.servers.leader)
        self.pause(stuck)
        await gatherResults([log.append(number, b"%d" % number) for number in range(2, 10)])
        stuck.resume()
        await deferToThread(self.servers.wait)
        await log.append(10, b"10")
        expected = [(1, b"first"), *((number, b"%d" % number) for number in range(2, 11))]
        self.assertEqual(await self.member(first=1).read(0, EVERYTHING), expected)

    async def test_deposed_by_another(self) -> None:
        """
        One who led hears nothing of etcd for a while, and another one leads: exactly one has the number, and of the
        other one nothing is there.
        """
        old, new = self.member(Timings(attempt=4, patience=120)), self.member(first=1)
        await old.append(1, b"first")
        await new.last()
        stuck = await deferToThread(self.servers.leader)
        self.pause(stuck)
        under_way = [old.append(number, b"old %d" % number) for number in (2, 3, 4)]
        (newer,) = await outcomes([new.append(2, b"new")])
        stuck.resume()
        olds = await outcomes(under_way)
        records = await new.read(1, EVERYTHING)
        if newer is None:
            self.assertEqual((olds, records), ([LogConflict] * 3, [(2, b"new")]))
        else:
            # A machine so slow that the old one was the first to hear of etcd again.
            self.assertEqual((newer, olds), (LogConflict, [None] * 3))
            self.assertEqual(records, [(number, b"old %d" % number) for number in (2, 3, 4)])


PROGRAM = """
import sys
from twisted.internet import reactor
from darner.cluster.etcd import pieces
from darner.cluster.etcd.log import EtcdLog
from darner.cluster.etcd.settings import Timings

write = pieces.Pieces.write

async def write_and_stop(self, number, record):
    stored = await write(self, number, record)
    print("written", flush=True)
    sys.stdin.read()
    return stored

pieces.Pieces.write = write_and_stop
log = EtcdLog(reactor, sys.argv[1].split(","), sys.argv[2], timings=Timings(attempt=10, patience=120))
log.append(1, bytes(2_000_000))
reactor.run()
"""


@needs_etcd
class PieceTests(FaultTests):
    """Large records are there whole or not at all."""

    def pieces(self) -> int:
        """@return: how many pieces there are."""
        start, end = (b64encode(f"darner/{self.name}/piece{last}".encode()).decode() for last in "/0")
        body = {"key": start, "range_end": end, "count_only": True}
        return int(self.servers.servers[0].surely("/v3/kv/range", body).get("count", 0))

    def start(self) -> Any:
        """@return: a process that writes the pieces of record 1, tells so, and goes no further."""
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, ",".join(self.servers.endpoints), self.name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    async def test_killed_between_pieces_and_transaction(self) -> None:
        """Nobody sees anything of it, and what it leaves goes with what is trimmed."""
        process = self.start()
        line = await deferToThread(process.stdout.readline)
        self.assertEqual(line, b"written\n")
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        process.stdin.close()
        log = self.member()
        self.assertGreater(self.pieces(), 4)
        self.assertEqual((await log.last(), await log.read(0, EVERYTHING)), (0, []))
        await log.append(1, b"another one")
        self.assertEqual(await log.read(0, EVERYTHING), [(1, b"another one")])
        await log.trim(1)
        self.assertEqual(self.pieces(), 0)

    async def test_swept(self) -> None:
        """The pieces of an append that failed are deleted; those of one that was done, once it is trimmed."""
        # No piece is sent again where etcd is slow: what came late would come when the others are deleted.
        patient = Timings(attempt=60, patience=120)
        one, other = self.member(patient), self.member(patient, first=1)
        await one.append(1, bytes(2_000_000))
        written = self.pieces()
        self.assertGreater(written, 4)
        self.assertEqual(await outcomes([other.append(1, bytes(3_000_000))]), [LogConflict])
        await self.until_pieces(written)
        await one.trim(1)
        self.assertEqual(self.pieces(), 0)

    async def until_pieces(self, count: int) -> None:
        deadline = reactor.seconds() + PATIENCE
        while (found := await deferToThread(self.pieces)) != count:
            self.assertLess(reactor.seconds(), deadline, f"{found} pieces are there, not {count}")
            await deferLater(reactor, 0.05)
