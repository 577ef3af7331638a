"""
A worker: handles the items of queues, so many at a time, until it is told to stop.
"""

from __future__ import annotations

import inspect
import signal
from collections.abc import Callable
from typing import Any, Final, Optional, Union

from darner.client.addresses import Backoff
from darner.client.commands import Commands, Queues
from darner.client.fleet import BaseFleet
from darner.client.links import Future, Timer
from darner.client.reads import OpenRead
from darner.client.shards import BaseShards
from darner.errors import ClientError, DarnerError

Handler = Callable[[OpenRead], Any]
"""Handles an item: a coroutine function, or a function, which is called in a thread."""

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
WAIT: Final = float("inf")


class Hooks:
    """What a worker tells, for logs and metrics; by default nobody.  What they raise ends the worker."""

    def started(self, read: OpenRead) -> None:
        """An item is going to be handled."""

    def succeeded(self, read: OpenRead, seconds: float) -> None:
        """It was handled, and is closed."""

    def failed(self, read: OpenRead, seconds: float, error: BaseException) -> None:
        """It was not, and was given back; or it could not be closed, and will be had again."""

    def unreachable(self, error: DarnerError) -> None:
        """No server could be asked for an item; it is tried again by and by."""


class _Slot:
    """One of those that work at a time."""

    read: Optional[OpenRead] = None
    task: Optional[Timer] = None
    ended = False


class BaseWorker:
    """
    Opens items, and has each handled: it is closed when its handler returns, and given back when that raises.  How
    often
    and how soon it is tried again, and where it goes in the end, is up to the queue's settings (``max_attempts``,
    ``retry_delay``, ``dead_letter_queue``).
    """

    def __init__(
        self, client: Union[Commands, BaseFleet, BaseShards], queue: Queues, handler: Handler, *, concurrency: int = 1,
        heartbeat: Optional[float] = None, grace: float = 30.0, threads: Optional[bool] = None,
        hooks: Optional[Hooks] = None,
    ) -> None:  # fmt: skip
        """
        @param queue: a queue, or several, the most urgent first.
        @param concurrency: how many items are handled at a time.
        @param heartbeat: touch each item as often, in seconds, for queues with an ``open_timeout``.
        @param grace: for how many seconds handlers may go on when the worker is stopped; then their items are given
            back.
        @param threads: whether the handler is called in a thread; by default where it is not a coroutine function.
        """
        if concurrency < 1:
            raise ValueError("concurrency is below 1")
        self._client = client
        self._runtime: Any = client._runtime
        self._queue = queue
        self._handler = handler
        self._concurrency = concurrency
        self._heartbeat = heartbeat
        self._grace = grace
        if threads is None:
            called = getattr(handler, "__call__", handler)  # noqa: B004 - an instance may have a coroutine
            threads = not inspect.iscoroutinefunction(handler) and not inspect.iscoroutinefunction(called)
        self._threads = threads
        self._hooks = hooks or Hooks()
        self._stopping = False
        self._slots: list[_Slot] = []
        self._ended: Optional[Future] = None
        self._patience: Optional[Timer] = None
        self._at_end: list[Callable[[], object]] = []

    @property
    def handling(self) -> int:
        """How many items are being handled."""
        return sum(slot.read is not None for slot in self._slots)

    async def run(self, signals: tuple[int, ...] = STOP_SIGNALS) -> None:
        """
        Work until L{stop} is called or a signal comes, and what was begun is finished or given back.

        @raise ClientError: the server refuses to be read from, for want of a right for example.
        """
        self._ended = self._runtime.future()
        undo = self._on_signals(self.stop, signals) if signals else lambda: None
        self._slots = [_Slot() for _ in range(self._concurrency)]
        try:
            for slot in self._slots:
                slot.task = self._runtime.spawn(self._work(slot))
            await self._ended
        finally:
            undo()
            self._give_up()
            for call in self._at_end:
                call()

    def on_end(self, call: Callable[[], object]) -> None:
        """Have something called when L{run} has come to its end, or now where it has."""
        if self._ended is None or self._ended.done():
            call()
        else:
            self._at_end.append(call)

    def stop(self) -> None:
        """Begin no more items; what is being handled may be finished within the time of grace."""
        if self._stopping:
            return
        self._stopping = True
        for slot in self._slots:
            if slot.read is None and slot.task is not None:
                slot.task.cancel()
        if self.handling:
            self._patience = self._runtime.call_later(self._grace, self._give_up)

    def _on_signals(self, stop: Callable[[], None], signals: tuple[int, ...]) -> Callable[[], None]:
        """@return: what undoes it."""
        raise NotImplementedError

    def _give_up(self) -> None:
        self._stopping = True
        if self._patience is not None:
            self._patience.cancel()
        for slot in self._slots:
            if not slot.ended and slot.task is not None:
                slot.task.cancel()

    async def _work(self, slot: _Slot) -> None:
        error: Optional[BaseException] = None
        backoff = Backoff()
        try:
            while not self._stopping:
                try:
                    read = await self._client.open(self._queue, WAIT, heartbeat=self._heartbeat)
                except DarnerError as problem:
                    if not _passes(problem):
                        raise
                    self._hooks.unreachable(problem)
                    await self._runtime.sleep(backoff.next())
                    continue
                if read is None:
                    continue
                backoff.reset()
                slot.read = read
                try:
                    await self._handle(read)
                finally:
                    slot.read = None
        except Exception as problem:
            error = problem
        finally:
            slot.ended = True
            self._end_of(error)

    async def _handle(self, read: OpenRead) -> None:
        began = self._runtime.now()
        self._hooks.started(read)
        try:
            if self._threads:
                await self._runtime.in_thread(lambda: self._handler(read))
            else:
                result = self._handler(read)
                if inspect.isawaitable(result):
                    await result
            await read.close()
        except Exception as error:
            read._give_back()
            self._hooks.failed(read, self._runtime.now() - began, error)
        except BaseException as error:
            read._give_back()
            self._hooks.failed(read, self._runtime.now() - began, error)
            raise
        else:
            self._hooks.succeeded(read, self._runtime.now() - began)

    def _end_of(self, error: Optional[BaseException]) -> None:
        ended = self._ended
        if ended is None or ended.done():
            return
        if error is not None and not self._stopping:
            ended.set_exception(error)
        elif all(slot.ended for slot in self._slots):
            ended.set_result(None)


def _passes(error: DarnerError) -> bool:
    """Whether it may go well later."""
    return not isinstance(error, ClientError)
