"""
The log-in of a client, and the check of its rights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from darner.errors import DarnerError, NotAllowed, Unauthenticated
from darner.front.access import MAX_CREDENTIALS, Access, Grant
from darner.front.audit import AuditTrail
from darner.values.requests import Request


class LogIn:
    """
    One client's log-in.

    @ivar grant: the rights of its user; C{None} until it has logged in.
    @ivar checking: whether its password is being checked.
    """

    def __init__(self, access: Optional[Access], trail: AuditTrail) -> None:
        """
        @param access: the users; C{None} for a subclass that has the client logged in.
        @param trail: logs log-ins and refusals.
        """
        self._access = access
        self._trail = trail
        self._check: Optional[Deferred[Any]] = None
        self.grant: Optional[Grant] = None
        self.checking = False

    @property
    def anonymous(self) -> bool:
        """Whether the client has not logged in, and its password is not being checked."""
        return self.grant is None and not self.checking

    def check(self, request: Request) -> None:
        """
        Check the client's right to a request, and log a refusal.

        @raise Unauthenticated: the client has not logged in.
        @raise NotAllowed: its user does not have the right.
        """
        if request.for_all():
            return
        grant = self.grant
        if grant is not None and request.allowed(grant):
            return
        error = Unauthenticated() if grant is None else NotAllowed()
        self._trail.refused(request, error)
        raise error

    def check_new_child(self, request: Request, child: bytes, parent: bytes) -> None:
        """
        Check that a read may create a child, as that makes each set on the parent cost more, and log a refusal.

        @raise NotAllowed: the user may neither write to nor administrate the child or its parent.
        """
        grant = self.grant
        if grant is None or not any(
            grant.may_write(queue) or grant.may_administrate(queue) for queue in (child, parent)
        ):
            error = NotAllowed()
            self._trail.refused(request, error)
            raise error

    def may_see(self, queue: bytes) -> bool:
        """Whether the client gets the statistics of a queue."""
        return self.grant is not None and self.grant.may_see(queue)

    def takes(self, size: int) -> bool:
        """Whether a payload of this size is a log-in."""
        return self.grant is None and size <= MAX_CREDENTIALS

    def begin(self, credentials: bytes, ended: Callable[[Optional[BaseException]], None]) -> None:
        """
        Begin to check a user and password.

        @param credentials: user, a space, password.
        @param ended: called when they are checked, with the error if there is one.
        """
        assert self._access is not None
        self.checking = True
        self._check = self._access.log_in(credentials, self._trail.address)
        self._check.addCallbacks(
            self._logged_in, self._turned_away, callbackArgs=(credentials, ended), errbackArgs=(credentials, ended)
        ).addErrback(self._fault)

    def cancel(self) -> None:
        """Cancel the check, as the client has disconnected."""
        if self.checking and self._check is not None:
            self._check.cancel()

    def _logged_in(self, grant: Grant, credentials: bytes, ended: Callable[[Optional[BaseException]], None]) -> None:
        self.checking = False
        self.grant = grant
        self._trail.logged_in(credentials)
        ended(None)

    def _turned_away(
        self, failure: Failure, credentials: bytes, ended: Callable[[Optional[BaseException]], None]
    ) -> None:
        self.checking = False
        error = failure.value
        if isinstance(error, CancelledError):
            return
        if isinstance(error, DarnerError):
            self._trail.log_in_failed(credentials, error)
        else:
            self._fault(failure)
        ended(error)

    def _fault(self, failure: Failure) -> None:
        assert self._access is not None
        self._access.log.failure("internal error while checking a password", failure)
