"""
The tests.

trial fails a test in which a failure is logged.  Here it fails one as well in which anything is logged as critical,
unless the test expects it (L{allow_critical}).

Hypothesis does not mind here that a machine which does other things besides is slow to make examples.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import provider


class LoggedAsCritical(Exception):
    """Something was logged as critical, without a failure."""


@provider(ILogObserver)
def _tell_trial(event: LogEvent) -> None:
    """Trial looks at failures alone."""
    if event["log_level"] is LogLevel.critical and "log_failure" not in event:
        Logger(__name__).failure("logged as critical", Failure(LoggedAsCritical(formatEvent(event))), LogLevel.error)


globalLogPublisher.addObserver(_tell_trial)
settings.register_profile("darner", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("darner")


def allow_critical(case: SynchronousTestCase, *texts: str) -> None:
    """What is logged as critical in this test, and has one of these texts, is expected."""

    def look() -> None:
        for failure in case.flushLoggedErrors(LoggedAsCritical):
            if not any(text in str(failure.value) for text in texts):
                raise failure.value

    case.addCleanup(look)


def unpack(archive: tarfile.TarFile, directory: Path) -> None:
    """Unpack an archive of the tests' own; Python 3.11.3 and earlier ones know no filters."""
    archive.extractall(directory, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
