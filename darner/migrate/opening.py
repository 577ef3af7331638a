"""
Which kind of source something is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from darner.migrate.beanstalkd import Beanstalkd
from darner.migrate.cpp_darner import CppDarner
from darner.migrate.kestrel import Kestrel
from darner.migrate.redis_lists import SCHEMES, RedisLists
from darner.migrate.sources import Source, SourceError
from darner.store.directory import MARKER

_DIRECTORIES: Final[tuple[type[CppDarner] | type[Beanstalkd] | type[Kestrel], ...]] = (CppDarner, Beanstalkd, Kestrel)
"""Kinds of directories.  A binlog may look like a journal of Kestrel, and so is looked for first."""


def open_source(place: str) -> Source:
    """
    @param place: a directory of the C++ Darner, of Kestrel or of beanstalkd's binlog, or the URL of a list of Redis.
    @raise SourceError: it is none of these, or cannot be read.
    """
    scheme, colon, _ = place.partition("://")
    if colon:
        if scheme not in SCHEMES:
            raise SourceError(f"cannot import from {scheme}: known are {' and '.join(SCHEMES)}, and directories")
        return RedisLists(place)
    directory = Path(place)
    try:
        if not directory.is_dir():
            raise SourceError(f"{place} is not a directory")
        if (directory / MARKER).is_file():
            raise SourceError(f"{place} is a data directory of this server: serve it, or copy it while it rests")
        for kind in _DIRECTORIES:
            if kind.recognizes(directory):
                return kind(directory)
    except OSError as error:
        raise SourceError(f"cannot read {place}: {error.strerror}") from error
    raise SourceError(f"{place} holds nothing of the C++ Darner, of Kestrel or of beanstalkd")
