"""
Queues: looking at them, and what is done to a whole queue.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final, Optional

from twisted.internet.defer import Deferred

from darner.errors import ClientError
from darner.front.calls import Requeueing, consume
from darner.web.answers import Answer, encode
from darner.web.calls import Call
from darner.web.endpoints import Right, handles
from darner.web.problems import bad_request, not_found

ROWS_AT_ONCE: Final = 8
MOST_CHILDREN: Final = 1000


@handles("list_queues")
async def list_queues(call: Call) -> Answer:
    served = call.served
    total, names = await served.rows.page(
        call.visitor, call["filter"] or "", call["sort"], call["order"] == "desc", call["offset"], call["limit"],
        call.pace,
    )  # fmt: skip
    totals = await served.watch.totals(call.visitor, call.pace)
    head = {"time": served.now, "total": total, "offset": call["offset"], "limit": call["limit"], "totals": totals}
    return Answer(_rows(call, names, head))


async def _rows(call: Call, names: list[bytes], head: dict[str, Any]) -> AsyncGenerator[bytes, None]:
    rows = call.served.rows
    yield encode(head)[:-1] + b',"queues":['
    comma = b""
    for start in range(0, len(names), ROWS_AT_ONCE):
        piece = []
        for name in names[start : start + ROWS_AT_ONCE]:
            row = rows.describe(name)
            if row is not None:
                if call["sparkline"]:
                    row["sparkline"] = rows.spark(name)
                piece.append(encode(row))
        if piece:
            yield comma + b",".join(piece)
            comma = b","
        await call.pace.ease()
    yield b"]}"


@handles("queue")
async def queue(call: Call) -> dict[str, Any]:
    queues, name = call.served.queues, call.queue
    row = call.served.rows.describe(name)
    fifo = queues.find(name)
    if row is None or fifo is None:
        raise not_found("there is no such queue")
    policies = queues.policies
    texts = queues.policy(name).as_text()
    parent, _, child = name.partition(b"+")
    return {
        **row,
        "created": fifo.created,
        "exists": fifo.exists,
        "counters": queues.queue_figures(name),
        "settings": [
            {"name": setting, "value": texts[setting], "source": source, "key": key}
            for setting, (source, key) in policies.origins(name).items()
        ],
        "parent": parent.decode() if parent and child else None,
        "children": _children(call, name),
        "aliases": [alias.decode() for alias, targets in policies.aliases.items() if name in targets],
        "time": call.served.now,
    }


def _children(call: Call, name: bytes) -> list[str]:
    names, prefix = call.served.queues.walks.names, name + b"+"
    found: list[str] = []
    last = prefix
    while len(found) < MOST_CHILDREN:
        some = [child for child in names.after(last, 100) if child.startswith(prefix)]
        if not some:
            break
        last = some[-1]
        found += [child.decode() for child in some if call.visitor.may_see(child)]
    return found


@handles("history")
async def history(call: Call) -> dict[str, Any]:
    if not call.visitor.sees_all:
        return call.served.watch.history(None)
    return call.served.watch.history(call.served.watch.course)


@handles("queue_history")
async def queue_history(call: Call) -> dict[str, Any]:
    watch = call.served.watch
    row = watch.rows.get(call.queue) or watch.see(call.queue)
    if row is None:
        raise not_found("there is no such queue")
    return watch.history(row.course)


@handles("delete_queue")
async def delete_queue(call: Call) -> dict[str, Any]:
    queues, name = call.served.queues, call.queue
    queues.status.check_writes()
    fifo = queues.find(name)
    known = fifo is not None and fifo.exists
    await consume(queues, lambda answers, done: queues.delete(answers, done, name))
    return {"deleted": known}


@handles("flush")
async def flush(call: Call) -> dict[str, Any]:
    queues, name = call.served.queues, call.queue
    queues.status.check_writes()
    fifo = queues.find(name)
    count = 0 if fifo is None else fifo.count + fifo.delayed_count
    await consume(queues, lambda answers, done: queues.flush(answers, done, name))
    call.about = f"({count} items)"
    return {"items": count}


@handles("requeue")
async def requeue(call: Call) -> dict[str, Any]:
    queues, target = call.served.queues, call["target"].encode()
    call.about = f"to {call['target']}"
    call.visitor.check(Right.WRITE, target)
    if target == call.queue:
        raise bad_request("requeue needs two queues")
    queues.status.check_reads()
    queues.status.check_writes()
    try:
        queues.check_queue(target)
    except ClientError as error:
        raise bad_request(str(error)) from None
    moving = Requeueing(queues, lambda _: None)
    moving.start(call.queue, target, call["count"])
    moved: Deferred[Optional[int]] = moving.deferred
    count = await moved
    call.about = f"to {call['target']} ({count} items)"
    return {"items": count}
