"""
The manifest of a backup: which files it consists of.  It is written last, and a backup without it does not exist.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Optional

from attrs import asdict, evolve, frozen

from darner.errors import StoreError

MANIFEST: Final = "manifest.json"
"""Its name.  Its format is JSON, so that other programs can read it."""
FORMAT: Final = 1
MOST_BYTES: Final = 256 * 1024 * 1024
"""The longest manifest that is read: of some million files."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,30}/[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


class BackupDamaged(StoreError):
    """A backup is incomplete or damaged.  The text says where."""


@frozen
class BackupFile:
    """
    One file.

    @ivar name: folder and name, such as C{leveldb/000005.ldb}.
    @ivar size: in bytes.
    @ivar identity: what the file was in the store: two files with one identity have the same contents.  Empty for a
        file that grows.
    @ivar sha256: its checksum, in hexadecimal digits; C{None} in a stream that leaves the file out, as the receiver
        has it already.
    """

    name: str
    size: int
    identity: str
    sha256: Optional[str] = None

    def with_checksum(self, sha256: Optional[str]) -> BackupFile:
        return evolve(self, sha256=sha256)


@frozen
class Contents:
    """
    What a backup contains.

    @ivar version: of the server that made it.
    @ivar time: the moment that it shows, in ms since the epoch.
    @ivar position: where the store was then, for programs that go on from there.
    """

    version: str
    time: int
    position: Mapping[str, Any]
    files: tuple[BackupFile, ...]

    @property
    def size(self) -> int:
        """How many bytes all files have."""
        return sum(file.size for file in self.files)

    def by_identity(self) -> dict[str, BackupFile]:
        """@return: the files that never change, by their identities."""
        return {file.identity: file for file in self.files if file.identity and file.sha256}

    def to_bytes(self) -> bytes:
        facts = {"format": FORMAT, **asdict(self)}
        return json.dumps({**facts, "checksum": _checksum(facts)}, indent=0).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Contents:
        """@raise BackupDamaged: that is no manifest, or a damaged one."""
        try:
            facts = json.loads(data.decode())
            checksum = facts.pop("checksum")
            if checksum != _checksum(facts):
                raise BackupDamaged(f"{MANIFEST}: its checksum is wrong")
            if facts.pop("format") != FORMAT:
                raise BackupDamaged(f"{MANIFEST}: this version does not know its format")
            files = tuple(BackupFile(**file) for file in facts.pop("files"))
            contents = cls(**facts, files=files)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise BackupDamaged(f"{MANIFEST}: it is damaged") from None
        for file in files:
            check_name(file.name)
            if type(file.size) is not int or file.size < 0 or not isinstance(file.identity, str):
                raise BackupDamaged(f"{MANIFEST}: the entry of {file.name} is wrong")
            if file.sha256 is not None and not _SHA256.fullmatch(str(file.sha256)):
                raise BackupDamaged(f"{MANIFEST}: the checksum of {file.name} is none")
        if len({file.name for file in files}) < len(files):
            raise BackupDamaged(f"{MANIFEST}: it names a file twice")
        return contents


@frozen
class Captured:
    """
    A file of an open store.

    @ivar path: where it stays until the capture is released.
    """

    path: Path
    file: BackupFile


def check_name(name: object) -> str:
    """
    @return: the name of a file of a backup.
    @raise BackupDamaged: it is none, such as one that leads out of the backup.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BackupDamaged(f"not the name of a file of a backup: {str(name)[:100]!r}")
    return name


def _checksum(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
