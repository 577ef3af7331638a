"""
``darner put``.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, Optional

import click

from darner.client.commands import MOST_AT_ONCE
from darner.commands.client_settings import ClientSettings
from darner.commands.completing import QUEUE
from darner.commands.exits import Failure, explain, status_of
from darner.commands.output import Output, Progress, items_text
from darner.commands.program import Command
from darner.commands.running import CHUNK, read_input, run
from darner.commands.servers import Client, Reached, Servers
from darner.errors import DarnerError

_MOST_HELD: Final = 1024 * 1024
"""Bytes of items that are sent without waiting for replies."""


@click.command("put", cls=Command)
@click.argument("queue", type=QUEUE)
@click.argument("items", metavar="[ITEM...]", nargs=-1)
@click.option("-f", "--file", "files", multiple=True, metavar="FILE",
              help="Put the contents of a file as one item, of any size; - is standard input.  May be given several "
              "times.")
@click.option("-0", "--null", is_flag=True, help="With -: items end in NUL, and may have several lines.")
@click.option("--flags", type=click.IntRange(0, 2**32 - 1), default=0, help="A number that is kept with the item.")
@click.option("--expiry", type=click.IntRange(0), default=0, metavar="SECONDS", help="Drop it after so long.")
@click.option("--delay", type=click.FloatRange(0), metavar="SECONDS", help="Nobody gets it before so long.")
@click.option("--id", "id", help="Put it once, however often this is run (queues with a dedupe_window).")
@click.option("--sync", is_flag=True, help="Wait until it is on stable storage.")
@click.option("--again", is_flag=True,
              help="Put an item again, if need be on another server, where it is in doubt whether it was put.")
@click.pass_obj
def put_command(
    settings: ClientSettings, /, queue: str, items: tuple[str, ...], files: tuple[str, ...], null: bool,
    id: Optional[str], again: bool, **options: Any,
) -> None:  # fmt: skip
    """
    Put items at the end of QUEUE.

    Each ITEM is one.  Where it is -, each line of standard input is one, put as soon as it is read.
    """
    if not items and not files:
        raise click.UsageError("there is no item: name some, or - for lines of standard input")
    if id is not None and (len(items) + len(files) != 1 or "-" in items):
        raise click.UsageError("--id is for one item")
    if null and "-" not in items:
        raise click.UsageError("--null is for items of standard input: name -")
    if [*items, *files].count("-") > 1:
        raise click.UsageError("standard input can be read once")
    run(_Putting(settings, queue, options, id, again).put(items, files, b"\0" if null else b"\n"))


class _Putting:
    """
    @ivar stored: how many items were.
    """

    def __init__(
        self, settings: ClientSettings, queue: str, options: dict[str, Any], id: Optional[str], again: bool
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._options = options
        self._id = id
        self._again = again
        self._output = Output(settings)
        self._servers = Servers(settings, self._output)
        self.stored = 0

    async def put(self, items: tuple[str, ...], files: tuple[str, ...], end: bytes) -> None:
        try:
            async with self._servers:
                reached = await self._servers.reach(self._again)
                named = [os.fsencode(item) for item in items if item != "-"]
                if self._id is not None and named:
                    await reached.put(self._queue, named[0], id=self._id, **self._options)
                    self.stored += 1
                elif named:
                    await self._many(reached, named)
                for name in files:
                    await self._file(name)
                if "-" in items:
                    await self._input(reached, end)
        except DarnerError as error:
            if not self.stored:
                raise
            raise Failure(f"put {items_text(self.stored)}, and then: {explain(error)}", status_of(error)) from None
        finally:
            if self.stored:
                text = f"{items_text(self.stored)} put on {self._queue}"
                self._output.done(text, queue=self._queue, put=self.stored)

    async def _many(self, reached: Reached, payloads: list[bytes]) -> None:
        """@raise DarnerError: why some were refused."""
        try:
            self.stored += await reached.put_many(self._queue, payloads, **self._options)
        except DarnerError as error:
            self.stored += getattr(error, "stored", 0)
            raise

    async def _file(self, name: str) -> None:
        """Put a file without having it in memory; standard input is no longer than memory."""
        if name == "-":
            data = b"".join([chunk async for chunk in read_input()])
            reached = await self._servers.reach(self._again)
            await reached.put(self._queue, data, id=self._id, **self._options)
            self.stored += 1
            return
        with _open(name) as file:
            length = os.fstat(file.fileno()).st_size
            client: Client = await self._servers.any()
            with Progress(self._output, "", length, bytes=True) as progress:
                try:
                    await client.put_stream(
                        self._queue, _pieces(file, progress), length, id=self._id,
                        timeout=max(self._settings.timeout, length / 1e6), **self._options,
                    )  # fmt: skip
                except ValueError:
                    raise Failure(f"{name} has changed while it was read: it was not put") from None
        self.stored += 1

    async def _input(self, reached: Reached, end: bytes) -> None:
        """Put what comes on standard input, as soon as it comes."""
        with Progress(self._output, "items", None) as progress:
            batch: list[bytes] = []
            async for pieces in _split(read_input(), end):
                held = 0
                for piece in pieces:
                    batch.append(piece)
                    held += len(piece)
                    if len(batch) >= MOST_AT_ONCE or held >= _MOST_HELD:
                        await self._many(reached, batch)
                        progress.reach(self.stored)
                        batch, held = [], 0
                if batch:
                    await self._many(reached, batch)
                    progress.reach(self.stored)
                    batch = []


def _open(name: str) -> BinaryIO:
    """@raise Failure: it is no file with a length."""
    if not Path(name).is_file() and Path(name).exists():
        raise Failure(f"{name} is not a file: for a pipe there is -f -")
    return Path(name).open("rb")


def _pieces(file: BinaryIO, progress: Progress) -> Iterator[bytes]:
    while piece := file.read(CHUNK):
        yield piece
        progress.advance(len(piece))


async def _split(chunks: AsyncIterator[bytes], end: bytes) -> AsyncIterator[list[bytes]]:
    """
    Cut items at their ends.  The last one needs none; lines may also end in CR LF.

    @return: those of each chunk that are complete.
    """
    rest: list[bytes] = []
    lines = end == b"\n"

    def whole(item: bytes) -> bytes:
        return item[:-1] if lines and item.endswith(b"\r") else item

    async for chunk in chunks:
        first, *others = chunk.split(end)
        rest.append(first)
        if others:
            complete = [b"".join(rest), *others[:-1]]
            rest = [others[-1]]
            yield [whole(item) for item in complete]
    last = b"".join(rest)
    if last:
        yield [whole(last)]


