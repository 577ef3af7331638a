"""
A clock that is never set back.

The reactor measures delays by the wall clock: if that is set back by an hour, a client that waits for a second waits
for an hour.  This clock has the reactor's `callLater`, measured by the monotonic clock: a thread sleeps until the next
call is due and then wakes the reactor.

The thread does not use the time-out of a lock to sleep: if Python was built with an old C library, or one other than
GNU's, that is measured by the wall clock too.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from heapq import heapify, heappop, heappush
from typing import Any, Optional

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from darner.net.log_limits import LimitedLog

_NEVER = float("inf")
_LONGEST = 86_400.0
"""The longest sleep, in seconds; poll accepts no more than some weeks."""


@implementer(IReactorTime)
class MonotonicClock:
    """C{IReactorTime} over the monotonic clock.  Its calls run in the reactor's thread, like the reactor's own."""

    _log = Logger()

    def __init__(
        self, call_from_thread: Callable[..., object], seconds: Callable[[], float] = time.monotonic
    ) -> None:
        """@param call_from_thread: the reactor's C{callFromThread}."""
        self._call_from_thread = call_from_thread
        self._seconds = seconds
        self._calls: list[tuple[float, int, DelayedCall]] = []
        self._count = 0
        self._cancelled = 0
        self._lock = threading.Lock()
        self._due = _NEVER
        self._thread: Optional[threading.Thread] = None
        self._stopping = False
        self._limited = LimitedLog(self._log, self)
        # Now, as the first timer may be needed while there are no descriptors left.
        self._pipe: Optional[tuple[int, int]] = self._open_pipe()

    @staticmethod
    def _open_pipe() -> tuple[int, int]:
        pipe = os.pipe()
        for end in pipe:
            os.set_blocking(end, False)
        return pipe

    def seconds(self) -> float:
        return self._seconds()

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object) -> DelayedCall:
        call = DelayedCall(
            self._seconds() + delay, callable, args, kwargs, self._cancel, self._push, self._seconds
        )
        self._push(call)
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        return [call for due, _, call in self._calls if due == call.time and call.active()]

    def stop(self) -> None:
        """End the thread.  Calls that are not due yet will not run, unless another L{callLater} follows."""
        self._limited.close()
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping = True
            self._wake()
            thread.join()
        pipe, self._pipe = self._pipe, None
        for end in pipe or ():
            os.close(end)
        self._due = _NEVER
        self._stopping = False

    def _push(self, call: DelayedCall) -> None:
        self._count += 1
        heappush(self._calls, (call.time, self._count, call))
        self._arm(call.time)

    def _cancel(self, call: DelayedCall) -> None:
        self._cancelled += 1
        if self._cancelled > 64 and self._cancelled > len(self._calls) // 2:
            self._calls = [entry for entry in self._calls if entry[2].active()]
            heapify(self._calls)
            self._cancelled = 0

    def _arm(self, due: float) -> None:
        if due >= self._due:
            return
        with self._lock:
            self._due = due
        if self._thread is None:
            if self._pipe is None:
                self._pipe = self._open_pipe()
            self._start_thread()
        else:
            self._wake()

    def _start_thread(self) -> None:
        """@raise RuntimeError: the system cannot start a thread now; the next call tries again."""
        self._thread = threading.Thread(target=self._sleep, name="darner-clock", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
            self._due = _NEVER
            raise

    def _wake(self) -> None:
        """Wake the thread, so that it reads the next due time."""
        assert self._pipe is not None
        with suppress(BlockingIOError):  # the pipe is full, so the thread wakes up anyway
            os.write(self._pipe[1], b"\0")

    def _sleep(self) -> None:
        assert self._pipe is not None
        wakes = self._pipe[0]
        poll = select.poll()
        poll.register(wakes, select.POLLIN)
        while not self._stopping:
            with self._lock:
                left = self._due - self._seconds()
                if left <= 0:
                    self._due = _NEVER
            if left <= 0:
                self._call_from_thread(self._run)
            elif poll.poll(min(left, _LONGEST) * 1000):
                os.read(wakes, 4096)

    def _run(self) -> None:
        now = self._seconds()
        # After stop(), a call that was already scheduled must run nothing and must not start the thread again.
        while self._thread is not None and self._calls and self._calls[0][0] <= now:
            due, _, call = heappop(self._calls)
            # A call that was reset is in the heap twice.
            if not call.active() or due != call.time:
                continue
            if call.delayed_time:
                call.activate_delay()
                self._push(call)
            else:
                call.called = 1
                try:
                    call.func(*call.args, **call.kw)
                except Exception:
                    self._limited.failure("internal error in a timer")
        if self._thread is not None and self._calls:
            self._arm(self._calls[0][0])
