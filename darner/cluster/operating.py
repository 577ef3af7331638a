"""
What operators ask of a cluster, by its log alone: so it works whichever nodes run.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Optional, TypeVar, Union

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import react

from darner.cluster.interfaces import ILog
from darner.cluster.notes import LEADER, STEP_DOWN, Note, read_notes
from darner.cluster.opening import open_log
from darner.cluster.shards import cluster_of, shard_in
from darner.cluster.snapshots.joining import givers
from darner.errors import DarnerError, LogUnavailable

_T = TypeVar("_T")

GONE = 3.0
"""Seconds without a note after which a node counts as gone."""


class NoLeader(DarnerError):
    """There is no leader that could be asked."""


async def status(log: ILog, clock: Any, watched: float = GONE) -> dict[str, Any]:
    """
    @param watched: for how many seconds notes are watched, as their age is known only so.
    @return: C{leader} (its name, or empty), C{claim}, C{shard} (C{K/N}, or empty), C{last}, C{trimmed} and C{nodes}.
    """
    before = read_notes(await log.notes())
    waited: Deferred[None] = Deferred()
    clock.callLater(watched, waited.callback, None)
    if before:
        await waited
    last, first = await log.last(), await log.first()
    nodes = []
    leader, claim, shard = "", 0, ""
    for name, note in sorted(read_notes(await log.notes()).items()):
        gone = note.age >= watched * 0.9
        if note.role == LEADER and not gone and note.claim > claim:
            leader, claim = name, note.claim
        if not shard or name == leader:
            found = shard_in(cluster_of(note))
            shard = str(found) if found is not None else ""
        nodes.append(
            {
                "name": name, "role": "gone" if gone else note.role, "position": note.position,
                "lag": max(0, last - note.position), "durable": note.durable, "address": note.address,
                "version": note.version,
                "preferred": note.preferred,
            }
        )  # fmt: skip
    return {"leader": leader, "claim": claim, "shard": shard, "last": last, "trimmed": first - 1, "nodes": nodes}


async def step_down(log: ILog, clock: Any) -> dict[str, Any]:
    """
    Ask the leader to step down.

    @return: as L{status}, from before.
    @raise NoLeader: there is none.
    """
    told = await status(log, clock)
    if not told["leader"]:
        raise NoLeader("no node leads")
    await log.note(STEP_DOWN, b"%d" % told["claim"])
    return told


async def find_givers(log: ILog, clock: Any) -> list[tuple[str, Note]]:
    """@return: the nodes that may give a snapshot, by name, the best one first; some may be gone."""
    return givers(read_notes(await log.notes()), "", await log.first())


def ask(
    url: str, asking_for: Callable[[ILog, Any], Coroutine[Any, Any, _T]], timeout: float, *credentials: Optional[str]
) -> _T:
    """
    As L{ask_all}, of one log.

    @raise DarnerError: why it could not be done.
    """
    (found,) = ask_all([url], asking_for, timeout, *credentials)
    if isinstance(found, DarnerError):
        raise found
    return found


def ask_all(
    urls: Sequence[str], asking_for: Callable[[ILog, Any], Coroutine[Any, Any, _T]], timeout: float,
    *credentials: Optional[str],
) -> list[Union[_T, DarnerError]]:  # fmt: skip
    """
    Run L{status}, L{step_down} or L{find_givers} by the global reactor, once in a process, for all logs at the same
    time.

    @param credentials: as the rest of L{open_log}.
    @return: for each URL what came of it, or why it could not be done.
    """
    found: dict[int, Union[_T, DarnerError]] = {}

    async def run(reactor: Any, at: int, url: str) -> None:
        try:
            log = open_log(reactor, url, *credentials)
        except DarnerError as error:
            found[at] = error
            return
        try:
            asking = Deferred.fromCoroutine(asking_for(log, reactor))
            asking.addTimeout(
                timeout + GONE, reactor, lambda *_: _fail(LogUnavailable("etcd does not answer in time"))
            )
            found[at] = await asking
        except DarnerError as error:
            found[at] = error
        await log.close()

    with suppress(SystemExit):
        react(
            lambda reactor: DeferredList(
                [Deferred.fromCoroutine(run(reactor, at, url)) for at, url in enumerate(urls)]
            )
        )
    return [found.get(at, LogUnavailable("etcd could not be asked")) for at in range(len(urls))]


def _fail(error: Exception) -> Any:
    raise error
