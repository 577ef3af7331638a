"""
Many clients in one process, over a bare epoll loop: generates the load of a `darner.cli.workload.Workload`.

The load generator must be faster than the server.  Its clients work in batches: the requests that a client has in
flight are sent in one piece, and if their replies are as expected, one comparison checks them all.  With one request in
flight, a request costs 5 us, 4 of them in the kernel; with 32 it costs 0.25.  Clients poll for replies.
"""

from __future__ import annotations

import math
import select
import socket
import time
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final, Union

from darner.cli.workload import FOLLOW_UP, SET, Dialect, Reply, Tally, Workload, plan
from darner.net.processors import processors

REPORT_EVERY: Final = 0.25
"""Seconds between reports of progress."""
SPIN: Final = 0.0001
"""
How long to poll for replies, in seconds, before sleeping until there are some.

Waking up takes longer than a server needs to answer a small request: with a single client, it was two thirds of the
measured time.  After a longer wait, clients sleep at once until a reply comes within this time again.
"""
PATIENCE: Final = 60.0
"""Seconds without any reply, in addition to the wait of gets, after which the load fails."""

_READ_BYTES: Final = 64 * 1024
"""The maximum size of one receive, which allocates as much: with 256 KiB a small receive takes five times as long."""
_READ_BYTES_LARGE: Final = 1024 * 1024
_BATCH_BYTES: Final = 64 * 1024
"""Approximate maximum size of a batch."""
_IN: Final = select.POLLIN
_OUT: Final = select.POLLOUT


class _Batch:
    """Requests that are sent in one piece, and their replies."""

    __slots__ = ("count", "gets", "kinds", "reply", "request", "sets")

    def __init__(self, dialect: Dialect, kinds: bytes) -> None:
        self.kinds = kinds
        self.count = len(kinds)
        self.sets = kinds.count(SET)
        self.gets = self.count - self.sets
        self.request = b"".join([dialect.requests[kind] for kind in kinds])
        self.reply = b"".join([dialect.replies[kind] for kind in kinds])


class _Batches(dict[bytes, _Batch]):
    """
    A cache of batches, by the requests in them.

    There are few: an even mixture of two kinds has at most n + 1 different pieces of length n.
    """

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def __missing__(self, kinds: bytes) -> _Batch:
        batch = self[kinds] = _Batch(self._dialect, kinds)
        return batch


