"""
What goes wrong with a request, as C{application/problem+json} (RFC 9457).
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final, Optional

from darner.errors import (
    AuthenticationFailed,
    ClientError,
    DarnerError,
    DiskAlmostFull,
    ItemTooLarge,
    NotAllowed,
    QueueFull,
    SettingsError,
    Stopped,
    StoreError,
    TooManyLogins,
    Unauthenticated,
    Unavailable,
)

PROBLEM_TYPE: Final = b"application/problem+json"


class Problem(Exception):
    """
    An answer other than the one that was asked for.  Nothing was changed.

    @ivar status: the HTTP status.
    @ivar detail: what is wrong, in one line.
    @ivar headers: further headers of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Optional[dict[bytes, bytes]] = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}

    def encoded(self) -> bytes:
        """@return: it as JSON."""
        title = HTTPStatus(self.status).phrase
        problem = {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail}
        return json.dumps(problem).encode()


_STATUSES: Final[tuple[tuple[type[DarnerError], int], ...]] = (
    (Unauthenticated, 401),
    (AuthenticationFailed, 401),
    (NotAllowed, 403),
    (TooManyLogins, 429),
    (ItemTooLarge, 413),
    (QueueFull, 409),
    (DiskAlmostFull, 507),
    (Stopped, 503),
    (Unavailable, 503),
    (StoreError, 503),
    (SettingsError, 409),
    (ClientError, 400),
)
"""The first that fits decides."""


def problem_of(error: DarnerError) -> Problem:
    """@return: an error of the queues, for those who asked by HTTP."""
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    return Problem(status, str(error))


def bad_request(detail: str) -> Problem:
    return Problem(400, detail)


def not_found(detail: str) -> Problem:
    return Problem(404, detail)
