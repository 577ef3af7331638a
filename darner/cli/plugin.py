"""
The functions of the twistd plugin: the options of its command line, and the service.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from darner.cli.options import Options
from darner.errors import SettingsError

if TYPE_CHECKING:
    from darner.cli.server import Server

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> Server:
    """
    Build a server.

    @raise SystemExit: with one line of explanation, if it cannot run with these options.
    """
    try:
        settings = options.settings()  # once: the file may be a pipe
    except SettingsError as error:
        sys.exit(f"darner: {error}")
    if not (settings.listen or settings.http_listen):
        _leave_out_tls()
    from darner.cli.log_files import open_without_umask
    from darner.cli.log_format import install, observer_maker
    from darner.cli.log_pipe import log_observer
    from darner.cli.server import makeService

    open_without_umask()
    install(settings.log_format, settings.log_level)
    server = makeService(options, settings=settings)
    if options.parent is not None:
        make = observer_maker(settings.log_format, settings.log_level)
        server.log_observer = log_observer(options.parent, sys.stdout, make)
    return server


def _leave_out_tls() -> None:
    """
    Make pyOpenSSL look as if it was not installed, unless it is already imported.

    Twisted's reactor imports it if it is installed, and it takes 12 of the 55 MiB of an idle server.  Only endpoints
    in C{listen} can use TLS.  This function is for the command line alone, whose process is a server and nothing else;
    it is called after twistd has loaded its plugins.  It does not affect applications that embed darner.
    """
    sys.modules.setdefault("OpenSSL", None)  # type: ignore[arg-type]
