"""
``python -m bench.diskfaults``: makes each call of LevelDB on its files fail once, for a while, and for ever.

A process works on queues under strace, which makes the calls fail.  In any case: an operation that reports an error has
changed nothing, one that reports none is done, reads return the items that are there and no others, and once the disk
works again, so do sets, without a restart.  Then the process is killed, and everything it acknowledged must be in the
store.

strace counts calls by thread.  It attaches after all imports, and the work is done in a separate thread.  The calls of
LevelDB's own thread fail at the same numbers.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Optional

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from bench.powerloss import ROOT, hastily, open_queues, payload, result_of, scratch
from bench.server_log import LogWatch
from bench.syscalls import attach, missing
from darner.errors import DarnerError, StoreError
from darner.front.calls import Consuming, Opening, Putting, Reading
from darner.front.messages import OpenMessage
from darner.queues.collection import Queues

CALLS: Final = (
    "write", "fdatasync", "fsync", "openat", "rename", "fallocate", "unlink", "link", "linkat", "statfs", "fstatfs",
)  # fmt: skip
"""The calls that fail.  The process uses other calls to send on sockets."""
ERRORS: Final = ("ENOSPC", "EIO")
LASTING: Final = (1, 6, 0)
"""The number of calls that fail in a row; 0: all that follow."""
PATIENCE: Final = 40
"""Seconds of the process's test clock within which sets must work again."""


@frozen
class Fault:
    """Calls that fail."""

    call: str
    error: str
    first: int
    lasting: int

    @property
    def option(self) -> str:
        """The fault as an argument of strace."""
        last = f"..{self.last}" if self.lasting else "+"
        return f"inject={self.call}:error={self.error}:when={self.first}{last}"

    @property
    def last(self) -> int:
        return self.first + self.lasting - 1

    def __str__(self) -> str:
        return f"{self.call} {self.first} {f'to {self.last}' if self.lasting else 'and on'}: {self.error}"


@define
class Queue:
    """The expected contents of one queue."""

    items: list[int] = field(factory=list)
    """Items that must be there, including open ones."""
    unclear: set[int] = field(factory=set)
    """Items that may be there if the process is killed now: their last operation reported an error."""


