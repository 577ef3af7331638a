"""
Which node leads, where one is preferred: so the leaders of several shards are on different machines.

Nothing that must hold rests on it.  A node leads by its claim alone, preferred or not; this says only when to try, and
when to make way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, Optional

from darner.cluster.notes import FOLLOWER, Note
from darner.cluster.pace import Pace

YIELDED: Final = "!yielded"
"""The name of the note that a leader leaves when it steps down for a preferred node; it holds that one's name."""


class Preference:
    """
    What the preference of nodes means for one of them.

    @ivar preferred: whether this one is.
    """

    def __init__(self, name: str, preferred: bool, pace: Pace) -> None:
        """@param name: of the node."""
        self._name = name
        self.preferred = preferred
        self._pace = pace
        self._well: dict[str, float] = {}
        self._positions: deque[tuple[float, int]] = deque()

    def _candidates(self, notes: Mapping[str, Note], position: int) -> list[str]:
        """@return: the preferred nodes that follow, and have applied that record."""
        return [
            name
            for name, note in notes.items()
            if note.preferred and note.role == FOLLOWER and note.position >= position
            and note.age < self._pace.patience and name != self._name
        ]

    def head_start(self, notes: Mapping[str, Note], position: int, last: str) -> float:
        """
        @param position: the last record that this node has applied.
        @param last: the node that has led last: nobody waits for that one.
        @return: how many seconds longer this node waits before it claims to lead.
        """
        awaited = any(name != last for name in self._candidates(notes, position))
        return self._pace.head_start if awaited and not self.preferred else 0.0

    def heir(
        self, notes: Mapping[str, Note], position: int, yielded: Optional[tuple[bytes, float]], now: float
    ) -> Optional[str]:
        """
        Look, as the leader, whether to step down.

        A preferred node has to follow closely for C{Pace.yields}: at each look it has what this node had applied when
        notes that are counted may have been written.  After one has stepped down, nobody does for
        C{Pace.yields_again}, so that a preferred node that cannot lead does not cost an outage again and again.

        @param yielded: the note of the last time, with its age; C{None} if there is none.
        @param now: by the clock of this node, in seconds.
        @return: the preferred node.
        """
        if self.preferred:
            return None
        self._positions.append((now, position))
        while len(self._positions) > 1 and self._positions[1][0] <= now - self._pace.patience:
            self._positions.popleft()
        well = self._candidates(notes, self._positions[0][1])
        self._well = {name: self._well.get(name, now) for name in well}
        if yielded is not None and yielded[1] < self._pace.yields_again:
            return None
        heirs = [name for name, since in self._well.items() if now - since >= self._pace.yields]
        return min(heirs) if heirs else None
