"""
Backups over HTTP.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, Optional

import attrs

import darner
from darner.queues.backups import Backup
from darner.store.backup.archive import send
from darner.store.backup.capture import Capture
from darner.store.backup.contents import BackupFile, Contents
from darner.store.backup.folder import PROOF
from darner.store.backup.making import Made, make_backup
from darner.web.answers import Answer
from darner.web.calls import Call
from darner.web.endpoints import handles
from darner.web.problems import Problem


def _allowed(call: Call) -> Path:
    """
    @return: the directory to write to, without symbolic links.
    @raise Problem: the server may not write there, or it is not the asker's.
    """
    bound: Optional[str] = call.served.settings.backup_dir
    if bound is None:
        raise Problem(409, "the server writes no backups: backup_dir is not set")
    try:
        path, top = Path(os.path.realpath(call["directory"])), Path(os.path.realpath(bound))
        if path != top and top not in path.parents:
            raise Problem(409, f"the server writes backups only below {bound}")
        shared = (path / f"{PROOF}{call['proof']}").is_file() and os.access(path, os.R_OK | os.W_OK | os.X_OK)
    except (OSError, ValueError):
        shared = False
    if not shared:
        raise Problem(409, "that is no directory that the asker and the server can both write to")
    return path


@handles("backup")
async def backup(call: Call) -> dict[str, Any]:
    path, keep = _allowed(call), call["keep"]
    running = call.served.queues.backups.begin()
    try:
        made: Made = await running.run(lambda: _make(running, path, keep, call))
    finally:
        running.end()
    call.about = f"{path}/{made.name} ({made.bytes} bytes)"
    return attrs.asdict(made)


def _make(running: Backup, path: Path, keep: Optional[int], call: Call) -> Made:
    """In a thread."""
    capture: Capture = running.store.capture(running.proceed, call.served.wall)
    try:
        return make_backup(path, capture, darner.__version__, keep, running.proceed)
    finally:
        capture.release()


@handles("backup_stream")
async def backup_stream(call: Call) -> Answer:
    running = call.served.queues.backups.begin()
    taken: list[Capture] = []
    try:
        await running.run(lambda: taken.append(running.store.capture(running.proceed, call.served.wall)))
    except BaseException:
        running.finish(lambda: _release(taken))  # the thread may be at it still
        raise
    return Answer(_pieces(running, taken[0], frozenset(call["known"] or ())), kind=b"application/x-tar")


def _release(taken: list[Capture]) -> None:
    for capture in taken:
        capture.release()


async def _pieces(running: Backup, capture: Capture, known: frozenset[str]) -> AsyncGenerator[bytes, None]:
    def conclude(files: tuple[BackupFile, ...]) -> Contents:
        return Contents(darner.__version__, capture.time, capture.position, files)

    stream: Iterator[bytes] = send(capture.files, known, conclude)
    released = False
    try:
        piece = await running.run(lambda: next(stream, b""))
        while piece:
            following = await running.run(lambda: next(stream, b""))
            if not following:
                # Who has all of it may ask for another backup at once.
                await running.run(capture.release)
                released = True
                running.end()
            yield piece
            piece = following
    finally:
        if not released:
            running.finish(capture.release)
