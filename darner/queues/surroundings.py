"""
What the queues need from their process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime


@dataclass(frozen=True)
class Surroundings:
    """What the queues need from their process.  Tests replace it with a C{Clock} and synchronous calls."""

    clock: IReactorTime
    """For waits and delays; monotonic (`darner.net.clock`)."""
    schedule: Callable[[Callable[[], None]], object]
    """Calls its argument soon, from the reactor."""
    in_thread: Callable[..., Deferred[Any]]
    """Calls a function with arguments in a worker thread; fires with the result."""
    wall: Callable[[], float] = time.time
    """The time in seconds since the epoch, for expiry and ages."""