class Client:
    """One connection."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._connect()

    def _connect(self) -> None:
        load = self._crowd.load
        self.socket = socket.create_connection((load.host, load.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.exchange(*self._crowd.dialect.greeting)
        self.socket.setblocking(False)
        self._under_way: deque[tuple[_Batch, float]] = deque()
        self._free = load.in_flight
        self._data = bytearray()
        self._unsent: deque[memoryview] = deque()
        self._receive = self.socket.recv
        self._crowd.join(self)

    # Sending

    def fill(self, now: float) -> None:
        """Send as many requests as may be in flight."""
        crowd = self._crowd
        while self._free:
            kinds = crowd.take(min(self._free, crowd.batch_limit))
            if not kinds:
                return
            batch = crowd.batches[kinds]
            if crowd.load.bad and self._is_bad(batch):
                continue
            self._free -= batch.count
            crowd.under_way += batch.count
            self._under_way.append((batch, now))
            self._send(batch.request)

    def _send(self, data: bytes) -> None:
        self._crowd.tally.bytes_out += len(data)
        sent = 0
        if not self._unsent:
            try:  # noqa: SIM105 - this is for every request, and suppress() costs a twentieth of it
                sent = self.socket.send(data)
            except BlockingIOError:
                pass
            if sent == len(data):
                return
        self._unsent.append(memoryview(data)[sent:])
        self._crowd.watch(self, _IN | _OUT)

    def _flush(self) -> None:
        with suppress(BlockingIOError):
            while self._unsent:
                sent = self.socket.send(self._unsent[0])
                self._unsent[0] = self._unsent[0][sent:]
                if not self._unsent[0]:
                    self._unsent.popleft()
        if not self._unsent:
            self._crowd.watch(self, _IN)

    def _is_bad(self, batch: _Batch) -> bool:
        """Now and then, disconnect in the middle of a request or before its reply, and reconnect.  @return: whether."""
        crowd = self._crowd
        if int(crowd.taken * crowd.load.bad) == int((crowd.taken - 1) * crowd.load.bad):
            return False
        crowd.tally.hang_ups += 1
        with suppress(OSError):
            self.socket.send(batch.request[: len(batch.request) // 2] if crowd.tally.hang_ups % 2 else batch.request)
        crowd.leave(self)
        self.socket.close()
        crowd.under_way -= crowd.load.in_flight - self._free
        self._connect()
        return True

    # Receiving

    def ready(self, events: int) -> None:
        """The socket can be read from, or written to."""
        if events & _OUT:
            self._flush()
        crowd = self._crowd
        data: Union[bytes, bytearray]
        try:
            data = self._receive(crowd.read_bytes)
        except BlockingIOError:
            return
        now = time.perf_counter()
        if not data:
            raise ConnectionError("the server closed the connection")
        tally = crowd.tally
        tally.bytes_in += len(data)
        if self._data:
            self._data += data
            data = self._data
        under_way = self._under_way
        at = 0
        # Replies that are exactly as expected, a batch at a time.
        while under_way:
            batch, sent = under_way[0]
            if not data.startswith(batch.reply, at):
                break
            under_way.popleft()
            at += len(batch.reply)
            tally.sets += batch.sets
            tally.gets += batch.gets
            tally.latencies[int((now - sent) * 1e6)] += batch.count
            self._free += batch.count
            crowd.under_way -= batch.count
        if at < len(data):
            at = self._read_singly(data, at, now)
        if data is self._data:
            del self._data[:at]
        elif at < len(data):
            self._data += data[at:]
        self.fill(now)

    def _read_singly(self, data: Union[bytes, bytearray], at: int, now: float) -> int:
        """@return: the end of the replies that could be read."""
        read = self._crowd.dialect.read
        while self._under_way:
            batch, sent = self._under_way.popleft()
            for index, kind in enumerate(batch.kinds):
                reply = read(data, at, kind)
                if not reply.length:
                    self._under_way.appendleft((self._crowd.batches[batch.kinds[index:]], sent))
                    return at
                at += reply.length
                self._take(kind, reply, sent, now)
        if at < len(data):
            raise ConnectionError(f"{bytes(data[at : at + 80])!r} was received without a request")
        return at

    def _take(self, kind: int, reply: Reply, sent: float, now: float) -> None:
        crowd = self._crowd
        tally = crowd.tally
        if reply.error:
            tally.errors += 1
            tally.first_error = tally.first_error or reply.error
        if reply.follow_up:
            self._under_way.append((crowd.batches[bytes([FOLLOW_UP])], sent))
            self._send(reply.follow_up)
            return
        if kind == SET:
            tally.sets += 1
        else:
            tally.gets += 1
            tally.misses += not reply.found
        tally.latencies[int((now - sent) * 1e6)] += 1
        self._free += 1
        crowd.under_way -= 1

    def exchange(self, request: bytes, reply: bytes) -> None:
        """Send the greeting or the farewell, if there is one, and check the reply."""
        if request:
            self.socket.settimeout(PATIENCE)
            self.socket.sendall(request)
            said = b""
            while len(said) < len(reply) and (more := self.socket.recv(len(reply) - len(said))):
                said += more
            if said != reply:
                raise ConnectionError(f"{said!r} in reply to {request!r}")


class Crowd:
    """The clients of one load process."""

    def __init__(self, load: Workload) -> None:
        self.load = load
        self.tally = Tally()
        self.dialect = load.dialect(load)
        self.batches = _Batches(self.dialect)
        size = max(map(len, self.dialect.requests))
        self.batch_limit = 1 if load.bad else max(1, _BATCH_BYTES // size)
        self.read_bytes = _READ_BYTES if size < _READ_BYTES else _READ_BYTES_LARGE
        self.under_way = 0
        self.taken = 0
        """The number of requests taken from the plan so far."""
        self._endless = load.seconds is not None
        self._sequence = plan(load.sets, load.gets, self._endless)
        self._at = 0
        # Both have the same numbers for events, but different units of time.
        self._poll: Any = select.epoll() if hasattr(select, "epoll") else select.poll()
        self._timeout = REPORT_EVERY if hasattr(select, "epoll") else REPORT_EVERY * 1000
        # Poll only if a processor is left for the server.
        self._spins = load.processes < processors()
        self._spun = 0.0  # CPU seconds
        self._prompt = False  # whether the last replies came within SPIN
        self._clients: dict[int, Client] = {}

    def join(self, client: Client) -> None:
        """Add a client, which has a new socket."""
        self._clients[client.socket.fileno()] = client
        self._poll.register(client.socket.fileno(), _IN)

    def leave(self, client: Client) -> None:
        """Remove a client, which is about to close its socket."""
        self._poll.unregister(client.socket.fileno())
        del self._clients[client.socket.fileno()]

    def watch(self, client: Client, events: int) -> None:
        """Set the poll events for the socket of a client."""
        self._poll.modify(client.socket.fileno(), events)

    def take(self, count: int) -> bytes:
        """@return: the next requests to send, up to C{count}; empty at the end."""
        kinds = self._sequence[self._at : self._at + count]
        self._at += len(kinds)
        self.taken += len(kinds)
        if self._endless and self._at == len(self._sequence):
            self._at = 0
        return kinds

    def run(self, connection: Connection) -> Tally:
        """
        Connect, send "ready", wait for a message, then run the load and send the number of requests done now and then.

        Another message ends the load early.
        """
        try:
            for _ in range(self.load.clients):
                Client(self)
            return self._run(connection)
        finally:
            for client in self._clients.values():
                client.socket.close()

    def _run(self, connection: Connection) -> Tally:
        connection.send("ready")
        connection.recv()
        cpu = time.process_time()
        self.tally.started = now = time.perf_counter()
        for client in list(self._clients.values()):
            client.fill(now)
        self._loop(connection)
        self.tally.ended = time.perf_counter()
        self.tally.cpu = time.process_time() - cpu - self._spun
        self.tally.busy = self.tally.cpu / (self.tally.ended - self.tally.started)
        for client in self._clients.values():
            client.exchange(*self.dialect.farewell)
        return self.tally

    def _wait(self) -> list[tuple[int, int]]:
        """
        Wait for replies, polling as long as they come soon.

        @return: the descriptors that are ready, and their events; empty after L{REPORT_EVERY}.
        """
        clock = time.perf_counter
        began = clock()
        ready: list[tuple[int, int]] = []
        if self._prompt:
            ready = self._poll.poll(0)
            if not ready:
                cpu = time.process_time()
                while not ready and clock() < began + SPIN:
                    ready = self._poll.poll(0)
                self._spun += time.process_time() - cpu
        if not ready:
            ready = self._poll.poll(self._timeout)
        self._prompt = self._spins and clock() < began + SPIN
        return ready

    def _loop(self, connection: Connection) -> None:
        clients = self._clients
        clock = time.perf_counter
        stop = math.inf if self.load.seconds is None else self.tally.started + self.load.seconds
        report = self.tally.started + REPORT_EVERY
        given_up = self.tally.started + PATIENCE + self.load.wait / 1000
        while self.under_way:
            ready = self._wait()
            for fd, events in ready:
                client = clients.get(fd)
                if client is not None:
                    client.ready(events)
            now = clock()
            if ready:
                given_up = now + PATIENCE + self.load.wait / 1000
            elif now > given_up:
                raise ConnectionError(f"the server has not answered for {PATIENCE:.0f} s")
            if now > report:
                report = now + REPORT_EVERY
                connection.send(self.taken - self.under_way)
                if connection.poll():
                    stop = now
            if now >= stop:
                self._sequence = b""
