"""
The parts of the clients of L{bench.torture}: which client uses which queue, and how.
"""

from __future__ import annotations

from asyncio import Event
from typing import Final

from bench.callers import Caller, Part
from bench.ledger import View

HELD: Final = b"held"
"""A queue whose oldest item is always open."""
FAN: Final = [b"fan-%02d" % number for number in range(60)]
"""Many queues, some of which are used rarely."""

SMALL: Final = 2000
LARGE: Final = 4_000_000


def _sets(queue: bytes, most: int = 1, size: int = SMALL, options: bytes = b"", pause: float = 0.01) -> Part:
    async def sets(caller: Caller) -> None:
        queues = [queue] * caller.random.randint(1, most)
        await caller.set(queues, size, options, quiet=caller.random.random() < 0.2)
        await caller.rest(pause)

    return sets


def _sets_twice(queue: bytes, size: int = SMALL) -> Part:
    async def sets_twice(caller: Caller) -> None:
        await caller.set_twice(queue, size)
        await caller.rest(0.01)

    return sets_twice


def _sets_large(queue: bytes, options: bytes = b"") -> Part:
    async def sets_large(caller: Caller) -> None:
        size = caller.random.choice([100_000, 1_000_000, LARGE])
        if caller.random.random() < 0.3:
            await caller.set_half(queue, size)
        else:
            await caller.set([queue] * caller.random.randint(1, 2), size, options)
        await caller.rest(0.1)

    return sets_large


def _gets(queue: bytes, view: View, wait: int = 0, pause: float = 0.01) -> Part:
    """The view must be the consumer's own, of a queue where nothing is given back."""

    async def gets(caller: Caller) -> None:
        chance = caller.random.random()
        if chance < 0.1:
            await caller.get_ahead(queue, caller.random.randint(2, 20), view)
        elif chance < 0.11:
            await caller.ask_and_vanish(queue, b"/t=%d" % wait if wait else b"")
        else:
            await caller.get(queue, wait, view)
        await caller.rest(pause)

    return gets


def _opens(queue: bytes, wait: int = 0) -> Part:
    async def opens(caller: Caller) -> None:
        item = await caller.open(queue, wait)
        while item is not None:
            await caller.rest(0.01)
            chance = caller.random.random()
            if chance < 0.5:
                item = await caller.open(queue, wait, close=item)
                continue
            if chance < 0.7:
                await caller.close(item)
            elif chance < 0.85:
                await caller.abort(item)
            elif chance < 0.95:
                await caller.vanish()
            else:
                await caller.close_and_vanish(item)
            item = None
        if caller.random.random() < 0.05:
            await caller.ask_and_vanish(queue, b"/open")
        await caller.rest(0.01)

    return opens


def _opens_alone(queue: bytes, view: View) -> Part:
    view.alone = True

    async def opens_alone(caller: Caller) -> None:
        item = await caller.open(queue, 20, view)
        if item is not None:
            chance = caller.random.random()
            if chance < 0.4:
                item = await caller.open(queue, 0, view, close=item)
            if item is not None:
                if chance < 0.6:
                    await caller.close(item)
                elif chance < 0.8:
                    await caller.abort(item)
                else:
                    await caller.vanish()
        await caller.rest(0.01)

    return opens_alone


def _flushes(queue: bytes) -> Part:
    async def flushes(caller: Caller) -> None:
        await caller.rest(0.3)
        await caller.flush(queue)

    return flushes


def _deletes(queue: bytes) -> Part:
    async def deletes(caller: Caller) -> None:
        await caller.rest(0.3)
        await caller.delete(queue)

    return deletes


def _some(caller: Caller) -> bytes:
    return FAN[int(caller.random.random() ** 3 * len(FAN))]


async def _fans_out(caller: Caller) -> None:
    await caller.set([_some(caller) for _ in range(caller.random.randint(1, 10))], SMALL)
    await caller.rest(0.02)


async def _reads_the_fan(caller: Caller) -> None:
    queue = _some(caller)
    chance = caller.random.random()
    if chance < 0.3:
        await caller.get_many(list({_some(caller) for _ in range(10)}))
    elif chance < 0.6:
        await caller.get(queue, wait=5)
    else:
        item = await caller.open(queue)
        if item is not None and caller.random.random() < 0.8:
            await caller.close(item)
        elif item is not None:
            await caller.vanish()
    await caller.rest(0.01)


