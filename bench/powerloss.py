"""
``python -m bench.powerloss``: cuts the power of a store at many moments, and checks what is there afterwards.

A process works on queues under strace.  Its writes and fsyncs determine the possible states of a disk that loses its
power at any moment (`bench.disk`).  Each such state is created and opened.  It must have the contents of the queues
after one of the turns that the process had begun by then, and not an earlier one than the last turn that was reported
as synced: all synced turns are there, then a prefix of the later ones, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, Optional
from unittest.mock import patch

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from bench.disk import Disk, State
from bench.server_log import LogWatch
from bench.syscalls import missing, read_trace, watched
from darner.front.calls import Call, Consuming, Opening, OpenMessage, Putting, Reading
from darner.queues.collection import Queues
from darner.queues.surroundings import Surroundings
from darner.store import releasing
from darner.store.database import Database
from darner.store.leveldb import LevelStore
from darner.store.records import LARGE
from darner.store.releasing import Releasing
from darner.store.renewal import Renewal

WRITE_BUFFER: Final = 64 * 1024
"""The smallest that LevelDB accepts, so that it begins new logs often."""
ROOT: Final = Path(__file__).resolve().parent.parent
NAMES: Final = (b"a", b"b", b"c")
_VERBS: Final = ("put", "get", "open", "close", "abort", "flush", "delete")
_WEIGHTS: Final = (50, 16, 8, 6, 3, 0.6, 0.8)
QUIET: Final = (0.6, 0.6, 0.6)
"""Seconds of a quiet moment, in which space is reclaimed."""
LEVELDB, SEGMENTS, TURNOVER, THREADS = KINDS = ("leveldb", "segments", "turnover", "threads")
"""
Kinds of work: without segments, with them, with LevelDB reopened and segments moved all the time, and the same with
threads that do so while turns go on, as in a server.  What threads do is not the same each time.
"""
CUTTING: Final = ("fsync", "fdatasync", "rename", "unlink", "openat", "mkdir")
"""Calls before and after which every cut is tried."""


# The work


@frozen
class Turn:
    """The operations of one turn."""

    requests: tuple[tuple[str, bytes, int, int], ...]
    """Verb, queue, number of the item, its size."""
    sync: bool


def script(chance: random.Random, turns: int, turnover: bool = False) -> list[Turn]:
    """
    @param turnover: whether most items do not stay long, except in one queue: what stays there has to be moved out of
        segments.
    @return: random operations for so many turns.
    """
    number = 0
    done = []
    for _ in range(turns):
        requests = []
        several = chance.choice((1, 1, 2, 5))
        for _ in range(several):
            verbs, weights = (_VERBS, _WEIGHTS) if several == 1 else (_VERBS[:2], _WEIGHTS[:2])
            (verb,) = chance.choices(verbs, weights)
            size = 0
            if verb == "put":
                number += 1
                (size,) = chance.choices((9, 200, 3000, 6000, 20_000, 150_000), (30, 30, 12, 13, 8, 4))
            requests.append((verb, chance.choice(NAMES), number, size))
        if turnover and len(done) % 20 == 19:
            requests = [("flush", name, 0, 0) for name in NAMES[:-1]]
        puts = any(verb == "put" for verb, *_ in requests)
        done.append(Turn(tuple(requests), puts and chance.random() < 0.15))
    return done


def payload(number: int, size: int) -> bytes:
    """@return: the unique payload of an item."""
    return (b"%08d." % number * (size // 9 + 1))[:size]


class Expected:
    """A simple model of the queues: the expected contents of the store after each turn."""

    def __init__(self) -> None:
        self.queues: dict[bytes, list[tuple[int, int]]] = {}
        self._open: dict[bytes, list[tuple[int, int]]] = {}

    def do(self, turn: Turn) -> None:
        for verb, name, number, size in turn.requests:
            items = self.queues.get(name)
            opened = self._open.setdefault(name, [])
            if verb == "put":
                self.queues.setdefault(name, []).append((number, size))
            elif items is None:
                continue
            elif verb == "close" and opened:
                items.remove(opened.pop(0))
            elif verb == "abort" and opened:
                opened.pop(0)
            elif verb == "flush":
                items[:] = sorted(opened)
            elif verb == "delete":
                del self.queues[name]
                opened.clear()
            elif verb in ("get", "open"):
                head = next((item for item in items if item not in opened), None)
                if head is not None:
                    items.remove(head) if verb == "get" else opened.append(head)

    def contents(self) -> dict[bytes, list[tuple[int, int]]]:
        return {name: list(items) for name, items in self.queues.items()}


# The process that does the work


class Threads:
    """Threads for what is not done in this one."""

    def __init__(self) -> None:
        self._done: SimpleQueue[tuple[Deferred[Any], Any]] = SimpleQueue()
        self._pool = ThreadPoolExecutor(4)

    def call(self, work: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """@return: fires with the result, in L{pump}."""
        deferred: Deferred[Any] = Deferred()
        self._pool.submit(self._run, deferred, work, arguments)
        return deferred

    def _run(self, deferred: Deferred[Any], work: Callable[..., Any], arguments: Sequence[Any]) -> None:
        result: Any
        try:
            result = work(*arguments)
        except BaseException:
            result = Failure()
        self._done.put((deferred, result))

    def pump(self, wanted: Callable[[], bool] = lambda: False) -> None:
        """Let the results of what is done be known; as long as C{wanted}, wait for more."""
        while wanted() or not self._done.empty():
            with suppress(Empty):
                deferred, result = self._done.get(timeout=0.002)
                deferred.callback(result)


def open_queues(
    path: Path, clock: Clock, separate_from: Optional[int] = LARGE,
    in_thread: Callable[..., Deferred[Any]] = maybeDeferred,
) -> Queues:  # fmt: skip
    """
    Open a data directory.

    @param separate_from: as for a L{LevelStore}.
    @param in_thread: as for L{Surroundings}; by default all is done in this thread.
    """
    queues = Queues(
        LevelStore(path, write_buffer=WRITE_BUFFER, separate_from=separate_from),
        Surroundings(clock, lambda call: clock.callLater(0, call), in_thread),
    )
    try:
        queues.start()
    except BaseException:
        queues.store.close()
        raise
    return queues


@contextmanager
def hastily() -> Iterator[Counter[str]]:
    """
    The context in which the store reopens LevelDB, and moves what is needed of segments, in every quiet moment.

    @return: how often it did each.
    """
    counts = Counter(renewed=0, moved=0, released=0)
    asked = count()

    def counted(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            counts[name] += 1
            return method(*arguments)

        return called

    with (
        # It is asked twice for each time, and in between nothing else would be done if it were due always.
        patch.object(Renewal, "due", property(lambda _: next(asked) % 4 < 2)),
        patch.object(releasing, "SPARE", 0),
        patch.object(Database, "renew", counted("renewed", Database.renew)),
        patch.object(Releasing, "_copy", counted("moved", Releasing._copy)),
        patch.object(Releasing, "_release", counted("released", Releasing._release)),
    ):
        yield counts


class Worker:
    """Runs a script on queues."""

    def __init__(self, queues: Queues, clock: Clock, threads: Optional[Threads] = None) -> None:
        self._queues = queues
        self._clock = clock
        self._threads = threads
        self._opened: dict[bytes, list[OpenMessage]] = {}

    def do(self, turn: Turn) -> None:
        """
        Do the operations of one turn, and end it.

        @raise DarnerError: an operation failed.
        """
        calls = [(name, self._start(verb, name, number, size, turn.sync)) for verb, name, number, size in turn.requests]
        self._clock.advance(0)
        for name, deferred in calls:
            if self._threads is not None:
                self._threads.pump(partial(self.pending, deferred))
            result = result_of(deferred)
            if isinstance(result, OpenMessage):
                self._opened.setdefault(name, []).append(result)

    def pending(self, deferred: Deferred[Any]) -> bool:
        """@return: whether this has still not fired, a little later."""
        self._clock.advance(0.001)
        return not deferred.called

    def _start(self, verb: str, name: bytes, number: int, size: int, sync: bool) -> Deferred[Any]:
        call: Call
        opened = self._opened.get(name, [])
        if verb == "put":
            call = putting = Putting(self._queues)
            putting.start(name, payload(number, size), 0, 0, sync)
        elif verb in ("get", "open"):
            call = reading = (Reading if verb == "get" else Opening)(self._queues, name, lambda _: None)
            reading.start(0)
        elif verb in ("close", "abort"):
            if not opened:
                return succeed(None)
            read = opened.pop(0)
            return read.close() if verb == "close" else read.abort()
        else:
            call = consuming = Consuming(self._queues)
            consume = self._queues.flush if verb == "flush" else self._queues.delete
            consuming.start(lambda answers, done: consume(answers, done, name))
            if verb == "delete":
                opened.clear()
        return call.deferred


def result_of(deferred: Deferred[Any]) -> Any:
    results: list[Any] = []
    deferred.addBoth(results.append)
    (result,) = results
    if isinstance(result, Failure):
        result.raiseException()
    return result


def work(path: Path, marks: Path, seed: int, turns: int, kind: str) -> None:
    """Run a script in a data directory, and mark the beginning and end of each turn."""
    done = script(random.Random(seed), turns, kind in (TURNOVER, THREADS))
    with LogWatch() as watch:
        if kind in (TURNOVER, THREADS):
            with hastily() as counts:
                _work(path, marks, done, LARGE, Threads() if kind == THREADS else None)
            if kind == TURNOVER and not all(counts.values()):
                raise AssertionError(f"this is no test of something: {counts}")
        else:
            _work(path, marks, done, LARGE if kind == SEGMENTS else None)
    watch.check()


def _work(
    path: Path, marks: Path, turns: Sequence[Turn], separate_from: Optional[int], threads: Optional[Threads] = None
) -> None:
    clock = Clock()
    say = os.open(marks, os.O_WRONLY | os.O_APPEND)
    queues = open_queues(path, clock, separate_from, maybeDeferred if threads is None else threads.call)
    worker = Worker(queues, clock, threads)
    for number, turn in enumerate(turns, 1):
        os.write(say, b"b")
        worker.do(turn)
        os.write(say, b"s" if turn.sync else b"e")
        if threads is not None:
            # What is quiet for the queues is not so for the threads.
            threads.pump()
            clock.advance(QUIET[0])
        elif number % 40 == 0:
            clock.pump(QUIET)
    clock.pump(QUIET)
    if threads is not None:
        stopped = queues.reclaimer.stop()
        threads.pump(partial(worker.pending, stopped))
    queues.store.close()


# The states after the cut


@frozen
class Fault:
    """A state that was wrong."""

    cut: int
    """The number of calls before the cut."""
    kind: str
    """The kind of state after that cut."""
    what: str

    def __str__(self) -> str:
        return f"cut after call {self.cut}, {self.kind}: {self.what}"


@define
class Findings:
    """The results."""

    calls: int = 0
    opened: int = 0
    synced: int = 0
    """The number of turns that were reported as synced."""
    logs: int = 0
    """The number of states with several logs."""
    kinds: Counter[str] = field(factory=Counter)
    lost: int = 0
    """The number of states that had lost turns that were not synced."""
    faults: list[Fault] = field(factory=list)


class Checker:
    """Creates and opens states of the disk."""

    def __init__(self, directory: Path, turns: Sequence[Turn]) -> None:
        """@param directory: where to create them."""
        self._path = directory / "state"
        expected = Expected()
        self._expected = [expected.contents()]
        for turn in turns:
            expected.do(turn)
            self._expected.append(expected.contents())

    def check(self, state: State, promised: int, begun: int, thoroughly: bool) -> int:
        """
        @param promised: the number of turns that must be there.
        @param begun: the number of turns that may be there.
        @param thoroughly: whether to continue working on the store, and to check it after that.
        @return: the number of turns that are there.
        @raise AssertionError: the contents are wrong, or the log has an error.
        """
        self._make(state)
        try:
            with LogWatch() as watch:
                found = self._open()
                there = [turn for turn in range(promised, begun + 1) if self._expected[turn] == found]
                if not there:
                    raise AssertionError(self._difference(found, promised, begun))
                if thoroughly:
                    self._work_on(found)
            watch.check()
            return there[-1]
        finally:
            shutil.rmtree(self._path, ignore_errors=True)

    def _make(self, state: State) -> None:
        self._path.mkdir()
        for name, content in state.items():
            if content is None:
                (self._path / name).mkdir()
            else:
                (self._path / name).write_bytes(content.bytes())

    def _open(self, more: int = 0) -> dict[bytes, list[tuple[int, int]]]:
        """@return: the contents of the queues.  @param more: the number of an item to put on these and others."""
        clock = Clock()
        path = self._path / "data"
        queues = open_queues(path, clock)
        try:
            found = {name: self._items(queues, name) for name in queues.names()}
            if more:
                queues.store.close()
                queues = open_queues(path, clock)
                worker = Worker(queues, clock)
                for name in (*NAMES, b"new"):
                    worker.do(Turn((("put", name, more, 200_000),), True))
                clock.advance(2)
                if queues.store.leftovers() != ([], []):
                    raise AssertionError(f"never reclaimed: {queues.store.leftovers()}")
        finally:
            queues.store.close()
        return found

    def _items(self, queues: Queues, name: bytes) -> list[tuple[int, int]]:
        """@return: the contents of a queue.  The items are taken, but that is never written."""
        fifo = queues.make(name)
        count, size = fifo.count, fifo.storage.contents.bytes
        found = []
        while (item := fifo.take()) is not None:
            data = b"".join(queues.reads.outflow(item, lambda: None)) if item.stream else item.payload
            number = int(data[:8])
            if data != payload(number, len(data)) or len(data) != item.size:
                raise AssertionError(f"garbage in {name!r}: {data[:40]!r}...")
            found.append((number, len(data)))
        if (len(found), sum(size for _, size in found)) != (count, size):
            raise AssertionError(f"{name!r} said {count} items and {size} bytes, and had {found}")
        return found

    def _work_on(self, found: dict[bytes, list[tuple[int, int]]]) -> None:
        more = 90_000_000
        self._open(more)
        for name in (*NAMES, b"new"):
            found.setdefault(name, []).append((more, 200_000))
        after = self._open()
        if after != found:
            raise AssertionError(f"after working on there is {after} and not {found}")

    def _difference(self, found: dict[bytes, list[tuple[int, int]]], promised: int, begun: int) -> str:
        every = [turn for turn, contents in enumerate(self._expected) if contents == found]
        if every:
            return f"there are the first {every[-1]} turns, of {promised} promised and {begun} begun"
        least = self._expected[promised]
        return f"there is what never was: {found}; promised was {least}"


def states(disk: Disk, chance: random.Random, tails: int) -> Iterator[tuple[str, State]]:
    """@return: the possible states after a cut at this moment, and the kind of each."""
    yield "least", disk.least()
    yield "all entries", disk.entries(zeros=False)
    yield "all entries, zeros", disk.entries(zeros=True)
    yield "newest log", disk.newest(".log")
    yield "no payloads", disk.without(".seg")
    yield "no new segments", disk.without_entries(".seg")
    for _ in range(tails):
        yield "chance", disk.some(chance)
    yield "most", disk.most()


class Recording:
    """A recording of a process's calls, which can be replayed any number of times."""

    def __init__(self, directory: Path, seed: int, turns: int, kind: str) -> None:
        """
        Run a process that works on queues.

        @param directory: an empty directory.
        @param seed: seed of the work.
        @param kind: one of L{KINDS}.
        """
        self.directory = directory
        self.turns = script(random.Random(seed), turns, kind in (TURNOVER, THREADS))
        self._traced, self._marks, self._trace = directory / "traced", directory / "marks", directory / "trace"
        self._traced.mkdir()
        self._marks.touch()
        command = [sys.executable, "-m", "bench.powerloss", "--work", str(self._traced), str(self._marks)]
        command += ["--kind", kind]
        subprocess.run(
            watched([*command, "--seed", str(seed), "--turns", str(turns)], self._trace), check=True, cwd=ROOT
        )

    def replay(self) -> Iterator[tuple[int, str, Disk]]:
        """@return: the number and name of each call, and the disk after it."""
        disk = Disk(self._traced, self._marks)
        yield 0, "", disk
        for number, call in enumerate(disk.follow(read_trace(self._trace)), 1):
            yield number, call.name, disk


