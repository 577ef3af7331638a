"""
``darner cluster snapshot``: a backup of any node of a cluster, over the network.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import attrs

from darner.commands.exits import FAILED, USAGE, Failure
from darner.commands.output import Output, Progress, size
from darner.errors import StoreError

_PIECE = 256 * 1024


def take_snapshot(output: Output, found: Sequence[tuple[str, Any]], directory: Path, keep: Optional[int]) -> None:
    """
    Take one of the first node that gives one.

    @param found: the names and notes of nodes that may give one (L{darner.cluster.snapshots.joining.givers}).
    @param directory: of backups; C{-} is standard output.
    @param keep: how many backups stay.
    @raise Failure: no node gives one, or it cannot be written.
    """
    streams = str(directory) == "-"
    if streams and keep is not None:
        raise Failure("--keep is for a directory", USAGE)
    if streams and sys.stdout.isatty():
        raise Failure("a stream is not for a terminal: pipe it, or name a directory", USAGE)
    from darner.cluster.snapshots.exchange import SnapshotError, read_secret
    from darner.cluster.snapshots.taking import Taking

    reasons = []
    for name, note in found:
        try:
            taking = Taking(note.snapshots, read_secret(note.secret))
            try:
                if streams:
                    with _plainly(name):  # what was written cannot be taken back
                        _write(output, taking)
                else:
                    _add(output, name, taking, directory, keep)
            finally:
                taking.close()
            return
        except SnapshotError as error:
            reasons.append(f"{name}: {error}")
        except StoreError as error:
            raise Failure(str(error), FAILED) from None
    raise Failure(f"no node gives a snapshot: {'; '.join(reasons) or 'none says where it does'}", FAILED)


@contextlib.contextmanager
def _plainly(name: str) -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise Failure(f"{name}: {error}", FAILED) from None


def _write(output: Output, taking: Any) -> None:
    with Progress(output, "", None, bytes=True) as progress:
        while piece := taking.read(_PIECE):
            output.data(piece)
            progress.advance(len(piece))


def _add(output: Output, name: str, taking: Any, directory: Path, keep: Optional[int]) -> None:
    from darner.store.backup.making import receive_backup

    with Progress(output, "", None, bytes=True) as progress:

        def read(most: int) -> bytes:
            piece: bytes = taking.read(most)
            progress.advance(len(piece))
            return piece

        made = receive_backup(directory, lambda _: read, keep)
    output.done(
        f"{directory / made.name}: {made.files} files with {size(made.bytes)}, of {name}",
        **{**attrs.asdict(made), "directory": str(directory), "node": name, "record": taking.header.position},
    )
