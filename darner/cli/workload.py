"""
What ``darner-bench`` and the benchmarks ask of a server, how that is spelled, and what came of it.

`darner.cli.load_generator` makes the requests.
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
"""What is left to say when a get has found something, in protocols that ask for that."""

_PRINTABLE: Final = bytes(33 + byte % 94 for byte in range(256))
_SEQUENCE: Final = 1 << 18
"""How many requests are planned ahead where there is no end to them."""


def make_payload(size: int) -> bytes:
    """@return: printable bytes that cannot be compressed much, always the same: every item of a load is this one."""
    return random.Random(size).randbytes(size).translate(_PRINTABLE)


class Reply(NamedTuple):
    """A reply that is not, as it stands, the one that was expected."""

    length: int
    """Its bytes; 0 while some are missing."""
    found: bool = True
    """Whether a get got its item."""
    error: str = ""
    """What is wrong with it, where something is."""
    follow_up: bytes = b""
    """What to say next; the request is done when that is answered."""


INCOMPLETE: Final = Reply(0)


class Dialect:
    """
    How requests are spelled, and what is answered: in this protocol.  Those of other servers are made from it.

    @ivar requests: the bytes of a set and of a get; of a follow-up, where there is one, C{b""}.
    @ivar replies: what is answered to each when all is well.  Where that is not always the same, something that no
        server says, so that L{read} is asked.
    @ivar farewell: a last request, so that nothing stays open, and its reply.
    @ivar greeting: the same for what comes first on a connection.
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
    """What to ask of a server."""

    host: str = "127.0.0.1"
    port: int = 22133
    queue: str = "db_bench"
    sets: int = 10_000
    gets: int = 10_000
    item_bytes: int = 64
    clients: int = 10
    in_flight: int = 1
    """Requests that a client has under way at a time."""
    sync: bool = False
    """Whether sets ask for stable storage."""
    reliable: bool = False
    """Whether reads are open reads, each closed by the next."""
    wait: int = 0
    """How long a get waits for an item, in ms."""
    bad: float = 0.0
    """Share of requests at which the client hangs up, in the middle of it or before the reply, and comes back."""
    seconds: Optional[float] = None
    """How long to run instead of until all sets and gets are made; they are then the ratio of the two."""
    processes: int = 1
    dialect: type[Dialect] = Dialect


@define
class Tally:
    """What came of it."""

    sets: int = 0
    gets: int = 0
    misses: int = 0
    errors: int = 0
    hang_ups: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    latencies: dict[int, int] = field(factory=lambda: defaultdict(int), repr=False)
    """How many requests took how many us."""
    started: float = 0.0
    ended: float = 0.0
    cpu: float = 0.0
    """CPU seconds that making the load took, but for waiting awake."""
    busy: float = 0.0
    """The share of its time for which the process was busy."""
    first_error: str = ""

    def add(self, other: Tally) -> None:
        """Take another process's tally into this one."""
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
    Which request comes after which: sets and gets evenly mixed, L{SET} or L{GET} a byte.

    @param endless: whether it will be gone through again and again.
    """
    times = math.gcd(sets, gets)
    if not times:
        return b""
    sets, gets = sets // times, gets // times
    total = sets + gets
    period = bytes((step + 1) * gets // total - step * gets // total for step in range(total))
    return period * (max(1, _SEQUENCE // total) if endless else times)
