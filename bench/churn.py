"""
Clients that set items and get them again, at full speed or at a rate, in one thread.

Each client sends some sets on one of its queues in one go, and when they are answered as many gets, or both in one go.
How long the answer to all that was sent takes is measured.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import deque
from typing import Final, NamedTuple, Optional

from bench.servers import PATIENCE, Server
from darner.cli.workload import FOLLOW_UP, GET, SET, Dialect, Workload

_PIECE: Final = 256 * 1024
_AHEAD: Final = 64 * 1024
"""Bytes of items that a client sets before it gets them, where they are small."""


class Figures(NamedTuple):
    """What the clients have done so far."""

    seconds: float
    sets: int
    gets: int
    misses: int
    received: int
    """Bytes."""


class Phase(NamedTuple):
    """
    What the clients do until they are told otherwise.

    @ivar sets: whether they set.
    @ivar gets: whether they get.
    @ivar rate: the bytes of items a second that they set, or get where they do not set; C{None}: as many as they can.
    @ivar together: whether they get in the same go what they set, so that it is never in a queue for long.
    """

    sets: bool
    gets: bool
    rate: Optional[float] = None
    together: bool = False


IDLE: Final = Phase(False, False)


class _Client:
    """One connection, and its queues."""

    def __init__(self, server: Server, queues: list[str], item_bytes: int, depth: int) -> None:
        self.socket = socket.create_connection((server.host, server.port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.dialects: list[Dialect] = [
            server.dialect(server.load(queue=queue, item_bytes=item_bytes)) for queue in queues
        ]
        self._depth = depth
        self._next = 0
        self._gets_left = 0
        self._dialect = self.dialects[0]
        self._out: deque[memoryview] = deque()
        self._expected: deque[int] = deque()
        self._in = bytearray()
        self.due = 0.0
        self.asked = 0.0
        self.sets = self.received = 0
        greeting, reply = self._dialect.greeting
        if greeting:
            self.socket.sendall(greeting)
            while len(self._in) < len(reply):
                self._in += self._receive()
            self._in.clear()
        self.socket.setblocking(False)

    def _receive(self) -> bytes:
        received = self.socket.recv(_PIECE)
        if not received:
            raise ConnectionError("the server hung up")
        self.received += len(received)
        return received

    def ask(self, phase: Phase) -> None:
        """Send the next sets, and gets."""
        self._dialect = self.dialects[self._next]
        self._next = (self._next + 1) % len(self.dialects)
        self.sets = self._depth if phase.sets else 0
        gets = self._depth if phase.gets else 0
        self._gets_left = gets if phase.sets and not phase.together else 0
        self._ask([SET] * self.sets + [GET] * (gets - self._gets_left))

    def go_on(self) -> bool:
        """
        Send the gets that come after the sets.

        @return: whether there are any.
        """
        gets, self._gets_left = self._gets_left, 0
        if gets:
            self._ask([GET] * gets)
        return gets > 0

    def _ask(self, kinds: list[int]) -> None:
        self._out.extend(memoryview(self._dialect.requests[kind]) for kind in kinds)
        self._expected.extend(kinds)
        self.asked = time.perf_counter()

    @property
    def sending(self) -> bool:
        return bool(self._out)

    def send(self) -> None:
        """Send what the socket takes."""
        try:
            while self._out:
                # A small batch in one piece.
                piece = self._out[0]
                if len(piece) < _PIECE and len(self._out) > 1:
                    piece = memoryview(b"".join(self._out))
                    self._out.clear()
                    self._out.append(piece)
                sent = self.socket.send(piece)
                self._out[0] = piece[sent:]
                if not self._out[0]:
                    self._out.popleft()
        except BlockingIOError:
            pass

    def receive(self) -> tuple[int, int, int]:
        """@return: how many sets, gets and gets without an item were answered."""
        counts = [0, 0, 0]
        try:
            self._in += self._receive()
        except BlockingIOError:
            return (0, 0, 0)
        at = 0
        while self._expected:
            kind = self._expected[0]
            reply = self._dialect.read(self._in, at, kind)
            if not reply.length:
                break
            if reply.error:
                raise ConnectionError(reply.error)
            at += reply.length
            self._expected.popleft()
            if reply.follow_up:
                self._out.append(memoryview(reply.follow_up))
                self._expected.append(FOLLOW_UP)
            if kind == SET:
                counts[0] += 1
            elif kind == GET:
                counts[1 if reply.found else 2] += 1
        del self._in[:at]
        return counts[0], counts[1], counts[2]

    @property
    def answered(self) -> bool:
        return not self._expected


class Churn(threading.Thread):
    """
    The clients.

    @ivar longest: the seconds that the longest request, of some sets or gets, took since this was last set to 0; one
        that is under way counts.
    @ivar error: why they have ended before they were told to.
    """

    def __init__(self, server: Server, item_bytes: int, clients: int = 8, queues: int = 8, depth: int = 0) -> None:
        """@param depth: how many sets, or gets, are sent in one go; 0: up to 64 KiB of items, but 16 at most."""
        super().__init__(daemon=True)
        self._item_bytes = item_bytes
        self._depth = depth or max(1, min(16, _AHEAD // max(1, item_bytes)))
        names = [f"turnover_{number}" for number in range(queues)]
        self._clients = [
            _Client(server, names[number::clients] or names[-1:], item_bytes, self._depth) for number in range(clients)
        ]
        self._phase = IDLE
        self._began = time.perf_counter()
        self._wake, self._waken = socket.socketpair()
        self._ended = False
        self._asked_sets = self._sets = self._gets = self._misses = 0
        self.longest = 0.0
        self.error: Optional[str] = None

    def turn_to(self, phase: Phase) -> None:
        """Do this from now on."""
        self._phase = phase
        self._waken.send(b"\0")

    def end(self) -> None:
        self._ended = True
        self._waken.send(b"\0")
        self.join(PATIENCE)
        for client in self._clients:
            client.socket.close()
        self._wake.close()
        self._waken.close()

    def figures(self) -> Figures:
        """@raise ConnectionError: the clients have ended."""
        if self.error is not None:
            raise ConnectionError(self.error)
        received = sum(client.received for client in self._clients)
        return Figures(time.perf_counter() - self._began, self._sets, self._gets, self._misses, received)

    @property
    def live(self) -> int:
        """The bytes of items that were sent, if not answered yet, and were not gotten again."""
        return (self._asked_sets - self._gets) * self._item_bytes

    @property
    def resting(self) -> bool:
        """Whether nothing is under way."""
        return all(client.answered for client in self._clients)

    def run(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                self._run(selector)
        except OSError as error:
            self.error = str(error)

    def _run(self, selector: selectors.BaseSelector) -> None:
        selector.register(self._wake, selectors.EVENT_READ)
        for client in self._clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
        phase = IDLE
        while not self._ended:
            now = time.perf_counter()
            if phase is not self._phase:
                phase = self._phase
                for client in self._clients:
                    client.due = now
            timeout = 0.5
            for client in self._clients:
                if not client.answered:
                    self.longest = max(self.longest, now - client.asked)
                elif phase.sets or phase.gets:
                    if client.due <= now:
                        self._begin(selector, client, phase, now)
                    else:
                        timeout = min(timeout, client.due - now)
            for key, events in selector.select(timeout):
                if key.data is None:
                    self._wake.recv(64)
                    continue
                if events & selectors.EVENT_WRITE:
                    self._send(selector, key.data)
                if events & selectors.EVENT_READ:
                    self._receive(selector, key.data)

    def _begin(self, selector: selectors.BaseSelector, client: _Client, phase: Phase, now: float) -> None:
        client.ask(phase)
        self._asked_sets += client.sets
        if phase.rate is None:
            client.due = now
        else:
            # One that is late does not make up for more than a second.
            share = phase.rate / len(self._clients)
            client.due = max(client.due, now - 1) + self._depth * self._item_bytes / share
        self._send(selector, client)

    def _send(self, selector: selectors.BaseSelector, client: _Client) -> None:
        client.send()
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.sending else 0)
        if selector.get_key(client.socket).events != events:
            selector.modify(client.socket, events, client)

    def _receive(self, selector: selectors.BaseSelector, client: _Client) -> None:
        if client.answered:
            raise ConnectionError("the server says something that nobody asked, or hung up")
        sets, gets, misses = client.receive()
        self._sets += sets
        self._gets += gets
        self._misses += misses
        if client.sending:
            self._send(selector, client)
        if client.answered:
            self.longest = max(self.longest, time.perf_counter() - client.asked)
            if client.go_on():
                self._send(selector, client)


def hold(server: Server, queues: int, item_bytes: int) -> socket.socket:
    """
    Put an item on each queue that stays there, open for a client.

    @return: the client's connection; the items are given back when it is closed.
    """
    client = socket.create_connection((server.host, server.port), timeout=PATIENCE)
    for number in range(queues):
        load = Workload(queue=f"turnover_{number}", item_bytes=item_bytes)
        put = server.dialect(load).requests[SET]
        client.sendall(put + b"get turnover_%d/open\r\n" % number)
        wanted, received = len(b"STORED\r\n") + len(server.dialect(load).replies[GET]), 0
        while received < wanted:
            piece = client.recv(_PIECE)
            if not piece:
                raise ConnectionError("the server hung up")
            received += len(piece)
    return client
