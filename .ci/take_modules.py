"""
The tests of modules that are taken from a list, for several trials side by side: when one has run a module, it takes
the next, so that all of them end at nearly the same time.

    MODULES=FILE python -m twisted.trial .ci/take_modules.py

FILE has the names of modules, one a line, those that take longest first.  Each line goes when its module is taken.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Iterator
from fcntl import LOCK_EX, flock
from typing import Any, Final
from unittest import TestSuite

from twisted.trial.itrial import ITestCase
from twisted.trial.runner import TestLoader
from twisted.trial.unittest import decorate

HUNG: Final = 3600
"""Seconds after which a module counts as hung, far more than any takes: all threads are shown then, and this ends."""


def taken(path: str) -> Iterator[str]:
    """The names that nobody else has taken, each taken when it is asked for."""
    while True:
        with open(path, "r+") as file:
            flock(file, LOCK_EX)
            name, *left = file.read().splitlines() or [""]
            file.seek(0)
            file.truncate()
            file.writelines(f"{line}\n" for line in left)
        if not name:
            return
        yield name


class Taken(TestSuite):
    """They are loaded one by one, so that it has none before it runs."""

    def run(self, result: Any, debug: bool = False) -> Any:
        loader = TestLoader()
        for name in taken(os.environ["MODULES"]):
            faulthandler.dump_traceback_later(HUNG, exit=True, file=sys.__stderr__)
            decorate(loader.loadByName(name), ITestCase)(result)
            if result.shouldStop:
                break
        faulthandler.cancel_dump_traceback_later()
        return result


def testSuite() -> TestSuite:
    """@return: what trial runs instead of test cases in here."""
    return Taken()
