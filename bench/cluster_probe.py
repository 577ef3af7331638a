"""
Whether a node answers: asked all the time, all nodes of a cluster at once, with little patience.

Clients wait long for an answer, as their models must know what became of each request.  This tells of how long nobody
answers, and whether ever two do.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, Optional

PATIENCE: Final = 1.0
"""Seconds that an answer is waited for."""
PAUSE: Final = 0.05
"""Seconds between two requests to a node."""


class Answer(NamedTuple):
    """When a request was sent and answered, by the monotonic clock, and which node answered, in which life."""

    sent: float
    answered: float
    node: int
    life: str


class Probe:
    """
    One thread for each node.

    @ivar answers: all answers; those of a node in their order.
    """

    def __init__(self, nodes: Sequence[tuple[str, int]], life: Callable[[int], str]) -> None:
        """
        @param nodes: host and port of each.
        @param life: is given the number of a node, and returns what tells this life of its process from others.
        """
        self.answers: list[Answer] = []
        self._nodes = nodes
        self._life = life
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(number,), daemon=True) for number in range(len(nodes))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, number: int) -> None:
        connection: Optional[socket.socket] = None
        life = ""
        while not self._over.wait(PAUSE):
            try:
                if connection is None:
                    life = self._life(number)
                    connection = socket.create_connection(self._nodes[number], PATIENCE)
                    # What is not sent when it is closed is never sent.
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    if self._life(number) != life:
                        raise OSError("started again")
                sent = time.monotonic()
                connection.sendall(b"get probe\r\n")
                if connection.recv(100) != b"END\r\n":
                    raise OSError("closed")
                self.answers.append(Answer(sent, time.monotonic(), number, life))
            except OSError:
                if connection is not None:
                    connection.close()
                    connection = None
        if connection is not None:
            connection.close()

    def leader(self) -> int:
        """@return: the number of the node that answers; who was deposed may listen for a while.  Waits for it."""
        since, deadline = time.monotonic(), time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.answers and self.answers[-1].sent >= since:
                return self.answers[-1].node
            time.sleep(PAUSE)
        raise AssertionError("nobody answers")

    def check(self) -> None:
        """@raise AssertionError: a node has answered what it was asked after a later leader had answered."""
        lives: dict[str, tuple[float, float]] = {}
        for answer in list(self.answers):
            first, last = lives.get(answer.life, (answer.answered, answer.sent))
            lives[answer.life] = (min(first, answer.answered), max(last, answer.sent))
        in_order = sorted(lives.items(), key=lambda item: item[1][0])
        for (life, (_, last)), (later, (first, _)) in pairwise(in_order):
            if last > first:
                late = f"{last - first:.3f} s after {later} had answered"
                raise AssertionError(f"{life} answered what it was asked {late}")

    def within(self, since: float, until: float) -> int:
        """@return: how many requests were sent and answered between these times."""
        return sum(since <= answer.sent and answer.answered <= until for answer in list(self.answers))

    def outage(self, since: float, until: float) -> float:
        """@return: for how long nobody answered, at most, between these times, in seconds."""
        times = sorted(answer.answered for answer in list(self.answers) if since <= answer.answered <= until)
        return max(later - earlier for earlier, later in zip([since, *times], [*times, until], strict=True))
