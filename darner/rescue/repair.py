"""
Check and repair of a store.

A repair writes all that it can read to a new database, payloads included, moves the old database and its segments
aside unchanged, and moves the new database to its place.  It deletes only what a repair has written.  If it is
interrupted, the next repair finishes it, or starts again if the new database was not complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Optional

from attrs import evolve, frozen
from twisted.logger import Logger

from darner.errors import StoreDamaged, StoreError, StoreUnusable
from darner.rescue.rewriting import rewritten
from darner.rescue.salvage import Salvage
from darner.rescue.survey import QueueFinding, Survey
from darner.store import records, rollback
from darner.store.directory import (
    DATABASE,
    MARKER,
    MARKER_TEXT,
    SAVED,
    SAVING,
    SEGMENTS,
    check_access,
    check_directory,
    claim,
    in_use,
    set_aside,
    sync,
)
from darner.store.files.damage import Damage
from darner.store.inspection import foreign_files, is_new, why_missing
from darner.store.opening import fill
from darner.store.segments import Segments

REPORT: Final = "report.txt"
"""The file with a repair's report, beside the old database."""

_NAMES_LOST: Final = "names of queues may be lost, and whole queues with them"

_log = Logger()


@frozen
class Report:
    """What a check or a repair found, and what a repair did."""

    damages: tuple[Damage, ...] = ()
    """Damaged files of the database, and the marker of the directory if it is damaged."""
    queues: tuple[QueueFinding, ...] = ()
    notes: tuple[str, ...] = ()
    """Further lines for the operator."""
    foreign: tuple[str, ...] = ()
    """Files that do not belong in the directory; they are left alone."""
    aside: Optional[Path] = None
    """Where a repair has moved the old files; C{None} if it repaired nothing."""

    @property
    def sound(self) -> bool:
        return not (self.damages or self.notes)

    @property
    def saved(self) -> int:
        return sum(queue.saved for queue in self.queues)

    @property
    def lost(self) -> int:
        """How many items are known to be lost."""
        return sum(queue.lost for queue in self.queues)

    def lines(self) -> list[str]:
        """@return: the report, for the operator."""
        lines = [f"damaged: {damage}" for damage in self.damages] + list(self.notes)
        whole = [queue for queue in self.queues if not (queue.lost or queue.uncertain or queue.unnamed)]
        lines += [_line(queue) for queue in self.queues if queue not in whole]
        lines.append(f"{len(whole)} queues are whole, with {sum(queue.saved for queue in whole)} items")
        lines.append(f"total: {self.saved} items found, {self._losses()}")
        lines += [f"not part of the store, ignored: {name}" for name in self.foreign]
        if self.aside is not None:
            lines.append(f"the files from before the repair are in {self.aside}")
        return lines

    def _losses(self) -> str:
        # Items in queues whose names are lost cannot be counted.
        if _NAMES_LOST not in self.notes and all(damage.file != DATABASE for damage in self.damages):
            return f"{self.lost} lost"
        return f"at least {self.lost} lost" if self.lost else "it is not known how many are lost"


def _line(queue: QueueFinding) -> str:
    line = f"queue {queue.name.decode(errors='replace')}: {queue.saved} items found, {queue.lost} lost"
    if queue.unnamed:
        line += "; its name is lost, this one is new"
    if queue.uncertain:
        line += "; its last changes may be lost: the newest items may be missing, and consumed items may come again"
    return line


def check(path: Path) -> Report:
    """
    Read a whole store and verify every checksum, without changing anything.

    @raise StoreUnusable: the directory cannot be read, is in use, or is not darner's.
    """
    if not path.is_dir():
        raise StoreUnusable(f"there is no data directory {path}")
    try:
        with _exclusively(path):
            return _examine(path)[0]
    except OSError as error:
        raise StoreUnusable(f"cannot check the store in {path}: {error.strerror}") from error


def repair(path: Path) -> Report:
    """
    Save all readable items of a damaged store.  A sound store is left alone.

    @raise StoreUnusable: the directory cannot be read, is in use, or is not darner's.
    @raise StoreError: it cannot be written.  Nothing was changed.
    """
    try:
        if not path.exists():
            return Report()  # there is no store yet
        with _exclusively(path):
            return _repair(path)
    except OSError as error:
        raise StoreError(f"cannot repair the store in {path}: {error.strerror}") from error


