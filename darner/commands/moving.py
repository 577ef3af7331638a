"""
``darner move`` and ``darner copy``: items from servers to others.
"""

from __future__ import annotations

import asyncio
import time
from typing import Optional

import click

from darner.client import requests
from darner.commands.admin import Admin, BrowsedItem
from darner.commands.client_settings import ClientSettings
from darner.commands.completing import QUEUE
from darner.commands.exits import NOTHING, Failure, explain, status_of
from darner.commands.figures import add_up
from darner.commands.output import Output, Progress, items_text
from darner.commands.program import Command
from darner.commands.running import run
from darner.commands.servers import Client, Reached, Servers
from darner.commands.taking import FOR_EVER, next_item
from darner.errors import DarnerError


@click.command("move", cls=Command)
@click.argument("queue", type=QUEUE)
@click.option("--to", "places", required=True, metavar="HOST:PORT,...", help="The servers that they go to.")
@click.option("--as", "target", type=QUEUE, metavar="QUEUE", help="The queue that they go to.  [default: of that name]")
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="So many.  [default: all]")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until interrupted.")
@click.option("-c", "--concurrency", type=click.IntRange(1), default=1, metavar="N", show_default=True,
              help="So many at a time; with more than one their order is loose.")
@click.option("--sync", is_flag=True, help="An item is gone here only when it is on stable storage there.")
@click.pass_obj
def move_command(
    settings: ClientSettings, queue: str, places: str, target: Optional[str], count: Optional[int], follow: bool,
    concurrency: int, sync: bool,
) -> None:  # fmt: skip
    """
    Move the items of QUEUE from the servers to others.

    Each is gone here when it is put there; where this is cut short in between, it may be in both.  Flags are kept; an
    expiry is not.
    """
    if follow and count is not None:
        raise click.UsageError("--count and --follow exclude each other")
    run(_Moving(settings, queue, places, target or queue, sync).move(count, follow, concurrency))


class _Moving:
    def __init__(self, settings: ClientSettings, queue: str, places: str, target: str, sync: bool) -> None:
        self._settings = settings
        self._queue = queue
        self._places = places
        self._target = target
        self._sync = sync
        self._output = Output(settings)
        self._left = FOR_EVER
        self._moved = 0

    async def move(self, most: Optional[int], follow: bool, concurrency: int) -> None:
        self._left = FOR_EVER if most is None else most
        settings, output = self._settings, self._output
        try:
            async with Servers(settings, output) as sources, Servers(settings, output, self._places) as targets:
                same = sources.addresses & targets.addresses
                if same and self._queue == self._target:
                    raise Failure(f"{same.pop()} is on both sides")
                source, target = await sources.reach(), await targets.reach(again=True)
                figures = add_up((await sources.each(lambda client: client.stats())).values()).get(self._queue)
                total = None if follow else min(self._left, figures.items if figures is not None else 0)
                with Progress(output, "items", total) as progress:
                    loop = asyncio.get_running_loop()
                    wait = FOR_EVER if follow else 0
                    slots = [loop.create_task(self._work(source, target, wait, progress)) for _ in range(concurrency)]
                    try:
                        await asyncio.gather(*slots)
                    finally:
                        for slot in slots:
                            slot.cancel()
                        await asyncio.gather(*slots, return_exceptions=True)
        except DarnerError as error:
            if not self._moved:
                raise
            raise Failure(f"moved {items_text(self._moved)}, and then: {explain(error)}", status_of(error)) from None
        finally:
            if self._moved:
                self._tell()
        if not self._moved:
            self._tell()

    def _tell(self) -> None:
        self._output.done(f"{items_text(self._moved)} moved to {self._target} at {self._places}", moved=self._moved)

    async def _work(self, source: Reached, target: Reached, wait: float, progress: Progress) -> None:
        while self._left > 0:
            self._left -= 1
            read = await next_item(self._output, source, (self._queue,), wait)
            if read is None:
                return
            async with read:
                await target.put(self._target, read.payload, flags=read.flags, sync=self._sync)
            self._moved += 1
            progress.advance()


@click.command("copy", cls=Command)
@click.argument("queue", type=QUEUE)
@click.option("--to", "places", required=True, metavar="HOST:PORT,...", help="The servers that they go to.")
@click.option("--as", "target", type=QUEUE, metavar="QUEUE", help="The queue that they go to.  [default: of that name]")
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="So many.  [default: all]")
@click.option("--sync", is_flag=True, help="Have the server put each on stable storage.")
@click.pass_obj
def copy_command(
    settings: ClientSettings, queue: str, places: str, target: Optional[str], count: Optional[int], sync: bool
) -> None:
    """
    Copy the ready items of QUEUE, of the server whose admin HTTP --http names, to others.

    They stay where they are.  Flags and expiry are kept.
    """
    run(_copy(settings, queue, places, target or queue, count, sync))


async def _copy(
    settings: ClientSettings, queue: str, places: str, target: str, most: Optional[int], sync: bool
) -> None:
    output = Output(settings)
    copied = 0
    with Admin(settings, "copy") as admin:
        started = admin.time()
        try:
            async with Servers(settings, output, places) as servers:
                there = await servers.each(lambda client: client.version())
                clients = [client for client in servers.clients if str(client.address) in there]
                position: Optional[str] = None
                page, position, total = admin.page(queue, "ready")
                with Progress(output, "items", total if most is None else min(most, total)) as progress:
                    while True:
                        wanted = [item for item in page if item.time <= started]
                        if most is not None:
                            wanted = wanted[: most - copied]
                        client = clients[copied % len(clients)]
                        copied += await _put(admin, client, queue, target, wanted, sync)
                        progress.reach(copied)
                        if position is None or not wanted or copied == most:
                            break
                        page, position, _ = admin.page(queue, "ready", position)
        except DarnerError as error:
            raise Failure(f"copied {items_text(copied)}, and then: {explain(error)}", status_of(error)) from None
    output.done(f"{items_text(copied)} copied to {target} at {places}", copied=copied)


async def _put(
    admin: Admin, client: Client, queue: str, target: str, items: list[BrowsedItem], sync: bool
) -> int:
    """@return: how many were still there."""
    asked = []
    for item in items:
        if item.expires and item.expires <= time.time() * 1000:
            continue
        try:
            payload = b"".join(admin.payload(queue, item))
        except Failure as error:
            if error.status == NOTHING:
                continue
            raise
        asked.append(requests.put(target, payload, flags=item.flags, expiry=-(-item.expires // 1000), sync=sync))
    await client.put_each(asked)
    return len(asked)
