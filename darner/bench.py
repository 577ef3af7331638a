"""
``darner-bench``: load and latency of any server that speaks this protocol, by its address.

Modelled on the ``db`` tool of the C++ Darner.  Every reply is checked to the byte.  The load comes from processes of
its own with a bare epoll loop, so that the tool is not what is measured; where it was nevertheless, it says so.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import select
import socket
import sys
import time
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final, Optional

from attrs import asdict, define, evolve, field, frozen

import darner

PERCENTILES: Final = (50.0, 66.0, 75.0, 80.0, 90.0, 95.0, 98.0, 99.0, 99.9)
BUSY: Final = 0.9
"""Share of a core from which a load process is taken for the bottleneck."""
REPORT_EVERY: Final = 0.25

_STORED: Final = b"STORED\r\n"
_END: Final = b"END\r\n"


@frozen
class Load:
    """What to ask of a server."""

    host: str = "127.0.0.1"
    port: int = 22133
    queue: str = "db_bench"
    sets: int = 10_000
    gets: int = 10_000
    item_bytes: int = 64
    clients: int = 10
    in_flight: int = 1
    """Requests that a client has under way at a time."""
    sync: bool = False
    """Whether sets ask for stable storage."""
    reliable: bool = False
    """Whether reads are open reads, each closed by the next."""
    wait: int = 0
    """How long a get waits for an item, in ms."""
    bad: float = 0.0
    """Share of requests at which the client hangs up in the middle and comes back."""
    seconds: Optional[float] = None
    """How long to run instead of until all sets and gets are made; they are then the ratio of the two."""
    processes: int = 1


@define
class Tally:
    """What came of it."""

    sets: int = 0
    gets: int = 0
    misses: int = 0
    errors: int = 0
    hang_ups: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    latencies: array[int] = field(factory=lambda: array("I"), repr=False)
    """Of each request, in us."""
    cpu: float = 0.0
    """CPU seconds of the load process."""
    first_error: str = ""

    def add(self, other: Tally) -> None:
        """Take another process's tally into this one."""
        for name in ("sets", "gets", "misses", "errors", "hang_ups", "bytes_in", "bytes_out"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.latencies.extend(other.latencies)
        self.cpu = max(self.cpu, other.cpu)
        self.first_error = self.first_error or other.first_error


def _plan(load: Load) -> Iterator[bool]:
    """
    Which request comes next, gets and sets mixed evenly and as many of each as are asked for: whether it is a get.

    Without end where the load has a running time.
    """
    ratio = load.gets / load.sets if load.sets else float("inf")
    while True:
        sets, gets = load.sets, load.gets
        while sets or gets:
            get = bool(gets) and (not sets or gets / sets > ratio)
            if get:
                gets -= 1
            else:
                sets -= 1
            yield get
        if load.seconds is None:
            return


class _Client:
    """One connection."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self.pending: deque[tuple[bool, float]] = deque()
        self._connect()

    def _connect(self) -> None:
        self.socket = socket.create_connection((self._run.load.host, self._run.load.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._receive = self.socket.recv
        self._unsent = b""
        self._data = b""
        self.pending.clear()
        self._run.join(self)

    def fill(self, now: float) -> None:
        """Send as many requests as may be under way."""
        run = self._run
        requests = []
        for _ in range(run.load.in_flight - len(self.pending)):
            get = run.next_request()
            if get is None:
                break
            request = run.get_request if get else run.set_request
            if run.load.bad and run.is_bad():
                self._hang_up(b"".join(requests) + request[: len(request) // 2], now)
                return
            requests.append(request)
            self.pending.append((get, now))
        if requests:
            self._send(b"".join(requests))

    def _send(self, data: bytes) -> None:
        self._run.tally.bytes_out += len(data)
        if self._unsent:
            data = self._unsent + data
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data) or self._unsent:
            self._unsent = data[sent:]
            self._run.watch(self, bool(self._unsent))

    def _hang_up(self, data: bytes, now: float) -> None:
        """Be a bad client: leave in the middle of a request, with replies under way, and come back."""
        self._run.tally.hang_ups += 1
        with suppress(OSError):
            self.socket.send(data)
        self._run.leave(self)
        self.socket.close()
        self._run.done += len(self.pending) + 1
        self._connect()
        self.fill(now)

    def ready(self, writable: bool) -> None:
        """The socket can be read from, or written to."""
        if writable:
            self._send(b"")
        try:
            data = self._receive(1 << 18)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionError("the server closed the connection")
        run = self._run
        tally = run.tally
        pending = self.pending
        now = time.perf_counter()
        tally.bytes_in += len(data)
        if self._data:
            data = self._data + data
        at = done = 0
        while pending:
            get, sent = pending[0]
            reply = run.value_reply if get else _STORED
            if data.startswith(reply, at):
                at += len(reply)
            else:
                length = self._other_reply(data, at, get)
                if not length:
                    break
                at += length
            if get:
                tally.gets += 1
            else:
                tally.sets += 1
            pending.popleft()
            done += 1
            tally.latencies.append(int((now - sent) * 1e6))
        self._data = data[at:]
        if done:
            run.done += done
            self.fill(now)

    def _other_reply(self, data: bytes, at: int, get: bool) -> int:
        """@return: the length of a reply that is not the usual one; 0 while some of it is missing."""
        tally = self._run.tally
        if get and data.startswith(_END, at):
            tally.misses += 1
            return len(_END)
        rest = data[at : at + len(self._run.value_reply)]
        if any(reply.startswith(rest) for reply in ((self._run.value_reply, _END) if get else (_STORED,))):
            return 0
        end = data.find(b"\n", at)
        if end < 0 and len(rest) < 2048:
            return 0
        tally.errors += 1
        tally.first_error = tally.first_error or rest[:80].split(b"\r\n")[0].decode("latin-1")
        if end < 0 or rest.startswith(b"VALUE"):
            raise ConnectionError(f"not the reply that was expected: {tally.first_error}")
        return end + 1 - at


class _Run:
    """The load that one process makes."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.tally = Tally()
        self.done = 0
        queue = load.queue.encode()
        payload = (bytes(range(33, 127)) * (load.item_bytes // 94 + 1))[: load.item_bytes]
        key = queue + (b"/sync" if load.sync else b"")
        self.set_request = b"set %b 0 0 %d\r\n%b\r\n" % (key, len(payload), payload)
        options = (b"/close/open" if load.reliable else b"") + (b"/t=%d" % load.wait if load.wait else b"")
        self.get_request = b"get %b%b\r\n" % (queue, options)
        self.value_reply = b"VALUE %b 0 %d\r\n%b\r\nEND\r\n" % (queue, len(payload), payload)
        self._poll = select.poll() if not hasattr(select, "epoll") else select.epoll()
        self._clients: dict[int, _Client] = {}
        self._plan = _plan(load)
        self._badness = 0.0

    def join(self, client: _Client) -> None:
        self._clients[client.socket.fileno()] = client
        self._poll.register(client.socket.fileno(), select.POLLIN)

    def leave(self, client: _Client) -> None:
        self._poll.unregister(client.socket.fileno())
        del self._clients[client.socket.fileno()]

    def watch(self, client: _Client, writing: bool) -> None:
        self._poll.modify(client.socket.fileno(), select.POLLIN | (select.POLLOUT if writing else 0))

    def next_request(self) -> Optional[bool]:
        return next(self._plan, None)

    def is_bad(self) -> bool:
        self._badness += self.load.bad
        if self._badness >= 1:
            self._badness -= 1
            return True
        return False

    def run(self, connection: Connection) -> Tally:
        """Connect, wait for the signal, and make the load."""
        for _ in range(self.load.clients):
            _Client(self)
        connection.send("ready")
        connection.recv()
        started = reported = time.perf_counter()
        cpu = time.process_time()
        for client in list(self._clients.values()):
            client.fill(started)
        clients = self._clients
        while True:
            events = self._poll.poll(1)
            for fd, event in events:
                if fd in clients:
                    clients[fd].ready(bool(event & select.POLLOUT))
            now = time.perf_counter()
            if now - reported > REPORT_EVERY:
                reported = now
                connection.send(self.done)
                if self.load.seconds is not None and now - started > self.load.seconds:
                    self._plan = iter(())
            if len(events) < len(clients) and self._finished():
                break
        self.tally.cpu = time.process_time() - cpu
        return self.tally

    def _finished(self) -> bool:
        """Whether no reply is missing.  The plan is at its end then: else every client would have a request under way."""
        return not any(client.pending for client in self._clients.values())


def _process(load: Load, connection: Connection) -> None:
    try:
        connection.send(_Run(load).run(connection))
    except (OSError, ConnectionError) as error:
        connection.send(f"{type(error).__name__}: {error}")


def _shares(load: Load) -> Iterator[Load]:
    """The load of each process."""
    processes = max(1, min(load.processes, load.clients))

    def share(total: int, index: int) -> int:
        return total * (index + 1) // processes - total * index // processes

    for index in range(processes):
        yield evolve(
            load,
            sets=share(load.sets, index),
            gets=share(load.gets, index),
            clients=share(load.clients, index),
        )


@frozen
class Result:
    """The outcome of a load."""

    load: Load
    seconds: float
    tally: Tally

    @property
    def requests(self) -> int:
        return len(self.tally.latencies)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def limited_by_tool(self) -> bool:
        """Whether a load process was busy nearly all the time, so that the server may well be faster."""
        return self.seconds > 0 and self.tally.cpu / self.seconds > BUSY

    def percentiles(self) -> dict[str, int]:
        """@return: latencies in us, by the percentage of requests that took no longer."""
        ordered = sorted(self.tally.latencies)
        if not ordered:
            return {}
        last = len(ordered) - 1
        figures = {f"{percent:g}": ordered[min(last, int(len(ordered) * percent / 100))] for percent in PERCENTILES}
        figures["100"] = ordered[-1]
        return figures

    def as_dict(self) -> dict[str, Any]:
        """The outcome as plain data, for JSON."""
        counts = asdict(self.tally, filter=lambda attribute, _: attribute.name != "latencies")
        return {
            "load": asdict(self.load),
            "seconds": self.seconds,
            "requests": self.requests,
            "rate": self.rate,
            "latency_us": self.percentiles(),
            "limited_by_tool": self.limited_by_tool,
            **counts,
        }


def run(load: Load, progress: bool = False) -> Result:
    """
    Make a load and measure it.

    @param progress: whether to show a progress line on standard error.
    @raise ConnectionError: the server cannot be reached, hung up, or sent what no server of this protocol sends.
    """
    workers = []
    for share in _shares(load):
        ours, theirs = multiprocessing.Pipe()
        worker = multiprocessing.Process(target=_process, args=(share, theirs), daemon=True)
        worker.start()
        theirs.close()
        workers.append((worker, ours))
    try:
        return _conduct(load, [connection for _, connection in workers], progress)
    finally:
        for worker, _ in workers:
            worker.terminate()
            worker.join()


def _conduct(load: Load, connections: list[Connection], progress: bool) -> Result:
    for connection in connections:
        _expect_tally(connection.recv())
    started = time.perf_counter()
    for connection in connections:
        connection.send("go")
    total = Tally()
    done = dict.fromkeys(connections, 0)
    bar = _progress_bar(load) if progress else None
    running = list(connections)
    while running:
        for ready in multiprocessing.connection.wait(running):
            assert isinstance(ready, Connection)
            message = _expect_tally(ready.recv())
            if isinstance(message, Tally):
                total.add(message)
                running.remove(ready)
            else:
                done[ready] = message
                if bar is not None:
                    bar.update(sum(done.values()) - bar.n)
    seconds = time.perf_counter() - started
    if bar is not None:
        bar.close()
    return Result(load, seconds, total)


def _expect_tally(message: Any) -> Any:
    if isinstance(message, str) and message != "ready":
        raise ConnectionError(message)
    return message


def _progress_bar(load: Load) -> Any:
    from tqdm import tqdm

    total = load.sets + load.gets if load.seconds is None else None
    return tqdm(total=total, unit=" requests", leave=False)


def _report(result: Result) -> str:
    load, tally = result.load, result.tally
    lines = [
        ("Concurrency level:", f"{load.clients} clients, {load.in_flight} in flight each"),
        ("Sets:", f"{tally.sets}"),
        ("Gets:", f"{tally.gets} ({tally.misses} found nothing)"),
        ("Errors:", f"{tally.errors}" + (f" (first: {tally.first_error})" if tally.first_error else "")),
        ("Time taken:", f"{result.seconds:.3f} s"),
        ("Read rate:", f"{tally.bytes_in / result.seconds / 1024:.1f} KiB/s"),
        ("Write rate:", f"{tally.bytes_out / result.seconds / 1024:.1f} KiB/s"),
        ("Requests per second:", f"{result.rate:.0f}"),
    ]
    if tally.hang_ups:
        lines.insert(3, ("Hang-ups:", f"{tally.hang_ups}"))
    text = "".join(f"{label:<24}{figure}\n" for label, figure in lines)
    text += "\nPercentage of the requests served within a certain time (us)\n"
    text += "".join(f"{percent:>7}%  {figure}\n" for percent, figure in result.percentiles().items())
    if result.limited_by_tool:
        text += "\nThe load processes were busy all the time: the server may be faster.  Try --processes.\n"
    return text


def _parser() -> argparse.ArgumentParser:
    defaults = Load()
    parser = argparse.ArgumentParser(
        "darner-bench", description="Load and latency of a server that speaks the memcache queue protocol.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--version", action="version", version=f"darner {darner.__version__}")
    add("-H", "--host", default=defaults.host, help="address of the server")
    add("-p", "--port", type=int, default=defaults.port, help="port of the server")
    add("-q", "--queue", default=defaults.queue, help="queue to work on")
    add("-s", "--sets", type=int, default=defaults.sets, help="sets to make")
    add("-g", "--gets", type=int, default=defaults.gets, help="gets to make")
    add("-i", "--item-bytes", type=int, default=defaults.item_bytes, help="size of an item")
    add("-c", "--clients", type=int, default=defaults.clients, help="connections")
    add("-f", "--in-flight", type=int, default=defaults.in_flight, help="requests under way on each connection")
    add("-b", "--bad", type=float, default=0.0, help="share of requests at which a client hangs up, 0 to 1")
    add("-t", "--seconds", type=float, help="run that long; sets and gets are then the ratio of the two")
    add("-w", "--wait", type=int, default=0, help="ms that a get waits for an item")
    add("--sync", action="store_true", help="sets ask for stable storage")
    add("--reliable", action="store_true", help="gets are open reads, each closed by the next")
    add("-P", "--processes", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="processes that make the load")
    add("--json", action="store_true", help="print the outcome as JSON")
    return parser


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """@return: the exit status: 1 where the server could not be reached or sent wrong replies."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    as_json = options.pop("json")
    if options["clients"] < 1 or options["in_flight"] < 1 or not 0 <= options["bad"] < 1:
        parser.error("--clients and --in-flight are at least 1, --bad is from 0 up to, not including, 1")
    try:
        result = run(Load(**options), progress=sys.stderr.isatty() and not as_json)
    except OSError as error:
        print(f"darner-bench: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result.as_dict()) if as_json else _report(result), end="\n" if as_json else "")
    return 1 if result.tally.errors else 0


if __name__ == "__main__":
    sys.exit(main())
