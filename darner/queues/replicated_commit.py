"""
The group commit of a cluster's leader: each turn waits for the log that the nodes share.

A turn that only answers is committed, too, with nothing to write: only so does the leader know that it still leads, and
no other node has given away by now what it answers with.

Several turns may be in flight.  A turn that is given to the log cannot fail: the log has it in the end, or the process
ends.  So the queues go on as if it were written, and the next turn reads what it has changed.  The replies wait until
the log has the turn, and with it all turns before.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, Optional

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from darner.errors import StoreError
from darner.queues.answers import Answers
from darner.queues.commit import GroupCommit
from darner.queues.turn import Turn
from darner.store.batch import Batch

CHUNKS: Final = 64
"""The number of chunks, of 64 KiB each, that the next turn gathers while as many are in flight as may be."""
IN_FLIGHT: Final = 3
"""The number of turns that are given to the log and not answered yet."""


class Flight:
    """A turn that is given to the log."""

    __slots__ = ("askers", "done", "error", "turn")

    def __init__(self, turn: Turn, error: Optional[StoreError]) -> None:
        """@param error: why its puts were refused, if they were."""
        self.turn = turn
        self.error = error
        self.askers = len(turn.answers)
        self.done: Deferred[None] = Deferred()


class ReplicatedCommit(GroupCommit):
    """As L{GroupCommit}, over a L{darner.store.interfaces.IReplicatedStore}."""

    def __init__(self, store: Any, schedule: Any, in_thread: Any, wall: Any, clock: Any) -> None:
        """As for L{GroupCommit}."""
        super().__init__(store, schedule, in_thread, wall, clock)
        self._replicated = store
        self.replicated = True
        self._flights: deque[Flight] = deque()
        self._shut: Deferred[None] = Deferred()

    @property
    def busy(self) -> bool:
        """
        Whether large items that arrive must wait.  A round trip to the log takes milliseconds, so the next turn gathers
        chunks meanwhile, up to a limit for all clients together.
        """
        return len(self._flights) >= IN_FLIGHT and len(self._gathering.chunks) >= CHUNKS

    def _is_ready(self) -> bool:
        """
        Whether the turn that gathers is to be given to the log.  Each record costs the log the same, so while others
        are in flight, a turn waits until it is worth one: when it has as many askers as all of these.
        """
        flights = self._flights
        if not flights:
            return True
        if len(flights) >= IN_FLIGHT:
            return False
        gathering = self._gathering
        if len(gathering.chunks) >= CHUNKS:
            return True
        askers = 0
        for flight in flights:
            askers += flight.askers
        return len(gathering.answers) >= askers

    def end(self) -> None:
        # The base class keeps the turn while that is there.
        self._writing = None if self._is_ready() else self._shut
        super().end()

    def _when_written(self) -> Deferred[None]:
        return self._flights[-1].done if self._flights else succeed(None)

    def _write(self, turn: Turn) -> None:
        if self.timings is not None:
            turn.wrote = self.timings.timer()
            turn.began = turn.began or turn.wrote
        try:
            batch = turn.batch(self._store, True)
            self._add(self._owed, turn, batch)
            if not batch.empty or turn.sync:
                self._add(self._deletes, turn, batch)
            if batch.puts:
                self._replicated.check_room()
        except StoreError as error:
            self._refuse(turn, error)
        except Exception as error:
            self._refuse(turn, self._fault(Failure(), error))
        else:
            self._commit(turn, batch, None)

    def _refuse(self, turn: Turn, error: StoreError) -> None:
        """Refuse the puts, of which nothing was written, and commit what else is in the turn."""
        error.forget()
        turn.refuse_puts(error, self._gathering)
        self._commit(turn, turn.batch(self._store, False), error)

    def _commit(self, turn: Turn, batch: Batch, error: Optional[StoreError]) -> None:
        silent = [answers for answers in turn.answers if not answers.entries]
        if silent:
            turn.answers = [answers for answers in turn.answers if answers.entries]
        if turn.answers or turn.sync or not batch.empty:
            self._late_sync.forget()  # what is in the log is safe
            flight = Flight(turn, error)
            self._flights.append(flight)
            if self.timings is not None:
                self.timings.sample(turn, turn.wrote)
            committed: Deferred[None] = self._replicated.commit(batch)
            for queue in turn.queues:
                queue.written()
            committed.addCallback(self._committed, flight)
        else:
            # Nobody is told anything, and nothing has changed that other nodes have.
            for queue in turn.queues:
                queue.written()
        if silent:
            self._go_on(silent)

    def _go_on(self, silent: list[Answers]) -> None:
        """Let those go on who are told nothing: the next turn has room for more of their large items."""
        for answers in silent:
            try:
                answers.asker.deliver(answers)
            except Exception:
                self.log.failure("internal error while a client goes on")

    def _committed(self, _: None, flight: Flight) -> None:
        self._flights.popleft()
        if self.timings is not None:
            self.timings.written(flight.turn)
        if flight.error is not None:
            self.trouble(flight.error)
        elif not self.health.writable:
            self._see()
        self._deliver(flight.turn)
        flight.done.callback(None)
        self.end()
