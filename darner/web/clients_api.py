"""
Reading items by HTTP, and the clients of the server.
"""

from __future__ import annotations

from typing import Any, Final, Optional

from darner.front.calls import Opening
from darner.front.messages import OpenMessage
from darner.web.answers import payload
from darner.web.calls import Call
from darner.web.endpoints import handles
from darner.web.problems import not_found

MOST_BYTES: Final = 1024 * 1024
"""Of an item that is taken or opened; a larger one is for the protocol, and to be looked at as a download."""


async def _open(call: Call) -> Optional[OpenMessage]:
    """@return: an item; C{None} where none came in time."""
    served, queues = call.served, call.served.queues
    queues.status.check_reads()
    queues.stats.cmd_get += 1
    opening = Opening(queues, call.queue, served.waiting.discard, MOST_BYTES)
    if opening.start(call["timeout_ms"] / 1000):
        served.waiting.add(opening)
    message: Optional[OpenMessage] = await opening.deferred
    if message is None:
        queues.stats.get_misses += 1
    else:
        queues.stats.get_hits += 1
    return message


def _describe(message: OpenMessage) -> dict[str, Any]:
    return {
        "queue": message.queue.decode(),
        "flags": message.flags,
        "size": len(message.payload),
        "payload": payload(message.payload),
    }


@handles("take")
async def take(call: Call) -> Optional[dict[str, Any]]:
    message = await _open(call)
    if message is None:
        return None
    await message.close()
    return _describe(message)


@handles("open")
async def open_item(call: Call) -> Optional[dict[str, Any]]:
    served = call.served
    served.reads.check_room()
    message = await _open(call)
    if message is None:
        return None
    seconds = call["open_ms"] / 1000
    token = served.reads.add(message, call.visitor.user, call.request.getClientAddress(), seconds)
    return {**_describe(message), "token": token, "expires": served.now + call["open_ms"]}


async def _end(call: Call, close: bool) -> dict[str, Any]:
    message = call.served.reads.take(call["token"], call.visitor.user)
    if message is None:
        raise not_found("nothing is open by this token: it was ended, or its time was over")
    call.about = message.queue.decode()
    was_open = message.is_open
    await (message.close() if close else message.abort())
    return {"ended": was_open}


@handles("close_read")
async def close_read(call: Call) -> dict[str, Any]:
    return await _end(call, True)


@handles("abort_read")
async def abort_read(call: Call) -> dict[str, Any]:
    return await _end(call, False)


# Clients


@handles("clients")
async def clients(call: Call) -> dict[str, Any]:
    total, found = await call.served.owners.list(call["filter"] or "", call["offset"], call["limit"], call.pace)
    return {"total": total, "offset": call["offset"], "limit": call["limit"], "clients": found}


@handles("cut_off")
async def cut_off(call: Call) -> dict[str, Any]:
    label = call.served.owners.cut_off(int(call["client"]))
    if label is None:
        raise not_found("there is no such client")
    call.about = label
    return {"closed": True}
