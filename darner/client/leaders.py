"""
Connections to the one of several servers that leads: of a cluster only the leader listens.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

from darner.client.addresses import Address
from darner.client.errors import ConnectionFailed
from darner.client.links import Future, Link, Runtime, Timer

_PAUSE: Final = 0.1
"""Seconds before all are tried again where none listened."""


class LeaderRuntime:
    """
    A runtime whose connections lead to the node that listens, one after the other being tried.

    The node of the connections before is tried first while all of them hold, and last when one has ended by itself: it
    may be one that was replaced and does not know yet, so that it listens and never answers.  Those that the client
    dropped, as that of a read that was cancelled, say nothing about it.
    """

    def __init__(self, runtime: Runtime, nodes: Sequence[Address], patience: float) -> None:
        """
        @param patience: seconds for which one node is waited for: one that is cut off does not say that it is.
        """
        self._runtime = runtime
        self._nodes = list(nodes)
        self._patience = patience
        self._links: list[Link] = []  # to the first of the nodes
        self.pipelining = runtime.pipelining

    def now(self) -> float:
        return self._runtime.now()

    def sleep(self, seconds: float) -> Awaitable[None]:
        return self._runtime.sleep(seconds)

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer:
        return self._runtime.call_later(seconds, call)

    def future(self) -> Future:
        return self._runtime.future()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> Timer:
        return self._runtime.spawn(coroutine)

    async def connect(self, address: Address, timeout: float) -> Link:
        """
        @param address: is not used.
        @raise ConnectionFailed: no node listened in that time.
        """
        until = self.now() + timeout
        if any(link.retired and not link.dropped for link in self._links):
            self._links = []
            self._nodes.append(self._nodes.pop(0))
        self._links = [link for link in self._links if not link.retired]
        while True:
            for node in list(self._nodes):
                try:
                    link = await self._runtime.connect(node, max(0.01, min(self._patience, until - self.now())))
                except ConnectionFailed as error:
                    reason = error
                    continue
                # The order may be another one by now, as others connect as well.
                if node != self._nodes[0]:
                    self._nodes.remove(node)
                    self._nodes.insert(0, node)
                    self._links = []
                self._links.append(link)
                return link
            pause = _PAUSE * random.uniform(0.5, 1)
            if self.now() + pause >= until:
                raise ConnectionFailed(f"no node leads; the last one that was tried: {reason}")
            await self.sleep(pause)
