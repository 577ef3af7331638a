"""
A sync that was promised for later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class LateSync:
    """
    The time by which something is to be on stable storage.

    There is at most one: whoever wants it earlier has it moved.
    """

    def __init__(self, clock: IReactorTime, due: Callable[[], object]) -> None:
        """@param due: called when the time has come."""
        self._clock = clock
        self._due = due
        self._call: Optional[IDelayedCall] = None

    @property
    def promised(self) -> bool:
        return self._call is not None

    def within(self, seconds: float) -> None:
        """It is to be so many seconds from now at the latest."""
        if self._call is not None:
            if self._call.getTime() <= self._clock.seconds() + seconds:
                return
            self._call.cancel()
        self._call = self._clock.callLater(seconds, self._is_due)

    def _is_due(self) -> None:
        self._call = None
        self._due()

    def forget(self) -> bool:
        """@return: whether there was one to come."""
        if self._call is None:
            return False
        self._call.cancel()
        self._call = None
        return True
