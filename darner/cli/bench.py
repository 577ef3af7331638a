"""
``darner-bench``: measures requests per second and latency of any server that speaks this protocol.

It is modelled on the ``db`` tool of the C++ Darner.  Every byte of the replies is checked.  Separate processes generate
the load (`darner.cli.load_generator`); if these were the bottleneck, and not the server, the report says so.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.connection
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, Final, Optional

from attrs import asdict, evolve, frozen

import darner
from darner.cli.load_generator import Crowd
from darner.cli.output import ArgumentParser, say
from darner.cli.workload import Tally, Workload

PERCENTILES: Final = (50.0, 66.0, 75.0, 80.0, 90.0, 95.0, 98.0, 99.0, 99.9)
BUSY: Final = 0.9
"""A load process that is busy for more than this share of its time counts as the bottleneck."""


@frozen
class Result:
    """The outcome of a load."""

    load: Workload
    tally: Tally

    @property
    def seconds(self) -> float:
        """From the first request to the last reply."""
        return self.tally.ended - self.tally.started

    @property
    def requests(self) -> int:
        """The number of requests that were answered."""
        return self.tally.sets + self.tally.gets

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds if self.requests else 0.0

    @property
    def limited_by_tool(self) -> bool:
        """Whether a load process was busy nearly all the time, so that the server may be faster."""
        return self.tally.busy > BUSY

    def percentile(self, percent: float) -> int:
        """@return: the latency in us that this percentage of the requests did not exceed."""
        return _percentiles(self.tally.latencies, (percent,))[0]

    def percentiles(self) -> dict[str, int]:
        """@return: latencies in us, by the percentage of requests that did not exceed them."""
        if not self.requests:
            return {}
        percents = (*PERCENTILES, 100.0)
        names = [f"{percent:g}" for percent in percents]
        return dict(zip(names, _percentiles(self.tally.latencies, percents), strict=True))

    def as_dict(self) -> dict[str, Any]:
        """The outcome as plain data, for JSON."""
        return {
            "load": asdict(self.load, filter=lambda attribute, _: attribute.name != "dialect"),
            "seconds": self.seconds,
            "requests": self.requests,
            "rate": self.rate,
            "latency_us": self.percentiles(),
            "limited_by_tool": self.limited_by_tool,
            **asdict(self.tally, filter=lambda attribute, _: attribute.name not in ("latencies", "started", "ended")),
        }


def _percentiles(latencies: dict[int, int], percents: Sequence[float]) -> list[int]:
    """@param percents: in ascending order."""
    total = sum(latencies.values())
    figures: list[int] = []
    counted = 0
    for latency in sorted(latencies):
        counted += latencies[latency]
        while len(figures) < len(percents) and counted >= total * percents[len(figures)] / 100:
            figures.append(latency)
    return figures


def _shares(load: Workload) -> Iterator[Workload]:
    """The load of each process."""
    processes = max(1, min(load.processes, load.clients))

    def share(total: int, index: int) -> int:
        return total * (index + 1) // processes - total * index // processes

    for index in range(processes):
        clients = share(load.clients, index)
        if load.seconds is None:
            sets, gets = share(load.sets, index), share(load.gets, index)
            yield evolve(load, processes=processes, clients=clients, sets=sets, gets=gets)
        else:
            yield evolve(load, processes=processes, clients=clients)


def _process(load: Workload, connection: Connection) -> None:
    try:
        with suppress(KeyboardInterrupt):
            connection.send(Crowd(load).run(connection))
    except OSError as error:
        connection.send(f"{type(error).__name__}: {error}")


class Running:
    """A running load."""

    def __init__(self, load: Workload) -> None:
        """
        Start the processes, and with them the load as soon as every client is connected.

        @raise ConnectionError: the server cannot be reached.
        """
        self._load = load
        # A new interpreter each, as the caller may have threads or an event loop.
        context = multiprocessing.get_context("spawn")
        self._processes: list[Any] = []
        self._connections: list[Connection] = []
        try:
            for share in _shares(load):
                ours, theirs = context.Pipe()
                process = context.Process(target=_process, args=(share, theirs), daemon=True)
                process.start()
                self._processes.append(process)
                self._connections.append(ours)
                theirs.close()
            for connection in self._connections:
                _received(connection)
            self._tell("go")
        except BaseException:
            self._end()
            raise

    def _tell(self, word: str) -> None:
        for connection in self._connections:
            connection.send(word)

    def stop(self) -> Result:
        """End the load now; see L{wait}."""
        self._tell("stop")
        return self.wait()

    def wait(self, bar: Any = None) -> Result:
        """
        Wait until the load ends.

        @param bar: a progress bar of tqdm.
        @raise ConnectionError: the server disconnected, or sent a reply that is not of this protocol.
        """
        total = Tally()
        done = dict.fromkeys(self._connections, 0)
        running = list(self._connections)
        try:
            while running:
                for ready in multiprocessing.connection.wait(running):
                    assert isinstance(ready, Connection)
                    message = _received(ready)
                    if isinstance(message, Tally):
                        total.add(message)
                        running.remove(ready)
                    elif bar is not None:
                        done[ready] = message
                        bar.update(sum(done.values()) - bar.n)
        finally:
            self._end()
        return Result(self._load, total)

    def _end(self) -> None:
        for process, connection in zip(self._processes, self._connections, strict=True):
            process.terminate()
            process.join()
            connection.close()


def _received(connection: Connection) -> Any:
    try:
        message = connection.recv()
    except EOFError:
        raise ConnectionError("a load process ended unexpectedly") from None
    if isinstance(message, str) and message != "ready":
        raise ConnectionError(message)
    return message


def run(load: Workload, progress: bool = False) -> Result:
    """
    Run a load and measure it.

    @param progress: whether to show a progress line on standard error.
    @raise ConnectionError: the server cannot be reached, disconnected, or sent a reply that is not of this protocol.
    """
    running = Running(load)
    bar = _progress_bar(load) if progress else None
    try:
        return running.wait(bar)
    finally:
        if bar is not None:
            bar.close()


def _progress_bar(load: Workload) -> Any:
    """@return: C{None} without tqdm."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=load.sets + load.gets if load.seconds is None else None, unit=" requests", leave=False)


