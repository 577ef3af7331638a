"""
The log of a cluster alone: how fast records are appended, and what that costs etcd.

It starts three etcds on the loopback interface, as docs/cluster_etcd.rst asks for, or uses those that it is given::

    python -m bench.cluster_log                                   a table over sizes of records
    python -m bench.cluster_log --bytes=1048576 --total=10000     a long run of one size
    python -m bench.cluster_log --etcd=HOST:PORT,HOST:PORT,HOST:PORT

Records are random bytes, so that nothing is gained by compressing them.  One node appends, trims and compacts as a
leader does, and others follow in processes of their own.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred

from darner.cluster.etcd.log import EtcdLog
from test.cluster.etcd_servers import EtcdServers

TABLE = (
    (1 << 10, 1, 1500), (1 << 10, 2, 3000), (1 << 10, 8, 6000), (16 << 10, 2, 2000), (64 << 10, 4, 1000),
    (256 << 10, 4, 400), (1 << 20, 4, 200), (16 << 20, 2, 10),
)  # fmt: skip
"""Bytes of a record, how many are in flight, and how many are appended."""


class Run:
    """
    One run.

    @ivar delays: how long each append took, in seconds.
    """

    def __init__(self, log: EtcdLog, size: int, in_flight: int, total: int, start: int, keep: int, keep_bytes: int):
        """
        @param start: the first number.
        @param keep: how many records are kept, and trimmed at once when there are twice as many; as with C{keep_bytes}.
        """
        self._log = log
        self._payload = os.urandom(size)
        self._in_flight = in_flight
        self._next, self._stop = start, start + total
        self._keep = max(1, min(keep, keep_bytes // size))
        self._trimmed = start - 1
        self._answered = 0
        self._total = total
        self._trimming = False
        self.delays: list[float] = []
        self.done: Deferred[None] = Deferred()

    def start(self) -> None:
        for _ in range(min(self._in_flight, self._total)):
            self._append()

    def _append(self) -> None:
        number, began = self._next, time.perf_counter()
        self._next += 1
        # Each record is another one.
        record = b"%08d" % number + self._payload[8:]
        self._log.append(number, record).addCallbacks(self._appended, self._failed, callbackArgs=(number, began))

    def _appended(self, _: object, number: int, began: float) -> None:
        self.delays.append(time.perf_counter() - began)
        self._answered += 1
        if self._next < self._stop:
            self._append()
        if not self._trimming and number - self._trimmed >= 2 * self._keep:
            self._trimming = True
            self._trimmed = number - self._keep
            self._log.trim(self._trimmed).addCallbacks(self._has_trimmed, self._failed)
        self._end()

    def _has_trimmed(self, _: object) -> None:
        self._trimming = False
        self._end()

    def _end(self) -> None:
        if self._answered == self._total and not self._trimming and not self.done.called:
            self.done.callback(None)

    def _failed(self, failure: Any) -> None:
        if not self.done.called:
            self.done.errback(failure)


def used(pid: int) -> float:
    """@return: the time of the processor that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(options: argparse.Namespace, servers: Any, report: Callable[[str], None]) -> None:
    """Run what is asked for, and report each as a line."""
    endpoints = options.etcd.split(",") if options.etcd else servers.endpoints
    log = EtcdLog(reactor, endpoints, options.name)
    table = TABLE if options.bytes is None else ((options.bytes, options.in_flight, options.total),)
    etcds = servers.servers if servers else []
    report("  bytes  in flight   count       /s    MB/s  median   99 %     max  CPU/append: here, etcd   memory   disk")
    for size, in_flight, count in table:
        run = Run(log, size, in_flight, count, await log.last() + 1, options.keep, options.keep_bytes)
        began, here, there = time.perf_counter(), time.process_time(), sum(used(etcd.pid) for etcd in etcds)
        run.start()
        await run.done
        seconds = time.perf_counter() - began
        delays = sorted(run.delays)
        report(
            f"{size:7} {in_flight:10} {count:7} {count / seconds:8.0f} {count * size / seconds / 1e6:7.1f}"
            f" {delays[len(delays) // 2] * 1e3:5.1f} ms {delays[int(len(delays) * 0.99)] * 1e3:4.0f} ms"
            f" {delays[-1] * 1e3:4.0f} ms {(time.process_time() - here) / count * 1e3:12.2f} ms"
            f" {(sum(used(etcd.pid) for etcd in etcds) - there) / count * 1e3:6.2f} ms"
            f" {max((etcd.memory() for etcd in etcds), default=0) >> 20:5} MB"
            f" {max((etcd.disk() for etcd in etcds), default=0) >> 20:4} MB"
        )
    await log.close()


def follow(endpoints: str, name: str) -> None:
    """Follow from now on, until standard input ends."""
    log = EtcdLog(reactor, endpoints.split(","), name)

    async def begin() -> None:
        following = log.follow(await log.last(), lambda number, record: None)
        await following.ended

    ensureDeferred(begin()).addErrback(lambda failure: failure.printTraceback())
    reactor.callInThread(lambda: (sys.stdin.read(), os._exit(0)))
    reactor.run()


def main(arguments: Sequence[str]) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster_log", description="Measure the log of a cluster.")
    parser.add_argument("--etcd", help="HOST:PORT,... of etcds that run; by default three are started")
    parser.add_argument("--name", default="bench", help="of the log")
    parser.add_argument("--bytes", type=int, help="of a record; by default there is a table of sizes")
    parser.add_argument("--in-flight", type=int, default=4, help="how many appends are under way")
    parser.add_argument("--total", type=int, default=1000, help="how many are appended")
    parser.add_argument("--keep", type=int, default=500, help="how many records are kept")
    parser.add_argument("--keep-bytes", type=int, default=64 << 20, help="how many bytes are kept")
    parser.add_argument("--followers", type=int, default=2, help="how many nodes follow")
    parser.add_argument("--follow", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.follow:
        follow(options.etcd, options.name)
        return
    with ExitStack() as stack:
        servers = None
        if not options.etcd:
            servers = EtcdServers()
            stack.callback(servers.end)
        endpoints = options.etcd or ",".join(servers.endpoints)  # type: ignore[union-attr]
        for index in range(options.followers):
            others = endpoints.split(",")
            others = others[index + 1 :] + others[: index + 1]  # each prefers another one, as on machines of their own
            command = [sys.executable, "-m", "bench.cluster_log", "--follow", f"--etcd={','.join(others)}"]
            follower = subprocess.Popen([*command, f"--name={options.name}"], stdin=subprocess.PIPE)
            stack.callback(follower.wait)
            stack.callback(follower.kill)
        time.sleep(1.0 if options.followers else 0.0)
        running = ensureDeferred(measure(options, servers, lambda line: print(line, flush=True)))
        running.addErrback(lambda failure: failure.printTraceback())
        running.addBoth(lambda _: reactor.stop())
        reactor.run()


if __name__ == "__main__":
    main(sys.argv[1:])
