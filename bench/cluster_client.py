"""
A client of L{bench.cluster_torture}, with queues of its own and a model of each (L{test.cluster.checker}).

It uses what queues have: open reads, a child that gets all that is put, moves, delays, dead letters, ids, large items.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, Optional

from test.cluster.checker import QueueModel

TIMEOUT: Final = 40.0
"""Seconds that a client waits for an answer, more than any outage has."""
DELAY: Final = 0.3
"""Seconds."""
SLACK: Final = 60.0
"""Seconds after its delay within which an item has to be available, more than any outage has."""
MANY: Final = 100
"""Items of a queue with which no more are put."""
LARGE: Final = (200_000, 1_000_000, 4_000_000)
"""Sizes of a few items, in bytes."""
LESS_LARGE: Final = (100_000, 200_000)
"""The same where all that nodes write is recorded, and read during an outage."""
ATTEMPTS: Final = 2


def settings(clients: int) -> str:
    """
    @return: the settings of the server, as TOML.  Ids are remembered for a day by the leader's clock, so that clocks
        which are an hour apart make no difference.
    """
    lines = ["[defaults]", "dedupe_window = 86400"]
    for number in range(clients):
        lines += [f"[queues.tried{number}]", f"max_attempts = {ATTEMPTS}", f'dead_letter_queue = "dead{number}"']
    return "\n".join([*lines, ""])


class Client:
    """
    One client, in a thread.  It works until it is told to L{pause}, and empties its queues when it is told to L{drain}.

    @ivar outages: from when to when, by the monotonic clock, a request had no answer and none came.
    @ivar error: what has ended it.
    @ivar done: how many items of each kind it has had to do with.
    @ivar idle: set when it has paused, or has ended.
    """

    def __init__(
        self, nodes: Sequence[tuple[str, int]], seed: str, number: int, wall: Callable[[], float] = time.time,
        delays: bool = True, large: Sequence[int] = LARGE,
    ) -> None:  # fmt: skip
        """
        @param nodes: their hosts and ports.
        @param wall: the clock of all nodes.
        @param delays: whether items are delayed, which needs nodes with one clock.
        @param large: the sizes of a few items, in bytes.
        """
        self._nodes = nodes
        self._large = large
        self._wall = wall
        self._chance = random.Random(seed)
        history: list[str] = []
        self.copies = QueueModel(f"jobs{number}+copy", history)
        self.jobs = QueueModel(f"jobs{number}", history, [self.copies])
        self.moved = QueueModel(f"moved{number}", history)
        self.later = QueueModel(f"later{number}", history)
        self.dead = QueueModel(f"dead{number}", history)
        self.tried = QueueModel(f"tried{number}", history, [], ATTEMPTS, self.dead)
        self.queues = [self.tried, self.dead, self.jobs, self.copies, self.moved, self.later]
        self._works: dict[Callable[[], object], int] = {
            self._put_job: 26,
            lambda: self._take(self.jobs): 10,
            lambda: self._open(self.jobs, 0.8): 14,
            lambda: self._take(self.copies): 8,
            lambda: self._open(self.copies, 0.8): 8,
            lambda: self._move(self.copies, self.moved): 1,
            lambda: self._take(self.moved): 8,
            lambda: self._put(self.later, b"%d " % self._next(), 0.5, DELAY): 10 * delays,
            lambda: self._take(self.later): 12,
            lambda: self._put(self.tried, b"%d " % self._next(), 0.5): 8,
            lambda: self._open(self.tried, 0.4): 14,
            lambda: self._take(self.dead): 3,
            lambda: self._move(self.dead, self.tried): 1,
            self._put_again: 3,
        }
        self._socket: Optional[socket.socket] = None
        self._file: Any = None
        self._number = 0
        self._known: list[bytes] = []
        self._failed_at = 0.0
        self.outages: list[tuple[float, float]] = []
        self.answers = self.in_doubt = 0
        self.done: Counter[str] = Counter()
        self.error: Optional[BaseException] = None
        self._pausing, self.idle, self._draining = threading.Event(), threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def pause(self) -> None:
        self._pausing.set()

    def drain(self) -> None:
        self._draining.set()

    def _run(self) -> None:
        try:
            self.prepare()
            while not self._pausing.is_set():
                self.step()
            self._disconnect()
            self.idle.set()
            self._draining.wait()
            self.empty()
        except BaseException as error:
            self.error = error
        finally:
            self.idle.set()

    def prepare(self) -> None:
        """Create the child, so that it gets all that is put."""
        self._surely(b"get %b\r\n" % self.copies.name.encode(), b"END\r\n")

    def step(self) -> None:
        """Do one thing."""
        self._chance.choices(list(self._works), list(self._works.values()))[0]()

    def empty(self) -> None:
        """Take all that is left.  @raise test.cluster.checker.Fault: something is missing."""
        for queue in self.queues:
            while self._take(queue, b"/t=100" if queue is self.later else b"") is not False or len(queue):
                pass

    # Requests

    def _connect(self) -> None:
        while True:
            for node in self._nodes:
                try:
                    self._socket = socket.create_connection(node, 1)
                except OSError:
                    continue
                self._socket.settimeout(TIMEOUT)
                self._file = self._socket.makefile("rb")
                return
            time.sleep(0.02)

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._file.close()
            self._socket.close()
            self._socket = None

    def ask(self, request: bytes) -> Optional[bytes]:
        """@return: the first line of the answer, or the item; C{None} if there was none, and so the outcome is open."""
        try:
            if self._socket is None:
                self._connect()
            assert self._socket is not None
            self._socket.sendall(request)
            line: bytes = self._file.readline()
            if not line.endswith(b"\r\n"):
                raise OSError("closed")
            if line.startswith(b"VALUE"):
                size = int(line.split()[3])
                payload: bytes = self._file.read(size + 7)
                if len(payload) != size + 7:
                    raise OSError("closed")
                line = b"=" + payload[:size]
        except OSError:
            self.in_doubt += 1
            self._failed_at = self._failed_at or time.monotonic()
            self._disconnect()
            return None
        self.answers += 1
        if self._failed_at:
            self.outages.append((self._failed_at, time.monotonic()))
            self._failed_at = 0.0
        return line

    def _surely(self, request: bytes, expected: bytes) -> None:
        """Ask until there is an answer."""
        answer = self.ask(request)
        while answer is None:
            answer = self.ask(request)
        if answer != expected:
            raise AssertionError(f"{answer!r} to {request[:60]!r}")

    def _read(self, queue: QueueModel, options: bytes = b"") -> Any:
        """@return: the item, C{False} if there is none, C{None} if there is no answer."""
        answer = self.ask(b"get %b%b\r\n" % (queue.name.encode(), options))
        if answer is None:
            return None
        if answer == b"END\r\n":
            return False
        if not answer.startswith(b"="):
            raise AssertionError(f"{answer!r} to a get")
        return answer[1:]

    # What it does

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _put_job(self) -> None:
        if max(map(len, (self.jobs, self.copies, self.moved))) > MANY:
            self._take(self.jobs)
            self._take(self.copies)
            self._take(self.moved)
            return
        item = b"%d " % self._next()
        if self._chance.random() < 0.05:
            item = item * (self._chance.choice(self._large) // len(item))
        self._put(self.jobs, item, 0.5)

    def _put(self, queue: QueueModel, item: bytes, with_id: float, delay: float = 0.0) -> None:
        """
        @param with_id: how likely it has an id; such an item is put until it is stored.
        @param delay: in seconds.
        """
        options = b"/delay=%d" % (delay * 1000) if delay else b""
        has_id = self._chance.random() < with_id
        if has_id:
            options += b"/id=%d" % self._number
        request = b"set %b%b 0 0 %d\r\n%b\r\n" % (queue.name.encode(), options, len(item), item)
        asked = self._wall()
        answer = self.ask(request)
        while answer is None and has_id:
            answer = self.ask(request)
        if answer not in (None, b"STORED\r\n"):
            raise AssertionError(f"{answer!r} to a set")
        queue.put(item, answer is not None, (asked + delay, self._wall() + delay + SLACK) if delay else (0, 0))
        self.done["put"] += 1
        self.done["large"] += len(item) > 1000
        self.done["with ids"] += has_id
        self.done["delayed"] += delay > 0
        if has_id and len(request) < 1000:
            self._known = [*self._known[-20:], request]

    def _put_again(self) -> None:
        """Repeat a set that was stored: it must be stored no second time."""
        if self._known:
            self._surely(self._chance.choice(self._known), b"STORED\r\n")
            self.done["put again"] += 1

    def _take(self, queue: QueueModel, options: bytes = b"") -> Any:
        """@return: as L{_read}."""
        asked = self._wall()
        item = self._read(queue, options)
        if item is None:
            queue.in_doubt()
        else:
            queue.taken(item or None, asked, self._wall())
            self.done["dead letters" if queue is self.dead else "taken"] += bool(item)
        return item

    def _open(self, queue: QueueModel, close: float) -> None:
        """@param close: how likely the item is closed, and not given back."""
        item = self._read(queue, b"/open")
        if item:
            queue.opened(item)
            closes = self._chance.random() < close
            self.done["closed" if closes else "given back"] += 1
            answer = self.ask(b"get %b/%b\r\n" % (queue.name.encode(), b"close" if closes else b"abort"))
            if closes:
                queue.closed(answer is not None)
            else:
                queue.given_back()
        elif item is None:
            answer = None
            queue.open_in_doubt()
        else:
            queue.opened(None)
            return
        if answer is None and queue.max_attempts:
            # Have the server look at what was open.
            while (item := self._read(queue, b"/peek")) is None:
                pass
            queue.peeked(item or None)

    def _move(self, queue: QueueModel, target: QueueModel) -> None:
        """Move all items, for as long as it takes."""
        request = b"requeue %b %b\r\n" % (queue.name.encode(), target.name.encode())
        repeated = False
        while (answer := self.ask(request)) is None:
            repeated = True
        if not answer.rstrip().isdigit():
            raise AssertionError(f"{answer!r} to a requeue")
        queue.moved(target, int(answer), repeated)
        self.done["moved"] += int(answer)
