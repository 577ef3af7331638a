"""
The options of a run of benchmarks, and the measuring code that they share.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Optional, TypeVar

from attrs import define, field, frozen

from bench.outcome import Plot, Table
from bench.servers import KINDS, Server
from darner.cli.bench import Result, run

_T = TypeVar("_T")


@frozen
class Sample:
    """One measurement."""

    result: Result
    cpu: Optional[float]
    """The server's CPU time for a request, in us; C{None} if its process is unknown."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.result.rate


@define
class Conditions:
    """How thoroughly to measure, and which servers."""

    rounds: int = 3
    quick: bool = False
    """Whether to check only that everything works."""
    wanted: Sequence[str] = tuple(KINDS)
    addresses: Sequence[type[Server]] = ()
    """Running servers with this protocol."""
    log: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)
    missing: set[str] = field(factory=set)
    used: dict[str, str] = field(factory=dict)
    """The versions of the measured servers, by name."""
    notes: list[str] = field(factory=list)
    """The problems of the benchmark that is running."""

    def choose(self, full: _T, quick: _T) -> _T:
        """@return: the size of something."""
        return quick if self.quick else full

    @contextmanager
    def servers(self, *names: str) -> Iterator[list[Server]]:
        """Start those servers that are installed, darner first, and remove them in the end."""
        kinds = [KINDS[name] for name in names if name in self.wanted]
        there = [kind for kind in kinds if kind.program() is not None]
        self.missing.update(kind.name for kind in kinds if kind not in there)
        servers = [kind() for kind in (*there, *self.addresses)]
        try:
            for server in servers:
                server.start()
                if type(server) in there:
                    self.used[server.name] = server.version()
            yield servers
        finally:
            for server in servers:
                for entry in server.unhandled():
                    self.note(f"{server.name} logged: {entry}")
                server.remove()

    def measure(self, server: Server, **load: Any) -> Optional[Sample]:
        """
        Run a load.

        @return: C{None} if it failed, which is noted.
        """
        before = server.cpu()
        try:
            result = run(server.load(**load))
            used = server.cpu() - before
        except OSError as error:
            self.note(f"{server.name} failed with {_words(load)}: {error}")
            return None
        if result.tally.errors:
            self.note(f"{server.name} gave {result.tally.errors} wrong replies, first {result.tally.first_error}")
        self.log(f"  {server.name}: {_words(load)}: {result.rate:.0f}/s")
        return Sample(result, used / result.requests * 1e6 if server.process and result.requests else None)

    def note(self, text: str) -> None:
        """Add a note to the figures."""
        if text not in self.notes:
            self.notes.append(text)
            self.log(f"  {text}")

    def compare(self, servers: Sequence[Server], **load: Any) -> dict[str, Sample]:
        """
        Measure servers in turn, C{rounds} times.

        @return: the round with the median rate of each server that did not fail, by name.
        """
        samples: dict[str, list[Sample]] = {server.name: [] for server in servers}
        failed: set[str] = set()
        for _ in range(self.rounds):
            for server in servers:
                if server.name not in failed:
                    sample = self.measure(server, **load)
                    if sample is None:
                        failed.add(server.name)
                    else:
                        samples[server.name].append(sample)
        return {name: median(taken) for name, taken in samples.items() if name not in failed}


def _words(load: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in load.items())


def median(samples: list[Sample]) -> Sample:
    """@return: the sample with the median rate; of two, the lower."""
    rate = statistics.median_low([sample.rate for sample in samples])
    return next(sample for sample in samples if sample.rate == rate)


def ratio(samples: dict[str, Sample], peer: type[Server], own: str = "darner") -> Optional[float]:
    """@return: darner's rate relative to that of a peer, if both were measured."""
    if own not in samples or peer.name not in samples or not samples[peer.name].rate:
        return None
    return samples[own].rate / samples[peer.name].rate


Grid = dict[int, dict[str, Sample]]
"""Samples by a number that was varied, and by server."""


def tables(grid: Grid, what: str) -> list[Table]:
    """@return: tables of the rates and of the servers' CPU time, by the varied number."""
    names = list(dict.fromkeys(name for samples in grid.values() for name in samples))

    def cells(figure: Callable[[Sample], str]) -> list[list[str]]:
        return [
            [f"{number:,}", *(figure(samples[name]) if name in samples else "-" for name in names)]
            for number, samples in grid.items()
        ]

    def rate(sample: Sample) -> str:
        return f"{sample.rate:,.0f}" + ("*" if sample.result.limited_by_tool else "")

    def cpu(sample: Sample) -> str:
        return "-" if sample.cpu is None else f"{sample.cpu:.1f}"

    def tail(sample: Sample) -> str:
        return f"{sample.result.percentile(99) / 1000:.2f}"

    head = [what, *names]
    return [
        Table("Requests a second", head, cells(rate)),
        Table("CPU time of the server a request, in us", head, cells(cpu)),
        Table("99 % of requests took no longer than, in ms", head, cells(tail)),
    ]


def plot(grid: Grid, name: str, title: str, what: str) -> Plot:
    """@return: a plot of the rates over the varied number."""
    names = list(dict.fromkeys(name for samples in grid.values() for name in samples))
    lines: dict[str, list[tuple[float, float]]] = {
        name: [(number, samples[name].rate) for number, samples in grid.items() if name in samples] for name in names
    }
    return Plot(name, title, what, "requests a second", lines)


def mib(size: float) -> str:
    """@return: bytes in readable form."""
    return f"{size / 2**20:.1f}"