class Driver:
    """Works on queues, and records the results."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.errors: Counter[str] = Counter()
        self.queues_known: dict[bytes, Queue] = {b"a": Queue(), b"b": Queue()}
        self.sizes: dict[int, int] = {}
        self._number = 0
        self.queues = self._open(path)

    def _open(self, path: Path) -> Queues:
        for left in range(PATIENCE, -1, -1):
            try:
                return open_queues(path, self.clock)
            except StoreError as error:
                if not left:
                    raise
                self.errors[str(error)] += 1
        raise AssertionError

    def work(self, seed: int) -> None:
        """Do some of each operation."""
        chance = random.Random(seed)
        for step in range(40):
            name = chance.choice((b"a", b"b"))
            verb = chance.choices(
                (self.put, self.put_slowly, self.get, self.open_and_close, self.flush, self.delete), (26, 5, 8, 5, 1, 1)
            )[0]
            verb(name, chance)
            if step % 10 == 9:
                # Space is reclaimed, and the database compacted and reopened.
                self.clock.pump([0.5] * 5)

    def _ask(self, deferred: Deferred[Any]) -> tuple[bool, Any]:
        """@return: whether it succeeded, and the result."""
        self.clock.advance(0)
        try:
            return True, result_of(deferred)
        except DarnerError as error:
            return self._refused(error)

    def _refused(self, error: DarnerError) -> tuple[bool, Any]:
        self.errors[str(error)] += 1
        return False, None

    def _new(self, size: int) -> int:
        self._number += 1
        self.sizes[self._number] = size
        return self._number

    def _stored(self, name: bytes, number: int, stored: bool) -> None:
        queue = self.queues_known[name]
        if stored:
            queue.items.append(number)
        else:
            queue.unclear.add(number)

    def put(self, name: bytes, chance: random.Random) -> bool:
        """Put a small item."""
        size = chance.choice((20, 2000, 9_000))
        number = self._new(size)
        call = Putting(self.queues)
        try:
            call.start(name, payload(number, size), 0, 0, sync=chance.random() < 0.4)
        except DarnerError as error:
            stored = self._refused(error)[0]
        else:
            stored, _ = self._ask(call.deferred)
        self._stored(name, number, stored)
        return stored

    def put_slowly(self, name: bytes, chance: random.Random) -> None:
        """Put a large item in pieces, one in each turn."""
        size = 250_000
        number = self._new(size)
        data = payload(number, size)
        inflow = self.queues.puts.inflow()
        for at in range(0, size, 50_000):
            inflow.write(data[at : at + 50_000])
            self.clock.advance(0)
        call = Consuming(self.queues)
        try:
            call.start(lambda answers, done: self.queues.puts.put_flow(answers, done, name, 0, 0, inflow))
        except DarnerError as error:
            stored = self._refused(error)[0]
        else:
            stored, _ = self._ask(call.deferred)
            assert inflow.size == size
        self._stored(name, number, stored)

    def _read(self, call: Reading) -> tuple[bool, Any]:
        try:
            call.start(0)
        except DarnerError as error:
            return self._refused(error)
        return self._ask(call.deferred)

    def _check(self, name: bytes, message: Any) -> Optional[int]:
        """Check that this is the item at the head of the queue.  @return: its number."""
        items = self.queues_known[name].items
        number = int(message.payload[:8]) if message is not None else None
        if number != (items[0] if items else None):
            raise AssertionError(f"{name!r} gave item {number}, and has {items}")
        if number is not None and message.payload != payload(number, self.sizes[number]):
            raise AssertionError(f"item {number} is garbled")
        return number

    def get(self, name: bytes, chance: random.Random) -> None:
        """Take an item."""
        done, message = self._read(Reading(self.queues, name, lambda _: None))
        if done and self._check(name, message) is not None:
            self.queues_known[name].items.pop(0)

    def open_and_close(self, name: bytes, chance: random.Random) -> None:
        """Open an item, and close it or give it back."""
        done, message = self._read(Opening(self.queues, name, lambda _: None))
        number = self._check(name, message) if done else None
        if number is None:
            return
        assert isinstance(message, OpenMessage)
        if chance.random() < 0.3:
            self._ask(message.abort())
            return
        closed, _ = self._ask(message.close())
        self._gone(name, [number], closed)

    def _gone(self, name: bytes, numbers: list[int], done: bool) -> None:
        queue = self.queues_known[name]
        queue.items = [number for number in queue.items if number not in numbers]
        if not done:
            queue.unclear.update(numbers)

    def flush(self, name: bytes, chance: random.Random) -> None:
        call = Consuming(self.queues)
        call.start(lambda answers, done: self.queues.flush(answers, done, name))
        self._gone(name, list(self.queues_known[name].items), self._ask(call.deferred)[0])

    def delete(self, name: bytes, chance: random.Random) -> None:
        call = Consuming(self.queues)
        call.start(lambda answers, done: self.queues.delete(answers, done, name))
        self._gone(name, list(self.queues_known[name].items), self._ask(call.deferred)[0])

    def recover(self) -> bool:
        """@return: whether sets work again, so that the contents are certain."""
        chance = random.Random(0)
        healthy = True
        for _ in range(PATIENCE):
            stored = [self.put(name, chance) for name in self.queues_known]
            if all(stored):
                if not self.queues.health().writable:
                    raise AssertionError(f"sets work, and health is {self.queues.health()}")
                for queue in self.queues_known.values():
                    queue.unclear.clear()
                return True
            healthy = healthy and self.queues.health().writable
            self.clock.pump([0.5, 0.5, 0.5])
        if healthy:
            raise AssertionError("sets are refused, and nobody says so")
        return False

    def report(self) -> dict[str, Any]:
        """@return: the expected contents of the store, and the results, for JSON."""
        known = self.queues_known.items()
        return {
            "queues": {name.decode(): [queue.items, sorted(queue.unclear)] for name, queue in known},
            "sizes": self.sizes,
            "errors": dict(self.errors),
        }


def bounded(path: Path, seed: int) -> list[int]:
    """
    Put large items while the disk refuses every write.

    @return: the resident memory after each 10 MB of them, in bytes.
    """
    driver = Driver(path)
    driver.work(seed)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    sizes = []
    for _ in range(16):
        for _ in range(40):
            driver.put_slowly(b"a", random.Random(seed))
            driver.clock.advance(0.1)
        gc.collect()
        sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
    # Standard output may be a file too.
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert len(driver.errors) > 0
    return sizes


def work(path: Path, descriptor: int, seed: int) -> None:
    """Do the work in a separate thread, report it, and end as in a crash."""
    # So that nothing is imported or read later.
    with hastily() as counts:
        warm = Driver(path.with_suffix(".warm"))
        warm.work(seed)
        warm.queues.store.close()
    assert counts["renewed"], counts
    # Allow other processes than the parent to trace this one.
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
    parent = socket.socket(fileno=descriptor)
    parent.sendall(b"r")
    parent.recv(1)
    report: dict[str, Any] = {}

    def run() -> None:
        try:
            with LogWatch() as watch, hastily():
                driver = Driver(path)
                driver.work(seed)
                report["recovered"] = driver.recover()
                report.update(driver.report())
            watch.check()
        except StoreError as error:
            report.update(queues={}, sizes={}, errors={str(error): 1}, recovered=False)
        except BaseException as error:
            report["fault"] = f"{type(error).__name__}: {error}"

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    parent.sendall(json.dumps(report).encode())
    os.kill(os.getpid(), signal.SIGKILL)


@define
class Outcome:
    """The result of one fault."""

    errors: Counter[str] = field(factory=Counter)
    recovered: bool = False
    fault: str = ""
    """What was wrong, if anything."""
    calls: Counter[str] = field(factory=Counter)
    """The number of calls of each kind, by the thread that made most of them."""


def run(directory: Path, fault: Optional[Fault], seed: int = 1) -> Outcome:
    """
    Run a process with this fault, or without one, and check the store afterwards.

    @param directory: a directory to work in; files created there are removed.
    """
    here = Path(tempfile.mkdtemp(dir=directory))
    try:
        return _run(here, fault, seed)
    finally:
        shutil.rmtree(here)


def _run(here: Path, fault: Optional[Fault], seed: int) -> Outcome:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "bench.diskfaults", "--work", str(here / "data"), "--report", str(theirs.fileno()),
               "--seed", str(seed)]  # fmt: skip
    inject = ["-e", fault.option] if fault is not None else []
    calls = fault.call if fault is not None else ",".join(CALLS)
    text = b""
    with ours, subprocess.Popen(command, cwd=ROOT, pass_fds=(theirs.fileno(),)) as process:
        theirs.close()
        if ours.recv(1):
            with attach(process.pid, here / "trace", calls, inject):
                ours.sendall(b"g")
                while data := ours.recv(65536):
                    text += data
    outcome = Outcome()
    if not text:
        outcome.fault = "the process died"
        return outcome
    report = json.loads(text)
    outcome.fault = report.get("fault", "")
    if not outcome.fault:
        outcome.errors.update(report["errors"])
        outcome.recovered = report["recovered"]
        if not outcome.recovered and fault is not None and fault.lasting:
            outcome.fault = "sets never worked again"
        else:
            outcome.fault = differs(here / "data", report)
    if fault is None:
        outcome.calls = _count(here / "trace")
    return outcome


def differs(path: Path, report: dict[str, Any]) -> str:
    """@return: what is missing from the store, should not be there, or is an error in the log."""
    with LogWatch() as watch:
        return _differs(path, report) or ", ".join(watch.unhandled)


def _differs(path: Path, report: dict[str, Any]) -> str:
    queues = open_queues(path, Clock())
    try:
        for name in {*queues.names(), *(name.encode() for name in report["queues"])}:
            fifo = queues.make(name)
            items, unclear = report["queues"].get(name.decode(), ([], []))
            found = []
            while (item := fifo.take()) is not None:
                data = b"".join(queues.reads.outflow(item, lambda: None)) if item.stream else item.payload
                number = int(data[:8])
                if data != payload(number, report["sizes"][str(number)]):
                    return f"item {number} in {name!r} is garbled"
                found.append(number)
            if [number for number in found if number not in unclear] != items or len(found) != len(set(found)):
                return f"{name!r} holds {found}, and should {items}; unclear are {unclear}"
    finally:
        queues.store.close()
    return ""


def _count(trace: Path) -> Counter[str]:
    """@return: the number of calls of each kind, by the thread that made most of them."""
    counts: Counter[tuple[str, str]] = Counter()
    with trace.open() as lines:
        for line in lines:
            thread, _, text = line.partition(" ")
            name = text.strip().partition("(")[0]
            if name in CALLS:
                counts[thread, name] += 1
    most: Counter[str] = Counter()
    for (_, name), count in counts.items():
        most[name] = max(most[name], count)
    return most


def faults(calls: Counter[str]) -> Iterator[Fault]:
    """@return: all possible faults."""
    for call in CALLS:
        for first in range(1, calls[call] + 1):
            for error in ERRORS:
                for lasting in LASTING:
                    yield Fault(call, error, first, lasting)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """@return: the exit status: 1 if something was wrong."""
    parser = argparse.ArgumentParser("python -m bench.diskfaults", description="Let calls to files fail.")
    parser.add_argument("--seed", type=int, default=1, help="seed of the work and of the choice of faults")
    parser.add_argument("--runs", type=int, help="how many faults to try, chosen at random [default: all]")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--report", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--bounded", type=Path, metavar="DIRECTORY", help="only check that memory is bounded")
    options = parser.parse_args(arguments)
    if options.work:
        work(options.work, options.report, options.seed)
    if options.bounded:
        print(*bounded(options.bounded, options.seed))
        return 0
    reason = missing()
    if reason is not None:
        parser.error(reason)
    directory = Path(tempfile.mkdtemp(prefix="darner-diskfaults-", dir=scratch()))
    wrong = 0
    errors: Counter[str] = Counter()
    try:
        plain = run(directory, None, options.seed)
        if plain.fault or plain.errors or not plain.recovered:
            parser.error(f"it does not even work without faults: {plain}")
        chosen = list(faults(plain.calls))
        if options.runs is not None and options.runs < len(chosen):
            chosen = random.Random(options.seed).sample(chosen, options.runs)
        print(f"{len(chosen)} faults in {dict(plain.calls)}", flush=True)
        for fault in chosen:
            outcome = run(directory, fault, options.seed)
            errors["somebody was told" if outcome.errors else "nobody was told"] += 1
            if outcome.fault:
                wrong += 1
                print(f"{fault}: {outcome.fault[:1000]}", flush=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(f"{len(chosen)} faults, {dict(errors)}; {wrong} ended badly")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