def report(result: Result) -> str:
    """@return: the outcome, for a person."""
    load, tally = result.load, result.tally
    lines = [
        ("Concurrency level:", f"{load.clients} clients, {load.in_flight} in flight each"),
        ("Sets:", f"{tally.sets}"),
        ("Gets:", f"{tally.gets} ({tally.misses} found nothing)"),
        ("Errors:", f"{tally.errors}" + (f" (first: {tally.first_error})" if tally.first_error else "")),
        ("Time taken:", f"{result.seconds:.3f} s"),
        ("Bytes read:", f"{tally.bytes_in} ({tally.bytes_in / max(result.seconds, 1e-6) / 1024:.1f} KiB/s)"),
        ("Bytes written:", f"{tally.bytes_out} ({tally.bytes_out / max(result.seconds, 1e-6) / 1024:.1f} KiB/s)"),
        ("Requests per second:", f"{result.rate:.0f}"),
    ]
    if tally.hang_ups:
        lines.insert(3, ("Hang-ups:", f"{tally.hang_ups}"))
    text = "".join(f"{label:<24}{figure}\n" for label, figure in lines)
    text += "\nPercentage of the requests served within a certain time (us)\n"
    text += "".join(f"{percent:>7}%  {figure}\n" for percent, figure in result.percentiles().items())
    if result.limited_by_tool:
        text += "\nThe load processes were busy all the time: the server may be faster.  Try more --processes.\n"
    return text


def _parser() -> argparse.ArgumentParser:
    defaults = Workload()
    parser = ArgumentParser(
        "darner-bench", description="Load and latency of a server that speaks the memcache queue protocol.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("-v", "--version", action="version", version=f"darner {darner.__version__}")
    add("-H", "--host", default=defaults.host, help="address of the server")
    add("-p", "--port", type=int, default=defaults.port, help="port of the server")
    add("-q", "--queue", default=defaults.queue, help="queue to work on")
    add("-s", "--sets", type=int, default=defaults.sets, help="sets to make")
    add("-g", "--gets", type=int, default=defaults.gets, help="gets to make")
    add("-i", "--item-bytes", type=int, default=defaults.item_bytes, help="size of an item")
    add("-c", "--clients", type=int, default=defaults.clients, help="connections")
    add("-f", "--in-flight", type=int, default=defaults.in_flight, help="requests under way on each connection")
    add("-b", "--bad", type=float, default=0.0, help="share of requests at which a client disconnects, 0 to 1")
    add("-t", "--seconds", type=float, help="run this long; --sets and --gets are then a ratio")
    add("-w", "--wait", type=int, default=0, help="ms that a get waits for an item")
    add("--sync", action="store_true", help="sets wait for stable storage (fsync)")
    add("--reliable", action="store_true", help="gets are open reads, each closed by the next")
    add("-P", "--processes", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="processes that make the load")
    add("--json", action="store_true", help="print the outcome as JSON")
    return parser


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """@return: the exit status: 1 if the server could not be reached or sent wrong replies."""
    parser = _parser()
    options = vars(parser.parse_args(arguments))
    as_json = options.pop("json")
    for name in ("clients", "in_flight", "processes"):
        if options[name] < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    for name in ("sets", "gets", "item_bytes", "wait", "seconds"):
        if (options[name] or 0) < 0:
            parser.error(f"--{name.replace('_', '-')} must be at least 0")
    if not 0 <= options["bad"] < 1:
        parser.error("--bad must be at least 0 and less than 1")
    try:
        result = run(Workload(**options), progress=sys.stderr.isatty() and not as_json)
    except OSError as error:
        print(f"darner-bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    say(json.dumps(result.as_dict()) if as_json else report(result).rstrip("\n"))
    return 1 if result.tally.errors else 0


if __name__ == "__main__":
    sys.exit(main())
