"""
``darner get`` and ``darner peek``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Optional

import click

from darner.client.protocol import Item
from darner.commands.client_settings import ClientSettings
from darner.commands.completing import QUEUE
from darner.commands.executing import Executor
from darner.commands.exits import DONE, NOTHING, USAGE, Failure
from darner.commands.output import Output, Progress, payload_json, payload_text
from darner.commands.program import Command
from darner.commands.running import run
from darner.commands.servers import Client, Servers
from darner.commands.taking import FOR_EVER, Drain, next_item


@click.command("get", cls=Command)
@click.argument("queues", metavar="QUEUE...", nargs=-1, required=True, type=QUEUE)
@click.option("-n", "--count", type=click.IntRange(1), metavar="N", help="Take so many.  [default: 1]")
@click.option("-a", "--all", "everything", is_flag=True, help="Take all that is there.")
@click.option("-w", "--wait", type=click.FloatRange(0), default=0.0, metavar="SECONDS",
              help="Wait so long for each item.  [default: not at all]")
@click.option("-f", "--follow", is_flag=True, help="Take items as they come, until interrupted.")
@click.option("-0", "--null", is_flag=True, help="End each item with NUL.")
@click.option("--raw", is_flag=True, help="Write payloads as they are, with nothing between them.")
@click.option("-o", "--output", "path", metavar="FILE", help="Write one item, of any size, to a file.")
@click.option("-x", "--exec", "command", metavar="COMMAND",
              help="Run COMMAND for each item, which is its standard input.  Where its exit status is 0, the item is "
              "done with; else it is given back.")
@click.option("-c", "--concurrency", type=click.IntRange(1), default=1, metavar="N",
              help="With --exec: run so many at a time.")
@click.option("--heartbeat", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
              help="With --exec: restart the queue's open_timeout so often.  See also darner touch.")
@click.option("--grace", type=click.FloatRange(0), default=30.0, metavar="SECONDS", show_default=True,
              help="With --exec: how long commands may go on when this is told to stop.")
@click.pass_obj
def get_command(
    settings: ClientSettings, queues: tuple[str, ...], count: Optional[int], everything: bool, wait: float,
    follow: bool, null: bool, raw: bool, path: Optional[str], command: Optional[str], concurrency: int,
    heartbeat: Optional[float], grace: float,
) -> int:  # fmt: skip
    """
    Take items from QUEUE; of several queues, from the first that has any.

    Each is written to standard output and is gone from its queue once it is written.  Where it cannot be, for example
    because nobody reads, it is given back.  The exit status is 3 where there was no item.
    """
    if (count is not None) + everything + follow > 1:
        raise click.UsageError("--count, --all and --follow exclude each other")
    if follow and wait:
        raise click.UsageError("--follow waits as long as it takes, without --wait")
    most = FOR_EVER if everything or follow else count or 1
    if command is not None:
        if null or raw or path:
            raise click.UsageError("--exec writes nothing itself: leave out --null, --raw and --output")
        executor = Executor(settings, queues, command, concurrency, heartbeat, grace)
        return executor.run(most, FOR_EVER if follow else wait)
    if path is not None and (most != 1 or len(queues) > 1):
        raise click.UsageError("--output is for one item of one queue")
    if path is not None:
        return run(_to_file(settings, queues[0], wait, Path(path)))
    getting = _Getting(settings, queues, b"\0" if null else b"" if raw else b"\n", raw or null)
    return run(getting.get(most, FOR_EVER if follow else wait))


def write_item(output: Output, payload: bytes, end: bytes, raw: bool, **facts: Any) -> None:
    """
    Write an item to standard output.

    @param end: what follows it.
    @param raw: whether it is written as it is, to a terminal too.
    @param facts: what JSON has besides.
    """
    if output.json:
        output.document({**facts, **payload_json(payload)})
    elif output.on_terminal and not raw:
        sys.stdout.write(payload_text(payload) + "\n")
        sys.stdout.flush()
    else:
        output.data(payload + end)


class _Getting:
    def __init__(self, settings: ClientSettings, queues: tuple[str, ...], end: bytes, raw: bool) -> None:
        self._settings = settings
        self._queues = queues
        self._end = end
        self._raw = raw
        self._output = Output(settings)

    async def get(self, most: float, wait: float) -> int:
        taken = 0
        async with Servers(self._settings, self._output) as servers:
            reached = await servers.reach()
            quiet = self._output.on_terminal or most == 1
            total = None if most == FOR_EVER else most
            with Progress(Output(self._settings), "items", total, shown=not quiet) as progress:
                if isinstance(reached, Client) and len(self._queues) == 1 and not wait and most > 1:
                    taken = await self._drain(reached, most, progress)
                while taken < most:
                    read = await next_item(self._output, reached, self._queues, wait)
                    if read is None:
                        break
                    async with read:
                        self._write(read.item, read.server)
                    taken += 1
                    progress.advance()
        return DONE if taken else NOTHING

    async def _drain(self, client: Client, most: float, progress: Progress) -> int:
        """@return: how many were taken."""
        taken = 0
        async with Drain(client, self._queues[0]) as drain:
            while taken < most and (item := await drain.next()) is not None:
                self._write(item, str(client.address))
                taken += 1
                progress.advance()
        return taken

    def _write(self, item: Item, server: str) -> None:
        write_item(
            self._output, item.payload, self._end, self._raw, queue=item.queue, flags=item.flags, server=server
        )


async def _to_file(settings: ClientSettings, queue: str, wait: float, path: Path) -> int:
    """Take an item without having it in memory; the file is there when all of it is."""
    output = Output(settings)
    part = path.with_name(path.name + ".part")
    async with Servers(settings, output) as servers:
        client = servers.one
        await client.connect()
        # An open item is given back to the head, so that what is shown by a peek that waits is still there.
        if wait and await client.peek(queue, wait) is None:
            return NOTHING
        try:
            file = part.open("xb")
        except FileExistsError:
            raise Failure(f"{part} is there already: it may be what was left of an item", USAGE) from None
        with file, Progress(output, "", None, bytes=True) as progress:

            def sink(piece: bytes) -> None:
                file.write(piece)
                progress.advance(len(piece))

            try:
                item = await client.get_into(queue, sink, timeout=86400.0)
            except BaseException:
                part.unlink()
                raise
            file.flush()
            os.fsync(file.fileno())
    if item is None:
        part.unlink()
        return NOTHING
    part.replace(path)
    if output.json:
        output.document({"queue": queue, "flags": item.flags, "size": int(progress.done), "file": str(path)})
    return DONE


@click.command("peek", cls=Command)
@click.argument("queues", metavar="QUEUE...", nargs=-1, required=True, type=QUEUE)
@click.option("-w", "--wait", type=click.FloatRange(0), default=0.0, metavar="SECONDS",
              help="Wait so long for an item.  [default: not at all]")
@click.option("--raw", is_flag=True, help="Write the payload as it is, with nothing behind it.")
@click.pass_obj
def peek_command(settings: ClientSettings, queues: tuple[str, ...], wait: float, raw: bool) -> int:
    """
    Show the item at the head of QUEUE, and leave it there; of several queues, that of the first that has any.

    The exit status is 3 where there is none.
    """
    return run(_peek(settings, queues, wait, raw))


async def _peek(settings: ClientSettings, queues: tuple[str, ...], wait: float, raw: bool) -> int:
    output = Output(settings)
    async with Servers(settings, output) as servers:
        if len(servers.clients) > 1 and wait:
            raise Failure("peek waits at one server: name one by --servers", USAGE)
        answers = await servers.each(lambda client: client.peek(queues, wait))
        for server, item in answers.items():
            if item is not None:
                end = b"" if raw else b"\n"
                write_item(output, item.payload, end, raw, queue=item.queue, flags=item.flags, server=server)
                return DONE
    return NOTHING


