"""
A thread whose results an epoll can wait for, and which is left out where a call is quick.

A thread pool hands out each call by a queue, a lock and a pool, and tells the reactor of its result by a pipe and an
iteration.  Next to an fsync of 100 us that is as much again.  A L{Worker} has one thread that waits for a call, and
tells of the result by an C{eventfd}, which a `darner.net.port.FastPort` waits for together with its clients.

Many disks sync in less time than it takes to hand a call to a thread, and its result back.  So a call that need not be
made in the thread is made at once, as long as calls are L{QUICK}.  After one that was not, the thread makes all of them
for a while: L{REST} times as long as it took too long.  So slow calls take at most 1 % of the reactor's time.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Final, Optional, Union

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import classImplements

QUICK: Final = 0.001
"""The reactor may be held up for so many seconds."""
REST: Final = 100
"""The time by which a call is longer than L{QUICK} is multiplied by this."""

_Call = tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]


class Worker:
    """
    Calls functions in a thread of its own, one after the other.

    @ivar slow_until: until when, in seconds of the monotonic clock, none is called at once.
    @ivar calls: how many functions were called, or are to be.
    """

    def __init__(self, reactor: Any, name: str) -> None:
        """@param name: of the thread."""
        self._reactor = reactor
        self._calls: SimpleQueue[Optional[_Call]] = SimpleQueue()
        self._results: deque[tuple[Deferred[Any], Any]] = deque()
        self._runner = threading.Thread(target=self._run, name=name, daemon=True)
        self._fd = -1
        self.slow_until = 0.0
        self.calls = 0

    def start(self) -> None:
        """
        Start the thread: now, as it may be needed first when there is nothing left to start it with.

        @raise OSError: there is no descriptor or thread left.
        """
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._runner.start()
        except RuntimeError as error:
            os.close(self._fd)
            self._fd = -1
            raise OSError(errno.EAGAIN, str(error)) from error
        self._reactor.addReader(self)

    def stop(self) -> None:
        """Wait for the call that is being made, and end the thread."""
        if self._fd >= 0:
            self._calls.put(None)
            self._runner.join()
            self._reactor.removeReader(self)
            os.close(self._fd)
            self._fd = -1

    def call(self, work: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """
        Call C{work} in the thread.

        @return: fires with its result, or its failure, in the reactor's thread.
        """
        done: Deferred[Any] = Deferred()
        self.calls += 1
        self._calls.put((done, work, arguments))
        return done

    def call_unless_quick(self, work: Callable[..., Any], *arguments: Any) -> Optional[Deferred[Any]]:
        """
        Call C{work}, which may hold up the reactor for a moment: at once, or as L{call}.

        @return: C{None}: C{work} has been called, and its result is dropped; or as L{call}.  What it raises when it is
            called at once is raised here.
        """
        began = time.monotonic()
        if began < self.slow_until:
            return self.call(work, *arguments)
        self.calls += 1
        try:
            work(*arguments)
        finally:
            self._note(began)
        return None

    def _note(self, began: float) -> None:
        now = time.monotonic()
        if now - began > QUICK:
            # One that takes less time does not shorten what follows from one before.
            self.slow_until = max(self.slow_until, now + REST * (now - began - QUICK))

    def _run(self) -> None:
        while True:
            call = self._calls.get()
            if call is None:
                return
            done, work, arguments = call
            began = time.monotonic()
            try:
                result = work(*arguments)
            except BaseException:
                result = Failure()
            self._note(began)
            self._results.append((done, result))
            # Nothing is kept until the next call: it may be megabytes.
            del call, done, work, arguments, result
            os.eventfd_write(self._fd, 1)

    # What a reactor or a port waits for

    def fileno(self) -> int:
        return self._fd

    def logPrefix(self) -> str:
        return "darner"

    def doRead(self) -> None:
        """Tell of the results that are there."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._fd)
        while self._results:
            done, result = self._results.popleft()
            done.callback(result)

    def connectionLost(self, reason: Failure) -> None:
        """Called by the reactor when it ends."""


classImplements(Worker, IReadDescriptor)


def start_worker(reactor: Any, name: str) -> Optional[Worker]:
    """
    @param name: of its thread.
    @return: a worker that is started; C{None} where the system has no C{eventfd}.
    @raise OSError: as L{Worker.start}.
    """
    if not hasattr(os, "eventfd"):
        return None
    worker = Worker(reactor, name)
    worker.start()
    return worker


def begin(
    where: Union[Worker, Callable[..., Deferred[Any]]], may_be_quick: bool, work: Callable[..., Any], *arguments: Any
) -> Optional[Deferred[Any]]:
    """
    Call C{work} by a worker, or by what calls its arguments in a thread where there is none.

    @param may_be_quick: whether a worker may call it at once, as L{Worker.call_unless_quick}.
    @return: as L{Worker.call_unless_quick}.
    """
    if not isinstance(where, Worker):
        return where(work, *arguments)
    return where.call_unless_quick(work, *arguments) if may_be_quick else where.call(work, *arguments)
