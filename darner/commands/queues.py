"""
``darner flush``, ``darner delete`` and ``darner requeue``.
"""

from __future__ import annotations

from typing import Optional

import click

from darner.commands.client_settings import ClientSettings
from darner.commands.completing import QUEUE
from darner.commands.exits import USAGE, Failure
from darner.commands.figures import add_up
from darner.commands.output import Output, count, items_text
from darner.commands.program import Command
from darner.commands.running import run
from darner.commands.servers import Servers


async def _sure(servers: Servers, output: Output, queues: tuple[str, ...], what: str, yes: bool) -> int:
    """
    Ask whoever is there, unless it was said already.

    @param what: what will be done to the items.
    @return: how many items there are.
    @raise Failure: it is not wanted.
    """
    if not (queues or yes or output.somebody_is_there):
        raise Failure("there is nobody to ask whether all queues are to be dropped: say --yes", USAGE)
    answers = await servers.each(lambda client: client.stats())
    known = add_up(answers.values())
    items = sum(figures.items for name, figures in known.items() if not queues or name in queues)
    if not yes:
        names = ", ".join(queues) if queues else f"all {count(len(known))} queues"
        where = f" on {len(servers.clients)} servers" if len(servers.clients) > 1 else ""
        if not output.confirm(f"{what} {items_text(items)} of {names}{where}?"):
            raise Failure("nothing was done")
    return items


@click.command("flush", cls=Command)
@click.argument("queues", metavar="[QUEUE...]", nargs=-1, type=QUEUE)
@click.option("-a", "--all", "everything", is_flag=True, help="All queues of the servers.")
@click.option("-e", "--expired", is_flag=True, help="Only what has expired.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def flush_command(
    settings: ClientSettings, queues: tuple[str, ...], everything: bool, expired: bool, yes: bool
) -> None:
    """
    Drop what is in QUEUE, on all servers; what is open stays open.

    At a terminal it asks first; elsewhere --all needs --yes.
    """
    if bool(queues) == everything:
        raise click.UsageError("name queues, or --all" if not queues else "--all is all: name no queue")
    run(_flush(settings, queues, expired, yes))


async def _flush(settings: ClientSettings, queues: tuple[str, ...], expired: bool, yes: bool) -> None:
    output = Output(settings)
    async with Servers(settings, output) as servers:
        if expired:
            dropped = 0
            for queue in queues or (None,):
                answers = await servers.each(lambda client, queue=queue: client.flush_expired(queue))  # type: ignore[misc]
                dropped += sum(answers.values())
            output.done(f"{count(dropped)} expired items dropped", dropped=dropped)
            return
        items = await _sure(servers, output, queues, "Drop the", yes)
        if not queues:
            await servers.each(lambda client: client.flush_all())
        for queue in queues:
            await servers.each(lambda client, queue=queue: client.flush(queue))  # type: ignore[misc]
        output.done(f"dropped {items_text(items)}", dropped=items)


@click.command("delete", cls=Command)
@click.argument("queues", metavar="QUEUE...", nargs=-1, required=True, type=QUEUE)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete_command(settings: ClientSettings, queues: tuple[str, ...], yes: bool) -> None:
    """
    Drop QUEUE itself, on all servers; what is open of it has nowhere to go back to.

    At a terminal it asks first.
    """
    run(_delete(settings, queues, yes))


async def _delete(settings: ClientSettings, queues: tuple[str, ...], yes: bool) -> None:
    output = Output(settings)
    async with Servers(settings, output) as servers:
        items = await _sure(servers, output, queues, "Delete, with the", yes)
        for queue in queues:
            await servers.each(lambda client, queue=queue: client.delete(queue))  # type: ignore[misc]
        output.done(f"deleted {', '.join(queues)}, with {items_text(items)}", deleted=list(queues), dropped=items)


@click.command("requeue", cls=Command)
@click.argument("origin", metavar="FROM", type=QUEUE)
@click.argument("target", metavar="TO", type=QUEUE)
@click.option("-n", "--count", "most", type=click.IntRange(1), metavar="N", help="So many.  [default: all]")
@click.pass_obj
def requeue_command(settings: ClientSettings, origin: str, target: str, most: Optional[int]) -> None:
    """
    Move the items of queue FROM to the end of queue TO, on each server for itself.

    Dead letters are sent back that way.  To move items from one server to another there is darner move.
    """
    run(_requeue(settings, origin, target, most))


async def _requeue(settings: ClientSettings, origin: str, target: str, most: Optional[int]) -> None:
    output = Output(settings)
    moved = 0
    async with Servers(settings, output) as servers:
        try:
            if most is None:
                # It takes as long as it takes.
                answers = await servers.each(lambda client: client.requeue(origin, target, timeout=86400.0))
                moved = sum(answers.values())
            else:
                there = await servers.each(lambda client: client.version())
                for client in servers.clients:
                    if moved < most and str(client.address) in there:
                        moved += await client.requeue(origin, target, most - moved, timeout=86400.0)
        finally:
            output.done(f"{items_text(moved)} moved from {origin} to {target}", moved=moved)
