"""
Following the log: what is there is read, and what comes is watched.
"""

from __future__ import annotations

from math import inf
from typing import Any, Optional

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from darner.cluster.etcd.client import EtcdClient, EtcdError, Tries
from darner.cluster.etcd.keys import Keys, read_stored
from darner.cluster.etcd.reading import Reader
from darner.cluster.etcd.watching import Watch
from darner.cluster.interfaces import IFollowing, Received
from darner.errors import LogUnavailable

_CHUNK = 1 << 20
"""How many bytes are read at once, while it catches up."""


class _Stopped(Exception):
    """Following was stopped."""


@implementer(IFollowing)
class Following:
    """
    One who follows.

    It reads records up to the last one, and watches from that revision on.  A watch that ends, for whatever reason, is
    followed by reading again, so nothing is missed; a number that was delivered is not delivered again.
    """

    _log = Logger()

    def __init__(self, client: EtcdClient, keys: Keys, reader: Reader, after: int, received: Received) -> None:
        self.ended: Deferred[None] = Deferred()
        self._client = client
        self._keys = keys
        self._reader = reader
        self._after = after
        self._received = received
        self._watch: Optional[Watch] = None
        self._stopped = False
        self._delivering = False
        self._running = ensureDeferred(self._run())
        self._running.addCallbacks(lambda _: None, self._failed)

    def stop(self) -> None:
        self._end(None)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(_Stopped, CancelledError) or not self._stopped:
            self._end(failure)

    def _end(self, result: Optional[Failure]) -> None:
        if self._stopped:
            return
        self._stopped = True
        self._close_watch()
        if result is None and not self._delivering:
            self._running.cancel()
        self.ended.callback(result)

    def _close_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()

    async def _run(self) -> None:
        tries = Tries(self._client, inf)
        while True:
            try:
                revision = await self._catch_up()
                await self._follow_watch(revision + 1, tries)
            except (EtcdError, LogUnavailable) as error:
                self._close_watch()
                self._check()
                # Following waits for ever, also where etcd refuses it: a right may come, a token be renewed.
                await self._client.pause(tries.next_pause())
                self._log.debug("cluster: following after record {after}: {error}", after=self._after, error=error)

    def _check(self) -> None:
        if self._stopped or self._client.is_closed:
            raise _Stopped

    async def _catch_up(self) -> int:
        """@return: etcd's revision up to which all is delivered."""
        while True:
            found, bounds = await self._reader.read(self._after, _CHUNK)
            for number, record in found:
                await self._deliver(number, record)
            if self._after >= bounds.last:
                return bounds.revision

    async def _deliver(self, number: int, record: bytes) -> None:
        self._check()
        self._after = number
        self._delivering = True
        try:
            busy = self._received(number, record)
        finally:
            self._delivering = False
        if busy is not None:
            # A copy: stopping cancels what is waited for here, and not what the receiver does.
            waiting: Deferred[None] = Deferred()
            busy.addBoth(_fire, waiting)
            await waiting
        self._check()

    async def _follow_watch(self, revision: int, tries: Tries) -> None:
        """Deliver what is appended, until the watch ends."""
        await self._client.log_in()
        self._watch = watch = Watch(self._client, *self._keys.records(self._after + 1), revision)
        while True:
            answer = await watch.next()
            if answer.canceled:
                # Compacted: what it wants is not there as changes any more, but may be there as records.
                self._log.debug("cluster: the watch was cancelled: {reason}", reason=answer.cancel_reason)
                self._close_watch()
                if not answer.compact_revision:
                    raise EtcdError("", "CANCELLED", answer.cancel_reason)
                return
            tries.restart()
            for event in answer.events:
                if not await self._event(event.kv):
                    self._close_watch()
                    return

    async def _event(self, kv: Any) -> bool:
        """@return: whether the watch tells of all that comes."""
        number = self._keys.number(kv.key)
        if number == self._after + 1:
            await self._deliver(number, await self._reader.record(number, read_stored(number, kv.value)))
        return number <= self._after


def _fire(result: Any, waiting: Deferred[None]) -> None:
    if not waiting.called:
        waiting.callback(result if isinstance(result, Failure) else None)
