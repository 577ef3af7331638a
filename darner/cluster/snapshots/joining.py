"""
How a node whose records are trimmed takes a snapshot of another one, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Optional

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from darner.cluster.interfaces import ILog
from darner.cluster.notes import FOLLOWER, LEADER, Note, read_notes
from darner.cluster.replicated_store import ReplicatedStore
from darner.cluster.snapshots.exchange import SnapshotError, read_secret
from darner.cluster.snapshots.installing import install
from darner.cluster.snapshots.taking import Taking, complete, discard, take
from darner.errors import LogUnavailable, Stopped, StoreError

PAUSE: Final = 2.0
"""Seconds before all nodes are asked again."""


def givers(notes: Mapping[str, Note], cluster: str, first: int) -> list[tuple[str, Note]]:
    """
    @param cluster: hexadecimal digits that name the cluster; empty if it is not known: then what the leader says.
    @param first: the lowest number that the log has.
    @return: the nodes that may give a snapshot, by name, the best one first: followers before the leader, as it has
        more to do, and those before others that have more.
    """
    leading = [note for note in notes.values() if note.role == LEADER and note.cluster]
    cluster = cluster or (max(leading, key=lambda note: note.claim).cluster if leading else "")
    found = [
        (name, note)
        for name, note in notes.items()
        if note.snapshots and note.role in (FOLLOWER, LEADER) and note.position >= max(1, first - 1)
        and (not cluster or note.cluster == cluster)
    ]
    return sorted(found, key=lambda giver: (giver[1].role == LEADER, -giver[1].position))


class Joiner:
    """
    Takes snapshots for one node.

    @ivar holding: the record from which on the log is needed, while a snapshot is taken; else 0.
    @ivar taken: how many snapshots were taken as a whole.
    @ivar taken_bytes: how many bytes were received.
    """

    _log = Logger()

    def __init__(
        self, log: ILog, data_dir: Path, clock: IReactorTime, in_thread: Callable[..., Deferred[Any]],
    ) -> None:  # fmt: skip
        """@param in_thread: calls a function in a thread."""
        self._shared = log
        self._data_dir = data_dir
        self._clock = clock
        self._call_in_thread = in_thread
        self.holding = 0
        self.taken = self.taken_bytes = 0
        self._stopped = False
        self._working: Optional[Deferred[None]] = None
        self._said = ""

    def stop(self) -> Deferred[None]:
        """@return: fires when no thread is at work any more."""
        self._stopped = True
        idle: Deferred[None] = Deferred()
        if self._working is None:
            idle.callback(None)
        else:
            self._working.addCallback(lambda _: idle.callback(None))
        return idle

    async def take(self, name: str, cluster: str) -> None:
        """
        Take a snapshot of any node, however often it has to be tried, so that it is ready for L{switch}.

        @param name: of this node.
        @param cluster: hexadecimal digits that name its cluster; empty if it knows none.
        """
        while True:
            try:
                if await self._try_all(name, cluster):
                    return
            except LogUnavailable as error:
                self._say(f"the log cannot be reached: {error}")
            self.holding = 0
            await deferLater(self._clock, PAUSE, lambda: None)

    async def _try_all(self, name: str, cluster: str) -> bool:
        """@return: whether one was taken."""
        first = await self._shared.first()
        notes = read_notes(await self._shared.notes())
        notes.pop(name, None)
        found = givers(notes, cluster, first)
        if not found:
            self._say("no node of this cluster that is far enough gives one")
        for giver, note in found:
            try:
                await self._take(giver, note)
            except StoreError as error:
                self._say(f"none of {giver}: {error}")
            else:
                self._said = ""
                return True
        return False

    def _say(self, reason: str) -> None:
        """Say why there is no snapshot yet, once as long as it stays the same."""
        if reason != self._said:
            self._log.warn("cluster: this node waits for a snapshot: {reason}", reason=reason)
        self._said = reason

    async def _take(self, giver: str, note: Note) -> None:
        """@raise StoreError: this did not work."""
        self.holding = note.durable
        taking: Taking = await self._in_thread(
            lambda: Taking(note.snapshots, read_secret(note.secret), self._proceed)
        )
        try:
            header = taking.header
            if header.cluster != note.cluster:
                raise SnapshotError(f"it is of cluster {header.cluster}, and not of {note.cluster}")
            self.holding = header.position
            await self._check(header.position)
            self._log.info(
                "cluster: takes a snapshot of {giver}: {size} bytes, as of record {position}",
                giver=giver, size=header.size, position=header.position,
            )  # fmt: skip
            _, position = await self._in_thread(lambda: take(taking, self._data_dir))
        finally:
            self.taken_bytes += taking.bytes
            taking.close()
        try:
            await self._check(position)
        except BaseException:
            await self._in_thread(lambda: discard(self._data_dir))
            raise
        await self._in_thread(lambda: complete(self._data_dir))
        self.taken += 1
        self._log.info("cluster: took a snapshot of {giver}, as of record {position}", giver=giver, position=position)

    async def _check(self, position: int) -> None:
        """@raise SnapshotError: the log has not all that follows."""
        first = await self._shared.first()
        if position < first - 1:
            raise SnapshotError(f"it is too old: of record {position}, and the log begins with {first}")

    async def switch(self, store: ReplicatedStore) -> ReplicatedStore:
        """
        Close a store and open the snapshot in its place.

        @param store: nobody uses it.
        @raise StoreError: that is not possible.  The store is closed.
        """

        def close_and_open() -> ReplicatedStore:
            store.close()
            install(self._data_dir)
            return ReplicatedStore(self._data_dir)

        opened: ReplicatedStore = await self._in_thread(close_and_open)
        return opened

    def _proceed(self) -> None:
        """@raise Stopped: the node stops."""
        if self._stopped:
            raise Stopped()

    def _in_thread(self, work: Callable[[], Any]) -> Deferred[Any]:
        self._proceed()
        done: Deferred[Any] = Deferred()
        finished: Deferred[None] = Deferred()
        self._working = finished

        def ended(result: Any) -> None:
            self._working = None
            if not done.called:
                done.callback(result)
            finished.callback(None)

        self._call_in_thread(work).addBoth(ended)
        return done
