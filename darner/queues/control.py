"""
Requests of clients to the server's process: reload and shutdown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

from attrs import frozen

from darner.errors import ClientError


@frozen
class Control:
    """Calls into the process; C{None} if clients may not ask for it, for example where an application embeds darner."""

    on_reload: Optional[Callable[[], None]] = None
    """Reads the settings of queues again; if that fails, raises L{darner.errors.SettingsError} and changes nothing."""
    on_shutdown: Optional[Callable[[], None]] = None
    """Begins a clean stop soon."""

    def reload(self) -> None:
        """
        @raise ClientError: clients may not ask for this.
        @raise darner.errors.SettingsError: a setting is wrong; nothing is changed.
        """
        if self.on_reload is None:
            raise ClientError("reload is not allowed here")
        self.on_reload()

    def shut_down(self) -> None:
        """@raise ClientError: clients may not ask for this."""
        if self.on_shutdown is None:
            raise ClientError("shutdown is not allowed here")
        self.on_shutdown()
