"""
Wall clocks of processes that are wrong, and jump.

A C{sitecustomize} of the tests' own replaces C{time.time} before anything of the server is imported.  The monotonic
clock stays as it is, as it does where somebody sets the clock of a machine.  The library C{grpcio} has the right time:
it reckons deadlines by C{time.time} in Python and by the system's clock elsewhere, which agree on a real machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_CUSTOMIZE: Final = """
import os
import sys
import time

def wrong(real=time.time, path=os.environ["WRONG_CLOCK"], caller=sys._getframe):
    if caller(1).f_globals.get("__name__", "").startswith("grpc."):
        return real()
    with open(path) as file:
        return real() + float(file.read())

time.time = wrong
"""


class Clocks:
    """Those of several processes."""

    def __init__(self, directory: Path) -> None:
        """@param directory: an empty one."""
        self._directory = directory
        (directory / "sitecustomize.py").write_text(_CUSTOMIZE)

    def jump(self, name: str, to: float) -> None:
        """From now on the clock of a process is this many seconds fast, or slow where they are negative."""
        new = self._directory / f"{name}.new"
        new.write_text(f"{to}\n")
        new.rename(self._directory / name)

    def environment(self, name: str, environment: dict[str, str]) -> dict[str, str]:
        """@return: the environment of a Python process with that clock, which is right at first."""
        self.jump(name, 0)
        path = f"{self._directory}:{environment['PYTHONPATH']}"
        return {**environment, "PYTHONPATH": path, "WRONG_CLOCK": str(self._directory / name)}
