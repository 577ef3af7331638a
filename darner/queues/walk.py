"""
Work on all queues of a server, a few in a turn, with everybody else served in between.
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
"""How many queues are worked on in one turn."""


class Walk:
    """
    Work on all queues, in the order of their names.  To the turn it is somebody who is to be answered, so that it goes
    on when what it did is written.

    A queue that is made meanwhile may be left out, or not.
    """

    def __init__(
        self, names: Names, fifos: dict[bytes, Fifo], commit: GroupCommit, work: Callable[[Fifo], object],
        done: Callable[[Optional[StoreError]], object],
    ) -> None:  # fmt: skip
        """
        @param names: the names of the queues that there are.
        @param fifos: the queues by name.
        @param work: what is done with each; it may not be written yet when it returns.
        @param done: called when all is done and written; with the first error, if the store refused some of it.
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
        """Work on as many queues as one turn may."""
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
        """Do no more; C{done} is not called."""
        self._stopped = True

    # For the turn

    def seal(self) -> None:
        """It asks once in a turn."""

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

    @ivar names: the names of the queues that somebody knows, also of those that do not exist.
    """

    def __init__(self, fifos: dict[bytes, Fifo], commit: GroupCommit) -> None:
        """@param fifos: the queues by name."""
        self.names = Names()
        self._fifos = fifos
        self._commit = commit
        self._under_way: dict[Walk, None] = {}

    def begin(self, work: Callable[[Fifo], object], done: Callable[[Optional[StoreError]], object]) -> Walk:
        """
        Work on all queues.

        @param work: what is done with each.
        @param done: called when all is done and written; with the first error, if the store refused some of it.
        @return: the walk; the first queues are done with.
        """

        def ended(error: Optional[StoreError]) -> None:
            del self._under_way[walk]
            done(error)

        walk = Walk(self.names, self._fifos, self._commit, work, ended)
        self._under_way[walk] = None
        walk.go_on()
        return walk

    def cancel(self, walk: Walk) -> None:
        """Go no further with a walk that is not done."""
        walk.stop()
        del self._under_way[walk]

    def stop(self) -> None:
        """Go no further with any."""
        for walk in list(self._under_way):
            self.cancel(walk)


class Adoption:
    """Has all queues take over other settings."""

    def __init__(self, walks: Walks, adopt: Callable[[Fifo], object]) -> None:
        """@param adopt: has one queue take them over."""
        self._walks = walks
        self._adopt = adopt
        self._walk: Optional[Walk] = None
        self._awaiting: list[Callable[[], object]] = []

    def begin(self) -> None:
        """There are other settings: a walk that is under way for those before is over."""
        if self._walk is not None:
            self._walks.cancel(self._walk)
        self._walk = self._walks.begin(self._adopt, self._done)

    def _done(self, _: Optional[StoreError]) -> None:
        self._walk = None
        awaiting, self._awaiting = self._awaiting, []
        for told in awaiting:
            told()

    def when_done(self, told: Callable[[], object]) -> None:
        """Call C{told} when every queue has the latest settings, perhaps at once."""
        if self._walk is None:
            told()
        else:
            self._awaiting.append(told)
