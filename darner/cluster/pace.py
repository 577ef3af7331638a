"""
When a node does what.  Nothing that must hold rests on it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """
    When things are done, in seconds.

    @ivar look: between two looks at the notes.
    @ivar tell: between two notes of its own.
    @ivar patience: the age of the leader's note at which nobody counts as leading.
    @ivar jitter: what a node waits then, at random, from a tenth of it on.
    @ivar settle: what a node waits after its start, so that those that know more are first.
    @ivar head_start: what a node waits longer where a preferred one could lead.
    @ivar yields: for how long the preferred node has to be well before a leader steps down for it.
    @ivar yields_again: at least so long after one has.
    @ivar sync: between two syncs of the store, and two looks at what can be trimmed.
    """

    look: float = 0.2
    tell: float = 0.4
    patience: float = 1.4
    jitter: float = 0.5
    settle: float = 1.0
    sync: float = 1.0
    head_start: float = 0.8
    yields: float = 30.0
    yields_again: float = 600.0
