"""
``python -m bench.turnover``: queues through which items pass and which hold next to nothing.

It shows, for each load, the disk space against the bytes of items that are live, the bytes written to disk by the bytes
set, the rate at the beginning and at the end, the longest request, and the size of LevelDB's C{LOG} and C{MANIFEST}.
The exit status is 1 where something is beyond its bound.
"""

from __future__ import annotations

import argparse
import re
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Optional

from attrs import define, evolve, field, frozen

from bench.churn import IDLE, Churn, Phase, hold
from bench.conditions import Conditions, mib
from bench.outcome import Outcome, Table
from bench.report import Section, as_text
from bench.servers import KINDS, Darner, Server

MIB: Final = 2**20
DISK_FACTOR: Final = 3
DISK_FREE: Final = 128 * 10**6
"""The disk may take so many times what is live, and so many bytes more."""
WRITTEN: Final = 3.0
"""Bytes written by bytes set."""
RECOVERED: Final = 0.95
"""The rate after a burst by the rate before it."""
LONGEST: Final = 0.1
"""Seconds that a request takes at most."""
PEERS: Final = {"cpp": 1.0, "redis": 0.7, "beanstalkd": 0.7}
"""What this server's rate by that of others is at least; of Redis and beanstalkd the faster one counts."""
SAMPLES: Final = 0.05
"""Seconds between two looks at the disk."""
_HEAD: Final = (
    "load", "server", "first, MiB/s", "last, MiB/s", "longest, ms", "disk, MiB", "live then, MiB", "beyond, MiB",
    "written by set", "passed by set", "LOG, KiB", "MANIFEST, KiB", "start, s",
)  # fmt: skip


@frozen
class Load:
    """
    Items of one size that pass through queues.

    @ivar rate: bytes a second; C{None} for as many as the server takes.
    @ivar burst: whether to go at full speed for a while in the middle.
    @ivar backlog: bytes that are put first, and that the stream passes through and are drained in the end.
    @ivar held: whether an item stays in each queue.
    @ivar together: whether sets and gets are sent in one go.
    @ivar peers: whether to compare with other servers.
    """

    name: str
    item_bytes: int
    queues: int = 8
    clients: int = 8
    rate: Optional[float] = None
    burst: bool = False
    backlog: int = 0
    held: bool = False
    together: bool = False
    peers: bool = False


LOADS: Final = (
    Load("10 B", 10),
    Load("200 B", 200, peers=True),
    Load("200 B, 1,000 queues", 200, 1000),
    Load("200 B, item stays", 200, held=True),
    Load("3 kB", 3000),
    Load("20 kB", 20_000, peers=True),
    Load("20 kB, sets and gets in one go", 20_000, together=True),
    Load("20 kB, one queue", 20_000, 1),
    Load("20 kB, 1,000 queues", 20_000, 1000, held=True),
    Load("60 kB", 60_000),
    Load("4 MB", 4_000_000, peers=True),
    Load("4 MB, one client", 4_000_000, 1, 1),
    Load("64 MB", 64_000_000, 2, 2),
    Load("20 kB at 30 MiB/s", 20_000, rate=30 * MIB),
    Load("burst of 200 B", 200, rate=1 * MIB, burst=True),
    Load("burst of 3 kB", 3000, rate=5 * MIB, burst=True),
    Load("burst of 20 kB", 20_000, rate=10 * MIB, burst=True),
    Load("burst of 4 MB", 4_000_000, rate=20 * MIB, burst=True),
    Load("backlog of 200 B", 200, rate=1 * MIB, backlog=10**9),
    Load("backlog of 20 kB", 20_000, rate=10 * MIB, backlog=10**10),
)


@define
class Disk:
    """What a server has on disk and writes there, sample by sample."""

    server: Server
    peak: int = 0
    live: int = 0
    """Bytes that were live at the peak."""
    beyond: float = 0.0
    """The most bytes above what it may take for what is live; negative where it always took less."""
    log: int = 0
    manifest: int = 0
    _written: int = 0
    _passed: int = 0

    def begin(self) -> None:
        """Count what is written from now on."""
        self._written, self._passed = self._io()
        self.peak = 0
        self.beyond = -float("inf")

    def _io(self) -> tuple[int, int]:
        assert self.server.process is not None
        text = Path(f"/proc/{self.server.process.pid}/io").read_text()
        figures = dict(re.findall(r"(\w+): (\d+)", text))
        return int(figures["write_bytes"]), int(figures["wchar"])

    def written(self) -> int:
        """@return: the bytes that went to the disk since L{begin}, whatever the kernel holds back included."""
        return self._io()[0] - self._written

    def passed(self) -> int:
        """
        @return: the bytes that it has told the kernel to write since L{begin}, to files on whatever file system, and to
            its clients too where it has C{Server.replies_by_write}.
        """
        return self._io()[1] - self._passed

    def look(self, live: int) -> None:
        """Take a sample."""
        size = self.server.disk()
        if size > self.peak:
            self.peak, self.live = size, live
        self.beyond = max(self.beyond, size - DISK_FACTOR * live - DISK_FREE)
        database = self.server.directory / "data" / "leveldb"
        if database.is_dir():
            for file in database.iterdir():
                if file.name == "LOG" or file.name.startswith("MANIFEST-"):
                    try:
                        length = file.stat().st_size
                    except FileNotFoundError:
                        continue
                    if file.name == "LOG":
                        self.log = max(self.log, length)
                    else:
                        self.manifest = max(self.manifest, length)


