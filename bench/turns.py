"""
A server that times the turns of its event loop by the processor time of its thread, so that other load counts little.

``python -m bench.turns FILE [option of the server ...]`` writes the longest turn to a file at each SIGUSR1, and begins
anew.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor

from darner.__main__ import main as serve


class Turns:
    """
    Times the turns of a reactor.

    @ivar longest: the longest turn, in seconds of processor time.
    @ivar count: the number of turns.
    """

    def __init__(self, reactor: Any) -> None:
        self._iterate = reactor.doIteration
        self._since = time.thread_time()
        self.longest = 0.0
        self.count = 0
        reactor.doIteration = self._next

    def _next(self, delay: float) -> None:
        now = time.thread_time()
        self.longest = max(self.longest, now - self._since)
        self.count += 1
        self._since = now
        self._iterate(delay)

    def write(self, path: Path) -> None:
        """Write the figures, and begin anew."""
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps({"longest": self.longest, "count": self.count}))
        os.replace(part, path)
        self.longest, self.count = 0.0, 0
        self._since = time.thread_time()


def main() -> None:
    path = Path(sys.argv.pop(1))
    turns = Turns(_reactor)
    signal.signal(signal.SIGUSR1, lambda *_: turns.write(path))
    serve()


if __name__ == "__main__":
    main()
