"""
One node of a cluster: it follows the log, leads when nobody else does, and ends when it may not go on.

Notes and times say only when to try to lead.  Whether a node leads is decided by the log: it takes the claim of one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Optional

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

import darner
from darner.cluster.appends import append_surely
from darner.cluster.exits import EXIT_BEHIND, EXIT_DAMAGED, EXIT_FENCED, EXIT_LEAD, EXIT_STORE
from darner.cluster.interfaces import IFollowing, ILog
from darner.cluster.leading import Leadership
from darner.cluster.notes import FENCED, FOLLOWER, JOINING, LEADER, RESIGNED, STEP_DOWN, Note, read_notes
from darner.cluster.pace import Pace
from darner.cluster.patience import Patience
from darner.cluster.preference import YIELDED, Preference
from darner.cluster.records import CLAIM, Record, claim_body, waited_times
from darner.cluster.replicated_store import ReplicatedStore
from darner.cluster.shards import check_log, check_shard, new_cluster_id
from darner.cluster.snapshots.giving import Giver
from darner.cluster.snapshots.joining import Joiner
from darner.cluster.trimming import trim_to
from darner.cluster.troubles import Troubles
from darner.errors import LogConflict, LogDamaged, LogError, LogTrimmed, LogUnavailable, Stopped, StoreError
from darner.values.shards import Shard


class Node:
    """
    One node.

    @ivar role: L{FOLLOWER}, L{JOINING}, L{LEADER}, L{RESIGNED} or L{FENCED}.
    @ivar leader: the name of the node whose claim was the last one in the log; empty if none is known.
    @ivar leadership: while it leads.
    @ivar serves: whether it serves clients: it leads, and all queues are loaded.
    @ivar last: the last record of the log, as far as is known.
    @ivar trimmed: the last record that was trimmed, as far as is known.
    @ivar failovers: how many claims of other nodes it has seen since it started, and its own.
    @ivar durable: the last record that is on its stable storage.
    @ivar giver: gives snapshots of its store, if it does.
    @ivar gives_at: where, C{HOST:PORT}, for other nodes.
    """

    _log = Logger()

    def __init__(
        self, log: ILog, store: ReplicatedStore, name: str, clock: IReactorTime, wall: Callable[[], float],
        in_thread: Callable[..., Deferred[Any]], lead: Callable[[], object], step_down: Callable[[], object],
        end: Callable[[int, str], object], size: int = 3, address: str = "",
        pace: Pace = Pace(),  # noqa: B008  (it is frozen)
        joiner: Optional[Joiner] = None, shard: Optional[Shard] = None, preferred: bool = False,
    ) -> None:  # fmt: skip
        """
        @param lead: called when it leads: serves clients on the store.  It may return a Deferred, which fires when it
            does; a C{CancelledError} says that it was told to stop meanwhile.
        @param step_down: called where an operator asks for it: has the process stop in order.
        @param end: called with an exit status and the reason: ends the process, without a word to clients.
        @param size: how many nodes the cluster has at least.
        @param address: where it serves clients, for people.
        @param joiner: takes a snapshot where the records that it needs are trimmed; C{None}: it ends.
        @param shard: which one the log is to be; C{None}: it has all queues.
        @param preferred: whether it is to lead rather than others (`darner.cluster.preference`).
        """
        self._shared = log
        self.store = store
        self.name = name
        self._clock = clock
        self._wall = wall
        self._in_thread = in_thread
        self._lead = lead
        self._step_down = step_down
        self._end = end
        self._size = size
        self._address = address
        self._pace = pace
        self.role = FOLLOWER
        self.leader = self.gives_at = ""
        self.leadership: Optional[Leadership] = None
        self.last = self.trimmed = self.failovers = self.durable = 0
        self.notes: dict[str, Note] = {}
        self._following: Optional[IFollowing] = None
        self._running: Optional[Deferred[None]] = None
        self._tell_at = self._sync_at = 0.0
        self._syncing: Optional[Deferred[None]] = None
        self._resting = self._catching_up = self.serves = False
        self._troubles = Troubles(self._log)
        self._patience = Patience(pace)
        self.joiner = joiner
        self.giver: Optional[Giver] = None
        self._shard = shard
        self._preference = Preference(name, preferred, pace)
        self._joining: Optional[Deferred[None]] = None

    # Start and end

    def start(self) -> None:
        """Begin to follow.  Where its store has another shard, it ends."""
        try:
            check_shard(self.store.cluster, self._shard, f"the data directory {self.store.path}")
        except LogDamaged as error:
            self.fence(EXIT_DAMAGED, str(error))
            return
        self._patience.begin(self._clock.seconds())
        self._follow()
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addErrback(lambda failure: failure.trap(CancelledError))

    def rest(self) -> Deferred[None]:
        """Use the store in threads no more.  @return: fires when no thread does."""
        self._resting = True
        idle: Deferred[None] = Deferred()
        if self._syncing is None:
            idle.callback(None)
        else:
            self._syncing.addCallback(lambda _: idle.callback(None))
        return idle

    async def stop(self) -> None:
        """
        Stop.  Where it led, the queues have been stopped before: others are told that they may lead at once.

        The store is left open.
        """
        led = self.role == LEADER
        self._stop_following()
        for running in (self._running, self._joining):
            if running is not None:
                running.cancel()
        self._running = self._joining = None
        if led:
            await self._resign()
        await self._shared.close()

    def _resign(self) -> Deferred[None]:
        """Tell others that they may lead at once.  @return: fires when that is told, or cannot be."""
        self.role, self.serves = RESIGNED, False
        telling = self._shared.note(self.name, self._note().to_bytes())
        return telling.addTimeout(self._pace.patience, self._clock).addErrback(lambda _: None)

    def fence(self, status: int, reason: str) -> None:
        """End: answer nothing more."""
        if self.role != FENCED:
            self.role = FENCED
            self._stop_following()
            self._end(status, reason)

    def _lost(self, error: Exception) -> None:
        if isinstance(error, LogConflict):
            self.fence(EXIT_FENCED, f"this node leads no more: {error}")
        elif isinstance(error, StoreError):
            self.fence(EXIT_STORE, f"the log has a record that cannot be written here: {error}")
        elif isinstance(error, LogError):
            self.fence(EXIT_DAMAGED, f"cannot append to the log: {error}")
        else:
            self.fence(EXIT_DAMAGED, f"internal error while appending to the log: {error!r}")

    # Following

    def _follow(self) -> None:
        self._following = following = self._shared.follow(self.store.received, self._received)
        following.ended.addErrback(self._cannot_follow)

    def _stop_following(self) -> None:
        if self._following is not None:
            self._following.stop()
            self._following = None

    def _received(self, number: int, data: bytes) -> None:
        record = Record.from_bytes(data)
        if not self.store.cluster:
            check_shard(record.cluster, self._shard, "the log")
        self.store.apply(number, record)
        self.last = max(self.last, number)
        if record.kind == CLAIM:
            self._see_claim(number, record)
        else:
            self._patience.worked(self._clock.seconds())

    def _see_claim(self, number: int, record: Record) -> None:
        self.leader = record.node.decode(errors="replace")
        self.failovers += 1
        self._patience.claimed(number, waited_times(record.body), self._clock.seconds())
        self._log.info("cluster: {leader} leads from record {number} on", leader=self.leader, number=number)

    def _cannot_follow(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, LogTrimmed) and self.joiner is not None:
            self._join(self.joiner, error)
        elif isinstance(error, LogTrimmed):
            self.fence(
                EXIT_BEHIND,
                f"this node is too far behind: it has applied record {self.store.position}, and {error}.  Restore a "
                f"backup of another node into {self.store.path}, and start it again",
            )
        elif isinstance(error, StoreError):
            self.fence(EXIT_STORE, f"cannot apply a record of the log: {error}")
        else:
            self.fence(EXIT_DAMAGED, f"cannot apply record {self.store.received + 1} of the log: {error}")

    # Joining

    def given(self) -> Optional[ReplicatedStore]:
        """@return: the store, if a snapshot of it is worth to be given."""
        return self.store if self.role in (FOLLOWER, LEADER) and self.store.position else None

    def _join(self, joiner: Joiner, error: LogTrimmed) -> None:
        self.role = JOINING
        self._log.warn(
            "cluster: this node is too far behind, and takes a snapshot: it has applied record {position}, and {error}",
            position=self.store.position, error=error,
        )  # fmt: skip
        self._joining = Deferred.fromCoroutine(self._take(joiner))
        self._joining.addErrback(self._cannot_join)

    async def _take(self, joiner: Joiner) -> None:
        await check_log(self._shared, self._shard)
        await joiner.take(self.name, self.store.cluster.hex())
        # Nobody uses the store from here on.
        await self.rest()
        if self.giver is not None:
            await self.giver.drop()
        self.store = await joiner.switch(self.store)
        check_shard(self.store.cluster, self._shard, f"the snapshot in {self.store.path}")
        self.durable = 0
        self._catching_up, self._resting = True, False
        self.role = FOLLOWER
        self._patience.begin(self._clock.seconds())
        self._log.info("cluster: follows from record {number} on", number=self.store.position)
        self._follow()

    def _cannot_join(self, failure: Failure) -> None:
        if failure.check(LogDamaged):
            self.fence(EXIT_DAMAGED, failure.getErrorMessage())
        elif not failure.check(CancelledError, Stopped):
            self.fence(EXIT_STORE, f"cannot join by a snapshot: {failure.getErrorMessage()}")

    @property
    def holding(self) -> int:
        """The record behind which this node needs all: it takes a snapshot, or comes from one; 0 if it does not."""
        if self.role == JOINING and self.joiner is not None:
            return self.joiner.holding
        if self._catching_up and self.role == FOLLOWER:
            return self.store.position
        return 0

    # Looking

    async def _run(self) -> None:
        while self.role != FENCED:
            try:
                await self._look()
            except LogUnavailable as error:
                self._troubles.met(error)
                self._patience.out_of_reach(self._clock.seconds())
            else:
                self._troubles.over()
            await deferLater(self._clock, self._pace.look, lambda: None)

    async def _look(self) -> None:
        if self._clock.seconds() >= self._tell_at:
            await self._tell()
        values = await self._shared.notes()
        self.notes = read_notes(values)
        self.last = max([self.last, *(note.position for note in self.notes.values())])
        self._catching_up = self._catching_up and (self.store.position < self.last or not self.durable)
        self._sync()
        if self.leadership is not None:
            await self._look_as_leader(self.leadership, values)
        elif self.role == FOLLOWER:
            await self._look_as_follower()

    async def _tell(self) -> None:
        self._tell_at = self._clock.seconds() + self._pace.tell
        await self._shared.note(self.name, self._note().to_bytes())

    def _note(self) -> Note:
        claim = 0 if self.leadership is None else self.leadership.claim
        return Note(
            self.role, claim, self.store.position, self.durable, self._address, darner.__version__,
            self.store.cluster.hex(), self.gives_at, "" if self.giver is None else self.giver.secret.hex(),
            self.holding, self._preference.preferred,
        )  # fmt: skip

    def _sync(self) -> None:
        """Now and then, bring the store to stable storage, in a thread."""
        now = self._clock.seconds()
        if self._syncing is not None or self._resting or now < self._sync_at or self.durable == self.store.position:
            return
        self._sync_at = now + self._pace.sync
        done: Deferred[None] = Deferred()
        self._syncing = done

        def synced(result: Any) -> None:
            self._syncing = None
            done.callback(None)
            if isinstance(result, Failure):
                self._lost(StoreError(result.getErrorMessage()))
            else:
                self.durable = result

        self._in_thread(self._sync_store).addBoth(synced)

    def _sync_store(self) -> int:
        """In a thread."""
        if self.role == FOLLOWER and self.store.uncompacted():
            self.store.compact(lambda: self.role == FOLLOWER, False)
        return self.store.sync()

    # Leading

    async def _look_as_follower(self) -> None:
        now = self._clock.seconds()
        self._patience.look((note for name, note in self.notes.items() if name != self.name), now)
        head_start = self._preference.head_start(self.notes, self.store.position, self.leader)
        if self._patience.is_over(now, head_start):
            await self._claim()

    async def _claim(self) -> None:
        """Try to lead."""
        received = self.store.received  # before: more may come while the log is asked
        last = await self._shared.last()
        if last < received:
            self.fence(
                EXIT_DAMAGED,
                f"the log ends with record {last}, and this node has applied record {self.store.position}: they do "
                "not belong together, or the log was restored from a backup",
            )
        if last != self.store.received or self.role != FOLLOWER:
            return  # the rest comes, or nothing does any more
        self._stop_following()
        number = self.store.received + 1
        record = Record(
            CLAIM, self.store.cluster or new_cluster_id(self._shard), number, int(self._wall() * 1000),
            self.name.encode(), claim_body(self._patience.next_times),
        )  # fmt: skip
        try:
            await append_surely(self._shared, self._clock, number, record.to_bytes())
        except LogConflict:
            # Somebody was faster.
            self._patience.begin(self._clock.seconds())
            self._follow()
            return
        await self._begin(number, record)

    async def _begin(self, number: int, record: Record) -> None:
        """Lead: the claim is in the log."""
        try:
            self.store.apply(number, record)
        except StoreError as error:
            self._lost(error)
            return
        self._see_claim(number, record)
        self.role = LEADER
        self.leadership = Leadership(
            self._shared, self.store, self.name.encode(), self._clock, self._wall, self._lost
        )
        self.store.lead(self.leadership.commit)
        # It may take a while to load many queues: others are told meanwhile that this node leads.
        serving = maybeDeferred(self._lead)
        try:
            await self._tell()
        finally:
            # Not before: this note must not come behind one that says that it leads no more.
            serving.addCallbacks(self._begins_to_serve, self._cannot_serve)

    def _begins_to_serve(self, _: object) -> None:
        self.serves = self.role == LEADER

    def _cannot_serve(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("cluster: cannot serve", failure)
            reason = f"this node leads, and cannot serve: {failure.getErrorMessage()}"
            self._resign().addCallback(lambda _: self.fence(EXIT_LEAD, reason))

    async def _look_as_leader(self, leadership: Leadership, values: dict[str, tuple[bytes, float]]) -> None:
        await leadership.check()
        if STEP_DOWN in values and values[STEP_DOWN][0] == b"%d" % leadership.claim:
            self._log.info("cluster: an operator asks this node to step down")
            self._step_down()
            return
        heir = self._preference.heir(self.notes, self.store.position, values.get(YIELDED), self._clock.seconds())
        if heir is not None:
            self._log.info("cluster: steps down, as node {heir} is preferred", heir=heir)
            await self._shared.note(YIELDED, heir.encode())
            self._step_down()
            return
        # Its own note may be older than what it knows.
        notes = {**self.notes, self.name: replace(self._note(), age=0.0)}
        self.trimmed = leadership.trim(trim_to(notes, self._size, leadership.kept_bytes))
