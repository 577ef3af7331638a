"""
What clients may ask of the process that serves the queues.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from attrs import frozen

from darner.errors import ClientError


@frozen
class Control:
    """Calls into the process; C{None} where it does not let clients have that, as where an application embeds us."""

    on_reload: Optional[Callable[[], None]] = None
    """Reads the settings of queues again; raises L{darner.errors.SettingsError}, and changes nothing, if it cannot."""
    on_shutdown: Optional[Callable[[], None]] = None
    """Begins a clean stop, soon."""

    def reload(self) -> None:
        """
        @raise ClientError: that may not be asked for.
        @raise darner.errors.SettingsError: a setting is wrong; nothing is changed.
        """
        if self.on_reload is None:
            raise ClientError("reload is not allowed here")
        self.on_reload()

    def shut_down(self) -> None:
        """@raise ClientError: that may not be asked for."""
        if self.on_shutdown is None:
            raise ClientError("shutdown is not allowed here")
        self.on_shutdown()
