"""
Sizes and durations, as people write them.
"""

from __future__ import annotations

import re
from typing import Final, Union

_SIZES: Final = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
LONGEST: Final = 100 * 365 * 86400.0
"""The longest duration, in seconds: 100 years."""

_SECONDS: Final = {"MS": 0.001, "S": 1, "M": 60, "MIN": 60, "H": 3600, "D": 86400}


def parse_size(value: Union[int, str]) -> int:
    """
    @param value: a number of bytes, or text like ``64KiB``, ``16 MiB``, ``1GB``.
    @raise ValueError: it is neither of these.
    """
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", value.strip())
        if match is None or match[2].upper() not in _SIZES:
            raise ValueError(f"{value!r} is not a size like 64KiB, 16MiB or 1000000")
        return int(match[1]) * _SIZES[match[2].upper()]
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("not a size like 64KiB or a number of bytes")
    return value


def parse_duration(value: Union[float, int, str]) -> float:
    """
    @param value: a number of seconds, or text like ``250ms``, ``30s``, ``5min``, ``2h``, ``1d``.
    @return: seconds.
    @raise ValueError: it is neither of these, or above 0 and below 1 ms, or above L{LONGEST}.
    """
    seconds = _seconds(value)
    if not (seconds <= 0 or 0.001 <= seconds <= LONGEST):
        raise ValueError(f"{value!r} is not between 1ms and 100 years")
    return seconds


def _seconds(value: Union[float, int, str]) -> float:
    if isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", value.strip())
        if match is None or match[2].upper() not in _SECONDS:
            raise ValueError(f"{value!r} is not a duration like 250ms, 30s, 5min, 2h or a number of seconds")
        return float(match[1]) * _SECONDS[match[2].upper()]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("not a duration like 30s or a number of seconds")
    return float(value)


def size_text(size: int) -> str:
    """@return: the size as L{parse_size} reads it, in the largest unit that fits."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size and size % unit == 0:
            return f"{size // unit}{name}"
    return f"{size}B"


def duration_text(seconds: float) -> str:
    """@return: the duration as L{parse_duration} reads it, rounded to ms, in the largest unit that fits."""
    ms = round(seconds * 1000)
    for unit, name in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s")):
        if ms and ms % unit == 0:
            return f"{ms // unit}{name}"
    return f"{ms}ms"
