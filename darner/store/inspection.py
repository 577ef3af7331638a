"""
A quick check, before a store is opened, that its files are complete.

It reads the manifest, the logs and a little of each table, so that the time does not grow with the number of items.
Damage inside a table is found when that is read, by its checksums.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

from darner.errors import StoreDamaged
from darner.store.directory import DATABASE, SAVED, SEGMENTS, belongs, check_access
from darner.store.files import segment
from darner.store.files.damage import BadFile, Damage
from darner.store.files.log import LogFile, ends_well
from darner.store.files.manifest import Manifest, TableInfo, current, newest
from darner.store.files.names import is_ours, logs, tables
from darner.store.files.table import Table, begins_with, footer


@frozen
class Inspection:
    """The findings about a store that can be opened."""

    foreign: tuple[str, ...]
    """Files that do not belong there."""
    cuts: tuple[tuple[Path, int], ...]
    """Logs that end in zeros in place of the last write, and the offsets of the zeros."""


def is_new(database: Path) -> bool:
    """@return: whether a database was never created: its creation has not begun, or was interrupted."""
    return database.is_dir() and not (
        (database / "CURRENT").exists() or tables(database) or logs(database)
    )


def foreign_files(path: Path) -> tuple[str, ...]:
    """@return: the files in a data directory that are neither the server's nor LevelDB's."""
    foreign = [name for name in os.listdir(path) if not belongs(name)]
    if (path / DATABASE).is_dir():
        foreign += [f"{DATABASE}/{name}" for name in os.listdir(path / DATABASE) if not is_ours(name)]
    if (path / SEGMENTS).is_dir():
        foreign += [f"{SEGMENTS}/{name}" for name in os.listdir(path / SEGMENTS) if not segment.is_ours(name)]
    return tuple(sorted(foreign))


def why_missing(path: Path) -> Damage:
    """@return: why a data directory that had a database has none."""
    if (path / SAVED).exists():
        return Damage(DATABASE, "a repair was cut short")
    return Damage(DATABASE, "it is not a directory" if (path / DATABASE).exists() else "it is missing, with all queues")


def inspect(path: Path) -> Inspection:
    """
    Check the store in a data directory, without changing anything.

    @raise StoreDamaged: files are missing or damaged.
    @raise StoreUnusable: this user may not read a file.
    """
    database = path / DATABASE
    if not database.is_dir():
        raise StoreDamaged(path, why_missing(path))
    if is_new(database):
        return Inspection(foreign_files(path), ())
    try:
        return Inspection(foreign_files(path), tuple(_inspect(database)))
    except BadFile as error:
        check_access(database)
        raise StoreDamaged(path, error) from error
    except OSError as error:
        check_access(database)
        raise StoreDamaged(path, f"{Path(str(error.filename)).name}: {error.strerror}") from error


def _inspect(database: Path) -> Iterator[tuple[Path, int]]:
    manifest = newest(database)
    if manifest.cut is not None:
        yield manifest.path, manifest.cut
    _inspect_tables(database, manifest.tables)
    there = manifest.logs(database)
    if manifest.log and manifest.log not in there:
        raise BadFile(f"{manifest.log:06}.log: it is missing")
    for path in there.values():
        if not ends_well(path):
            file = _read_log(path)
            if file.lost:
                raise BadFile(f"{path.name}: {file.lost[0].reason}")
            if file.cut is not None:
                yield path, file.cut


def _read_log(path: Path) -> LogFile:
    file = LogFile(path)
    for _ in file.records():
        pass
    return file


def _inspect_tables(database: Path, expected: dict[int, TableInfo]) -> None:
    there = tables(database)
    alike = Counter(info.size for info in expected.values())
    for number, info in expected.items():
        if number not in there:
            raise BadFile(f"{number:06}.ldb: it is missing")
        path = there[number]
        size = path.stat().st_size
        if size != info.size:
            raise BadFile(f"{path.name}: it has {size} bytes and not {info.size}")
        try:
            footer(path, size)
        except BadFile as error:
            raise BadFile(f"{path.name}: {error}") from error
        # Several tables have this size: check that this is the right one.
        if alike[size] > 1 and not begins_with(path, info.smallest):
            raise BadFile(f"{path.name}: its first key is not the one in the manifest")


def first_damage(path: Path) -> str:
    """
    Read a store until the damage that LevelDB has reported is found.

    @return: file and reason; empty if nothing is damaged.
    """
    database = path / DATABASE
    try:
        manifest = Manifest(current(database))
        for log in manifest.logs(database).values():
            file = _read_log(log)
            if file.lost:
                return str(Damage(log.name, file.lost[0].reason))
        for number, table in tables(database).items():
            reason = Table(table).first_damage() if number in manifest.tables else ""
            if reason:
                return str(Damage(table.name, reason))
    except (BadFile, OSError) as error:
        return str(error)
    return ""
