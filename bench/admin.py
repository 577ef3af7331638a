"""
For how long the admin HTTP takes the event loop, with very many queues and items.

``python -m bench.admin [--queues N] [--items N] [--times N]`` starts a server, and makes each kind of request some
times.  It prints a line for each: the time of a request, the longest turn of the event loop meanwhile by processor
time, and the longest wait of another client.  The first line is without any request: the server looks at its queues by
itself.
"""

from __future__ import annotations

import argparse
import http.client
import json
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, Final, Optional

from attrs import frozen

from bench.many import Bystander, send_many
from bench.ports import reserve_port
from bench.servers import PATIENCE, Darner

_PAUSE: Final = 0.01
"""Seconds between two requests."""
SETTINGS: Final = """
[queues."jobs"]
dead_letter_queue = "dead"
max_attempts = 2
"""


@frozen
class Request:
    """A kind of request."""

    name: str
    path: str
    method: str = "GET"
    body: Optional[dict[str, Any]] = None


REQUESTS: Final = (
    Request("ping", "/ping"),
    Request("health", "/health"),
    Request("metrics", "/metrics"),
    Request("stats.json", "/stats.json"),
    Request("server", "/api/v1/server"),
    Request("queues", "/api/v1/queues"),
    Request("queues, 1,000 rows, sparklines", "/api/v1/queues?limit=1000&sparkline=true"),
    Request("queues, the last page", "/api/v1/queues?offset={last}&limit=100"),
    Request("queues by items", "/api/v1/queues?sort=items&order=desc"),
    Request("queues by age", "/api/v1/queues?sort=oldest_ms&order=desc"),
    Request("queues by use of limits", "/api/v1/queues?sort=used&order=desc"),
    Request("queues, filtered", "/api/v1/queues?filter=*99*"),
    Request("one queue", "/api/v1/queues/jobs"),
    Request("last hour", "/api/v1/queues/jobs/history"),
    Request("items, first page", "/api/v1/queues/jobs/items?limit=200&preview=4096"),
    Request("items, from the middle", "/api/v1/queues/jobs/items?after={middle}&limit=200"),
    Request("items, filtered, none found", "/api/v1/queues/jobs/items?contains=nowhere"),
    Request("items, filtered by size", "/api/v1/queues/jobs/items?min_size=1000000"),
    Request("delayed items", "/api/v1/queues/jobs/items?state=delayed&limit=200"),
    Request("clients", "/api/v1/clients"),
    Request("return all delayed", "/api/v1/queues/jobs/items/return", "POST", {"state": "delayed"}),
    Request("move 1 % by filter", "/api/v1/queues/jobs/items/move", "POST",
            {"state": "ready", "filter": {"contains": "07"}, "target": "others"}),
    Request("delete all that is moved", "/api/v1/queues/others/items/delete", "POST", {"state": "ready"}),
    Request("flush", "/api/v1/queues/jobs/flush", "POST"),
)  # fmt: skip


class Timed(Darner):
    """This server with HTTP, its turns timed."""

    def __init__(self) -> None:
        super().__init__()
        self.http_port = reserve_port()

    def options(self) -> Sequence[str]:
        _, _, *options = super().options()
        (self.directory / "darner.toml").write_text(SETTINGS)
        return (
            "-m", "bench.turns", str(self.directory / "turns"), *options, "--http-port", str(self.http_port),
            "--config", str(self.directory / "darner.toml"),
        )  # fmt: skip

    def longest_turn(self) -> float:
        """@return: the longest turn since the last call, in seconds of processor time."""
        path = self.directory / "turns"
        path.unlink(missing_ok=True)
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + PATIENCE
        while not path.exists():
            if time.monotonic() > deadline:
                raise ConnectionError("the server does not tell its turns")
            time.sleep(0.005)
        longest: float = json.loads(path.read_text())["longest"]
        return longest


class Trial:
    """All kinds of requests on one server, one after the other."""

    def __init__(self, server: Timed, queues: int, items: int, times: int) -> None:
        self._server = server
        self._queues = queues
        self._items = items
        self._times = times
        self.longest = 0.0

    def _fill(self) -> None:
        address = self._server.host, self._server.port
        send_many(address, lambda number: b"set many%07d 0 0 4\r\nabcd\r\n" % number, self._queues)
        payload = b"x" * 500
        send_many(address, lambda number: b"set jobs 0 0 507\r\n%07d%b\r\n" % (number, payload), self._items)
        send_many(
            address, lambda number: b"set jobs/delay=86400000 0 0 507\r\n%07d%b\r\n" % (number, payload),
            self._items // 10,
        )  # fmt: skip

    def _ask(self, request: Request) -> float:
        """@return: the seconds until the whole answer was there."""
        client = http.client.HTTPConnection(self._server.host, self._server.http_port, timeout=PATIENCE)
        body = None if request.body is None else json.dumps(request.body)
        headers = {"Content-Type": "application/json", "X-Darner-Request": "1"} if request.method == "POST" else {}
        path = request.path.format(last=max(0, self._queues - 100), middle=self._items // 2)
        started = time.perf_counter()
        client.request(request.method, path, body, headers)
        response = client.getresponse()
        text = response.read()
        seconds = time.perf_counter() - started
        client.close()
        if response.status >= 400:
            raise ConnectionError(f"{request.path}: {response.status} {text[:200]!r}")
        return seconds

    def _measure(self, name: str, request: Optional[Request], times: int) -> None:
        bystander = Bystander(self._server)
        bystander.start()
        self._server.longest_turn()
        bystander.longest = 0.0
        asked = []
        for _ in range(times):
            if request is None:
                time.sleep(1)
            else:
                asked.append(self._ask(request))
            time.sleep(_PAUSE)
        longest = self._server.longest_turn()
        bystander.end()
        self.longest = max(self.longest, longest)
        took = f"{statistics.median(asked) * 1000:9.1f} ms" if asked else " " * 12
        print(
            f"{name:32} {took}   longest turn {longest * 1000:6.1f} ms"
            f"   another client waited {bystander.longest * 1000:7.1f} ms",
            flush=True,
        )

    def run(self) -> None:
        print(f"{self._queues:,} queues, {self._items:,} items in one queue, each request {self._times} times")
        self._fill()
        self._ask(REQUESTS[0])
        time.sleep(2)
        self._measure("no request", None, self._times)
        for request in REQUESTS:
            self._measure(request.name, request, 1 if request.method == "POST" else self._times)
        print(f"longest turn of all: {self.longest * 1000:.1f} ms")


def main(arguments: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser("python -m bench.admin", description=__doc__)
    parser.add_argument("--queues", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=10)
    options = parser.parse_args(arguments)
    server = Timed()
    server.start()
    try:
        Trial(server, options.queues, options.items, options.times).run()
    finally:
        server.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