@define
class Result:
    """
    One load on one server.

    @ivar first: bytes a second that went through at the beginning.
    @ivar last: the same at the end; after a burst, from 10 s after it on.
    @ivar longest: the seconds of the longest request.
    @ivar drained: whether a backlog came out whole.
    """

    load: Load
    disk: Disk
    first: float = 0.0
    last: float = 0.0
    longest: float = 0.0
    written: float = 0.0
    passed: float = 0.0
    start: float = 0.0
    notes: list[str] = field(factory=list)


class Trial:
    """A load on a server that runs."""

    def __init__(self, load: Load, server: Server, seconds: float, tell: Callable[[str], None]) -> None:
        """@param seconds: how long each part takes."""
        self._load = load
        self._server = server
        self._seconds = seconds
        self._tell = tell
        self._holder: Optional[socket.socket] = None
        self._held = 0
        if load.held and isinstance(server, Darner):
            self._holder = hold(server, load.queues, load.item_bytes)
            self._held = load.queues * load.item_bytes
        self._churn = Churn(server, load.item_bytes, load.clients, load.queues)
        self.disk = Disk(server)
        self.result = Result(load, self.disk)

    def run(self) -> Result:
        """@raise OSError: the server does not answer as it should."""
        try:
            self._churn.start()
            self.disk.begin()
            self._work()
        finally:
            self._churn.end()
            if self._holder is not None:
                self._holder.close()
        started = time.perf_counter()
        self._server.stop()
        self._tell(f"stopped in {time.perf_counter() - started:.2f} s")
        self.result.start = self._server.start()
        return self.result

    def _work(self) -> None:
        load, result = self._load, self.result
        if load.backlog:
            self._go_on(Phase(True, False), lambda: self._churn.live < load.backlog, "filling")
        stream = Phase(True, True, load.rate, load.together)
        before = self._churn.figures()
        result.first = self._stream(stream, "at the beginning")
        if load.burst:
            self._stream(Phase(True, True, None, load.together), "burst")
            self._stream(stream, "after it", min(10.0, self._seconds))
        result.last = self._stream(stream, "at the end")
        if load.backlog:
            until = self._churn.figures().misses
            self._go_on(Phase(False, True), lambda: self._churn.figures().misses == until, "draining")
        self._rest()
        result.longest = max(result.longest, self._churn.longest)
        after = self._churn.figures()
        count = after.sets
        set_bytes = max(1, count * load.item_bytes)
        result.written = self.disk.written() / set_bytes
        # Filling with a backlog comes before, and gets next to no replies.
        replies = after.received - before.received if self._server.replies_by_write else 0
        result.passed = (self.disk.passed() - replies) / set_bytes
        if count == before.sets:
            result.notes.append(f"{load.name}: nothing went through")

    def _rest(self) -> None:
        self._churn.turn_to(IDLE)
        while not self._churn.resting:
            self._churn.figures()
            self._look()
        until = time.perf_counter() + min(1.0, self._seconds)
        while time.perf_counter() < until:
            self._look()

    def _look(self) -> None:
        self.disk.look(self._churn.live + self._held)
        time.sleep(SAMPLES)

    def _stream(self, phase: Phase, what: str, seconds: float = 0.0) -> float:
        """@return: bytes a second that went through."""
        before = self._churn.figures()
        until = before.seconds + (seconds or self._seconds)
        self._go_on(phase, lambda: self._churn.figures().seconds < until, what)
        after = self._churn.figures()
        return (after.sets - before.sets) * self._load.item_bytes / (after.seconds - before.seconds)

    def _go_on(self, phase: Phase, wanted: Callable[[], bool], what: str) -> None:
        before, written = self._churn.figures(), self.disk.written()
        self._churn.turn_to(phase)
        while wanted():
            self._look()
        after = self._churn.figures()
        seconds = after.seconds - before.seconds
        moved = max(after.sets - before.sets, after.gets - before.gets) * self._load.item_bytes
        longest, self._churn.longest = self._churn.longest, 0.0
        self.result.longest = max(self.result.longest, longest)
        self._tell(
            f"{what}, {seconds:.0f} s: {moved / MIB / seconds:.1f} MiB/s, "
            f"{(self.disk.written() - written) / MIB / seconds:.0f} MiB/s written, longest {longest * 1000:.0f} ms, "
            f"{self._server.disk() / MIB:.0f} MiB on disk for {(self._churn.live + self._held) / MIB:.1f} MiB"
        )


