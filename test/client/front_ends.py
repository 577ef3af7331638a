"""
The three front ends as one, for tests that are the same for all: a scenario is a coroutine that is given a L{Front}.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet import reactor, task
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, gatherResults

from darner.client import asyncio as asyncio_front
from darner.client import blocking as blocking_front
from darner.client import twisted as twisted_front

Scenario = Callable[["Front"], Coroutine[Any, Any, Any]]

LONG = 240.0
"""
Seconds for a call, or a wait, that is not to end because its time is up: on a machine that has much to do, client and
server may stand still for a while.
"""
WHOLE = 300.0
"""Seconds for a whole test."""


class Front:
    """A front end."""

    name = ""

    def client(self, *arguments: Any, **more: Any) -> Any:
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    def start(self, coroutine: Any) -> Any:
        """Let something run; what is returned can be awaited and cancelled."""
        raise NotImplementedError

    async def all(self, calls: Any) -> Any:
        raise NotImplementedError


class AsyncioFront(Front):
    name = "asyncio"

    def client(self, *arguments: Any, **more: Any) -> Any:
        return asyncio_front.Client(*arguments, **more)

    def fleet(self, *arguments: Any, **more: Any) -> Any:
        return asyncio_front.Fleet(*arguments, **more)

    def shards(self, *arguments: Any, **more: Any) -> Any:
        return asyncio_front.Shards(*arguments, **more)

    def worker(self, *arguments: Any, **more: Any) -> Any:
        return asyncio_front.Worker(*arguments, **more)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def start(self, coroutine: Any) -> Any:
        return asyncio.ensure_future(coroutine)

    async def all(self, calls: Any) -> Any:
        return await asyncio.gather(*calls)

    cancelled = asyncio.CancelledError


class TwistedFront(Front):
    name = "twisted"

    def client(self, *arguments: Any, **more: Any) -> Any:
        return twisted_front.Client(reactor, *arguments, **more)

    def fleet(self, *arguments: Any, **more: Any) -> Any:
        return twisted_front.Fleet(reactor, *arguments, **more)

    def shards(self, *arguments: Any, **more: Any) -> Any:
        return twisted_front.Shards(reactor, *arguments, **more)

    def worker(self, *arguments: Any, **more: Any) -> Any:
        return twisted_front.Worker(*arguments, **more)

    async def sleep(self, seconds: float) -> None:
        await task.deferLater(reactor, seconds)

    def start(self, coroutine: Any) -> Any:
        return coroutine if isinstance(coroutine, Deferred) else ensureDeferred(coroutine)

    async def all(self, calls: Any) -> Any:
        return await gatherResults([self.start(call) for call in calls], consumeErrors=True)

    cancelled = CancelledError


class _Awaitable:
    """A blocking object, whose methods look like coroutines."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wrapped, name)
        if not callable(found) or isinstance(found, bytes):
            return found

        async def call(*arguments: Any, **more: Any) -> Any:
            result = found(*arguments, **more)
            return _Awaitable(result) if isinstance(result, blocking_front.OpenRead) else result

        return call

    def monitor(self, *arguments: Any, **more: Any) -> Any:
        return _AwaitableMonitor(self._wrapped.monitor(*arguments, **more))

    async def __aenter__(self) -> Any:
        self._wrapped.__enter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._wrapped.__exit__(*error)


class _AwaitableMonitor(_Awaitable):
    def __aiter__(self) -> Any:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self._wrapped)
        except StopIteration:
            raise StopAsyncIteration from None


class BlockingFront(AsyncioFront):
    """Its scenarios run in an event loop that it blocks."""

    name = "blocking"

    def client(self, *arguments: Any, **more: Any) -> Any:
        return _Awaitable(blocking_front.Client(*arguments, **more))

    def fleet(self, *arguments: Any, **more: Any) -> Any:
        return _Awaitable(blocking_front.Fleet(*arguments, **more))

    def shards(self, *arguments: Any, **more: Any) -> Any:
        return _Awaitable(blocking_front.Shards(*arguments, **more))


def run_in_asyncio(coroutine: Coroutine[Any, Any, Any], patience: float = WHOLE) -> Any:
    """@return: what a coroutine returns, in a loop of its own; what nobody has looked at is an error."""
    complaints: list[Any] = []

    async def main() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        return await asyncio.wait_for(coroutine, patience)

    result = asyncio.run(main())
    assert not complaints, complaints
    return result


