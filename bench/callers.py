"""
Clients of a server that may be killed at any moment; they record their requests and the replies in the books.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from random import Random
from typing import Any, Optional

from attrs import frozen

from bench.books import REPLY, Books, ServerGone
from bench.ledger import Item, View


class WrongReply(Exception):
    """The server sent a wrong reply."""


@frozen
class Stage:
    """The shared state of the clients of one life of the server."""

    port: int
    books: Books
    seed: str

    def random(self, name: str) -> Random:
        """@return: a random generator, the same for the same seed."""
        return Random(f"{self.seed} {name}")


class Caller:
    """One client.  Its methods raise C{ConnectionError} or C{EOFError} when the server is gone."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.books = stage.books
        self.random = stage.random(name)
        self._port = stage.port
        self._producer = 0
        self._held: list[Item] = []

    async def connect(self) -> None:
        """Connect, as a new client."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._producer = self.books.new_producer()

    async def vanish(self) -> None:
        """Disconnect without closing open reads, and connect again as a new client."""
        for item in self._held:
            self.books.given_back(item)
        self._held.clear()
        if self.random.random() < 0.5:
            self._writer.close()
        else:
            self._writer.transport.abort()
        await self._closed()
        await self.connect()

    def leave(self) -> None:
        """Disconnect."""
        self._writer.transport.abort()

    async def _closed(self) -> None:
        with suppress(OSError):
            await self._writer.wait_closed()

    async def stay(self) -> None:
        """Send nothing more until the server is gone."""
        if await self._reader.read(1):
            raise WrongReply("an answer to nothing")
        raise EOFError()

    async def rest(self, most: float) -> None:
        """Do nothing for a random time, at most so many seconds."""
        await asyncio.sleep(self.random.random() * most)

    # Replies

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readline()
        except ValueError as error:
            raise WrongReply("a line without an end") from error
        if not line.endswith(b"\n"):
            raise EOFError()
        return line.rstrip(b"\r\n")

    async def expect(self, wanted: bytes) -> None:
        """Check that the next reply is this one."""
        line = await self._line()
        if line != wanted:
            raise WrongReply(f"{line!r} in place of {wanted!r}")

    async def _values(self) -> dict[bytes, bytes]:
        """@return: the payloads in a reply to C{get}, by queue."""
        payloads = {}
        while (line := await self._line()) != b"END":
            words = line.split(b" ")
            if len(words) != 4 or words[0] != b"VALUE" or not words[3].isdigit():
                raise WrongReply(f"{line!r} in reply to a get")
            data = await self._reader.readexactly(int(words[3]) + 2)
            if not data.endswith(b"\r\n"):
                raise WrongReply(f"{data[-2:]!r} after an item of {words[3]!r} bytes")
            payloads[words[1]] = data[:-2]
        return payloads

    async def _value(self, queue: bytes) -> Optional[bytes]:
        payloads = await self._values()
        payload = payloads.pop(queue, None)
        if payloads:
            raise WrongReply(f"items of {sorted(payloads)} in reply to a get of {queue!r}")
        return payload

    # Sets

    async def set(self, queues: Sequence[bytes], size: int, options: bytes = b"", quiet: bool = False) -> None:
        """
        Set an item on each of these queues, without waiting between them.

        @param size: the maximum size of an item.
        @param quiet: whether only the last one gets a reply.
        """
        items, sets = [], []
        for place, queue in enumerate(queues):
            body = self.random.randbytes(self.random.randint(0, size))
            item, payload = self.books.set(queue, self._producer, body)
            noreply = quiet and place < len(queues) - 1
            end = b" noreply" if noreply else b""
            sets.append(b"set %b%b 0 0 %d%b\r\n%b\r\n" % (queue, options, len(payload), end, payload))
            items.append((item, noreply))
        self._writer.write(b"".join(sets))
        await self._writer.drain()
        unanswered = []
        for item, noreply in items:
            unanswered.append(item)
            if not noreply:
                await self.expect(b"STORED")
                for stored in unanswered:
                    self.books.stored(stored)
                unanswered.clear()

    async def set_twice(self, queue: bytes, size: int) -> None:
        """Set an item with an id, then again as if the reply was lost; sometimes on two connections."""
        item, payload = self.books.set(queue, self._producer, self.random.randbytes(self.random.randint(0, size)))
        request = b"set %b/id=%d.%d 0 0 %d\r\n%b\r\n" % (queue, self._producer, item.number, len(payload), payload)
        if self.random.random() < 0.3:
            self._writer.write(request)
            await self.rest(0.002)
            await self.vanish()
            self._writer.write(request)
            await self.expect(b"STORED")
        else:
            self._writer.write(request * 2)
            await self.expect(b"STORED")
            await self.expect(b"STORED")
        self.books.stored(item)

    async def set_half(self, queue: bytes, size: int) -> None:
        """Send a part of an item, then disconnect, or stay until the server is gone."""
        _, payload = self.books.set(queue, self._producer, self.random.randbytes(size), half=True)
        part = payload[: self.random.randint(0, len(payload) - 1)]
        self._writer.write(b"set %b 0 0 %d\r\n%b" % (queue, len(payload), part))
        await self._writer.drain()
        if self.random.random() < 0.3:
            await self.stay()
        await self.rest(0.05)
        await self.vanish()

    # Reads

    async def get(self, queue: bytes, wait: int = 0, view: Optional[View] = None) -> Optional[Item]:
        """
        Read an item plainly.

        @param wait: how long to wait for one, in ms.
        """
        read = self.books.read(queue, True, view)
        self._writer.write(b"get %b%b\r\n" % (queue, b"/t=%d" % wait if wait else b""))
        return self.books.answered(read, await self._value(queue))

    async def get_ahead(self, queue: bytes, count: int, view: Optional[View] = None) -> list[Optional[Item]]:
        """Send several plain reads without waiting between them."""
        reads = [self.books.read(queue, True, view) for _ in range(count)]
        self._writer.write(b"get %b\r\n" % queue * count)
        return [self.books.answered(read, await self._value(queue)) for read in reads]

    async def get_many(self, queues: Sequence[bytes]) -> None:
        """Read an item from each of several queues."""
        reads = [self.books.read(queue, True) for queue in queues]
        self._writer.write(b"get %b\r\n" % b" ".join(queues))
        payloads = await self._values()
        for read in reads:
            self.books.answered(read, payloads.get(read.ledger.name))

    async def ask_and_vanish(self, queue: bytes, options: bytes) -> None:
        """Send a read without waiting for its reply."""
        self.books.read(queue, b"/open" not in options)
        self._writer.write(b"get %b%b\r\n" % (queue, options))
        await self.rest(0.005)
        await self.vanish()

    async def open(
        self, queue: bytes, wait: int = 0, view: Optional[View] = None, close: Optional[Item] = None
    ) -> Optional[Item]:
        """
        Open an item.

        @param close: the open item that the same request closes.
        """
        if close is not None:
            self._let_go(close, self.books.closing)
        read = self.books.read(queue, False, view)
        options = (b"/close" if close else b"") + b"/open" + (b"/t=%d" % wait if wait else b"")
        self._writer.write(b"get %b%b\r\n" % (queue, options))
        payload = await self._value(queue)
        if close is not None:
            self.books.closed(close)
        item = self.books.answered(read, payload)
        if item is not None:
            self._held.append(item)
        return item

    def _let_go(self, item: Item, how: Callable[[Item], None]) -> None:
        self._held.remove(item)
        how(item)

    async def close(self, item: Item) -> None:
        """Close an open item."""
        self._let_go(item, self.books.closing)
        self._writer.write(b"get %b/close\r\n" % item.ledger.name)
        await self.expect(b"END")
        self.books.closed(item)

    async def close_and_vanish(self, item: Item) -> None:
        """Close an item without waiting for the reply."""
        self._let_go(item, self.books.closing)
        self._writer.write(b"get %b/close\r\n" % item.ledger.name)
        await self.vanish()

    async def abort(self, item: Item) -> None:
        """Give an item back."""
        self._let_go(item, self.books.given_back)
        self._writer.write(b"get %b/abort\r\n" % item.ledger.name)
        await self.expect(b"END")

    # Others

    async def flush(self, queue: bytes) -> None:
        flush = self.books.flush(queue)
        self._writer.write(b"flush %b\r\n" % queue)
        await self.expect(b"END")
        self.books.flushed(flush)

    async def delete(self, queue: bytes) -> None:
        flush = self.books.flush(queue)
        self._writer.write(b"delete %b\r\n" % queue)
        await self.expect(b"DELETED")
        self.books.flushed(flush)

    async def stats(self) -> dict[bytes, int]:
        """@return: the server's figures, except its version."""
        self._writer.write(b"stats\r\n")
        figures = {}
        while (line := await self._line()) != b"END":
            _, name, figure = line.split(b" ", 2)
            if figure.lstrip(b"-").isdigit():  # a broken server may count below zero
                figures[name] = int(figure)
        return figures


Part = Callable[[Caller], Coroutine[Any, Any, None]]
"""The part of a client, which it plays until the server is gone."""


async def play(caller: Caller, part: Part, lives: Callable[[], bool]) -> None:
    """
    Repeat a client's part until its connection is lost or no more requests can be sent.

    @param lives: returns whether the server should be running.
    """
    try:
        await caller.connect()
        try:
            while True:
                await part(caller)
        finally:
            caller.leave()
    except WrongReply as error:
        caller.books.fault(REPLY, f"{part.__name__}: {error}")
    except ServerGone:
        pass
    except (OSError, EOFError) as error:
        if lives():
            caller.books.fault(REPLY, f"{part.__name__}: the connection was lost: {error!r}")
