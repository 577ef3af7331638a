"""
What there is at which path, and what is checked of every request before it is served.
"""

from __future__ import annotations

from typing import Any, Optional

from darner.errors import DarnerError
from darner.queues.timings import SECONDS, Histogram
from darner.web import (  # noqa: F401  (they register their handlers)
    backup_api,
    clients_api,
    items_api,
    queues_api,
    server_api,
    session_api,
)
from darner.web.answers import Answer, encode
from darner.web.calls import Call, find, no_body, understand
from darner.web.endpoints import HANDLERS, Endpoint, Right
from darner.web.guard import Guard
from darner.web.openapi import BASE
from darner.web.pages import Pages
from darner.web.probes import PROBES
from darner.web.problems import Problem, problem_of
from darner.web.served import Served
from darner.web.visitors import Visitor


class Root:
    """Answers the requests of all HTTP listeners of one server."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.clock = served.clock
        self._shard = served.settings.shard
        self._guard = Guard(served.settings.http_hosts)
        self._pages = Pages()

    @property
    def connections(self) -> int:
        return self.served.connections

    def joined(self) -> None:
        self.served.connections += 1

    def left(self) -> None:
        self.served.connections -= 1

    async def answer(self, request: Any, certified: bool) -> Answer:
        """
        @param certified: whether the client has shown a certificate.
        @raise Problem: or a L{DarnerError}, in place of what was asked for.
        """
        started = self.served.timings.timer()
        found = ["page"]
        try:
            return await self._answer(request, certified, found)
        finally:
            seconds = self.served.timings.timer() - started
            self.served.http.setdefault(found[0], Histogram(SECONDS)).add(seconds, 1)

    async def _answer(self, request: Any, certified: bool, found: list[str]) -> Answer:
        """@param found: what it is for is put in its place there."""
        reception = self.served.reception
        what = f"http {request.method.decode('latin-1')} {request.path.decode('latin-1')}"
        try:
            self._guard.check(request, reception.has_users and request.getHeader(b"authorization") is not None)
            reception.check_place(request, certified)
        except Problem as problem:
            reception.trail(request).refused(what, problem)
            raise
        if request.path.startswith(BASE.encode() + b"/"):
            return await self._call(request, found)
        if request.path in PROBES:
            found[0] = request.path[1:].decode()
            return await self._probe(request)
        if request.method not in (b"GET", b"HEAD"):
            raise Problem(405, "no such method here", {b"Allow": b"GET, HEAD"})
        return self._pages.answer(request)

    async def _probe(self, request: Any) -> Answer:
        if request.method not in (b"GET", b"HEAD"):
            raise Problem(405, "no such method here", {b"Allow": b"GET, HEAD"})
        probe = PROBES[request.path]
        visitor = Visitor() if probe.for_all else await self._identify(request)
        return await probe.answer(self.served, request, visitor)

    async def _identify(self, request: Any) -> Visitor:
        return await self.served.reception.identify(request)

    async def _call(self, request: Any, found: list[str]) -> Answer:
        found[0] = "unknown"
        method = "GET" if request.method == b"HEAD" else request.method.decode("latin-1")
        endpoint, values = find(method, request.path)
        found[0] = endpoint.name
        visitor = Visitor() if endpoint.right == Right.ANYONE else await self._identify(request)
        trail = self.served.reception.trail(request, visitor.user or "-")
        call = Call(self.served, endpoint, request, visitor, trail, values)
        try:
            visitor.check(endpoint.right, call.queue)
            if self._shard is not None and call.queue:
                self._shard.check(call.queue)
            wrong = no_body(endpoint, request)
            if wrong is not None:
                raise wrong
            call.values = {**understand(endpoint, request), **values}
            answer = await self._perform(call)
        except DarnerError as error:
            if problem_of(error).status in (401, 403):
                trail.refused(call.describe(), error)
            raise
        if endpoint.changes:
            call.trail.performed(call.describe())
        return answer

    @staticmethod
    async def _perform(call: Call) -> Answer:
        result: Any = await HANDLERS[call.endpoint.name](call)
        if isinstance(result, Answer):
            return result
        return Answer(b"" if result is None else encode(result), _status(call.endpoint, result))

    def close(self) -> None:
        """The server stops."""
        self.served.close()


def _status(endpoint: Endpoint, result: Optional[object]) -> int:
    return 204 if result is None else endpoint.status
