"""
The names of a LevelDB's files, and lists of them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

_NAME: Final = re.compile(r"(\d+)\.(ldb|sst|log|dbtmp)|MANIFEST-(\d+)|CURRENT|LOCK|LOG|LOG\.old")


def file_number(name: str) -> int:
    """@return: the number of a log, table or manifest; -1 if the name has none."""
    match = _NAME.fullmatch(name)
    return int(match[1] or match[3] or -1) if match else -1


def is_ours(name: str) -> bool:
    """@return: whether this may be the name of a LevelDB file."""
    return _NAME.fullmatch(name) is not None


def tables(database: Path) -> dict[int, Path]:
    """@return: every table in a database's directory, by number."""
    return _numbered(database, (".ldb", ".sst"))


def logs(database: Path) -> dict[int, Path]:
    """@return: every log in a database's directory, by number, in order."""
    return _numbered(database, (".log",))


def manifests(database: Path) -> list[Path]:
    """@return: every manifest in a database's directory, newest first."""
    names = [name for name in os.listdir(database) if is_ours(name) and name.startswith("MANIFEST-")]
    return [database / name for name in sorted(names, key=file_number, reverse=True)]


def _numbered(database: Path, endings: tuple[str, ...]) -> dict[int, Path]:
    names = [name for name in os.listdir(database) if is_ours(name) and name.endswith(endings)]
    return {file_number(name): database / name for name in sorted(names, key=file_number)}
