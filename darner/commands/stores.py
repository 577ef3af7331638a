"""
``darner check`` and ``darner repair``, of the data directory of a server that does not run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from darner.commands.client_settings import ClientSettings
from darner.commands.exits import DONE, FAILED, Failure
from darner.commands.output import Output, Progress
from darner.commands.program import Command
from darner.errors import StoreError
from darner.rescue import repair as rescue
from darner.rescue.repair import Report
from darner.store.directory import DATABASE

_LOOK = 0.1
"""Seconds between two looks at how far it is."""


@click.command("check", cls=Command)
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.pass_obj
def check_command(settings: ClientSettings, directory: Path) -> int:
    """
    Read the whole data DIRECTORY of a server that does not run, and say what is damaged.

    Nothing is changed.  The exit status is 1 where something is damaged.
    """
    output = Output(settings)
    report = _with_progress(output, directory, rescue.check)
    _tell(output, report)
    return DONE if report.sound else FAILED


@click.command("repair", cls=Command)
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def repair_command(settings: ClientSettings, directory: Path, yes: bool) -> None:
    """
    Write all that can be read of a damaged data DIRECTORY to a new database.

    The old one is moved aside in the DIRECTORY and nothing is deleted.  Where nothing is damaged nothing is changed.
    """
    output = Output(settings)
    if not yes and not output.confirm(f"Repair {directory}?  It needs as much room again as the queues take."):
        raise Failure("nothing was done")
    _tell(output, _with_progress(output, directory, rescue.repair))


def _with_progress(output: Output, directory: Path, work: Callable[[Path], Report]) -> Report:
    """
    Do it while a line shows how much of the database was read.

    @raise Failure: the directory is in use, or is no server's.
    """
    total = sum(file.stat().st_size for file in (directory / DATABASE).glob("*") if file.is_file())
    begin, ended = _bytes_read(), threading.Event()
    with Progress(output, "", total or None, bytes=True) as progress:

        def look() -> None:
            while not ended.wait(_LOOK):
                progress.reach(min(_bytes_read() - begin, total))

        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            return work(directory)
        except StoreError as error:
            raise Failure(str(error)) from None
        finally:
            ended.set()
            watcher.join()


def _bytes_read() -> int:
    """@return: how many bytes this process has read, where the system says so."""
    try:
        return int(Path("/proc/self/io").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def _tell(output: Output, report: Report) -> None:
    if not output.json:
        for line in report.lines():
            output.line(line)
        return
    queues: list[dict[str, Any]] = [
        {"queue": queue.name.decode(errors="replace"), "found": queue.saved, "lost": queue.lost,
         "uncertain": queue.uncertain, "unnamed": queue.unnamed}
        for queue in report.queues
    ]  # fmt: skip
    output.document({
        "sound": report.sound, "damages": [str(damage) for damage in report.damages], "notes": list(report.notes),
        "foreign": list(report.foreign), "found": report.saved, "lost": report.lost, "queues": queues,
        "aside": None if report.aside is None else str(report.aside),
    })  # fmt: skip
