"""
Work on all queues of a server, a few in a turn, so that clients are served in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Optional

from darner.errors import StoreError
from darner.queues.answers import Answers
from darner.queues.commit import GroupCommit
from darner.queues.fifo import Fifo
from darner.queues.names import Names

QUEUES_A_TURN: Final = 64
"""The number of queues in one turn."""


class Walk:
    """
    Work on all queues, in the order of their names.  It is an L{Asker}, so that it continues once its changes are
    written.

    It may or may not include queues that are created meanwhile.
    """

    def __init__(
        self, names: Names, fifos: dict[bytes, Fifo], commit: GroupCommit, work: Callable[[Fifo], object],
        done: Callable[[Optional[StoreError]], object],
    ) -> None:  # fmt: skip
        """
        @param names: the names of all queues.
        @param fifos: the queues by name.
        @param work: called with each queue; its changes need not be written when it returns.
        @param done: called when everything is written, with the first error if the store refused a part.
        """
        self._names = names
        self._fifos = fifos
        self._commit = commit
        self._work = work
        self._done = done
        self._last = b""
        self._ended = False
        self._stopped = False
        self._error: Optional[StoreError] = None

    def go_on(self) -> None:
        """Continue with the queues of one turn."""
        if self._stopped:
            return
        names = self._names.after(self._last, QUEUES_A_TURN)
        for name in names:
            self._work(self._fifos[name])
        if names:
            self._last = names[-1]
        self._ended = not self._names.after(self._last, 1)
        answers = self._commit.answers_for(self)
        self._commit.consumed(answers, answers.add(b""))

    def stop(self) -> None:
        """Stop, without a call of C{done}."""
        self._stopped = True

    # For the turn

    def seal(self) -> None:
        """Nothing to do: it asks once in a turn."""

    def deliver(self, answers: Answers) -> None:
        (reply,) = answers.entries
        if self._stopped:
            return
        if self._error is None and isinstance(reply, StoreError):
            self._error = reply
        if self._ended:
            self._done(self._error)
        else:
            self._commit.rest(self)


class Walks:
    """
    The walks over the queues of one server.

    @ivar names: the names of all L{Fifo} objects, also of queues that do not exist.
    """

    def __init__(self, fifos: dict[bytes, Fifo], commit: GroupCommit) -> None:
        """@param fifos: the queues by name."""
        self.names = Names()
        self._fifos = fifos
        self._commit = commit
        self._under_way: dict[Walk, None] = {}

    def begin(self, work: Callable[[Fifo], object], done: Callable[[Optional[StoreError]], object]) -> Walk:
        """
        Begin a walk, and do the work on its first queues.  The arguments are as for a L{Walk}.
        """

        def ended(error: Optional[StoreError]) -> None:
            del self._under_way[walk]
            done(error)

        walk = Walk(self.names, self._fifos, self._commit, work, ended)
        self._under_way[walk] = None
        walk.go_on()
        return walk

    def cancel(self, walk: Walk) -> None:
        """Stop a walk that is not done."""
        walk.stop()
        del self._under_way[walk]

    def stop(self) -> None:
        """Stop all walks."""
        for walk in list(self._under_way):
            self.cancel(walk)


class Adoption:
    """Applies new settings to all queues."""

    def __init__(self, walks: Walks, adopt: Callable[[Fifo], object]) -> None:
        """@param adopt: applies them to one queue."""
        self._walks = walks
        self._adopt = adopt
        self._walk: Optional[Walk] = None
        self._awaiting: list[Callable[[], object]] = []

    def begin(self) -> None:
        """Apply new settings.  A walk for earlier ones ends."""
        if self._walk is not None:
            self._walks.cancel(self._walk)
        self._walk = self._walks.begin(self._adopt, self._done)

    def _done(self, _: Optional[StoreError]) -> None:
        self._walk = None
        awaiting, self._awaiting = self._awaiting, []
        for told in awaiting:
            told()

    def when_done(self, told: Callable[[], object]) -> None:
        """Call C{told} when every queue has the latest settings, possibly at once."""
        if self._walk is None:
            told()
        else:
            self._awaiting.append(told)
