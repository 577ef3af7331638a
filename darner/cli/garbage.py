"""
The garbage collector while a server loads its queues, and after that.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

COLLECT: Final = (5_000, 4, 200)
"""Thresholds of the garbage collector.  Its second generation, of 25,000 objects, takes some 5 ms; all rarely run."""


@contextmanager
def permanent_objects() -> Iterator[None]:
    """
    The context in which queues are loaded.

    The objects that are created here are permanent.  By default the garbage collector would walk them again and again:
    with many queues that takes longer than loading them, and stops clients for tens of ms each time.
    """
    gc.collect()
    gc.disable()
    try:
        yield
        gc.freeze()
        gc.set_threshold(*COLLECT)
    finally:
        gc.enable()
