"""
``darner import`` of the queues of another server (`darner.migrate`).
"""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Optional

from darner.client.servers import source as servers_of
from darner.client.sockets import SocketRuntime, run
from darner.commands.client_settings import ClientSettings
from darner.commands.exits import DONE, FAILED, USAGE, Failure, explain, status_of
from darner.commands.output import Output, Progress
from darner.errors import DarnerError
from darner.migrate.importing import Destination, DryRun, ImportRefused, run_import
from darner.migrate.online import ServerImport
from darner.migrate.opening import open_source
from darner.migrate.report import Report

PATIENCE: Final = 60.0
"""Seconds that a server is given to answer, at the least: it may start anew meanwhile."""


def import_source(
    settings: ClientSettings, path: str, data_dir: Optional[Path], exclude: tuple[str, ...], again: bool, dry_run: bool
) -> int:
    """
    Import from another server's files, or from a list of Redis.

    @param data_dir: a data directory that no server uses; C{None} to put to the servers.
    @param exclude: patterns of names of queues that are left out.
    @param again: whether to import from a source that has changed since it was imported.
    @return: the exit status.
    @raise Failure: it was refused, or broke off.
    """
    output = Output(settings)
    try:
        with closing(open_source(path)) as source, Progress(output, "items") as progress:
            with closing(_destination(settings, data_dir, again, dry_run)) as destination:
                now = int(time.time() * 1000)
                report = run_import(
                    source, destination, now, lambda queue, items, size: progress.reach(items), exclude
                )
    except ImportRefused as error:
        raise Failure(str(error), USAGE) from None
    except DarnerError as error:
        raise Failure(explain(error), status_of(error)) from None
    if settings.json:
        output.document(_document(report))
    else:
        print("\n".join(report.lines()))
    return DONE if report.sound else FAILED


def _destination(settings: ClientSettings, data_dir: Optional[Path], again: bool, dry_run: bool) -> Destination:
    if dry_run:
        return DryRun()
    if data_dir is not None:
        from darner.migrate.offline import DataDirectoryImport  # LevelDB, which a program on servers does without

        return DataDirectoryImport(data_dir, time.time, again)
    try:
        places = run(servers_of(settings.servers).look(SocketRuntime(None, None, settings.timeout)))
    except (OSError, ValueError) as error:
        raise Failure(f"cannot tell which servers {settings.servers} are: {error}", USAGE) from None
    return ServerImport(
        [str(place) for place in places], time.time, settings.user, settings.secret() if settings.user else "",
        max(settings.timeout, PATIENCE), settings.context(), settings.server_hostname or None,
    )  # fmt: skip


def _document(report: Report) -> dict[str, Any]:
    return {
        "source": report.place, "kind": report.kind, "dry_run": report.dry, "items": report.items,
        "bytes": report.bytes, "unreadable": [str(loss) for loss in report.losses], "notes": dict(report.notes),
        "queues": {
            queue.name: {
                "target": queue.target, "items": queue.items, "bytes": queue.bytes, "delayed": queue.delayed,
                "expired": queue.expired, "unreadable": queue.lost, "before": queue.before,
            }
            for queue in report.queues
        },
    }  # fmt: skip
