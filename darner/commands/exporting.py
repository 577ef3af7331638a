"""
``darner export``: the items of queues into a file, while the server runs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, BinaryIO, Final, Optional

import click

import darner
from darner.client.protocol import Item
from darner.commands import archive
from darner.commands.admin import Admin, BrowsedItem
from darner.commands.archive import BadArchive, Record, Scan, Writer
from darner.commands.client_settings import ClientSettings
from darner.commands.completing import QUEUE
from darner.commands.exits import FAILED, NOTHING, USAGE, Failure
from darner.commands.figures import add_up
from darner.commands.output import Output, Progress, binary_output, items_text, size
from darner.commands.program import Command
from darner.commands.running import run
from darner.commands.servers import Client, Reached, Servers
from darner.commands.taking import Drain, next_item

STATES: Final = ("ready", "retrying", "delayed")
"""What is exported, in this order; what is open is in the hands of its consumer."""
_IN_MEMORY: Final = 16 * 1024 * 1024


@click.command("export", cls=Command)
@click.argument("queues", metavar="[QUEUE...]", nargs=-1, type=QUEUE)
@click.option("-a", "--all", "everything", is_flag=True, help="All queues.")
@click.option("-o", "--output", "path", required=True, metavar="FILE", help="Where to; - is standard output.")
@click.option("--take", is_flag=True,
              help="Take the items: each is gone from its queue once it is in the file.  Needs no --http.")
@click.option("--sync", is_flag=True,
              help="With --take: an item is gone only when it is on stable storage here.  Slower.")
@click.option("--resume", is_flag=True, help="Go on with a file that an export has not finished.")
@click.pass_obj
def export_command(
    settings: ClientSettings, queues: tuple[str, ...], everything: bool, path: str, take: bool, sync: bool, resume: bool
) -> None:
    """
    Write the items of QUEUEs to a file that darner import reads.

    By default they stay where they are, and the admin HTTP of one server is used (--http): what was put before the
    export began and is ready, set aside or delayed.
    """
    if bool(queues) == everything:
        raise click.UsageError("name queues, or --all" if not queues else "--all is all: name no queue")
    if sync and not take:
        raise click.UsageError("--sync is for --take")
    if resume and path == "-":
        raise click.UsageError("standard output cannot be gone on with")
    if path == "-" and sys.stdout.isatty():
        raise click.UsageError("a terminal is no place for an export: name a file")
    run(_Exporting(settings, tuple(dict.fromkeys(queues)), path, sync).export(take, resume))


class _Exporting:
    def __init__(self, settings: ClientSettings, queues: tuple[str, ...], path: str, sync: bool) -> None:
        self._settings = settings
        self._queues = queues
        self._path = path
        self._sync = sync
        self._output = Output(settings)
        self._file: BinaryIO
        self._writer: Writer

    async def export(self, take: bool, resume: bool) -> None:
        with ExitStack() as stack:
            # Where they come from is known before a file is made.
            admin = None if take else stack.enter_context(Admin(self._settings, "export without --take"))
            before = self._open(stack, resume)
            if before is not None and before.complete:
                self._output.done(f"{self._path} is complete already: {items_text(before.items)}",
                                  items=before.items, bytes=before.bytes, complete=True)  # fmt: skip
                return
            items = before.items if before is not None else 0
            try:
                if admin is None:
                    await self._take(before)
                else:
                    self._copy(admin, before)
                self._writer.end()
                self._flush(True)
            except BaseException:
                if self._path != "-":
                    self._output.warn(
                        f"{self._path} is not finished, and has {items_text(self._writer.items)}: go on with --resume"
                    )
                raise
        new = self._writer.items - items
        if self._path != "-":
            self._output.done(
                f"{items_text(new)}{' more' if items else ''} written to {self._path}, {size(self._writer.bytes)}",
                items=self._writer.items, bytes=self._writer.bytes, complete=True,
            )  # fmt: skip

    def _open(self, stack: ExitStack, resume: bool) -> Optional[Scan]:
        """
        Open the file to be written.

        @return: what is in it already.
        """
        if self._path == "-":
            self._file = binary_output()
        elif not resume:
            try:
                self._file = stack.enter_context(open(self._path, "xb"))  # noqa: SIM115
            except FileExistsError:
                raise Failure(f"{self._path} is there already: --resume goes on with it", USAGE) from None
        else:
            file = stack.enter_context(open(self._path, "r+b"))  # noqa: SIM115
            try:
                before = archive.scan(file)
            except BadArchive as error:
                raise Failure(f"cannot go on with {self._path}: {error}", FAILED) from None
            if not before.complete:
                file.truncate(before.position)
                file.seek(before.position)
            self._file = file
            queue = before.last.queue if before.last is not None else ""
            self._writer = Writer(file, before.digest, before.items, before.bytes, queue)
            return before
        self._writer = Writer(self._file)
        self._writer.begin({
            "id": uuid.uuid4().hex, "created": int(time.time() * 1000), "by": f"darner {darner.__version__}",
            "from": self._settings.servers,
        })  # fmt: skip
        return None

    def _flush(self, sync: bool) -> None:
        self._file.flush()
        if sync and self._path != "-":
            os.fsync(self._file.fileno())

    # Items that are taken

    async def _take(self, before: Optional[Scan]) -> None:
        async with Servers(self._settings, self._output) as servers:
            reached = await servers.reach()
            figures = add_up((await servers.each(lambda client: client.stats())).values())
            queues = self._queues or tuple(sorted(figures))
            total = sum(figures[queue].items for queue in queues if queue in figures)
            with Progress(self._output, "items", total) as progress:
                for queue in queues:
                    await self._take_all(reached, queue, progress)

    async def _take_all(self, reached: Reached, queue: str, progress: Progress) -> None:
        if isinstance(reached, Client):
            async with Drain(reached, queue) as drain:
                while (item := await drain.next()) is not None:
                    self._keep(queue, item, progress)
            return
        while (read := await next_item(self._output, reached, (queue,), 0)) is not None:
            async with read:
                self._keep(queue, read.item, progress)

    def _keep(self, queue: str, item: Item, progress: Progress) -> None:
        self._writer.put(Record(queue, item.flags, len(item.payload)), [item.payload])
        self._flush(self._sync)
        progress.advance()

    # Items that stay

    def _copy(self, admin: Admin, before: Optional[Scan]) -> None:
        known = admin.queues()
        queues = self._queues or tuple(sorted(known))
        started = admin.time()
        last = before.last if before is not None else None
        with Progress(self._output, "items", self._total(admin, queues)) as progress:
            progress.reach(self._writer.items)
            for queue, state, last_id in _places(queues, last):
                self._copy_state(admin, queue, state, last_id, started, progress)

    def _total(self, admin: Admin, queues: Sequence[str]) -> int:
        """@return: how many there are, roughly."""
        return sum(admin.page(queue, state, limit=1, preview=0)[2] for queue in queues for state in STATES)

    def _copy_state(
        self, admin: Admin, queue: str, state: str, last_id: Optional[str], started: int, progress: Progress
    ) -> None:
        """@param last_id: of the item that the file ends with, where it is of this state."""
        position = last_id
        while True:
            page, position, _ = admin.page(queue, state, position)
            for item in page:
                if item.time > started or item.id == last_id:
                    continue  # it came later, or is in the file already
                if self._copy_item(admin, queue, item):
                    progress.advance()
            self._flush(False)
            # What is ready is in the order of its arrival, but for what was given back.
            if position is None or (state == "ready" and page and all(item.time > started for item in page)):
                return

    def _copy_item(self, admin: Admin, queue: str, item: BrowsedItem) -> bool:
        """@return: whether it was still there."""
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as payload:
            try:
                for piece in admin.payload(queue, item):
                    payload.write(piece)
            except Failure as error:
                if error.status == NOTHING:
                    return False
                raise
            payload.seek(0)
            record = Record(queue, item.flags, item.size, item.expires, item.due, item.state, item.id)
            self._writer.put(record, _pieces(payload))
        return True


def _places(queues: Sequence[str], last: Optional[Record]) -> Iterator[tuple[str, str, Optional[str]]]:
    """
    @param last: the item that was exported last.
    @return: each queue and state that is to be looked at, and the last item's id where it is one of these.
    @raise Failure: the queues are others.
    """
    if last is not None and last.queue not in queues:
        raise Failure(f"the file ends with items of {last.queue}: name the same queues as before", USAGE)
    reached = last is None
    for queue in queues:
        for state in STATES:
            if not reached and last is not None and (queue, state) == (last.queue, last.state):
                reached = True
                yield queue, state, last.id or None
            elif reached:
                yield queue, state, None


def _pieces(file: Any) -> Iterator[bytes]:
    while piece := file.read(archive.LONGEST):
        yield piece
