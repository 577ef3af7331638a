"""
What the log of a node's process says while the log of the cluster is out of reach.
"""

from __future__ import annotations

from typing import Final

from twisted.logger import Logger

TROUBLES: Final = 10
"""How many different errors are logged until it is in reach again."""


class Troubles:
    """The errors of one node since its log was in reach."""

    def __init__(self, log: Logger) -> None:
        self._log = log
        self._known: set[str] = set()

    def met(self, error: Exception) -> None:
        """Log an error, once."""
        if str(error) not in self._known and len(self._known) < TROUBLES:
            self._log.warn("cluster: {error}", error=error)
            self._known.add(str(error))

    def over(self) -> None:
        """The log has answered."""
        if self._known:
            self._log.info("cluster: the log is in reach again")
            self._known.clear()
