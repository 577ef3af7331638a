"""
Items that were taken for calls that were cancelled.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Optional

from darner.client import requests
from darner.client.addresses import Backoff
from darner.client.errors import ClientClosed
from darner.client.links import Future, Timer
from darner.client.protocol import Item
from darner.errors import ClientError, DarnerError

if TYPE_CHECKING:
    from darner.client.core import Core

_AT_ONCE: Final = 256
"""How many are put back without waiting for replies."""
_log: Final = logging.getLogger("darner.client")


class PutBack:
    """
    Puts items that nobody will have to the end of their queues, with their flags, but without an expiry.

    Where the server cannot be asked, does not take an item now, or it is in doubt, that is tried again until the client
    is closed, and by a client that blocks for as long as a call may take; so after two faults at a time an item may be
    there twice.  What is lost all the same is told of in the log C{darner.client}.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._items: list[Item] = []
        self._task: Optional[Timer] = None
        self._running = False
        self._why: Optional[DarnerError] = None  # an item is not back yet
        self._end: Optional[Future] = None

    def add(self, items: Sequence[Item]) -> None:
        """Begin to put items back."""
        self._items += items
        if self._items and not self._running:
            self._running = True
            self._task = self._core._runtime.spawn(self._run())

    async def end(self, patience: float) -> None:
        """
        Wait until all are back.

        @param patience: seconds; what is not back by then is lost.
        """
        if not self._running or not self._core._runtime.pipelining:
            return
        end = self._end = self._core._runtime.future()
        timer = self._core._runtime.call_later(patience, self._give_up)
        try:
            await end
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        core, runtime = self._core, self._core._runtime
        until = math.inf if runtime.pipelining else runtime.now() + core.timeout
        backoff = Backoff()
        try:
            while self._items:
                again = await self._put(self._items[:_AT_ONCE])
                pause = backoff.next()
                if again and runtime.now() + pause < until:
                    self._items += again
                    await runtime.sleep(pause)
                elif again:
                    _tell_of(again, self._why)
                else:
                    backoff.reset()
        finally:
            self._running = False
            lost, self._items = self._items, []
            _tell_of(lost, self._why)
            end, self._end = self._end, None
            if end is not None and not end.done():
                end.set_result(None)

    async def _put(self, items: list[Item]) -> list[Item]:
        """
        Put items, which are the first ones here, once.

        @return: those that are to be put again.
        """
        asked = [requests.put(item.queue, item.payload, flags=item.flags) for item in items]
        try:
            results: list[Any] = await self._core._call_all(asked, None)
        except DarnerError as error:
            results = [error] * len(items)
        del self._items[: len(items)]
        again: list[Item] = []
        for item, result in zip(items, results, strict=True):
            if isinstance(result, (ClientError, ClientClosed)):
                _tell_of([item], result)
            elif isinstance(result, DarnerError):
                self._why = result
                again.append(item)
        return again


def _tell_of(lost: list[Item], why: Optional[DarnerError]) -> None:
    if lost:
        queues = ", ".join(sorted({item.queue for item in lost}))
        reason = why or "there was no time left"
        _log.error("%d items taken by calls that were cancelled are lost (%s): %s", len(lost), queues, reason)
