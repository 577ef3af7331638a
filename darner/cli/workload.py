"""
The load of ``darner-bench`` and the benchmarks, the spelling of its requests, and its figures.

`darner.cli.load_generator` sends the requests.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple, Optional, Union

from attrs import define, field, frozen

SET: Final = 0
GET: Final = 1
FOLLOW_UP: Final = 2
"""A request that must follow a get that found an item, in some protocols."""

_PRINTABLE: Final = bytes(33 + byte % 94 for byte in range(256))
_SEQUENCE: Final = 1 << 18
"""The number of requests in the plan of an endless load."""


def make_payload(size: int) -> bytes:
    """@return: printable bytes that can hardly be compressed, always the same: the payload of every item of a load."""
    return random.Random(size).randbytes(size).translate(_PRINTABLE)


class Reply(NamedTuple):
    """A reply that was not received whole, or differs from the expected one."""

    length: int
    """Its bytes; 0 while some are missing."""
    found: bool = True
    """Whether a get got its item."""
    error: str = ""
    """What is wrong with it, if anything."""
    follow_up: bytes = b""
    """The follow-up to send; the request is done when that is answered."""


INCOMPLETE: Final = Reply(0)


class Dialect:
    """
    The spelling of requests and replies, here that of darner.  Subclasses have those of other servers.

    @ivar requests: the bytes of a set and of a get; C{b""} for a follow-up, if there is one.
    @ivar replies: the expected reply to each.  If it is not always the same, bytes that no server sends, so that
        L{read} is called.
    @ivar farewell: the last request of a connection, so that nothing stays open, and its reply.
    @ivar greeting: the first request of a connection, and its reply.
    """

    miss = b"END\r\n"

    def __init__(self, load: Workload) -> None:
        queue = load.queue.encode()
        payload = self.payload = make_payload(load.item_bytes)
        options = (b"/close/open" if load.reliable else b"") + (b"/t=%d" % load.wait if load.wait else b"")
        self.requests: Sequence[bytes] = (
            b"set %b%b 0 0 %d\r\n%b\r\n" % (queue, b"/sync" if load.sync else b"", len(payload), payload),
            b"get %b%b\r\n" % (queue, options),
        )
        self.replies: Sequence[bytes] = (
            b"STORED\r\n",
            b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (queue, len(payload), payload),
        )
        self.greeting = (b"", b"")
        self.farewell = (b"get %b/close\r\n" % queue, b"END\r\n") if load.reliable else (b"", b"")

    def read(self, data: Union[bytes, bytearray], at: int, kind: int) -> Reply:
        """@return: the reply to a request of this C{kind} that begins at C{at}."""
        expected = self.replies[kind]
        if data.startswith(expected, at):
            return Reply(len(expected))
        if kind == GET and data.startswith(self.miss, at):
            return Reply(len(self.miss), found=False)
        if len(data) - at < len(expected) and expected.startswith(data[at : at + 256]):
            return INCOMPLETE
        end = data.find(b"\r\n", at) + 2
        if end < 2:
            return INCOMPLETE
        line = bytes(data[at:end])
        if line.startswith(b"VALUE ") and line.split()[-1].isdigit():
            end += int(line.split()[-1]) + len(b"\r\nEND\r\n")
            if len(data) < end:
                return INCOMPLETE
        return Reply(end - at, error=f"{line[:80]!r} in reply to a {'get' if kind else 'set'}")


@frozen
class Workload:
    """The requests of a load."""

    host: str = "127.0.0.1"
    port: int = 22133
    queue: str = "db_bench"
    sets: int = 10_000
    gets: int = 10_000
    item_bytes: int = 64
    clients: int = 10
    in_flight: int = 1
    """The number of requests that a client has in flight."""
    sync: bool = False
    """Whether sets ask for stable storage."""
    reliable: bool = False
    """Whether reads are open reads, each closed by the next."""
    wait: int = 0
    """How long a get waits for an item, in ms."""
    bad: float = 0.0
    """Share of requests at which the client disconnects, in the middle of it or before the reply, and reconnects."""
    seconds: Optional[float] = None
    """How long to run, instead of until all sets and gets are done; they are then a ratio."""
    processes: int = 1
    dialect: type[Dialect] = Dialect


@define
class Tally:
    """The figures of a load."""

    sets: int = 0
    gets: int = 0
    misses: int = 0
    errors: int = 0
    hang_ups: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    latencies: dict[int, int] = field(factory=lambda: defaultdict(int), repr=False)
    """The number of requests by latency in us."""
    started: float = 0.0
    ended: float = 0.0
    cpu: float = 0.0
    """CPU seconds of the load process, without those for polling."""
    busy: float = 0.0
    """The share of its time for which the load process was busy."""
    first_error: str = ""

    def add(self, other: Tally) -> None:
        """Add the tally of another process."""
        self.started = min(self.started or other.started, other.started)
        self.ended = max(self.ended, other.ended)
        for name in ("sets", "gets", "misses", "errors", "hang_ups", "bytes_in", "bytes_out", "cpu"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for latency, count in other.latencies.items():
            self.latencies[latency] += count
        self.busy = max(self.busy, other.busy)
        self.first_error = self.first_error or other.first_error


def plan(sets: int, gets: int, endless: bool) -> bytes:
    """
    @param endless: whether the plan will be repeated.
    @return: the order of requests, with sets and gets evenly mixed: a byte L{SET} or L{GET} for each.
    """
    times = math.gcd(sets, gets)
    if not times:
        return b""
    sets, gets = sets // times, gets // times
    total = sets + gets
    period = bytes((step + 1) * gets // total - step * gets // total for step in range(total))
    return period * (max(1, _SEQUENCE // total) if endless else times)
