"""
``darner bench``.
"""

from __future__ import annotations

import os
from typing import Any, Optional

import click

from darner.cli import bench
from darner.cli.workload import Workload
from darner.commands.client_settings import ClientSettings
from darner.commands.exits import DONE, FAILED, UNREACHABLE, USAGE, Failure, explain
from darner.commands.output import Output, Progress
from darner.commands.program import Command
from darner.commands.servers import first_address


@click.command("bench", cls=Command)
@click.option("--queue", default="db_bench", show_default=True, help="Queue to work on.")
@click.option("-n", "--sets", type=click.IntRange(0), default=10000, show_default=True, help="Sets to make.")
@click.option("-g", "--gets", type=click.IntRange(0), default=10000, show_default=True, help="Gets to make.")
@click.option("-i", "--item-bytes", type=click.IntRange(0), default=64, show_default=True, help="Size of an item.")
@click.option("-c", "--clients", type=click.IntRange(1), default=10, show_default=True, help="Connections.")
@click.option("-f", "--in-flight", type=click.IntRange(1), default=1, show_default=True,
              help="Requests under way on each connection.")
@click.option("-t", "--seconds", type=click.FloatRange(0, min_open=True),
              help="Run that long; sets and gets are then the ratio of the two.")
@click.option("-w", "--wait", type=click.IntRange(0), default=0, metavar="MS", help="How long a get waits for an item.")
@click.option("--sync", is_flag=True, help="Sets ask for stable storage.")
@click.option("--reliable", is_flag=True, help="Gets are open reads, each closed by the next.")
@click.option("-P", "--processes", type=click.IntRange(1), help="Processes that make the load.  [default: as many as "
              "there are processors, but for one]")
@click.pass_obj
def bench_command(settings: ClientSettings, /, processes: Optional[int], **load: Any) -> int:
    """
    Set and get items on a queue of a server, check every reply, and say how many requests were served in a second and
    how long they took.

    Without users and TLS.  It works with Kestrel and the C++ Darner as well.
    """
    output = Output(settings)
    place = first_address(settings.servers)
    if place.path:
        raise Failure("bench needs a server with a host and a port", USAGE)
    if settings.user or settings.context() is not None:
        raise Failure("bench knows neither users nor TLS", USAGE)
    workload = Workload(
        host=place.host, port=place.port, processes=processes or max(1, (os.cpu_count() or 2) - 1), **load
    )
    total = workload.sets + workload.gets if workload.seconds is None else None
    try:
        running = bench.Running(workload)
        with Progress(output, "requests", total) as progress:
            result = running.wait(_Bar(progress))
    except OSError as error:
        raise Failure(f"{place}: {explain(error)}", UNREACHABLE) from None
    if output.json:
        output.document(result.as_dict())
    else:
        output.line(bench.report(result).rstrip("\n"))
    return FAILED if result.tally.errors else DONE


class _Bar:
    """A progress as `darner.cli.bench` tells of it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.n = 0

    def update(self, by: int) -> None:
        self.n += by
        self._progress.reach(self.n)
