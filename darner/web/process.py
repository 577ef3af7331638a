"""
What the process is and takes.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from typing import Optional

import darner.queues.fifo as sample
from twisted import __version__ as twisted_version


def is_compiled() -> bool:
    """@return: whether the compiled modules run."""
    return not (sample.__file__ or "").endswith(".py")


def memory() -> Optional[int]:
    """@return: the resident memory in bytes, where it is known."""
    with suppress(OSError, ValueError, IndexError):
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def versions() -> tuple[str, str]:
    """@return: those of Python and Twisted."""
    return platform.python_version(), twisted_version
