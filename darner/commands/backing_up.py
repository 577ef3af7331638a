"""
``darner backup`` and ``darner restore``.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import attrs
import click

from darner.commands.admin import Admin
from darner.commands.client_settings import ClientSettings
from darner.commands.exits import DONE, FAILED, USAGE, Failure
from darner.commands.output import Output, Progress, size
from darner.commands.program import Command
from darner.errors import StoreError
from darner.store.backup.archive import Read
from darner.store.backup.contents import Contents
from darner.store.backup.folder import PROOF, BackupFolder, verify
from darner.store.backup.making import Made, receive_backup
from darner.store.backup.restoring import find_backup, restore, restore_stream
from darner.store.directory import DATABASE, claim

_PIECE = 256 * 1024
_SAME = 409
"""The status that says that the server cannot write to the directory itself."""
_MADE = 201


@click.command("backup", cls=Command)
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--keep", type=click.IntRange(1), metavar="N", help="Remove the oldest backups, so that N stay.")
@click.option("--check", is_flag=True, help="Read the whole backup again, verify it, and look at every record.")
@click.pass_obj
def backup_command(settings: ClientSettings, directory: Path, keep: Optional[int], check: bool) -> int:
    """
    Add a backup of a running server to a DIRECTORY of backups; - writes it to standard output as one stream.

    It shows the queues as of one moment, while the server goes on.  Each backup is complete; what did not change since
    the one before is linked and not copied.  It needs the admin HTTP (--http), and a user who may administrate all
    queues.
    """
    output = Output(settings)
    with Admin(settings, "backup") as admin:
        if str(directory) == "-":
            if check or keep is not None:
                raise Failure("--check and --keep are for a directory: a stream is verified by what restores it", USAGE)
            return _write_stream(output, admin, settings)
        made = _by_server(admin, directory, keep)
        if made is None:
            with Progress(output, "", None, bytes=True) as progress, _plainly():
                read = _Asking(admin, settings, progress)
                made = receive_backup(directory, read, keep)
    path = directory / made.name
    if check:
        _check(output, directory, made.name)
    copied = f"{made.linked} linked, {made.copied} copied"
    output.done(
        f"{path}: {made.files} files with {size(made.bytes)} ({copied}){', checked' if check else ''}",
        **{**attrs.asdict(made), "directory": str(directory), "checked": check},
    )
    return DONE


def _by_server(admin: Admin, directory: Path, keep: Optional[int]) -> Optional[Made]:
    """
    Have the server write the backup, which needs no copying where it can link.

    @return: C{None} if it cannot write there: the directory is on another machine, or the server may not.
    """
    path = Path(os.path.abspath(directory))
    token = secrets.token_hex(16)
    proof = path / f"{PROOF}{token}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        proof.touch(mode=0o644)
        body: dict[str, Any] = {"directory": str(path), "proof": token}
        if keep is not None:
            body["keep"] = keep
        response = admin.post("/backup", body, None)
        if response.status not in (_MADE, _SAME):
            admin.refuse(response)
        answer = json.loads(admin.read(response))
        return Made(**answer) if response.status == _MADE else None
    except (ValueError, TypeError):
        raise Failure("the answer of the server is none of a backup", FAILED) from None
    finally:
        with contextlib.suppress(OSError):
            proof.unlink()


class _Asking:
    """Asks for a stream."""

    def __init__(self, admin: Admin, settings: ClientSettings, progress: Progress) -> None:
        self._admin = admin
        self._patience = settings.timeout
        self._progress = progress

    def __call__(self, known: Sequence[str]) -> Read:
        response = self._admin.post("/backup/stream", {"known": list(known)}, max(60.0, self._patience))
        if response.status != 200:
            self._admin.refuse(response)

        def read(most: int) -> bytes:
            piece = self._admin.read(response, most)
            self._progress.advance(len(piece))
            return piece

        return read


def _write_stream(output: Output, admin: Admin, settings: ClientSettings) -> int:
    if sys.stdout.isatty():
        raise Failure("a stream is not for a terminal: pipe it, or name a directory", USAGE)
    with Progress(output, "", None, bytes=True) as progress:
        read = _Asking(admin, settings, progress)(())
        while piece := read(_PIECE):
            output.data(piece)
    return DONE


@contextlib.contextmanager
def _plainly() -> Iterator[None]:
    """What fails is said by its text alone."""
    try:
        yield
    except StoreError as error:
        raise Failure(str(error), FAILED) from None


def _check(output: Output, directory: Path, name: str) -> None:
    """
    Verify a backup: its checksums, and every record in it.

    @raise Failure: it is damaged.
    """
    from darner.rescue.repair import check  # with Twisted's logger

    folder = BackupFolder(directory)
    with _plainly():
        contents = folder.contents(name)
        with Progress(output, "", contents.size, bytes=True) as progress:
            verify(directory / name, contents, progress.advance)
        with tempfile.TemporaryDirectory(prefix="darner-check-") as place:
            report = check(_as_data_directory(directory / name, contents, Path(place)))
    if not report.sound:
        raise Failure(f"{directory / name} is damaged: {'; '.join(report.lines())}", FAILED)


def _as_data_directory(backup: Path, contents: Contents, place: Path) -> Path:
    """@return: a data directory that has the files of a backup by symbolic links, to be read."""
    for file in contents.files:
        (place / file.name).parent.mkdir(exist_ok=True)
        (place / file.name).symlink_to((backup / file.name).absolute())
    (place / DATABASE).mkdir(exist_ok=True)
    claim(place)
    return place


@click.command("restore", cls=Command)
@click.argument("source", type=click.Path(path_type=Path))
@click.option("-d", "--data-dir", type=click.Path(path_type=Path), required=True, metavar="DIRECTORY",
              help="The data directory to make: empty, or missing.")
@click.option("--backup", "name", default="", metavar="NAME", help="Which backup of SOURCE.  [default: the latest]")
@click.pass_obj
def restore_command(settings: ClientSettings, source: Path, data_dir: Path, name: str) -> int:
    """
    Make a data directory of a backup: of a SOURCE directory of backups, of one of them, of a file with a stream, or of
    a stream on standard input (-).

    Every file is verified.  No server starts on the directory before all is well.
    """
    output = Output(settings)
    with _plainly():
        if str(source) == "-" or source.is_file():
            if name:
                raise Failure("a stream has one backup: --backup is for a directory", USAGE)
            with sys.stdin.buffer if str(source) == "-" else source.open("rb") as stream:
                contents = restore_stream(stream.read, data_dir)
        else:
            backup = find_backup(source, name)
            with Progress(output, "", BackupFolder(backup.parent).contents(backup.name).size, bytes=True) as progress:
                contents = restore(backup, data_dir, progress.advance)
    output.done(
        f"{data_dir}: {len(contents.files)} files with {size(contents.size)}, as of {_moment(contents)}",
        data_dir=str(data_dir), time=contents.time, files=len(contents.files), bytes=contents.size,
        version=contents.version, position=dict(contents.position),
    )  # fmt: skip
    return DONE


def _moment(contents: Contents) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(contents.time / 1000))
