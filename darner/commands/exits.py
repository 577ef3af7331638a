"""
The exit statuses of the program, which scripts rely on: `docs/command_line.rst` has them.
"""

from __future__ import annotations

import os
from typing import Final, Optional

from darner.client.errors import ConnectionFailed, GivenBack, InDoubt
from darner.errors import AuthenticationFailed, DarnerError, NotAllowed, Unauthenticated

DONE: Final = 0
FAILED: Final = 1
"""The server refused it, or something went wrong."""
USAGE: Final = 2
"""Wrong arguments or settings; nothing was done."""
NOTHING: Final = 3
"""There is no item, or none came in time."""
UNREACHABLE: Final = 4
"""No connection to a server."""
IN_DOUBT: Final = 5
"""The connection broke before the reply: it may have been done or not."""
NOT_ALLOWED: Final = 6
"""The user, the password or the rights are wrong."""
INTERRUPTED: Final = 130
TERMINATED: Final = 143
BROKEN_PIPE: Final = 141
"""Whoever read the output has gone: as if by SIGPIPE."""


class Failure(Exception):
    """Ends a command with one line on standard error."""

    def __init__(self, reason: str, status: int = FAILED) -> None:
        super().__init__(reason)
        self.status = status


class Terminated(KeyboardInterrupt):
    """The process is to end, by SIGTERM or SIGHUP."""


def status_of(error: DarnerError) -> int:
    """@return: the exit status that says what went wrong."""
    if isinstance(error, ConnectionFailed):
        return UNREACHABLE
    if isinstance(error, (InDoubt, GivenBack)):
        return IN_DOUBT
    if isinstance(error, (AuthenticationFailed, NotAllowed, Unauthenticated)):
        return NOT_ALLOWED
    return FAILED


def explain(error: BaseException) -> str:
    """@return: what went wrong, in a line; where there was no connection, what the system said, once."""
    cause: Optional[BaseException] = error
    while isinstance(error, ConnectionFailed) and cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return f"{str(error).partition(': ')[0]}: {cause.strerror if cause.errno < 0 else os.strerror(cause.errno)}"
        cause = cause.__cause__
    return " ".join(str(error).split())
