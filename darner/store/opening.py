"""
Opening a store: repair the traces of a loss of power before LevelDB opens it, and undo everything if the start fails.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from struct import error as struct_error
from typing import Final

import plyvel
from twisted.logger import Logger

from darner.errors import StoreDamaged, StoreError, StoreUnusable
from darner.store import records, references, rollback
from darner.store.database import Database
from darner.store.directory import LOST, SEGMENTS, check_access, set_aside, sync
from darner.store.faults import reason
from darner.store.inspection import first_damage, inspect, is_new, why_missing
from darner.store.lost_payloads import drop_lost_payloads
from darner.store.power_loss import drop_unsafe_tail, truncate
from darner.store.rollback import Rollback

_FILLED: Final = 1024 * 1024

_log = Logger()


@contextlib.contextmanager
def starting(database: Database) -> Iterator[None]:
    """
    The context in which a database is opened.  If that fails, the files are restored as they were.

    @raise StoreUnusable: LevelDB cannot open the database.
    @raise StoreDamaged: files are missing or damaged.
    """
    try:
        yield
    except plyvel.CorruptionError as error:
        raise _damaged(database, error) from error
    except (plyvel.Error, OSError) as error:
        database.roll_back()
        raise StoreUnusable(f"the store in {database.path} cannot be opened: {reason(error)}") from error
    except BaseException:
        database.roll_back()
        raise


@contextlib.contextmanager
def recovering(database: Database) -> Iterator[None]:
    """
    The context in which recovery reads.  When it ends without an error, the start has succeeded.

    @raise StoreDamaged: records are missing or damaged.  The files are restored as they were.
    @raise StoreError: records cannot be read now.
    """
    try:
        yield
    except (plyvel.CorruptionError, struct_error) as error:
        raise _damaged(database, error) from error
    except StoreDamaged:
        database.roll_back()
        raise
    except (plyvel.Error, OSError) as error:
        raise StoreError(f"cannot read: {reason(error)}") from error
    database.discard_rollback()


def _damaged(database: Database, error: Exception) -> StoreDamaged:
    database.roll_back()
    check_access(database.directory.database)
    return StoreDamaged(database.path, first_damage(database.path) or reason(error))


def open_database(database: Database) -> None:
    """Open a database, in the context of L{starting}.  Create it if the directory is new; check its format."""
    path, directory = database.path, database.directory
    rollback.finish_interrupted(path)
    if not directory.database.is_dir():
        raise StoreDamaged(path, why_missing(path))
    if not is_new(directory.database):
        database.keep_rollback(Rollback(path))
        try:
            _drop_unsafe_tail(database)
        except OSError:
            directory.reserve.give_up()
            _drop_unsafe_tail(database)
        _inspect(database)
    directory.reserve.take()
    try:
        database.make_and_open()
    except OSError:  # plyvel.IOError too
        directory.make_room()
        database.make_and_open()
    known = database.get(records.FORMAT_KEY)
    if known is None:
        database.opened().put(records.FORMAT_KEY, records.FORMAT)
    elif known == records.FORMAT_1:
        database.opened().put(records.FORMAT_KEY, records.FORMAT)  # all that it has stays as it is
    elif known != records.FORMAT:
        raise StoreUnusable(f"the store in {path} is in a format that this version does not know")
    _find_segments(database)


def _find_segments(database: Database) -> None:
    dead: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for key, value in database.prefixed(references.SEGMENT):
        number, is_size = references.segment_of(key)
        (sizes if is_size else dead)[number] = records.unpack_u64(value)
    next_number = database.get(references.SEGMENTS_KEY)
    segments = database.payloads.segments
    reason = segments.find(dead, sizes, records.unpack_u64(next_number) if next_number else 1)
    if reason is not None:
        raise StoreDamaged(database.path, reason)
    for number, length in references.unpack_synced(database.get(references.SYNCED_KEY) or b"").items():
        if number in segments.by_number:
            segments.by_number[number].synced = length


def _drop_unsafe_tail(database: Database) -> None:
    logs, lost = database.directory.database, database.path / LOST
    for done in drop_unsafe_tail(logs, lost) + drop_lost_payloads(logs, database.path / SEGMENTS, lost):
        _log.warn("after a loss of power: {done}", done=done)


def _inspect(database: Database) -> None:
    path = database.path
    inspection = inspect(path)
    for name in inspection.foreign:
        _log.warn("{file} is not part of the store in {path}: it is ignored", file=name, path=path)
    for log, length in inspection.cuts:
        aside = set_aside(path)
        shutil.copy2(log, aside)
        _log.warn(
            "{file} ends in zeros from byte {length} on, where the last write was cut short: truncated it there; "
            "a copy of the whole file is in {aside}",
            file=log.name, length=length, aside=aside,
        )  # fmt: skip
        truncate(log, length)


def fill(database: Path, entries: Iterable[tuple[bytes, bytes]]) -> None:
    """
    Create a database with these records, on stable storage.

    @raise StoreError: it cannot be written.
    """
    try:
        with contextlib.closing(
            plyvel.DB(
                str(database), create_if_missing=True, error_if_exists=True, compression=None,
                write_buffer_size=Database.WRITE_BUFFER, max_open_files=Database.OPEN_FILES,
            )
        ) as db:  # fmt: skip
            batch, size = db.write_batch(), 0
            for key, value in entries:
                batch.put(key, value)
                size += len(key) + len(value)
                if size > _FILLED:
                    batch.write()
                    batch.clear()
                    size = 0
            batch.write()
        for file in database.iterdir():
            sync(file)
        sync(database)
    except (plyvel.Error, OSError) as error:
        raise StoreError(f"cannot write {database.name}: {reason(error)}") from error
