"""
The group commit of a cluster's leader: each turn waits for the log that the nodes share.

A turn that only answers is committed, too, with nothing to write: only so does the leader know that it still leads, and
no other node has given away by now what it answers with.  One turn is under way at a time; requests that arrive
meanwhile belong to the next one.
"""

from __future__ import annotations

from typing import Any, Final, Optional

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from darner.errors import StoreError
from darner.queues.commit import GroupCommit
from darner.queues.turn import Turn
from darner.store.batch import Batch

CHUNKS: Final = 64
"""The number of chunks, of 64 KiB each, that the next turn gathers while one is under way."""


class ReplicatedCommit(GroupCommit):
    """As L{GroupCommit}, over a L{darner.store.interfaces.IReplicatedStore}."""

    def __init__(self, store: Any, schedule: Any, in_thread: Any, wall: Any, clock: Any) -> None:
        """As for L{GroupCommit}."""
        super().__init__(store, schedule, in_thread, wall, clock)
        self._replicated = store
        self.replicated = True

    @property
    def busy(self) -> bool:
        """
        Whether large items that arrive must wait.  A round trip to the log takes milliseconds, so the next turn gathers
        chunks meanwhile, up to a limit for all clients together.
        """
        return self._writing is not None and len(self._gathering.chunks) >= CHUNKS

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
        self._late_sync.forget()  # what is in the log is safe
        self._writing = Deferred()
        committed: Deferred[None] = self._replicated.commit(batch)
        committed.addCallback(self._committed, turn, error)

    def _committed(self, _: None, turn: Turn, error: Optional[StoreError]) -> None:
        done, self._writing = self._writing, None
        assert done is not None
        if error is None:
            self._done(turn)
        else:
            for queue in turn.queues:
                queue.written()
            self.trouble(error)
            self._deliver(turn)
        done.callback(None)
        self.end()
