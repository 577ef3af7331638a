"""
The audit log: failed log-ins, refused requests, administrative requests.

Its lines have the namespace C{darner.audit}, and name the user, the address and the request.  Repeated events are
logged once a minute, with a count (`darner.net.log_limits`).
"""

from __future__ import annotations

import re
from typing import Final, Optional

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger, LogLevel

from darner.errors import DarnerError
from darner.net.log_limits import LimitedLog
from darner.values import requests

ACTS: Final[frozenset[type]] = frozenset([
    requests.Delete, requests.Flush, requests.FlushAll, requests.FlushExpired, requests.FlushAllExpired,
    requests.Requeue, requests.SetStatus, requests.Reload, requests.Shutdown, requests.DumpConfig,
])  # fmt: skip
"""The administrative requests."""
MAX_TEXT: Final = 250
"""The maximum number of logged characters of a user or a request."""
MAX_ACTS: Final = 1000
"""The maximum number of different administrative requests a minute that are logged one by one."""

_log = Logger("darner.audit")

_COMMANDS: Final = {"GetMany": "get", "GetFirst": "get", "PutItems": "put", "SetStatus": "status"}
"""The commands that have another name than their class."""
_ARGUMENTS: Final = ("queue", "queues", "choices", "origin", "target", "count", "status")
"""The attributes of requests that are logged, in this order."""


def printable(text: bytes) -> str:
    """@return: bytes from a client as one line of ASCII, cut to L{MAX_TEXT}."""
    shown = repr(text[: MAX_TEXT + 1])[2:-1]
    return shown if len(shown) <= MAX_TEXT else shown[: MAX_TEXT - 3] + "..."


def describe_address(address: Optional[IAddress]) -> str:
    """@return: host and port; C{unix} for a unix socket."""
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, IPv6Address):
        return f"[{address.host}]:{address.port}"
    return "unix"


def _words(value: object) -> list[bytes]:
    if isinstance(value, tuple):
        return [word for part in value for word in _words(part)]
    if isinstance(value, requests.Get):
        return [value.queue]
    return [] if value is None else [value if isinstance(value, bytes) else str(value).encode()]


def describe_request(request: object) -> str:
    """
    @param request: a L{requests.Request}, or what is to be said of one.
    @return: the command and what it is about, without payload and options.
    """
    if isinstance(request, str):
        return printable(request.encode())
    kind = type(request).__name__
    command = _COMMANDS.get(kind) or re.sub(r"(?<=.)(?=[A-Z])", "_", kind).lower()
    words = [word for name in _ARGUMENTS for word in _words(getattr(request, name, None))]
    return printable(b" ".join([command.encode(), *words]))


class AuditLog:
    """The audit log of one listener."""

    def __init__(self, clock: IReactorTime, debug: bool = False) -> None:
        """@param debug: whether to log successful log-ins too."""
        self.debug = debug
        self.log_ins = LimitedLog(_log, clock)
        self.refusals = LimitedLog(_log, clock)
        self.acts = LimitedLog(_log, clock, kinds=MAX_ACTS)

    def close(self) -> None:
        """Log the counts of lines that were left out, and stop all timers."""
        for log in (self.log_ins, self.refusals, self.acts):
            log.close()


class AuditTrail:
    """
    Writes the audit log for one client.

    @ivar address: the client's address.
    """

    def __init__(self, log: AuditLog, address: Optional[IAddress], user: str = "-") -> None:
        """@param user: who is logged in already."""
        self._audit = log
        self.address = address
        self._user = printable(user.encode())

    @property
    def user(self) -> str:
        """Who is logged in; C{-} for nobody."""
        return self._user

    @property
    def _host(self) -> str:
        """The client's address without its port; log-in failures are counted by it."""
        return describe_address(self.address).rpartition(":")[0]

    def logged_in(self, credentials: bytes) -> None:
        """@param credentials: user, a space, password."""
        self._user = printable(credentials.partition(b" ")[0])
        if self._audit.debug:
            _log.debug("user {user} logged in from {address}", user=self._user, address=describe_address(self.address))

    def log_in_failed(self, credentials: bytes, error: DarnerError) -> None:
        """@param credentials: user, a space, password; only the user is logged."""
        self._audit.log_ins.emit(
            LogLevel.warn, "user {user} failed to log in from {address}: {reason}", kind=self._host,
            user=printable(credentials.partition(b" ")[0]), address=describe_address(self.address), reason=str(error),
        )  # fmt: skip

    def refused(self, request: object, error: Exception) -> None:
        """The client has no right to what it asked for."""
        text = describe_request(request)
        self._audit.refusals.emit(
            LogLevel.warn, "refused: {request} of user {user} from {address}: {reason}",
            kind=(self._user, self._host, text),
            user=self._user, address=describe_address(self.address), request=text, reason=str(error),
        )  # fmt: skip

    def performed(self, request: object) -> None:
        """The client has done something, which is logged if it is one of L{ACTS}, or said in words."""
        if type(request) in ACTS or isinstance(request, str):
            text = describe_request(request)
            self._audit.acts.emit(
                LogLevel.info, "{request} by user {user} from {address}", kind=(self._user, self._host, text),
                user=self._user, address=describe_address(self.address), request=text,
            )  # fmt: skip
