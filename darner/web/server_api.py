"""
The server: what it is, its status, its settings, and what happens.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred

import darner
from darner.errors import ClientError
from darner.web.answers import Answer
from darner.web.calls import Call
from darner.web.endpoints import Right, handles
from darner.web.health import health
from darner.web.problems import Problem, bad_request
from darner.web.process import is_compiled, memory, versions
from darner.web.session_api import describe

MOST_NAMES: Final = 20
"""Of queues, for whose figures somebody listens."""
_HIDDEN: Final = frozenset(["policies", "users"])


@handles("server")
async def server(call: Call) -> dict[str, Any]:
    served = call.served
    queues, stats = served.queues, served.queues.stats
    python, twisted = versions()
    space = queues.space.room()
    counters = queues.figures(darner.__version__, served.watch.counted())
    return {
        "version": darner.__version__,
        "compiled": is_compiled(),
        "python": python,
        "twisted": twisted,
        "pid": os.getpid(),
        "instance": served.instance,
        "started": int(served.started * 1000),
        "time": served.now,
        "uptime_ms": max(0, served.now - int(served.started * 1000)),
        "status": queues.status.name,
        "health": health(queues),
        "memory_bytes": memory(),
        "disk": None if space is None else {"free": space[0], "total": space[1]},
        "listeners": [place.address for place in served.places()],
        "connections": {
            "current": stats.curr_connections, "total": stats.total_connections, "rejected": stats.rejected_connections,
            "http": served.connections,
        },
        "totals": await served.watch.totals(call.visitor, call.pace),
        "counters": {name: value for name, value in counters.items() if isinstance(value, int)},
        "settings": _settings(call) if call.visitor.may(Right.SERVER) else {},
    }  # fmt: skip


def _settings(call: Call) -> dict[str, str]:
    settings = call.served.settings
    return {
        field.name: _text(getattr(settings, field.name))
        for field in attrs.fields(type(settings))
        if field.name not in _HIDDEN
    }


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(getattr(entry, "endpoint", str(entry)).partition(":")[0] for entry in value) or "none"
    return f"{value:g}s" if isinstance(value, float) else str(value)


@handles("status")
async def status(call: Call) -> dict[str, Any]:
    return {"status": call.served.queues.status.name}


@handles("set_status")
async def set_status(call: Call) -> dict[str, Any]:
    call.about = call["status"]
    try:
        call.served.queues.status.change(call["status"])
    except ClientError as error:
        raise Problem(409, str(error)) from None
    return {"status": call.served.queues.status.name}


@handles("reload")
async def reload(call: Call) -> dict[str, Any]:
    queues = call.served.queues
    try:
        queues.control.reload()
    except ClientError as error:
        raise Problem(409, str(error)) from None
    adopted: Deferred[None] = Deferred(lambda _: None)
    queues.adoption.when_done(partial(adopted.callback, None))
    await adopted
    return {"reloaded": True}


@handles("events")
async def events(call: Call) -> Answer:
    names = [name.encode() for name in (call["queues"] or "").split()]
    if len(names) > MOST_NAMES:
        raise bad_request(f"queues: at most {MOST_NAMES}")
    for name in names:
        call.visitor.check(Right.SEE, name)
    hello = describe(call, call.visitor)
    return Answer(call.served.events.listen(call.visitor, names, hello), kind=b"text/event-stream")