def measure(
    load: Load, kind: type[Server], seconds: float, tell: Callable[[str], None] = lambda line: None
) -> Result:
    """
    Put a load on a new server.

    @param tell: is given a line for each part.
    """
    server = kind()
    try:
        server.start()
        return Trial(load, server, seconds, tell).run()
    finally:
        server.remove()


def judge(outcome: Outcome, result: Result) -> None:
    """Hold what this server did against the bounds."""
    name = result.load.name
    beyond = f"{name}: disk beyond {DISK_FACTOR} x what is live + {DISK_FREE // 10**6} MB"
    outcome.at_most(beyond, 0, "MB", result.disk.beyond / 1e6)
    if result.load.item_bytes >= 1000:  # the records of a smaller item are larger than its payload
        outcome.at_most(f"{name}: bytes written by bytes set", WRITTEN, "", result.written)
    ratio = result.last / result.first if result.first else None
    outcome.at_least(f"{name}: rate at the end by rate at the beginning", RECOVERED, ratio)
    outcome.at_most(f"{name}: longest request", LONGEST * 1000, "ms", result.longest * 1000)
    outcome.at_most(f"{name}: LOG and MANIFEST", 4, "MB", (result.disk.log + result.disk.manifest) / 1e6)
    outcome.at_most(f"{name}: start", 1, "s", result.start)


def _row(result: Result, server: str) -> list[str]:
    disk = result.disk
    return [
        result.load.name, server, f"{result.first / MIB:.1f}", f"{result.last / MIB:.1f}",
        f"{result.longest * 1000:.0f}", mib(disk.peak), mib(disk.live), f"{disk.beyond / MIB:.0f}",
        f"{result.written:.2f}", f"{result.passed:.2f}", f"{disk.log / 1024:.0f}", f"{disk.manifest / 1024:.0f}",
        f"{result.start:.2f}",
    ]  # fmt: skip


def turnover(loads: Sequence[Load], seconds: float, peers: bool, tell: Callable[[str], None]) -> Outcome:
    """Measure these loads, and hold them against their bounds."""
    outcome = Outcome()
    rows = []
    for load in loads:
        tell(f"{load.name} ...")
        result = measure(load, Darner, seconds, lambda line: tell(f"  {line}"))
        rows.append(_row(result, Darner.name))
        judge(outcome, result)
        outcome.notes += result.notes
        best: dict[float, float] = {}
        for name, reach in PEERS.items():
            kind = KINDS[name]
            if not (peers and load.peers):
                continue
            if kind.program() is None:
                outcome.notes.append(f"{kind.name} is missing")
                continue
            tell(f"{load.name}, {kind.name} ...")
            try:
                other = measure(load, kind, seconds, lambda line: tell(f"  {line}"))
            except OSError as error:
                outcome.notes.append(f"{kind.name} failed with {load.name}: {error}")
                continue
            rows.append(_row(other, kind.name))
            best[reach] = max(best.get(reach, 0.0), other.last)
        for reach, rate in best.items():
            which = "the C++ Darner" if reach == PEERS["cpp"] else "the faster of Redis and beanstalkd"
            ratio = result.last / rate if rate else None
            outcome.at_least(f"{load.name}: rate at the end by that of {which}", reach, ratio)
    outcome.tables.append(Table("Turnover", _HEAD, rows))
    return outcome


def _benchmark(conditions: Conditions) -> Outcome:
    """
    Items pass through queues that hold next to nothing.  A request is up to 64 KiB of sets here, or the gets of these.
    """
    return turnover(LOADS, 30.0, True, conditions.log)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """@return: the exit status: 1 where something is beyond its bound."""
    parser = argparse.ArgumentParser("python -m bench.turnover", description="Items pass through queues.")
    add = parser.add_argument
    names = ", ".join(f"{load.name!r}" for load in LOADS)
    add("names", nargs="*", metavar="load", help=f"one of {names}; by default all")
    add("--seconds", type=float, default=30.0, help="how long each part takes [default: %(default)s]")
    add("--backlog", type=float, default=1.0, help="the part of the backlogs that is put [default: %(default)s]")
    add("--no-peers", action="store_true", help="measure this server alone")
    options = parser.parse_args(arguments)
    known = {load.name: load for load in LOADS}
    for name in options.names:
        if name not in known:
            parser.error(f"{name!r} is none of {names}")
    loads = []
    for load in (known[name] for name in options.names or known):
        loads.append(evolve(load, backlog=int(load.backlog * options.backlog)))
    outcome = turnover(
        loads, options.seconds, not options.no_peers, lambda line: print(line, file=sys.stderr, flush=True)
    )
    print(as_text(Section("turnover", _benchmark, outcome)))
    return 0 if all(goal.met for goal in outcome.goals) else 1


if __name__ == "__main__":
    sys.exit(main())
