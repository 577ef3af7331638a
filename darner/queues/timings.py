"""
How long turns take, and how long items waited: measured only where somebody wants to know.

What belongs to a turn is measured once for all of its requests.  Ages and sizes are those of samples, a few each
millisecond, which stand for all of their kind since the samples before.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any, Final

from darner.queues.turn import Turn
from darner.values.stats import ServerStats

SECONDS: Final = [
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
]
"""Bounds of the durations of turns."""
AGES: Final = [0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 21600.0, 86400.0, 604800.0]
"""Bounds of the ages of items, in seconds."""
SIZES: Final = [64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 16777216.0, 268435456.0]
"""Bounds of the sizes of items, in bytes."""
SAMPLES: Final = 8
"""How many items of a turn are samples."""
EVERY: Final = 0.001
"""Seconds between two turns of which there are samples."""
MOST_AGES: Final = 10_000
"""How many ages are kept for whoever asks for those of single queues."""


class Histogram:
    """
    Counts of values, by bounds.

    @ivar bounds: the upper bounds; a value that is equal to one is below it.
    @ivar counts: how many values there are between each bound and the one before it; the last is above all.
    @ivar total: the sum of the values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: list[float]) -> None:
        self.bounds = bounds
        self.counts: list[int] = [0] * (len(bounds) + 1)
        self.total: float = 0.0

    def add(self, value: float, weight: int) -> None:
        """@param weight: how often the value came."""
        place = bisect_left(self.bounds, value)
        self.counts[place] += weight
        self.total += value * weight


class Timings:
    """
    Measurements of the turns of one server.

    @ivar commits: of writing a turn, in seconds, without a sync.
    @ivar syncs: the same with a sync, in a thread.
    @ivar gets: of each C{get}, in seconds, from the beginning of its turn until its reply was handed to the connection.
        What waits for an item counts when it asks, without the wait.
    @ivar sets: the same of each C{set}.
    @ivar peeks: the same of each C{peek}.
    @ivar ages: of items when they are taken, opened or looked at, in seconds.
    @ivar sizes: of items that are put, in bytes.
    """

    def __init__(self, stats: ServerStats, timer: Callable[[], float], wall: Callable[[], float]) -> None:
        """
        @param stats: the server's counters.
        @param timer: a time in seconds, by which durations are measured.
        @param wall: the time in seconds since the epoch.
        """
        self._stats = stats
        self.timer = timer
        self._wall = wall
        self.commits = Histogram(SECONDS)
        self.syncs = Histogram(SECONDS)
        self.gets = Histogram(SECONDS)
        self.sets = Histogram(SECONDS)
        self.peeks = Histogram(SECONDS)
        self.ages = Histogram(AGES)
        self.sizes = Histogram(SIZES)
        self._seen_gets = stats.cmd_get
        self._seen_sets = stats.cmd_set
        self._seen_peeks = stats.cmd_peek
        self._reads = 0
        self._puts = stats.total_items
        self._sampled: float = timer()
        self._sized: float = self._sampled
        self._ages: list[tuple[bytes, float, int]] = []

    def written(self, turn: Turn) -> None:
        """A turn is in the store."""
        now = self.timer()
        (self.syncs if turn.sync else self.commits).add(now - turn.wrote, 1)
        self.sample(turn, now)

    def sample(self, turn: Turn, now: float) -> None:
        """Now and then, look at items of a turn that its queues do not take for written yet."""
        if now - self._sized >= EVERY:
            self._sized = now
            self._sample_sizes(turn)

    def delivered(self, turn: Turn) -> None:
        """A turn is answered."""
        now, stats = self.timer(), self._stats
        seconds = now - turn.began
        if stats.cmd_get != self._seen_gets:
            self.gets.add(seconds, stats.cmd_get - self._seen_gets)
            self._seen_gets = stats.cmd_get
        if stats.cmd_set != self._seen_sets:
            self.sets.add(seconds, stats.cmd_set - self._seen_sets)
            self._seen_sets = stats.cmd_set
        if stats.cmd_peek != self._seen_peeks:
            self.peeks.add(seconds, stats.cmd_peek - self._seen_peeks)
            self._seen_peeks = stats.cmd_peek
        if turn.reads:
            self._reads += len(turn.reads)
            if now - self._sampled >= EVERY:
                self._sampled = now
                self._sample_ages(turn)

    def _sample_sizes(self, turn: Turn) -> None:
        for queue in turn.queues:
            storage: Any = queue
            items = storage.ledger.unwritten()[:SAMPLES]
            if items:
                weight = max(1, (self._stats.total_items - self._puts) // len(items))
                self._puts = self._stats.total_items
                for item in items:
                    self.sizes.add(float(item.size), weight)
                return

    def _sample_ages(self, turn: Turn) -> None:
        step = -(-len(turn.reads) // SAMPLES)
        reads = turn.reads[::step]
        weight = max(1, self._reads // len(reads))
        self._reads = 0
        now = self._wall()
        for read in reads:
            age = max(0.0, now - read.item.time / 1000)
            self.ages.add(age, weight)
            if len(self._ages) < MOST_AGES:
                fifo: Any = read.queue
                self._ages.append((fifo.name, age * 1000, weight))

    def take_ages(self) -> list[tuple[bytes, float, int]]:
        """@return: the samples since the last call: queue, age in ms, and for how many items it stands."""
        ages, self._ages = self._ages, []
        return ages
