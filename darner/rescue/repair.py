"""
Checking a store, and saving what can be read of one that is damaged.

A repair writes what is saved to a new database and puts that in place of the old one, which is moved aside as it is:
nothing is ever deleted but what a repair has written itself.  The two moves are the only steps that count; a repair
that was cut short anywhere is begun again, or finished, by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Optional

from attrs import evolve, frozen
from twisted.logger import Logger

from darner.errors import StoreDamaged, StoreError, StoreUnusable
from darner.rescue.rewriting import rewritten
from darner.rescue.salvage import Salvage
from darner.rescue.survey import QueueFinding, Survey
from darner.store import records, rollback
from darner.store.database import fill
from darner.store.directory import (
    DATABASE,
    MARKER,
    MARKER_TEXT,
    SAVED,
    SAVING,
    check_access,
    check_directory,
    claim,
    in_use,
    set_aside,
    sync,
)
from darner.store.files.damage import Damage
from darner.store.inspection import foreign_files, is_new, why_missing

REPORT: Final = "report.txt"
"""The file with a repair's report, beside what it has set aside."""

_NAMES_LOST: Final = "names of queues may be lost, and whole queues with them"

_log = Logger()


@frozen
class Report:
    """What was found in a data directory, and what was done."""

    damages: tuple[Damage, ...] = ()
    """What is damaged: files of the database, and the file that says whose the directory is."""
    queues: tuple[QueueFinding, ...] = ()
    """Every queue."""
    notes: tuple[str, ...] = ()
    """What else is to be said, a line each."""
    foreign: tuple[str, ...] = ()
    """Files that do not belong in the directory; they are left alone."""
    aside: Optional[Path] = None
    """Where a repair has moved what was there; C{None} where nothing was repaired."""

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not (self.damages or self.notes)

    @property
    def saved(self) -> int:
        """How many items there are."""
        return sum(queue.saved for queue in self.queues)

    @property
    def lost(self) -> int:
        """How many items are known to be lost."""
        return sum(queue.lost for queue in self.queues)

    def lines(self) -> list[str]:
        """@return: the report, to be read by people."""
        lines = [f"damaged: {damage}" for damage in self.damages] + list(self.notes)
        whole = [queue for queue in self.queues if not (queue.lost or queue.uncertain or queue.unnamed)]
        lines += [_line(queue) for queue in self.queues if queue not in whole]
        lines.append(f"{len(whole)} queues are whole, with {sum(queue.saved for queue in whole)} items")
        lines.append(f"total: {self.saved} items found, {self._losses()}")
        lines += [f"not part of the store, ignored: {name}" for name in self.foreign]
        if self.aside is not None:
            lines.append(f"what was there before the repair is in {self.aside}")
        return lines

    def _losses(self) -> str:
        """@return: how many items are lost; what was in queues that are not known any more cannot be counted."""
        if _NAMES_LOST not in self.notes and all(damage.file != DATABASE for damage in self.damages):
            return f"{self.lost} lost"
        return f"at least {self.lost} lost" if self.lost else "it is not known how many are lost"


def _line(queue: QueueFinding) -> str:
    line = f"queue {queue.name.decode(errors='replace')}: {queue.saved} items found, {queue.lost} lost"
    if queue.unnamed:
        line += "; its own name is lost"
    if queue.uncertain:
        line += "; its last changes may be lost: items put last may be missing, and items read last may come again"
    return line


def check(path: Path) -> Report:
    """
    Read all of a store, with every checksum.  Nothing is changed.

    @raise StoreUnusable: the directory cannot be read, is in use, or is not ours.
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
    Save what can be read of a store that is damaged; leave one alone that is not.

    @raise StoreUnusable: the directory cannot be read, is in use, or is not ours.
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
    salvage = Salvage(database)
    survey = Survey(salvage.entries(), salvage.may_have_lost)
    unknown = survey.format is None and not survey.queues
    if survey.format not in (records.FORMAT, None) or (marker is not None and unknown):
        raise StoreUnusable(f"what is in {path} is not of a format that this version knows: nothing was touched")
    damages += salvage.damages
    return (
        evolve(report, damages=tuple(damages), queues=tuple(survey.queues), notes=tuple(_notes(survey, salvage))),
        survey,
        salvage,
    )


def _notes(survey: Survey, salvage: Salvage) -> Iterator[str]:
    if salvage.may_have_lost(records.NAME, records.NAME + b"\xff"):
        yield _NAMES_LOST
    if salvage.manifest is None:
        yield "the list of tables is lost: every table in the directory was read, so items deleted last may come back"
    if survey.unreadable:
        yield f"{survey.unreadable} records cannot be read by this version"
    if not survey.sound and not salvage.damages:
        yield "records are missing, though no file is damaged"


def _marker_damage(path: Path) -> Optional[Damage]:
    try:
        marker = (path / MARKER).read_bytes()
    except FileNotFoundError:
        return Damage(MARKER, "it is missing")
    return None if marker == MARKER_TEXT else Damage(MARKER, "it is not as it was written")


@contextlib.contextmanager
def _exclusively(path: Path) -> Iterator[None]:
    """
    Keep servers out meanwhile, and tools that use LevelDB.

    @raise StoreUnusable: it is in use, or not ours, or a file may not be read.
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