def _repair(path: Path) -> Report:
    rollback.finish_interrupted(path)
    database, saving, saved = (path / name for name in (DATABASE, SAVING, SAVED))
    shutil.rmtree(saving, ignore_errors=True)
    if saved.exists():
        if database.exists():
            shutil.rmtree(saved)
        else:
            if (path / SEGMENTS).exists():
                (path / SEGMENTS).rename(set_aside(path) / SEGMENTS)
            saved.rename(database)
            _log.warn("finished a repair that was interrupted earlier")
    report, survey, salvage = _examine(path)
    if report.sound:
        return report
    if survey is not None and salvage is not None:
        try:
            fill(saving, rewritten(survey, salvage.entries()))
        except StoreError:
            shutil.rmtree(saving, ignore_errors=True)
            raise
    else:
        saving.mkdir(mode=0o700)
    saving.rename(saved)
    sync(path)
    aside = set_aside(path)
    report = evolve(report, aside=aside)
    (aside / REPORT).write_text("".join(f"{line}\n" for line in report.lines()))
    if _marker_damage(path) is not None:
        with contextlib.suppress(FileNotFoundError):
            (path / MARKER).rename(aside / MARKER)
        claim(path)
    if database.exists():
        database.rename(aside / DATABASE)
        sync(path)
    if (path / SEGMENTS).exists():
        (path / SEGMENTS).rename(aside / SEGMENTS)
    sync(aside)
    saved.rename(database)
    sync(path)
    return report


def _examine(path: Path) -> tuple[Report, Optional[Survey], Optional[Salvage]]:
    database = path / DATABASE
    marker = _marker_damage(path)
    damages = [] if marker is None else [marker]
    report = Report(foreign=foreign_files(path))
    if marker is not None and not database.exists() and not (path / SAVED).exists():
        return report, None, None  # there is no store yet
    if not database.is_dir():
        return evolve(report, damages=(*damages, why_missing(path))), None, None
    if is_new(database):
        return evolve(report, damages=tuple(damages)), None, None
    salvage = Salvage(database, path / SEGMENTS)
    survey = Survey(salvage.entries(), salvage.may_have_lost)
    unknown = survey.format is None and not survey.queues
    if survey.format not in (records.FORMAT, records.FORMAT_1, None) or (marker is not None and unknown):
        raise StoreUnusable(f"{path} is in a format that this version does not know: nothing was changed")
    damages += salvage.damages
    missing = Segments(path / SEGMENTS, 0).find(survey.dead, survey.sizes, 1)
    if missing is not None and missing not in damages:
        damages.append(missing)
    notes = tuple(_notes(survey, salvage, damages))
    return (
        evolve(report, damages=tuple(damages), queues=tuple(survey.queues), notes=notes),
        survey,
        salvage,
    )


def _notes(survey: Survey, salvage: Salvage, damages: Sequence[Damage]) -> Iterator[str]:
    if salvage.may_have_lost(records.NAME, records.NAME + b"\xff"):
        yield _NAMES_LOST
    if salvage.manifest is None:
        yield "the list of tables is lost: all tables there were read, so recently deleted items may come back"
    if survey.unreadable:
        yield f"{survey.unreadable} records cannot be read by this version"
    if not survey.sound and not damages:
        yield "records are missing, though no file is damaged"


def _marker_damage(path: Path) -> Optional[Damage]:
    try:
        marker = (path / MARKER).read_bytes()
    except FileNotFoundError:
        return Damage(MARKER, "it is missing")
    return None if marker == MARKER_TEXT else Damage(MARKER, "its contents are wrong")


@contextlib.contextmanager
def _exclusively(path: Path) -> Iterator[None]:
    """
    Lock out servers, and tools that use LevelDB.

    @raise StoreUnusable: the directory is in use, is not darner's, or has files that this user may not read.
    """
    with contextlib.suppress(StoreDamaged):
        check_directory(path)
    if (path / DATABASE).is_dir():
        check_access(path / DATABASE)
    with contextlib.ExitStack() as files:
        for name, lock in ((MARKER, fcntl.flock), (f"{DATABASE}/LOCK", fcntl.lockf)):
            with contextlib.suppress(FileNotFoundError):
                file = files.enter_context((path / name).open("r+b"))
                try:
                    lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    raise in_use(path) from error
        yield
