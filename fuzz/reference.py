"""
The replies that clients must get, computed as simply as possible: without turns, store or parsing.

It gets the actions of the clients one after the other, and computes the replies of each.
"""

from __future__ import annotations

import re
from collections import deque
from operator import itemgetter
from typing import Final, Optional, Union

from attrs import Factory, define

from darner.values.vocabulary import CHUNK_BYTES
from fuzz.commands import Drop, Dump, Expire, Figures, Meaning, Part, Put, Read, ReadMany, Say
from fuzz.server import DEDUPE_WINDOW, EPOCH

_STATS: Final = re.compile(rb"((?:STAT [!-~]+ [!-~]+\r\n)*)END\r\n")
_DUMP: Final = re.compile(rb"((?:queue '[!-~]+' \{\r\n(?:  [a-z_]+=\d+\r\n)*\}\r\n)*)END\r\n")


@define(eq=False)
class Item:
    order: int
    """Its number among all items, so that a give-back restores the order."""
    flags: int
    expiry: int
    payload: bytes


@define
class Ids:
    """
    The ids under which items were put, and the wall-clock time of each.

    Ids that are too old by the wall clock are not found; ids that are too old by the monotonic clock are dropped: all
    since the first one, when the window has passed twice.
    """

    current: dict[bytes, int] = Factory(dict)
    began: Optional[float] = None
    previous: dict[bytes, int] = Factory(dict)
    ended: Optional[float] = None

    def pass_to(self, now: float) -> None:
        if self.ended is not None and self.ended + DEDUPE_WINDOW <= now:
            self.previous, self.ended = {}, None
        if self.began is not None and self.began + DEDUPE_WINDOW <= now:
            self.previous, self.ended = self.current, now
            self.current, self.began = {}, None

    def knows(self, id: bytes, wall: int) -> bool:
        times = [known[id] for known in (self.current, self.previous) if id in known]
        return any(wall - time < DEDUPE_WINDOW * 1000 for time in times)

    def add(self, id: bytes, now: float, wall: int) -> None:
        if self.began is None:
            self.began = now
        self.current[id] = wall


@define(eq=False)
class Queue:
    exists: bool = False
    ids: Ids = Factory(lambda: Ids())
    items: list[Item] = Factory(list)
    waiters: list[tuple[Client, Read]] = Factory(list)

    @property
    def bytes(self) -> int:
        return sum(len(item.payload) for item in self.items)


@define
class Stats:
    """The figures that the reply must have; other figures must only not be negative."""

    queues: dict[bytes, tuple[int, int]]
    """Items and bytes of the queues in the reply."""
    server: Optional[dict[bytes, int]] = None

    def match(self, heard: bytes, at: int) -> int:
        """
        @return: the end of the reply that begins at C{at}.
        @raise AssertionError: it is wrong.
        """
        found = (_DUMP if self.server is None else _STATS).match(heard, at)
        assert found, heard[at:]
        if self.server is None:
            told = self._blocks(found[1])
        else:
            told = {}
            for line in found[1].splitlines():
                _, name, figure = line.split()
                assert name in (b"version", b"status") or figure.isdigit(), line
                told[name] = figure
            for name, number in self.server.items():
                assert int(told[name]) == number, (name, told[name], number)
        names = {name for name in told if name.startswith(b"queue_") and name.endswith(b"_items")}
        for name, figure in told.items():
            queue, end, _ = name.rpartition(b"_create_time")
            if end and not int(figure):  # it does not exist, but has a waiting client
                names -= {queue + kind for kind in (b"_items", b"_total_items", b"_expired_items", b"_mem_items")}
        expected = set()
        for name, (items, size) in self.queues.items():
            assert int(told[b"queue_%b_items" % name]) == items, (name, told, items)
            assert int(told[b"queue_%b_bytes" % name]) == size, (name, told, size)
            expected |= {b"queue_%b_%b_items" % (name, kind) for kind in (b"total", b"expired", b"mem")}
            expected.add(b"queue_%b_items" % name)
        assert names == expected, (names, expected)
        return found.end()

    @staticmethod
    def _blocks(text: bytes) -> dict[bytes, bytes]:
        told = {}
        for line in text.splitlines():
            if line.startswith(b"queue '"):
                queue = line[len(b"queue '") : -len(b"' {")]
            elif line != b"}":
                name, _, figure = line[2:].partition(b"=")
                told[b"queue_%b_%b" % (queue, name)] = figure
        return told


