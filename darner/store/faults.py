"""
What LevelDB's and the operating system's errors say.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable
from typing import Optional

from darner.errors import StoreError
from darner.store.directory import no_access


def uncertain(text: str) -> StoreError:
    """@return: the error for a write that may have happened all the same."""
    error = StoreError(text)
    error.uncertain = True
    return error


def reason(error: BaseException) -> str:
    """@return: the message of LevelDB or the operating system, in one line."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    said = error.args[0] if error.args else ""
    text = " ".join((said.decode(errors="replace") if isinstance(said, bytes) else str(said)).split())
    denied = re.fullmatch(f"IO error: (.*): {os.strerror(errno.EACCES)}", text)
    if denied is not None:
        return no_access(os.path.basename(denied[1]))
    for number in (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT, errno.EROFS):
        if os.strerror(number) in text:
            return os.strerror(number)
    return text


class Work(threading.Thread):
    """
    A thread that does one thing.

    @ivar error: what that raised.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        super().__init__(name="darner work")
        self._work = work
        self.error: Optional[Exception] = None

    def run(self) -> None:
        try:
            self._work()
        except Exception as error:
            self.error = error
