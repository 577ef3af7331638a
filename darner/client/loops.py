"""
A client for asyncio, for programs with threads: an event loop in a thread of its own does the work.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, Final, Optional, Protocol, TypeVar

_T = TypeVar("_T")
_S = TypeVar("_S", bound="InLoop")

_PATIENCE: Final = 1.0
"""Seconds for which what still runs in the loop is waited for, before it is cancelled."""


class Front(Protocol):
    """What is to be run."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...


class InLoop:
    """Runs the coroutines of a client; it may be used by many threads."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._thread: Optional[threading.Thread] = None

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        if self._loop is None:
            coroutine.close()
            raise RuntimeError("it is not started")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def start(self) -> None:
        """Begin."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="darner client", daemon=True)
        self._thread.start()
        self._run(self._front.start())

    def close(self) -> None:
        """End all connections, when what was sent is answered.  What is open goes back."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._run(self._end())
        self._loop = self._thread = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    async def _end(self) -> None:
        await self._front.close()
        # What was called off, and what other threads wait for, needs some turns of the loop to end.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            _, late = await asyncio.wait(others, timeout=_PATIENCE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def __enter__(self: _S) -> _S:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
