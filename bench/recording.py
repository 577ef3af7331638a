"""
What recording for the metrics costs: the same requests with and without it, in slices that take turns in one process,
by the processor time of its thread.  So it can be measured on a busy machine.

``python -m bench.recording`` prints a line for each load.  There are no sockets and no disk, which take most of the
time of a request in a server: there, recording is a smaller part than is printed here.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Final

from bench.servers import COMPILED
from fuzz.server import Client, Server

SECONDS: Final = 20.0
"""How long to measure each load."""
TURNS: Final = 20
"""In a slice, of sets and of gets each."""
LOADS: Final = ((1, 1), (50, 1), (10, 32))
"""The numbers of clients, and of requests in flight of each."""


def measure(server: Server, clients: int, in_flight: int) -> tuple[float, float]:
    """@return: the processor time of a request without and with recording, in us: medians of all slices."""
    commit = server.queues.commit
    timings = server.queues.measure(time.perf_counter)
    connected = [server.client() for _ in range(clients)]
    requests = (b"set q 0 0 64\r\n" + b"x" * 64 + b"\r\n") * in_flight, b"get q\r\n" * in_flight
    took: dict[bool, list[float]] = {False: [], True: []}
    until = time.monotonic() + SECONDS
    first = False
    while time.monotonic() < until:
        first = not first
        for recording in (first, not first):
            commit.timings = timings if recording else None
            started = time.thread_time()
            for _ in range(TURNS):
                for request in requests:
                    _turn(server, connected, request)
            took[recording].append((time.thread_time() - started) / (2 * TURNS * clients * in_flight) * 1e6)
            timings.take_ages()
    for client in connected:
        client.hang_up()
    return statistics.median(took[False]), statistics.median(took[True])


def _turn(server: Server, clients: list[Client], request: bytes) -> None:
    server.queues.commit.begin()
    for client in clients:
        client.protocol.dataReceived(request)
    server.queues.commit.end()
    for client in clients:
        client.forget()


def main() -> int:
    server = Server()
    print("compiled" if COMPILED else "not compiled")
    for clients, in_flight in LOADS:
        without, with_it = measure(server, clients, in_flight)
        print(
            f"{clients:4} clients, {in_flight:3} in flight: {without:7.3f} us a request,"
            f" with recording {with_it:7.3f} us: {(with_it / without - 1) * 100:+.1f} %",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
