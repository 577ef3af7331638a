"""
Time that only goes forward.

The reactor measures delays by the wall clock: a client that waits for a second waits for an hour when the clock is set
back.  This clock offers the reactor's `callLater`, measured by the monotonic clock: a thread sleeps until the next call
is due and then wakes the reactor.

The thread does not sleep by the time-out of a lock: where Python was built with an old C library, or another one than
GNU's, that is measured by the wall clock as well.
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
"""Seconds of one sleep; poll takes no more than some weeks."""


@implementer(IReactorTime)
class MonotonicClock:
    """An L{IReactorTime} over the monotonic clock.  Its calls run in the reactor's thread, like the reactor's own."""

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
        # At once: the first call may be that which waits for the end of a shortage of descriptors.
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
        """@raise RuntimeError: there can be no thread now; the next call is another try."""
        self._thread = threading.Thread(target=self._sleep, name="darner-clock", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None
            self._due = _NEVER
            raise

    def _wake(self) -> None:
        """Have the thread look again."""
        assert self._pipe is not None
        with suppress(BlockingIOError):  # the pipe is full: it will look
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
        # Once stopped, what was already on its way here does nothing, nor does it start the thread anew.
        while self._thread is not None and self._calls and self._calls[0][0] <= now:
            due, _, call = heappop(self._calls)
            # A call that was moved stands in the heap a second time.
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
