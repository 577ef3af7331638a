"""
What a client's call can end with besides what the server answers (`darner.errors`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from darner.errors import (
    AuthenticationFailed,
    BadQueueName,
    ClientError,
    DarnerError,
    ItemTooLarge,
    NotAllowed,
    QueueFull,
    ServerError,
    TooManyLogins,
    TooManyOpenReads,
    Unauthenticated,
    Unavailable,
)  # fmt: skip

__all__ = [
    "AuthenticationFailed", "BadQueueName", "ClientClosed", "ClientError", "ConnectionFailed", "DarnerError",
    "GivenBack", "InDoubt", "ItemTooLarge", "NotAllowed", "ProtocolError", "QueueFull", "ServerError", "SpansShards",
    "TimedOut", "TooManyConnections", "TooManyLogins", "TooManyOpenReads", "Unauthenticated", "Unavailable",
]  # fmt: skip


class ConnectionFailed(DarnerError):
    """There was no connection to the server in the time allowed.  The request was not done."""


class TimedOut(ConnectionFailed):
    """The time for a connection was up.  The request was not done."""


class InDoubt(DarnerError):
    """
    The connection broke, or the time was up, after the request was sent and before it was answered.

    It may have been done or not.  A put with an id, and what changes nothing, is sent again by itself until its time is
    up.
    """


class ProtocolError(DarnerError):
    """The server sent what is no reply of the protocol.  The connection is of no more use."""


class TooManyConnections(ServerError):
    """The server has as many clients as it takes, and closes the connection."""

    def __init__(self) -> None:
        super().__init__("too many connections")


class SpansShards(ClientError):
    """What was asked for is about queues of different shards, which no server does.  Nothing was done."""


class GivenBack(DarnerError):
    """The open read had ended before it was closed: its time was up, and the item will be had again."""

    def __init__(self) -> None:
        super().__init__("the item was given back before it was closed")


class ClientClosed(DarnerError):
    """The client was closed."""

    def __init__(self) -> None:
        super().__init__("the client is closed")


_BY_REPLY: Final[dict[bytes, Callable[[], DarnerError]]] = {
    b"ERROR": lambda: ClientError("the server does not know this command"),
    b"NOT_STORED": QueueFull,
    b"CLIENT_ERROR bad queue name": BadQueueName,
    b"CLIENT_ERROR close current item first": TooManyOpenReads,
    b"CLIENT_ERROR unauthenticated": Unauthenticated,
    b"CLIENT_ERROR authentication failure": AuthenticationFailed,
    b"CLIENT_ERROR not allowed": NotAllowed,
    b"SERVER_ERROR object too large": ItemTooLarge,
    b"SERVER_ERROR too many connections": TooManyConnections,
    b"SERVER_ERROR too many logins, try again": TooManyLogins,
    b"SERVER_ERROR server is readonly": lambda: Unavailable("readonly"),
    b"SERVER_ERROR server is quiescent": lambda: Unavailable("quiescent"),
}


def error_of(line: bytes) -> DarnerError:
    """@return: what a line says that is an error, or that is none that belongs here: L{ProtocolError}."""
    known = _BY_REPLY.get(line)
    if known is not None:
        return known()
    text = line.partition(b" ")[2].decode("utf-8", "replace")
    if line.startswith(b"CLIENT_ERROR"):
        return ClientError(text)
    if line.startswith(b"SERVER_ERROR"):
        return ServerError(text)
    return ProtocolError(f"not a reply: {line[:200]!r}")
