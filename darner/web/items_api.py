"""
Items: looking at them, putting one, and what is done to some of them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final, Optional

from darner.errors import ItemTooLarge
from darner.front.calls import Putting, consume
from darner.queues import browsing
from darner.queues.answers import Answers
from darner.queues.fifo import Fifo
from darner.queues.picking import Key
from darner.values.items import Item, PutOptions
from darner.values.vocabulary import CHUNK_BYTES, check_expiry
from darner.web.answers import Answer, payload
from darner.web.calls import Call
from darner.web.endpoints import Right, handles
from darner.web.problems import bad_request, not_found
from darner.web.scan import Entry, Filter, Place, Scanner, first_bytes, key_of, place_of

PATIENCE: Final = 2.0
"""Seconds for which one request looks for items that a filter selects; the next page goes on from there."""
FILTERS: Final = ("contains", "min_age_ms", "max_age_ms", "min_size", "max_size", "flags")


# Looking


@handles("items")
async def items(call: Call) -> dict[str, Any]:
    served, queues = call.served, call.served.queues
    place = _place(call)
    fifo = queues.find(place.queue)
    if fifo is None:
        raise not_found("there is no such queue")
    start = key_of(call["after"], place.state) if call["after"] else (0, 0)
    wanted = Filter(queues, place.queue, {name: call[name] for name in FILTERS}, served.now)
    deadline = served.clock.seconds() + PATIENCE
    found: list[Entry] = []
    following: Optional[str] = None
    async with aclosing(Scanner(queues, place, call.pace).entries(start)) as entries:
        async for entry in entries:
            if len(found) == call["limit"] or served.clock.seconds() >= deadline:
                following = entry.id
                break
            if wanted.selects(entry.item):
                found.append(entry)
            await call.pace.ease()
    owners = await served.owners.of(place.queue, call.pace) if place.state == browsing.OPEN and found else {}
    described = []
    for entry in found:
        described.append(_describe(call, place, entry, owners))
        await call.pace.ease()
    return {
        "queue": place.queue.decode(),
        "state": call["state"],
        "total": browsing.count_of(fifo, place.state),
        "items": described,
        "next": following,
    }


def _place(call: Call) -> Place:
    place = place_of(call.served.queues, call.queue, call["state"])
    call.visitor.check(Right.READ, place.queue)
    return place


def _describe(call: Call, place: Place, entry: Entry, owners: dict[int, dict[str, Any]]) -> dict[str, Any]:
    served, item = call.served, entry.item
    now = served.now
    due: Optional[int] = entry.due or None
    if entry.state == browsing.RETRYING:
        due = now + int(entry.after * 1000)
    opened = None
    if entry.state == browsing.OPEN:
        opened = owners.get(item.id) or _application(now)
    shown = _preview(call, place, item)
    return {
        "id": entry.id,
        "state": entry.state,
        "flags": item.flags,
        "size": item.size,
        "time": item.time,
        "age_ms": max(0, now - item.time),
        "expires": item.expiry or None,
        "attempts": entry.attempts,
        "due": due,
        "opened": opened,
        "preview": payload(shown, len(shown) < item.size),
    }


def _application(now: int) -> dict[str, Any]:
    return {"by": "application", "client": None, "address": None, "user": None, "since": now}


def _preview(call: Call, place: Place, item: Item) -> bytes:
    fifo = call.served.queues.find(place.queue)
    if fifo is None or not call["preview"]:
        return b""
    return first_bytes(call.served.queues, fifo, item)[: call["preview"]]


async def _one(call: Call) -> tuple[Place, Fifo, Entry]:
    place = _place(call)
    key = key_of(call["id"], place.state)
    fifo = call.served.queues.find(place.queue)
    if fifo is None:
        raise not_found("there is no such queue")
    return place, fifo, await Scanner(call.served.queues, place, call.pace).find(key)


@handles("item")
async def item(call: Call) -> dict[str, Any]:
    place, _, entry = await _one(call)
    owners = await call.served.owners.of(place.queue, call.pace) if place.state == browsing.OPEN else {}
    return _describe(call, place, entry, owners)


@handles("payload")
async def download(call: Call) -> Answer:
    _, fifo, entry = await _one(call)
    name = f"{call.queue.decode()}-{entry.id}"
    safe = "".join(letter if letter.isalnum() or letter in "_-." else "_" for letter in name)
    headers = {
        b"Content-Disposition": b'attachment; filename="%b.bin"' % safe.encode(),
        b"X-Darner-Flags": b"%d" % entry.item.flags,
    }
    body: Any = fifo.payload(entry.item) if not entry.item.stream else _pieces(call, entry.item)
    return Answer(body, 200, b"application/octet-stream", headers)


async def _pieces(call: Call, item: Item) -> AsyncGenerator[bytes, None]:
    reader = call.served.queues.reads.outflow(item, lambda: None)
    try:
        for chunk in reader:
            yield chunk
            await call.pace.ease()
    finally:
        reader.cancel()


# Putting


@handles("put")
async def put(call: Call) -> dict[str, Any]:
    queues = call.served.queues
    check_expiry(call["expiry"])
    queues.status.check_writes()
    body = call["payload"]
    content = _decoded(body, call["encoding"]) if body is not None else None
    limit = queues.puts.item_limit(call.queue)
    options = None
    if call["delay_ms"] is not None or call["id"]:
        options = PutOptions(call["delay_ms"], (call["id"] or "").encode())
    inflow = queues.puts.inflow()
    try:
        while True:
            piece = call.request.content.read(CHUNK_BYTES) if content is None else content
            if not piece:
                break
            if inflow.size + len(piece) > limit:
                raise ItemTooLarge()
            inflow.write(piece)
            if content is not None:
                break
            await call.pace.ease()
        putting = Putting(queues)
        putting.put_flow(call.queue, inflow, call["flags"], call["expiry"], call["sync"], options)
    except BaseException:
        inflow.abandon()
        raise
    queues.stats.cmd_set += 1
    size = inflow.size
    await putting.deferred
    call.about = f"({size} bytes)"
    return {"queue": call.queue.decode(), "size": size}


def _decoded(text: str, encoding: str) -> bytes:
    if encoding == "utf-8":
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise bad_request("payload: no Base64") from None


# Acting on some


async def _act(call: Call, verb: str, target: Optional[bytes] = None) -> dict[str, Any]:
    """Do something to all items that are selected, some in each turn."""
    served, queues = call.served, call.served.queues
    queues.status.check_writes()
    place = place_of(queues, call.queue, call["state"])
    call.visitor.check(Right.ADMIN, place.queue)
    if target is not None:
        call.visitor.check(Right.WRITE, target)
        queues.check_queue(target)
        if target == place.queue:
            raise bad_request("target: the queue itself")
    if verb == "give_back" and place.state == browsing.READY:
        raise bad_request("state: ready items are not to be given back")
    ids = call["ids"]
    count = 0
    try:
        if ids is not None:
            keys = [key_of(id, place.state) for id in ids]
            if place.state == browsing.DELAYED:
                await queues.commit.written()
            for at in range(0, len(keys), queues.picks.AT_ONCE):
                count += await _pick(call, verb, place, keys[at : at + queues.picks.AT_ONCE], target)
                await call.pace.rest()
        else:
            wanted = Filter(queues, place.queue, call["filter"] or {}, served.now)
            count = await _act_on_all(call, verb, place, wanted, target)
    finally:
        call.about = f"{call['state']} to {target.decode()}" if target is not None else call["state"]
        call.about += f" ({count} items)"
    return {"items": count}


async def _act_on_all(call: Call, verb: str, place: Place, wanted: Filter, target: Optional[bytes]) -> int:
    queues, started = call.served.queues, call.served.now
    count = 0
    keys: list[Key] = []
    async with aclosing(Scanner(queues, place, call.pace).entries((0, 0))) as entries:
        async for entry in entries:
            if entry.item.time > started and place.state in (browsing.READY, browsing.DELAYED):
                continue  # it came meanwhile
            if wanted.selects(entry.item):
                keys.append(entry.key)
            if len(keys) >= queues.picks.AT_ONCE:
                count += await _pick(call, verb, place, keys, target)
                keys = []
            await call.pace.ease()
    if keys:
        count += await _pick(call, verb, place, keys, target)
    return count


async def _pick(call: Call, verb: str, place: Place, keys: Sequence[Key], target: Optional[bytes]) -> int:
    picks = call.served.queues.picks
    count = 0
    if place.state == browsing.DELAYED:
        await call.served.queues.commit.written()

    def work(answers: Answers, done: bytes) -> None:
        nonlocal count
        if target is not None:
            count = picks.move(answers, done, place.queue, place.state, keys, target)
        elif verb == "drop":
            count = picks.drop(answers, done, place.queue, place.state, keys)
        else:
            count = picks.give_back(answers, done, place.queue, place.state, keys)

    await consume(call.served.queues, work)
    return count


@handles("delete_items")
async def delete_items(call: Call) -> dict[str, Any]:
    return await _act(call, "drop")


@handles("move_items")
async def move_items(call: Call) -> dict[str, Any]:
    return await _act(call, "move", call["target"].encode())


@handles("return_items")
async def return_items(call: Call) -> dict[str, Any]:
    return await _act(call, "give_back")