@define(eq=False)
class Client:
    replies: list[Union[bytes, Stats]] = Factory(list)
    opens: dict[bytes, Item] = Factory(dict)
    due: Optional[tuple[float, int]] = None
    """When its wait ends, and the number of the wait: waits that end together do so in the order they began."""
    waiting: Optional[Read] = None
    pending: deque[Meaning] = Factory(deque)
    """Its requests behind the wait."""
    shut: bool = False
    choked: bool = False
    """It does not read, so that its requests wait."""
    receiving: bool = False
    """A large item is being sent to it: other clients are served before its next request."""
    closing: bool = False
    gone: bool = False

    def check(self, heard: bytes) -> None:
        """@raise AssertionError: it got wrong replies."""
        at = 0
        for reply in self.replies:
            if isinstance(reply, Stats):
                at = reply.match(heard, at)
            else:
                assert heard.startswith(reply, at), (heard[at : at + len(reply) + 80], reply)
                at += len(reply)
        assert at == len(heard), heard[at:]


class Reference:
    """
    The server, as its clients must see it.

    @ivar open: whether the order in which the server served two clients is open, so that there is no telling what they
        must get: one asked for a report, and what it sent behind it waits until that is made, while the other went on
        in the same turn.
    """

    def __init__(self, clients: int) -> None:
        self.clients = [Client() for _ in range(clients)]
        self.queues: dict[bytes, Queue] = {}
        self.now = 0.0
        self.wall_offset = 0.0
        self.open = False
        self._orders = 0
        self._proceeding: deque[Client] = deque()

    # Events

    def ask(self, client: Client, meaning: Meaning) -> None:
        """A client sends a command."""
        if not client.gone and not client.shut:
            client.pending.append(meaning)
            self._proceed(client)

    def shut(self, client: Client) -> None:
        """A client closes its side for writing, which ends its waits."""
        if not client.gone:
            client.shut = True
            self._give_up(client)
            self._proceed(client)

    def choke(self, client: Client, choked: bool) -> None:
        """A client stops reading, or starts again."""
        client.choked = choked
        if not client.gone:
            self._proceed(client)

    def leave(self, client: Client) -> None:
        """A client disconnects."""
        if not client.gone:
            self._end(client)
            self._proceed()

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        for queue in self.queues.values():
            queue.ids.pass_to(self.now)
        late = [(client.due, client) for client in self.clients if client.due and client.due[0] <= self.now]
        for _, client in sorted(late, key=itemgetter(0)):
            self._give_up(client)
        self._proceed()
        for queue in self.queues.values():
            self._expire(queue)

    @property
    def next_due(self) -> Optional[float]:
        """@return: when the next wait ends."""
        return min((client.due[0] for client in self.clients if client.due), default=None)

    @property
    def names(self) -> list[bytes]:
        return sorted(name for name, queue in self.queues.items() if queue.exists)

    def _proceed(self, *clients: Client) -> None:
        """Serve these clients, and those whose waits are over; then close connections that are to be closed."""
        self._proceeding.extend(clients)
        closing: Optional[Client] = None
        while self._proceeding or closing:
            if closing:
                self._end(closing)
            while self._proceeding:
                self._serve_client(self._proceeding.popleft())
            closing = next((client for client in self.clients if client.closing and not client.gone), None)

    def _serve_client(self, client: Client) -> None:
        client.receiving = False
        while client.pending and client.waiting is None and not (client.choked or client.closing or client.receiving):
            self.open |= isinstance(client.pending[0], (Figures, Dump, Expire)) and bool(self._proceeding)
            self._perform(client, client.pending.popleft())
        if client.receiving:
            self._proceeding.append(client)
        elif client.shut and client.waiting is None and not client.choked:
            client.closing = True
            self._give_back_all(client)

    def _end(self, client: Client) -> None:
        client.gone = client.closing = True
        client.pending.clear()
        self._stop_waiting(client)
        self._give_back_all(client)

    def _give_back_all(self, client: Client) -> None:
        opens, client.opens = client.opens, {}
        for name, item in opens.items():
            self._give_back(name, item)

    # Commands

    def _perform(self, client: Client, meaning: Meaning) -> None:
        say = client.replies.append
        if isinstance(meaning, Put):
            self._put(meaning)
            say(b"" if meaning.noreply else b"STORED\r\n")
        elif isinstance(meaning, Read):
            self._read(client, meaning)
        elif isinstance(meaning, ReadMany):
            self._read_many(client, meaning)
        elif isinstance(meaning, Drop):
            self._drop(meaning)
            say(meaning.reply)
        elif isinstance(meaning, Expire):
            names = meaning.queues or list(self.queues)
            client.replies.append(b"%d\r\n" % sum(self._expire(self._queue(name)) for name in names))
        elif isinstance(meaning, (Figures, Dump)):
            self._tell(client, meaning)
        else:
            assert isinstance(meaning, (Say, Part))
            say(meaning.reply)
            client.closing = isinstance(meaning, Part)

    def _queue(self, name: bytes) -> Queue:
        return self.queues.setdefault(name, Queue())

    @property
    def _wall(self) -> int:
        # Before 1970 the server's time is 1970: then only items that were put as expired are expired.
        return max(1, int((EPOCH + self.wall_offset + self.now) * 1000))

    def _put(self, put: Put) -> None:
        expiry = put.expiry
        if expiry < 0:
            expiry = 1
        elif 0 < expiry < 1_000_000:
            expiry = self._wall + expiry * 1000
        else:
            expiry *= 1000
        self._queue(put.queue).exists = True
        children = [name for name in self.names if name.startswith(put.queue + b"+")]
        for name in [put.queue, *children]:
            ids = self._queue(name).ids
            if put.id and ids.knows(put.id, self._wall):
                continue
            if put.id:
                ids.add(put.id, self.now, self._wall)
            if not put.never:
                self._queue(name).items.append(Item(self._orders, put.flags, expiry, put.payload))
                self._orders += 1
                self._serve(name)

    def _head(self, queue: Queue) -> Optional[Item]:
        """Drop expired items at the head, as any look at the queue does."""
        self._expire(queue)
        return queue.items[0] if queue.items else None

    def _expire(self, queue: Queue) -> int:
        """@return: the number of items dropped."""
        dropped = 0
        while queue.items and 0 < queue.items[0].expiry <= self._wall:
            del queue.items[0]
            dropped += 1
        return dropped

    def _give_back(self, name: bytes, item: Item) -> None:
        queue = self._queue(name)
        queue.items.append(item)
        queue.items.sort(key=lambda item: item.order)
        self._serve(name)

    def _serve(self, name: bytes) -> None:
        queue = self._queue(name)
        while queue.waiters and self._head(queue) is not None:
            client, read = queue.waiters[0]
            self._stop_waiting(client)
            self._fetch(client, read)
            self._proceeding.append(client)

    def _stop_waiting(self, client: Client) -> None:
        if client.waiting is not None:
            waiters = self._queue(client.waiting.queue).waiters
            waiters[:] = [waiter for waiter in waiters if waiter[0] is not client]
            client.waiting = client.due = None

    def _give_up(self, client: Client) -> None:
        if client.waiting is not None:
            self._stop_waiting(client)
            client.replies.append(b"END\r\n")
            self._proceeding.append(client)

    def _fetch(self, client: Client, read: Read) -> bool:
        queue = self._queue(read.queue)
        item = self._head(queue)
        if item is None:
            queue.exists |= b"+" in read.queue
            return False
        if not read.peek:
            queue.items.remove(item)
        if read.open:
            client.opens[read.queue] = item
        client.replies += [self._value(client, read.queue, item), b"END\r\n"]
        return True

    @staticmethod
    def _value(client: Client, name: bytes, item: Item) -> bytes:
        client.receiving |= len(item.payload) > CHUNK_BYTES
        return b"VALUE %b %d %d\r\n%b\r\n" % (name, item.flags, len(item.payload), item.payload)

    def _read(self, client: Client, read: Read) -> None:
        if read.abort:
            if read.queue in client.opens:
                self._give_back(read.queue, client.opens.pop(read.queue))
            client.replies.append(b"END\r\n")
            return
        if read.close:
            client.opens.pop(read.queue, None)
        if read.close and not read.open:
            client.replies.append(b"END\r\n")
        elif not read.peek and read.queue in client.opens:
            client.replies.append(b"CLIENT_ERROR close current item first\r\n")
        elif not self._fetch(client, read):
            if read.wait and not client.shut:
                self._orders += 1
                client.waiting, client.due = read, (self.now + read.wait / 1000, self._orders)
                self._queue(read.queue).waiters.append((client, read))
            else:
                client.replies.append(b"END\r\n")

    def _read_many(self, client: Client, read: ReadMany) -> None:
        if any(name in client.opens for name in read.queues):
            client.replies.append(b"CLIENT_ERROR close current item first\r\n")
            return
        for name in dict.fromkeys(read.queues):
            queue = self._queue(name)
            item = self._head(queue)
            if item is not None:
                queue.items.remove(item)
                client.replies.append(self._value(client, name, item))
            queue.exists |= b"+" in name
        client.replies.append(b"END\r\n")

    def _drop(self, drop: Drop) -> None:
        for name in drop.queues or list(self.queues):
            queue = self._queue(name)
            queue.items.clear()
            if drop.delete:
                queue.exists = False
                queue.ids = Ids()
                for client in self.clients:
                    client.opens.pop(name, None)

    def _tell(self, client: Client, meaning: Union[Figures, Dump]) -> None:
        queues = {
            name: (len(self.queues[name].items), self.queues[name].bytes)
            for name in self.names
            if isinstance(meaning, Figures) or not meaning.queues or name in meaning.queues
        }
        if isinstance(meaning, Dump):
            client.replies.append(Stats(queues))
            return
        client.replies.append(Stats(queues, {
            b"curr_items": sum(items for items, _ in queues.values()),
            b"bytes": sum(size for _, size in queues.values()),
            b"curr_connections": sum(not client.gone for client in self.clients),
        }))  # fmt: skip
