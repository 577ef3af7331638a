"""
A node without a disk joins a cluster that has much: how long it takes, and what other clients notice of it.

It runs three etcds and three nodes on the loopback interface, fills a queue, waits until the log is trimmed, removes
the data of a follower, and starts it again while a client puts and takes small items at the leader::

    python -m bench.cluster_join --mebibytes=1024

It prints how long the node took until it followed, and for the requests meanwhile, and for as long before, how many
there were, and their times.  In the end the stores of all nodes are compared key by key.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence

from bench.cluster_torture import Torture
from test.servers import Client

SIZE = 64 << 10
"""Bytes of an item."""
IN_FLIGHT = 8
PATIENCE = 1200.0


class Asking:
    """
    A client that puts an item and takes it again, until it is told to end.

    @ivar took: for each request when it ended, by the monotonic clock, and how long it took, in seconds.
    """

    def __init__(self, port: int) -> None:
        self.took: list[tuple[float, float]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(port,), daemon=True)
        self._thread.start()

    def _run(self, port: int) -> None:
        with Client(("127.0.0.1", port)) as client:
            while not self._ended.is_set():
                began = time.monotonic()
                client.set(b"small", b"x" * 1000)
                put = time.monotonic()
                client.get(b"small")
                took = time.monotonic()
                self.took += [(put, put - began), (took, took - put)]

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def between(self, since: float, until: float) -> str:
        """@return: the requests that ended in this time, for people."""
        took = sorted(seconds for at, seconds in self.took if since <= at <= until)
        p50, p99 = (took[int(len(took) * part)] * 1000 for part in (0.5, 0.99))
        return f"{len(took)} requests, {p50:.1f} ms median, {p99:.1f} ms p99, {took[-1] * 1000:.1f} ms longest"


def fill(torture: Torture, size: int) -> None:
    """Put as many bytes, and wait until they are trimmed from the log."""
    stored = 0
    while stored < size:
        with contextlib.suppress(OSError), Client(("127.0.0.1", torture.leader().port)) as client:
            said = b"STORED"
            while stored < size and said == b"STORED":
                for _ in range(IN_FLIGHT):
                    client.send_set(b"jobs", torture.chance.randbytes(SIZE))
                for _ in range(IN_FLIGHT):
                    said = client.line()
                    stored += SIZE
    leader = torture.leader()
    position = leader.position() or 0
    wait(lambda: (leader.metric("trimmed") or 0) >= position - 1, "the log is trimmed")


def wait(condition: Callable[[], object], what: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited in vain: {what}")
        time.sleep(0.02)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster_join")
    parser.add_argument("--mebibytes", type=int, default=1024)
    options = parser.parse_args(arguments)
    torture = Torture(0, 1)
    try:
        began = time.monotonic()
        fill(torture, options.mebibytes << 20)
        print(f"filled and trimmed in {time.monotonic() - began:.0f} s", flush=True)
        leader = torture.leader()
        late = next(node for node in torture.nodes if node is not leader)
        late.kill()
        shutil.rmtree(torture.directory / late.name)
        time.sleep(5)
        asking = Asking(leader.port)
        time.sleep(10)
        began = time.monotonic()
        late.start()
        wait(lambda: late.metric("snapshots_taken"), "it takes a snapshot")
        wait(lambda: late.metric("durable") and late.metric("lag") == 0, "it follows")
        joined = time.monotonic()
        asking.end()
        taken = late.metric("snapshot_bytes_taken")
        print(f"{late.name} took {taken} bytes, and followed after {joined - began:.1f} s")
        print(f"before:    {asking.between(0, began)}")
        print(f"meanwhile: {asking.between(began, joined)}")
        torture.compare()
        print("the stores of all nodes are equal")
    finally:
        torture.end()
        torture.remove()


if __name__ == "__main__":
    main(sys.argv[1:])
