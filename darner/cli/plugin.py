"""
The twistd plugin's other half: what twistd is told to read its command line by, and to make.
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
    Put a server together.

    @raise SystemExit: with one line of explanation, where it cannot run with these options.
    """
    try:
        settings = options.settings()  # once: the file may be a pipe
    except SettingsError as error:
        sys.exit(f"darner: {error}")
    if not (settings.listen or settings.http_listen):
        _leave_out_tls()
    from darner.cli.log_files import open_without_umask
    from darner.cli.log_format import install
    from darner.cli.server import makeService

    open_without_umask()
    install(settings.log_format, settings.log_level)
    return makeService(options, settings=settings)


def _leave_out_tls() -> None:
    """
    Have this process be as if pyOpenSSL was not installed, unless it is loaded already.

    Twisted's reactor imports it wherever it is found, and that makes 12 of the 55 MiB of a server at rest.  TLS is for
    endpoints that are named: where none is, nobody can ask for it.  Only our command line comes here, in a process that
    is a server and nothing else, after twistd has looked for its plugins; who embeds darner has what is installed.
    """
    sys.modules.setdefault("OpenSSL", None)  # type: ignore[arg-type]
