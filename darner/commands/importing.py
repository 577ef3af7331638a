"""
``darner import``: the items of a file back into queues.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final, Optional, cast

import click

from darner.client import requests
from darner.client.commands import MOST_AT_ONCE
from darner.client.requests import Request
from darner.commands.archive import BadArchive, Reader, Record
from darner.commands.client_settings import ClientSettings
from darner.commands.completing import QUEUE
from darner.commands.exits import DONE, FAILED, USAGE, Failure, explain, status_of
from darner.commands.output import Output, Progress, items_text, size
from darner.commands.program import Command
from darner.commands.running import run
from darner.commands.servers import Client, Servers
from darner.errors import DarnerError

_MOST_HELD: Final = 4 * 1024 * 1024
"""Bytes of items that are sent without waiting for replies."""


@click.command("import", cls=Command)
@click.argument("path", metavar="SOURCE")
@click.option("--queue", "only", multiple=True, type=QUEUE,
              help="Only the items of this queue.  May be given several times.")
@click.option("--to", "target", type=QUEUE, metavar="QUEUE", help="Put all items on this queue.")
@click.option("--restart", is_flag=True, help="Import all of it once more, though it was imported before.")
@click.option("--dry-run", is_flag=True, help="Read all of it, check it, and say what is in it.")
@click.option("--sync", is_flag=True, help="Have the server put each on stable storage.")
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), metavar="DIR",
              help="Into this data directory, which no server uses.  For the queues of another server.")
@click.option("--exclude", multiple=True, metavar="PATTERN",
              help="Not the queues with such names.  For the queues of another server; may be given several times.")
@click.pass_obj
def import_command(
    settings: ClientSettings, path: str, only: tuple[str, ...], target: Optional[str], restart: bool, dry_run: bool,
    sync: bool, data_dir: Optional[Path], exclude: tuple[str, ...],
) -> int:  # fmt: skip
    """
    Put the items of SOURCE at the end of their queues: a file that darner export has written, - for standard input, the
    queues of another server, or lists of Redis.

    FILE.imported says how far it has come, so that it goes on from there when it is begun again.  Items that have
    expired since are left out; what is not due yet is delayed.

    Another server is a directory of the C++ Darner, of Kestrel or of beanstalkd, and Redis is redis://HOST:PORT/DB/LIST.
    They are not changed, and what was imported is not put again (docs/migration.rst).
    """
    if is_source(path):
        if only or target or sync:
            raise click.UsageError("--queue, --to and --sync are for files of darner export")
        from darner.commands.migrating import import_source  # most imports are of such files

        return import_source(settings, path, data_dir, exclude, restart, dry_run)
    if data_dir is not None or exclude:
        raise click.UsageError("--data-dir and --exclude are for the queues of another server")
    run(_Importing(settings, path, frozenset(only), target, sync).run(restart, dry_run))
    return DONE


def is_source(path: str) -> bool:
    """@return: whether it is a directory or a URL, and so no file of C{darner export}."""
    return "://" in path or Path(path).is_dir()


class _Importing:
    """
    @ivar stored: how many items were put, in this run.
    """

    def __init__(
        self, settings: ClientSettings, path: str, only: frozenset[str], target: Optional[str], sync: bool
    ) -> None:
        self._settings = settings
        self._path = path
        self._only = only
        self._target = target
        self._sync = sync
        self._output = Output(settings)
        self._ids: dict[str, bool] = {}
        self._at = 0
        self._note: Optional[_Note] = None
        self.stored = 0
        self.expired = 0

    async def run(self, restart: bool, dry_run: bool) -> None:
        with ExitStack() as stack:
            if self._path == "-":
                file = cast(BinaryIO, sys.stdin.buffer)
                length = None
            else:
                file = stack.enter_context(open(self._path, "rb"))  # noqa: ASYNC230 - nothing runs beside it
                length = os.fstat(file.fileno()).st_size or None
            progress = stack.enter_context(Progress(self._output, "", length, bytes=True))
            try:
                reader = Reader(file)
                if dry_run:
                    self._check(reader, progress)
                else:
                    await self._import(reader, progress, restart)
            except BadArchive as error:
                put = f"; put {items_text(self.stored)} before that" if self.stored else ""
                raise Failure(f"{self._path}: {error}{put}", FAILED) from None

    def _check(self, reader: Reader, progress: Progress) -> None:
        queues: dict[str, list[int]] = {}
        for record, payload in reader.records():
            for _ in payload:
                pass
            figures = queues.setdefault(record.queue, [0, 0])
            figures[0] += 1
            figures[1] += record.size
            progress.reach(reader.position)
        if self._output.json:
            self._output.document({
                **reader.header, "items": reader.items, "bytes": reader.bytes,
                "queues": {name: {"items": items, "bytes": taken} for name, (items, taken) in queues.items()},
            })  # fmt: skip
            return
        rows = [(name, f"{items:,}", size(taken)) for name, (items, taken) in sorted(queues.items())]
        self._output.table(("queue", ">items", ">bytes"), rows)
        self._output.done(f"{self._path} is whole: {items_text(reader.items)}, {size(reader.bytes)}")

    async def _import(self, reader: Reader, progress: Progress, restart: bool) -> None:
        goal = f"{self._settings.servers} {self._target or ''} {','.join(sorted(self._only))}".strip()
        self._note = None if self._path == "-" else _Note(Path(self._path + ".imported"), reader.header, goal)
        before = 0 if restart or self._note is None else self._note.items
        async with Servers(self._settings, self._output) as servers:
            there = await servers.each(lambda client: client.version())
            clients = [client for client in servers.clients if str(client.address) in there]
            try:
                for number, batch in enumerate(self._batches(reader, before, progress)):
                    await self._put(clients[number % len(clients)], reader.header.get("id", ""), batch)
            except DarnerError as error:
                raise Failure(
                    f"put {items_text(self.stored)}, and then: {explain(error)}", status_of(error)
                ) from None
        if self._note is not None:
            self._note.write(reader.items)
        earlier = f", and {items_text(before)} before" if before else ""
        gone = f", {items_text(self.expired)} left out as expired" if self.expired else ""
        self._output.done(f"{items_text(self.stored)} put{earlier}{gone}",
                          put=self.stored, before=before, expired=self.expired)  # fmt: skip

    def _batches(self, reader: Reader, before: int, progress: Progress) -> Iterator[list[tuple[int, Record, bytes]]]:
        """@return: the items to be put with their numbers in the file, so many at a time."""
        batch: list[tuple[int, Record, bytes]] = []
        held = 0
        for number, (record, pieces) in enumerate(reader.records()):
            progress.reach(reader.position)
            if number < before or (self._only and record.queue not in self._only):
                continue
            if record.expires and record.expires <= time.time() * 1000:
                self.expired += 1
                continue
            payload = b"".join(pieces)
            # Each of one queue: where a server refuses that, nothing behind it is put, to be put again the next time.
            full = len(batch) >= MOST_AT_ONCE or held + len(payload) > _MOST_HELD
            if batch and (full or (record.queue != batch[-1][1].queue and not self._target)):
                yield batch
                batch, held = [], 0
            batch.append((number, record, payload))
            held += len(payload)
        if batch:
            yield batch

    async def _put(self, client: Client, name: str, batch: list[tuple[int, Record, bytes]]) -> None:
        """
        Put items, and note how far it has come.

        @param name: of the export; with it and their number items have an id, where their queue has a dedupe_window.
        """
        asked = []
        ids = True
        for number, record, payload in batch:
            queue = self._target or record.queue
            id = f"{name}-{number}" if name and await self._knows_ids(client, queue) else None
            ids = ids and id is not None
            asked.append(self._request(queue, record, payload, id))
        try:
            await client.put_each(asked, again=ids)
        except DarnerError as error:
            # The first so many are stored; behind them some may be as well.
            stored = getattr(error, "stored", 0)
            self._progress(batch[stored - 1][0] + 1 if stored else None, stored)
            raise
        self._progress(batch[-1][0] + 1, len(batch))

    def _progress(self, reached: Optional[int], stored: int) -> None:
        self.stored += stored
        if self._note is not None and reached is not None:
            self._note.write(reached)

    def _request(self, queue: str, record: Record, payload: bytes, id: Optional[str]) -> Request:
        delay = record.due / 1000 - time.time() if record.due else 0.0
        return requests.put(
            queue, payload, flags=record.flags, expiry=-(-record.expires // 1000), delay=delay if delay > 0 else None,
            id=id, sync=self._sync,
        )  # fmt: skip

    async def _knows_ids(self, client: Client, queue: str) -> bool:
        known = self._ids.get(queue)
        if known is None:
            known = self._ids[queue] = await client.knows_ids(queue)
        return known


class _Note:
    """
    How far an import has come, in a file of its own.

    @ivar items: how many items of the file are done with.
    """

    def __init__(self, path: Path, header: dict[str, object], goal: str) -> None:
        """
        @param goal: where the items go; for another one it begins anew.
        @raise Failure: it is not what was written before.
        """
        self._path = path
        self._export = header.get("id", "")
        self._goal = goal
        self._goals: dict[str, int] = {}
        try:
            noted = json.loads(path.read_bytes())
            if noted["export"] == self._export:
                self._goals = {str(name): int(count) for name, count in noted["items"].items()}
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError, AttributeError):
            text = f"cannot read from {path} how far the import has come: remove it to begin anew"
            raise Failure(text, USAGE) from None
        self.items = self._goals.get(goal, 0)

    def write(self, items: int) -> None:
        self._goals[self._goal] = items
        part = self._path.with_name(self._path.name + ".part")
        part.write_text(json.dumps({"export": self._export, "items": self._goals}))
        part.replace(self._path)


