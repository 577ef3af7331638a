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
from typing import Any, Final, TypeVar

from darner.commands.exits import Terminated

_T = TypeVar("_T")
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CHUNK: Final = 64 * 1024


def _interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated


async def _quietly(coroutine: Coroutine[Any, Any, _T]) -> _T:
    # What a signal has cut short has nothing to say besides.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    return await coroutine


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    """
    Run a command.

    A signal is raised in it at once, also where it blocks, and what it has open is given back on its way out.

    @raise KeyboardInterrupt: SIGINT has come; L{Terminated} for SIGTERM and SIGHUP.
    """
    if threading.current_thread() is not threading.main_thread():
        return asyncio.run(_quietly(coroutine))
    # A signal that is ignored stays so: nohup means it.
    before = {
        number: signal.signal(number, _interrupt)
        for number in _SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT
    }
    try:
        return asyncio.run(_quietly(coroutine))
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
    try:
        loop.add_reader(number, ready.set)
    except PermissionError:
        # A regular file is always ready.
        while data := os.read(number, CHUNK):
            yield data
            await asyncio.sleep(0)
        return
    try:
        while True:
            await ready.wait()
            ready.clear()
            data = os.read(number, CHUNK)
            if not data:
                return
            yield data
    finally:
        loop.remove_reader(number)