def holding(view: View, asked: Event) -> Part:
    """
    Open the oldest item of L{HELD}, the same one as before, and keep it.

    @param view: the view of all clients that did so before.
    @param asked: set when the read was sent, so that other clients may start.
    """
    view.alone = True

    async def holds(caller: Caller) -> None:
        item = await caller.open(HELD, view=view)
        asked.set()
        if item is not None:
            await caller.stay()
        await caller.rest(0.02)

    return holds


def cast(views: dict[str, View]) -> dict[str, Part]:
    """
    Create the parts of all clients.

    @param views: the views of the consumers from earlier lives of the server, by name.
    @return: parts by name.
    """

    def view(name: str) -> View:
        return views.setdefault(name, View())

    return {
        "plain sets": _sets(b"plain"),
        "pipelined sets": _sets(b"plain", 30),
        "safe sets": _sets(b"plain", 3, options=b"/sync"),
        "plain gets": _gets(b"plain", view("plain gets"), pause=0.001),
        "shared sets 1": _sets(b"shared", 10),
        "shared sets 2": _sets(b"shared", 3, options=b"/sync"),
        "shared gets 1": _gets(b"shared", view("shared gets 1")),
        "shared gets 2": _gets(b"shared", view("shared gets 2"), pause=0.03),
        "shared waits": _gets(b"shared", view("shared waits"), 30),
        "waited-for sets": _sets(b"waited-for", pause=0.05),
        "waits 1": _gets(b"waited-for", view("waits 1"), 100, 0.0),
        "waits 2": _gets(b"waited-for", view("waits 2"), 20, 0.0),
        "reliable sets 1": _sets(b"reliable", 5),
        "reliable sets 2": _sets(b"reliable"),
        "opens 1": _opens(b"reliable"),
        "opens 2": _opens(b"reliable", 20),
        "opens 3": _opens(b"reliable"),
        "sets for one": _sets(b"alone", 3),
        "opens alone": _opens_alone(b"alone", view("opens alone")),
        "sets behind": _sets(HELD, 3),
        "gets behind": _gets(HELD, View()),
        "large sets 1": _sets_large(b"large"),
        "large sets 2": _sets_large(b"large"),
        "large gets": _gets(b"large", View(), pause=0.1),
        "large sets 3": _sets_large(b"large-reliable"),
        "large opens": _opens(b"large-reliable"),
        "sets once 1": _sets_twice(b"once"),
        "sets once 2": _sets_twice(b"once"),
        "once gets": _gets(b"once", View(), 20),
        "sets once large": _sets_twice(b"once-large", 200_000),
        "once opens": _opens(b"once-large", 20),
        "later sets 1": _sets(b"later", 10, options=b"/delay=30"),
        "later sets 2": _sets(b"later", 3, options=b"/delay=30/sync"),
        "later gets": _gets(b"later", view("later gets"), 40),
        "later large sets": _sets_large(b"later-large", b"/delay=200"),
        "later large opens": _opens(b"later-large", 100),
        "later flushed sets": _sets(b"later-flushed", 5, options=b"/delay=100"),
        "later flushed large sets": _sets_large(b"later-flushed", b"/delay=100"),
        "later flushed gets": _gets(b"later-flushed", view("later flushed gets"), 20),
        "later flushes": _flushes(b"later-flushed"),
        "later deleted sets": _sets(b"later-deleted", 5, options=b"/delay=100"),
        "later deletes": _deletes(b"later-deleted"),
        "flushed sets 1": _sets(b"flushed", 5),
        "flushed sets 2": _sets(b"flushed", options=b"/sync"),
        "flushed large sets": _sets_large(b"flushed"),
        "flushed gets": _gets(b"flushed", view("flushed gets")),
        "flushes": _flushes(b"flushed"),
        "deleted sets 1": _sets(b"deleted", 5),
        "deleted large sets": _sets_large(b"deleted"),
        "deleted gets": _gets(b"deleted", view("deleted gets"), 10),
        "deleted opens": _opens(b"deleted-open"),
        "deleted sets 2": _sets(b"deleted-open", 3),
        "deletes": _deletes(b"deleted"),
        "deletes 2": _deletes(b"deleted-open"),
        "fans out 1": _fans_out,
        "fans out 2": _fans_out,
        "reads the fan 1": _reads_the_fan,
        "reads the fan 2": _reads_the_fan,
    }
