"""
How long a node waits for a sign of a leader before it tries to lead itself.

A leader that has died is to be replaced soon.  One that is slow is not to be replaced at all: clients would lose their
connections, and the next one may be as slow.  The two look the same, so there are times.  Nothing that must hold rests
on them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final

from darner.cluster.notes import LEADER, RESIGNED, Note
from darner.cluster.pace import Pace

MOST: Final = 8
"""How many times as long as usual a node waits at most, where new leaders were not heard of."""


class Patience:
    """
    The patience of one node.

    A new leader has as long as an old one to tell that it leads.  Where nobody hears of it meanwhile, and another one
    claims, that one has twice as long, and so on: where machines have too much to do, nodes must not depose one another
    for ever.  How long it has is in the claim, so that those know it too that were deposed and have started again.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._sign = self._jitter = 0.0
        self._claim = 0
        self._heard_of = True  # the leader, since its claim
        self._times = 1

    def begin(self, now: float) -> None:
        """Wait, at random, so that one of several nodes is first, and those that know more before others."""
        self._sign = now + self._pace.settle
        self._jitter = random.uniform(self._pace.jitter / 10, self._pace.jitter)

    def claimed(self, claim: int, times: int, now: float) -> None:
        """
        A node has claimed to lead.

        @param claim: the number of the record.
        @param times: how many times as long as usual it is to be waited for; what that node had from L{next_times}.
        """
        self._claim = claim
        self._heard_of = False
        self._times = times
        self._sign = max(self._sign, now + self._pace.patience * times)

    @property
    def next_times(self) -> int:
        """How many times as long as usual this node is to be waited for, if it claims now."""
        return 1 if self._heard_of else min(MOST, self._times * 2)

    def worked(self, now: float) -> None:
        """The leader has appended something."""
        self._hear(now)

    def out_of_reach(self, now: float) -> None:
        """When the log is back, the leader is to be first, whose note could not be renewed either."""
        self._sign = now + self._pace.patience

    def look(self, others: Iterable[Note], now: float) -> None:
        """Look at the notes of all other nodes."""
        for note in others:
            if note.role == LEADER and note.age < self._pace.patience and note.claim >= self._claim:
                self._hear(now)
            elif note.role == RESIGNED and note.claim == self._claim:
                self._sign = min(self._sign, now)

    def _hear(self, now: float) -> None:
        # Who has been waited for longer than usual is waited for as usual from now on.
        self._sign = max(self._sign, now) if self._times == 1 else now
        self._heard_of = True
        self._times = 1

    def is_over(self, now: float, more: float) -> bool:
        """
        @param more: for how many seconds this node waits longer.
        @return: whether it is time to try to lead.
        """
        return now - self._sign > self._jitter + more
