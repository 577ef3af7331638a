"""
``python -m darner.migrate``: import the queues of another server.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, Optional

from darner.errors import DarnerError
from darner.migrate.importing import Destination, DryRun, Progress, run_import
from darner.migrate.offline import DataDirectoryImport
from darner.migrate.online import ServerImport
from darner.migrate.opening import open_source

PASSWORD: Final = "DARNER_PASSWORD"
"""The variable in the environment that has the password of C{--user}."""
_BETWEEN: Final = 0.5
"""Seconds between two lines of progress."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m darner.migrate",
        description="Import the queues of a C++ Darner, of Kestrel or of beanstalkd, or lists of Redis.  The source is "
        "not changed.  An import that was interrupted can be begun again, and puts nothing twice.",
    )
    add = parser.add_argument
    add("source", help="a directory, or redis://HOST:PORT/DB/LIST")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--data-dir", type=Path, metavar="DIR", help="import into a data directory that no server uses")
    where.add_argument("--servers", metavar="HOST:PORT,...", help="import into these running servers")
    add("--dry-run", action="store_true", help="only report what would be imported, and what cannot be kept")
    add("--again", action="store_true", help="import although the source has changed since it was imported last")
    add("--exclude", action="append", default=[], metavar="PATTERN", help="leave out queues with such names, as gone.*")
    add("--user", default="", help=f"log in to the servers as this user, with the password in {PASSWORD}")
    add("--quiet", action="store_true", help="show no progress")
    return parser


def _destination(options: argparse.Namespace) -> Destination:
    if options.dry_run:
        return DryRun()
    if options.data_dir is not None:
        return DataDirectoryImport(options.data_dir, time.time, options.again)
    return ServerImport(options.servers.split(","), time.time, options.user, os.environ.get(PASSWORD, ""))


def _progress(write: Callable[[str], object]) -> Progress:
    shown = 0.0

    def show(queue: str, items: int, size: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= _BETWEEN:
            shown = now
            write(f"\r{queue[:30]}: {items} items, {size // 1_000_000} MB\033[K")

    return show


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """@return: the exit status: 0 if all was read and put, 1 if something could not be read, 2 if nothing was put."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.dry_run and options.data_dir is None and not options.servers:
        parser.error("name --data-dir or --servers, or ask for a --dry-run")
    shown = not options.quiet and sys.stderr.isatty()
    try:
        with closing(open_source(options.source)) as source, closing(_destination(options)) as destination:
            progress = _progress(sys.stderr.write) if shown else None
            report = run_import(source, destination, int(time.time() * 1000), progress, options.exclude)
    except DarnerError as error:
        print(f"{chr(10) if shown else ''}darner: {error}", file=sys.stderr)
        return 2
    if shown:
        print("\r\033[K", end="", file=sys.stderr)
    print("\n".join(report.lines()))
    return 0 if report.sound else 1


if __name__ == "__main__":
    sys.exit(main())
