"""
The group commit of a cluster's leader: each turn waits for the log that the nodes share.

A turn that only answers is committed, too, with nothing to write: only so does the leader know that it still leads, and
no other node has given away by now what it answers with.

Several turns may be in flight.  A turn that is given to the log cannot fail: the log has it in the end, or the process
ends.  So the queues go on as if it were written, and the next turn reads what it has changed.  The replies wait until
the log has the turn, and with it all turns before.  A turn with an item that its reader may still give back is the last
in flight.

Records cost the log about the same whatever is in them, so turns are made full: a turn waits a little for clients that
were just answered, as PostgreSQL's C{commit_delay} does, and while others are in flight until it has enough askers.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, Optional

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
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
PATIENCE: Final = 0.2
"""For how long a turn waits for those just answered, as a share of the time that the log took for their turn."""
MOST: Final = 0.001
"""Seconds for which it waits at most."""
VAIN: Final = 63
"""How many turns do not wait, at most, when the last ones waited in vain: one more than twice as many each time."""


class Flight:
    """A turn that is given to the log."""

    __slots__ = ("askers", "began", "done", "error", "last", "turn")

    def __init__(self, turn: Turn, error: Optional[StoreError], began: float) -> None:
        """
        @param error: why its puts were refused, if they were.
        @param began: when it is given to the log, by the monotonic clock.
        """
        self.turn = turn
        self.began = began
        # Who reads such an item may give it back until he is told, so nothing may delete it before that.
        self.last = any(read.item.returnable for read in turn.reads)
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
        self._waiting_for = 0  # how many askers the turn that gathers is to have
        self._timer: Optional[IDelayedCall] = None
        self._in_vain = self._skipped = 0

    @property
    def busy(self) -> bool:
        """
        Whether large items that arrive must wait.  A round trip to the log takes milliseconds, so the next turn gathers
        chunks meanwhile, up to a limit for all clients together.
        """
        return len(self._flights) >= IN_FLIGHT and len(self._gathering.chunks) >= CHUNKS

    def _is_ready(self) -> bool:
        """
        Whether the turn that gathers is to be given to the log now.  Each record costs the log the same, so while
        others are in flight, a turn waits until it is worth one: when it has as many askers as all of these, or as much
        of large items.
        """
        flights, gathering = self._flights, self._gathering
        if len(flights) >= IN_FLIGHT or (flights and flights[-1].last):
            return False
        if len(gathering.chunks) >= CHUNKS:
            return True
        if self._waiting_for:
            if len(gathering.answers) < self._waiting_for:
                return False
            self._end_waiting()
            self._in_vain = 0
        if not flights:
            return True
        askers = chunks = 0
        for flight in flights:
            askers += flight.askers
            chunks += len(flight.turn.chunks)
        if not gathering.chunks:
            return 0 < len(gathering.answers) >= askers
        told = 0
        for answers in gathering.answers:
            told += bool(answers.entries)  # the others go on sending
        return len(gathering.chunks) >= chunks or 0 < told >= askers

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
            batch = turn.batch(True)
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
        self._commit(turn, turn.batch(False), error)

    def _commit(self, turn: Turn, batch: Batch, error: Optional[StoreError]) -> None:
        silent = [answers for answers in turn.answers if not answers.entries]
        if len(silent) < len(turn.answers) or turn.sync or not batch.empty:
            if silent and turn.chunks:
                turn.answers = [answers for answers in turn.answers if answers.entries]
            else:
                silent = []  # they go on with the others: who asks for no reply and leaves may take that for one
            self._late_sync.forget()  # what is in the log is safe
            flight = Flight(turn, error, self.clock.seconds())
            self._flights.append(flight)
            if self.timings is not None:
                self.timings.sample(turn, turn.wrote)
            committed: Deferred[None] = self._replicated.commit(batch)
            if not flight.last:
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
        if flight.last:
            for queue in flight.turn.queues:
                queue.written()
        if self.timings is not None:
            self.timings.written(flight.turn)
        if flight.error is not None:
            self.trouble(flight.error)
        elif not self.health.writable:
            self._see()
        self._deliver(flight.turn)
        self._wait(flight)
        flight.done.callback(None)
        self.end()

    # Waiting for those just answered

    def _wait(self, flight: Flight) -> None:
        """
        Have the turn that gathers wait a little for those who were just answered: clients who ask for one thing after
        the other are in one record then, and not by turns in two.
        """
        askers = {answers.asker for answers in self._gathering.answers}
        here = len(askers)
        for answers in flight.turn.answers:
            askers.add(answers.asker)
        if self._waiting_for or len(askers) == here or len(askers) < 2:
            return
        if self._skipped < self._in_vain:
            self._skipped += 1
            return
        self._skipped = 0
        self._waiting_for = len(askers)
        took = self.clock.seconds() - flight.began
        self._timer = self.clock.callLater(max(0.0, min(PATIENCE * took, MOST)), self._waited)

    def _waited(self) -> None:
        self._timer = None
        self._waiting_for = 0
        self._in_vain = min(2 * self._in_vain + 1, VAIN)
        self.end()

    def _end_waiting(self) -> None:
        self._waiting_for = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stop(self) -> None:
        self._end_waiting()
        super().stop()
