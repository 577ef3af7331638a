"""
``darner status`` and ``darner drain``.
"""

from __future__ import annotations

import asyncio
import time
from typing import Optional

import click

from darner.commands.client_settings import ClientSettings
from darner.commands.completing import QUEUE
from darner.commands.exits import Failure
from darner.commands.figures import add_up
from darner.commands.output import Output, Progress, items_text
from darner.commands.program import Command
from darner.commands.running import run
from darner.commands.servers import Servers
from darner.values.vocabulary import STATUSES

_LOOK: float = 0.5
"""Seconds between two looks at the queues."""


@click.command("status", cls=Command)
@click.argument("status", required=False, type=click.Choice(STATUSES))
@click.pass_obj
def status_command(settings: ClientSettings, status: Optional[str]) -> None:
    """
    Show what the servers accept, or change it: up is everything, readonly no puts, quiescent no reads either.
    """
    run(_status(settings, status))


async def _status(settings: ClientSettings, status: Optional[str]) -> None:
    output = Output(settings)
    async with Servers(settings, output) as servers:
        if status is not None:
            await servers.each(lambda client: client.set_status(status))
        answers = await servers.each(lambda client: client.status())
        if output.json:
            output.document({address: word.lower() for address, word in answers.items()})
        elif len(servers.clients) == 1:
            output.line(next(iter(answers.values())).lower())
        else:
            output.table(("server", "status"), [(address, word.lower()) for address, word in answers.items()])


@click.command("drain", cls=Command)
@click.argument("queues", metavar="[QUEUE...]", nargs=-1, type=QUEUE)
@click.option("--limit", type=click.FloatRange(0), metavar="SECONDS", help="Give up after so long.")
@click.pass_obj
def drain_command(settings: ClientSettings, queues: tuple[str, ...], limit: Optional[float]) -> None:
    """
    Have the servers take nothing more (status readonly), and wait until consumers have emptied them.

    Items that are open, delayed or set aside count.  Where QUEUEs are named, only these are waited for; nothing is
    taken on any queue all the same.  The servers stay readonly afterwards: darner status up ends that.
    """
    run(_drain(settings, queues, limit))


async def _drain(settings: ClientSettings, queues: tuple[str, ...], limit: Optional[float]) -> None:
    output = Output(settings)
    began = time.monotonic()
    async with Servers(settings, output) as servers:
        await servers.each(lambda client: client.set_status("readonly"))
        total: Optional[int] = None
        with Progress(output, "items gone") as progress:
            while True:
                left = await _left(servers, queues)
                total = left if total is None else max(total, left)
                progress.reach(total - left, total)
                seconds = time.monotonic() - began
                if not left:
                    break
                if limit is not None and seconds >= limit:
                    raise Failure(f"{items_text(left)} left after {seconds:.0f} s; the servers are readonly")
                await asyncio.sleep(_LOOK if limit is None else min(_LOOK, max(0.01, limit - seconds)))
        output.done(f"empty after {seconds:.1f} s: {items_text(total)}; the servers are readonly",
                    empty=True, items=total, seconds=round(seconds, 3))  # fmt: skip


async def _left(servers: Servers, queues: tuple[str, ...]) -> int:
    """@return: how many items there are, whatever state they are in."""
    answers = await servers.each(lambda client: client.stats())
    return sum(
        figures.items + figures.open_transactions + figures.delayed
        for name, figures in add_up(answers.values()).items()
        if not queues or name in queues
    )