def lose_power(recording: Recording, seed: int, limit: int, tails: int = 3) -> Findings:
    """
    Try cuts of the power.

    @param seed: seed of the choice of states.
    @param limit: the maximum number of states; most of the cuts are around an fsync, a rename, an unlink or a new
        file, the others spread evenly.
    @param tails: the number of random states after each cut, besides the special ones.
    """
    chance = random.Random(seed)
    checker = Checker(recording.directory, recording.turns)
    cuts = _cuts([name for _, name, _ in recording.replay()], chance, limit // (tails + 3))
    findings = Findings(synced=sum(turn.sync for turn in recording.turns))
    seen: set[object] = set()
    for number, _, disk in recording.replay():
        findings.calls = number
        if number not in cuts:
            continue
        promised, begun = _promised(disk.marks)
        for kind, state in states(disk, chance, tails):
            key = (promised, tuple(state.items()))
            if key in seen or findings.opened >= limit:
                continue
            seen.add(key)
            findings.opened += 1
            findings.kinds[kind] += 1
            findings.logs += _logs(state) > 1
            try:
                there = checker.check(state, promised, begun, findings.opened % 5 == 0)
                findings.lost += there < begun - 1
            except Exception as error:
                findings.faults.append(Fault(number, kind, f"{type(error).__name__}: {error}"))
    return findings


def _logs(state: State) -> int:
    """@return: the number of logs that are not empty."""
    return sum(name.endswith(".log") and content is not None and content.written > 0 for name, content in state.items())


def _promised(marks: bytes) -> tuple[int, int]:
    """@return: the number of turns that must be there, and of those that may be."""
    begun = marks.count(b"b")
    return marks[: marks.rfind(b"s") + 1].count(b"b"), begun


def _cuts(names: Sequence[str], chance: random.Random, count: int) -> set[int]:
    """@return: the calls after which to cut.  @param count: their approximate number."""
    special = sorted(
        {at for number, name in enumerate(names) if name in CUTTING for at in (number - 1, number)}
    )
    chosen = set(chance.sample(special, min(len(special), count * 3 // 4)))
    return chosen | set(chance.sample(range(len(names)), min(len(names), max(1, count - len(chosen)))))


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """@return: the exit status: 1 if something was lost."""
    parser = argparse.ArgumentParser("python -m bench.powerloss", description=str(__doc__).partition("\n\n")[2])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--states", type=int, default=2000, help="how many states to open [default: 2000]")
    parser.add_argument("--turns", type=int, default=400, help="how many turns the process works [default: 400]")
    parser.add_argument("--tails", type=int, default=3, help="random states after each cut [default: 3]")
    parser.add_argument("--kind", choices=KINDS, help="the kind of work [default: all, one after the other]")
    parser.add_argument("--work", nargs=2, type=Path, metavar=("DIRECTORY", "MARKS"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work:
        work(options.work[0] / "data", options.work[1], options.seed, options.turns, options.kind)
        return 0
    reason = missing()
    if reason is not None:
        parser.error(reason)
    kinds = KINDS if options.kind is None else (options.kind,)
    return max(_try(kind, options, options.states // len(kinds)) for kind in kinds)


def _try(kind: str, options: argparse.Namespace, limit: int) -> int:
    """@return: the exit status."""
    directory = Path(tempfile.mkdtemp(prefix="darner-powerloss-", dir=scratch()))
    try:
        recording = Recording(directory, options.seed, options.turns, kind)
        findings = lose_power(recording, options.seed, limit, options.tails)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    for fault in findings.faults:
        print(str(fault)[:1000])
    print(
        f"{kind}: {findings.opened} states of {findings.calls} calls opened, {findings.logs} of them with several logs"
        f"; {findings.synced} of {options.turns} turns were promised; "
        f"{findings.lost} had lost what was not promised; {len(findings.faults)} faults"
    )
    print(", ".join(f"{count} of kind {kind!r}" for kind, count in findings.kinds.items()))
    return 1 if findings.faults or not findings.opened else 0


def scratch() -> Optional[str]:
    """@return: a directory in memory, where an fsync costs nothing; C{None} for the default one."""
    memory = Path("/dev/shm")
    return str(memory) if os.access(memory, os.W_OK) else None


if __name__ == "__main__":
    sys.exit(main())
