"""
Who a client is, where it has to say so, and what it may ask for then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Optional

from twisted.logger import Logger
from twisted.python.failure import Failure

from darner.errors import DarnerError, NotAllowed, Unauthenticated
from darner.front.access import MAX_CREDENTIALS, Access, Grant
from darner.values.requests import Request


class LogIn:
    """
    One client's log-in.

    @ivar grant: what its user may do; C{None} as long as it has not logged in.
    @ivar checking: whether its password is being checked.
    """

    _log: ClassVar[Logger] = Logger()

    def __init__(self, access: Access) -> None:
        self._access = access
        self.grant: Optional[Grant] = None
        self.checking = False

    def check(self, request: Request) -> None:
        """
        @raise Unauthenticated: the client has not logged in.
        @raise NotAllowed: its user has no right to this.
        """
        if request.for_all():
            return
        if self.grant is None:
            raise Unauthenticated()
        if not request.allowed(self.grant):
            raise NotAllowed()

    def check_new_child(self, child: bytes, parent: bytes) -> None:
        """@raise NotAllowed: the client's user may not have a read make this child, which costs all who put there."""
        grant = self.grant
        if grant is None or not any(
            grant.may_write(queue) or grant.may_administrate(queue) for queue in (child, parent)
        ):
            raise NotAllowed()

    def may_see(self, queue: bytes) -> bool:
        """Whether the figures of a queue are shown."""
        return self.grant is not None and self.grant.may_see(queue)

    def takes(self, size: int) -> bool:
        """Whether so many bytes may be the user and the password that are missing."""
        return self.grant is None and size <= MAX_CREDENTIALS

    def begin(self, credentials: bytes, ended: Callable[[Optional[BaseException]], None]) -> None:
        """
        @param credentials: user, a space, password.
        @param ended: called when they are checked; with the error, if they are not good.
        """
        self.checking = True
        self._access.log_in(credentials).addCallbacks(
            self._logged_in, self._turned_away, callbackArgs=(ended,), errbackArgs=(ended,)
        ).addErrback(self._fault)

    def _logged_in(self, grant: Grant, ended: Callable[[Optional[BaseException]], None]) -> None:
        self.checking = False
        self.grant = grant
        ended(None)

    def _turned_away(self, failure: Failure, ended: Callable[[Optional[BaseException]], None]) -> None:
        self.checking = False
        if not isinstance(failure.value, DarnerError):
            self._fault(failure)
        ended(failure.value)

    def _fault(self, failure: Failure) -> None:
        self._log.failure("could not check a password", failure)
