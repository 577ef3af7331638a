"""
Opening a store: repair the traces of a loss of power before LevelDB opens it, and undo everything if the start fails.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from struct import error as struct_error

import plyvel
from twisted.logger import Logger

from darner.errors import StoreDamaged, StoreError, StoreUnusable
from darner.store import records, rollback
from darner.store.database import Database, reason
from darner.store.directory import LOST, check_access, set_aside
from darner.store.inspection import first_damage, inspect, is_new, why_missing
from darner.store.power_loss import drop_unsafe_tail, truncate
from darner.store.rollback import Rollback

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
        database.rollback = Rollback(path)
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
    elif known != records.FORMAT:
        raise StoreUnusable(f"the store in {path} is in a format that this version does not know")


def _drop_unsafe_tail(database: Database) -> None:
    for done in drop_unsafe_tail(database.directory.database, database.path / LOST):
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
