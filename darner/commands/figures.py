"""
``darner stats`` and ``darner queues``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import fnmatch
import time
from collections.abc import Iterable
from typing import Any, Final, Optional

import click

from darner.client.figures import QueueStats, Stats
from darner.commands.client_settings import ClientSettings
from darner.commands.exits import USAGE, Failure
from darner.commands.output import Output, count, duration, rich_table, size
from darner.commands.program import Command
from darner.commands.running import run
from darner.commands.servers import Servers
from darner.errors import DarnerError

_SORTED: Final = {
    "name": lambda row: row[0],
    "items": lambda row: (-row[1].items, row[0]),
    "bytes": lambda row: (-row[1].bytes, row[0]),
    "age": lambda row: (-row[1].oldest_msec, row[0]),
    "open": lambda row: (-row[1].open_transactions, row[0]),
    "waiters": lambda row: (-row[1].waiters, row[0]),
}  # fmt: skip
_LATEST: Final = ("age", "age_msec", "oldest_msec", "create_time")
"""Figures of a queue of which the largest of all servers counts; the others are added."""
_QUEUE_HEADERS: Final = ("queue", ">items", ">bytes", ">open", ">delayed", ">aside", ">waiters", ">oldest", ">put")
_SERVER_HEADERS: Final = (
    "server", "status", ">items", ">bytes", ">clients", ">waiters", ">in/s", ">out/s", ">uptime", "version"
)  # fmt: skip


def add_up(answers: Iterable[Stats]) -> dict[str, QueueStats]:
    """@return: the figures of each queue over all servers."""
    queues: dict[str, QueueStats] = {}
    for stats in answers:
        for name, figures in stats.queues.items():
            before = queues.get(name)
            if before is None:
                queues[name] = figures
                continue
            queues[name] = QueueStats(**{
                field.name: (max if field.name in _LATEST else _plus)(
                    getattr(before, field.name), getattr(figures, field.name)
                )
                for field in dataclasses.fields(QueueStats)
            })  # fmt: skip
    return queues


def _plus(one: int, other: int) -> int:
    return one + other


def _queue_row(name: str, figures: QueueStats) -> tuple[str, ...]:
    return (
        name, count(figures.items), size(figures.bytes), count(figures.open_transactions), count(figures.delayed),
        count(figures.set_aside), count(figures.waiters), duration(figures.oldest_msec / 1000),
        count(figures.total_items),
    )  # fmt: skip


@click.command("queues", cls=Command)
@click.argument("patterns", metavar="[PATTERN...]", nargs=-1)
@click.option("--sort", type=click.Choice(list(_SORTED)), default="name", show_default=True, help="What to sort by.")
@click.pass_obj
def queues_command(settings: ClientSettings, patterns: tuple[str, ...], sort: str) -> None:
    """
    List the queues, or those that match a PATTERN such as mail_*; of several servers together.

    The columns are items that are ready or set aside, their bytes, items that are open, delayed, set aside after they
    were given back, clients that wait, how long the item at the head has been there, and items put since the start.
    """
    run(_queues(settings, patterns, sort))


async def _queues(settings: ClientSettings, patterns: tuple[str, ...], sort: str) -> None:
    output = Output(settings)
    async with Servers(settings, output) as servers:
        answers = await servers.each(lambda client: client.stats())
        rows = sorted(
            (
                (name, figures)
                for name, figures in add_up(answers.values()).items()
                if not patterns or any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
            ),
            key=_SORTED[sort],
        )  # fmt: skip
        if output.json:
            output.document([{"queue": name, **dataclasses.asdict(figures)} for name, figures in rows])
        elif rows:
            output.table(_QUEUE_HEADERS, [_queue_row(name, figures) for name, figures in rows])
        elif not output.quiet:
            output.note("there are no such queues" if patterns else "there are no queues yet")


@click.command("stats", cls=Command)
@click.argument("names", metavar="[QUEUE...]", nargs=-1)
@click.option("-w", "--watch", is_flag=True, help="Show them again and again, with rates, until interrupted.")
@click.option("--interval", type=click.FloatRange(0.1), default=1.0, show_default=True, metavar="SECONDS",
              help="With --watch: how often.")
@click.option("-n", "--count", "times", type=click.IntRange(1), metavar="N", help="With --watch: how many times.")
@click.option("-a", "--all", "everything", is_flag=True, help="Every figure of the servers, by its name.")
@click.pass_obj
def stats_command(
    settings: ClientSettings, names: tuple[str, ...], watch: bool, interval: float, times: Optional[int],
    everything: bool,
) -> None:  # fmt: skip
    """
    Show the figures of the servers, or every figure of a QUEUE.

    docs/operations.rst says what each means.
    """
    if times is not None and not watch:
        raise click.UsageError("--count is for --watch")
    if watch and (names or everything):
        raise click.UsageError("--watch shows all queues: leave out QUEUE and --all")
    if watch:
        run(_Watching(settings, interval).watch(times))
    else:
        run(_stats(settings, names, everything))


async def _stats(settings: ClientSettings, names: tuple[str, ...], everything: bool) -> None:
    output = Output(settings)
    async with Servers(settings, output) as servers:
        answers = await servers.each(lambda client: client.stats())
        if names:
            queues = add_up(answers.values())
            missing = [name for name in names if name not in queues]
            if missing:
                raise Failure(f"there is no queue {missing[0]}", USAGE)
            if output.json:
                output.document({name: dataclasses.asdict(queues[name]) for name in names})
                return
            for name in names:
                output.pairs({"queue": name, **dataclasses.asdict(queues[name])})
        elif output.json:
            output.document({address: _facts(stats) for address, stats in answers.items()})
        elif everything:
            for address, stats in answers.items():
                figures = {name: value for name, value in stats.figures.items() if not name.startswith("queue_")}
                output.pairs({"server": address, **figures})
        else:
            output.table(_SERVER_HEADERS, [_server_row(address, stats, None, 1) for address, stats in answers.items()])


def _facts(stats: Stats) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(stats).items() if name != "figures"}


def _server_row(address: str, stats: Stats, before: Optional[Stats], seconds: float) -> tuple[str, ...]:
    waiters = int(stats.figures.get("waiters", 0))
    rates = ("", "")
    if before is not None:
        rates = (
            count(max(0, stats.total_items - before.total_items) / seconds),
            count(max(0, stats.get_hits - before.get_hits) / seconds),
        )
    status = stats.status.lower()
    if stats.store_writable is False:
        status += ", store refuses"
    return (
        address, status, count(stats.curr_items), size(stats.bytes), count(stats.curr_connections), count(waiters),
        *rates, duration(stats.uptime), stats.version,
    )  # fmt: skip


class _Watching:
    """Shows figures until interrupted: in place on a terminal, and else below each other."""

    def __init__(self, settings: ClientSettings, interval: float) -> None:
        self._settings = settings
        self._interval = interval
        self._output = Output(settings)
        self._before: dict[str, Stats] = {}
        self._at = 0.0
        self._away: list[str] = []

    async def watch(self, times: Optional[int]) -> None:
        async with Servers(self._settings, self._output) as servers:
            if self._output.json or not self._output.on_terminal:
                await self._repeat(servers, times, self._write)
                return
            from rich.console import Console
            from rich.live import Live

            servers.silent = True  # it is on the screen
            with Live(console=Console(), auto_refresh=False, screen=True) as live:
                await self._repeat(servers, times, lambda answers, seconds: self._draw(live, answers, seconds))

    async def _repeat(self, servers: Servers, times: Optional[int], show: Any) -> None:
        done = 0
        while times is None or done < times:
            if done:
                await asyncio.sleep(self._interval)
            try:
                answers = await servers.each(lambda client: client.stats(), again=True)
            except DarnerError:
                if not done:
                    raise
                answers = {}
            self._away = sorted(servers.addresses - set(answers))
            now = time.monotonic()
            show(answers, now - self._at)
            self._before, self._at = answers, now
            done += 1

    def _rows(self, answers: dict[str, Stats], seconds: float) -> list[tuple[str, ...]]:
        rows = [
            _server_row(address, stats, self._before.get(address), seconds) for address, stats in answers.items()
        ]
        return rows + [(address, "unreachable", *[""] * (len(_SERVER_HEADERS) - 2)) for address in self._away]

    def _write(self, answers: dict[str, Stats], seconds: float) -> None:
        if self._output.json:
            self._output.document({
                "time": time.time(), "servers": {address: _facts(stats) for address, stats in answers.items()},
            })  # fmt: skip
        else:
            self._output.table(_SERVER_HEADERS, self._rows(answers, seconds))

    def _draw(self, live: Any, answers: dict[str, Stats], seconds: float) -> None:
        from rich.console import Group

        headers = (*_QUEUE_HEADERS, ">in/s")
        before = add_up(self._before.values())
        queues = sorted(add_up(answers.values()).items(), key=_SORTED["items"])
        room = max(1, live.console.height - len(answers) - len(self._away) - 5)
        rows = [
            (*_queue_row(name, figures), self._rate(before.get(name), figures, seconds))
            for name, figures in queues[:room]
        ]
        width = live.console.width
        servers = rich_table(_SERVER_HEADERS, self._rows(answers, seconds), width)
        parts: list[Any] = [servers, "", rich_table(headers, rows, width)]
        if len(queues) > room:
            parts.append(f"and {count(len(queues) - room)} more")
        live.update(Group(*parts), refresh=True)

    def _rate(self, before: Optional[QueueStats], figures: QueueStats, seconds: float) -> str:
        if before is None:
            return ""
        return count(max(0, figures.total_items - before.total_items) / seconds)
