"""
Running a command's coroutine to its end, whatever signals come; and reading standard input beside it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Coroutine
from types import FrameType
from typing import Any, Final, NoReturn, Optional, TypeVar

from darner.commands.exits import Terminated

_T = TypeVar("_T")
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CHUNK: Final = 64 * 1024
_BLOCKED: Final = 0.2
"""Seconds after a signal in which the event loop comes round, unless the command blocks."""


class _Interruption:
    """
    A signal that ends a command.

    What is raised in the middle of the event loop may lose what the loop was about to call, and the command would wait
    for that for ever.  So the command is cancelled by a call of the loop; and where that does not come soon, as the
    command blocks, the exception is raised where it does.

    @ivar number: of the signal; None where none has come.
    """

    def __init__(self) -> None:
        self.number: Optional[int] = None
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._task: Optional[asyncio.Task[Any]] = None

    async def watch(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine that signals end."""
        loop = asyncio.get_running_loop()
        # What a signal has cut short has nothing to say besides.
        loop.set_exception_handler(lambda *_: None)
        self._loop, self._task = loop, asyncio.current_task()
        if self.number is not None:
            coroutine.close()
            self.throw()
        try:
            return await coroutine
        finally:
            self._loop = self._task = None
            if self.number is not None:
                signal.setitimer(signal.ITIMER_REAL, 0)

    def hear(self, number: int, _: object) -> None:
        """Handle one of L{_SIGNALS}."""
        again = self.number is not None
        self.number = number
        if again:
            self.throw()
        if self._loop is not None:  # else it has not begun, or is over
            self._loop.call_soon_threadsafe(self._cancel)
            signal.setitimer(signal.ITIMER_REAL, _BLOCKED, _BLOCKED)

    def hear_alarm(self, _: int, frame: Optional[FrameType]) -> None:
        """Handle SIGALRM: the loop has not come round.  Where this interrupts the loop itself, it comes again."""
        if self._loop is not None and frame is not None and frame.f_globals.get("__package__") != asyncio.__name__:
            self.throw()

    def throw(self) -> NoReturn:
        """
        @raise KeyboardInterrupt: SIGINT has come; L{Terminated} for another signal.
        """
        raise KeyboardInterrupt if self.number == signal.SIGINT else Terminated

    def _cancel(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._task is not None:
            self._task.cancel()


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """
    Run a command.

    A signal cancels it, also where it blocks, and what it has open is given back on its way out.  A second one ends it
    at once.

    @raise KeyboardInterrupt: SIGINT has come; L{Terminated} for SIGTERM and SIGHUP.
    """
    interruption = _Interruption()
    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(interruption.watch(coroutine))
    # A signal that is ignored stays so: nohup means it.
    before = {
        number: signal.signal(number, interruption.hear)
        for number in _SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT
    }
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, interruption.hear_alarm)
    try:
        return asyncio.run(interruption.watch(coroutine))
    except asyncio.CancelledError:
        if interruption.number is None:
            raise
        interruption.throw()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def read_input() -> AsyncIterator[bytes]:
    """
    Read standard input without holding up what runs beside it.

    @return: what comes, as soon as it does.
    """
    stream = sys.stdin.buffer
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        while data := stream.read(CHUNK):
            yield data
        return
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    while True:
        ready.clear()
        try:
            loop.add_reader(number, ready.set)
        except PermissionError:
            await asyncio.sleep(0)  # a regular file is always ready
        else:
            # What is told while this is not waiting is of what was read meanwhile: to read then would block.
            try:
                await ready.wait()
            finally:
                loop.remove_reader(number)
        data = os.read(number, CHUNK)
        if not data:
            return
        yield data
