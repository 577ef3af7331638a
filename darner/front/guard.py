"""
A session whose client has to say who it is, and may do what its user may.

The client logs in as with memcached: by a first C{set}, of any key, whose payload is user and password with a space
between them.  Before that only C{version} and C{quit} are served.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Optional, Union

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from darner.errors import ClientError, DarnerError, NotAllowed, Unauthenticated
from darner.front import memcache
from darner.front.access import MAX_CREDENTIALS, Access, Grant
from darner.front.outbox import Outlet
from darner.front.session import Session
from darner.queues.collection import Queues
from darner.queues.streams import PayloadWriter
from darner.values import requests

_Reading = Union[requests.Get, requests.GetMany]

_ALWAYS: Final = (requests.Version, requests.Quit, requests.Refused)


class GuardedSession(Session):
    """A L{Session} behind a log-in."""

    _log: ClassVar[Logger] = Logger()

    def __init__(self, queues: Queues, outlet: Outlet, whole_key: bool, access: Access) -> None:
        self._access = access
        self._grant: Optional[Grant] = None
        self._logging_in = False
        self._checking: Optional[Deferred[Any]] = None
        super().__init__(queues, outlet, whole_key)

    @property
    def anonymous(self) -> bool:
        return self._grant is None and not self._logging_in

    def _update_busy(self) -> None:
        super()._update_busy()
        self.busy = self.busy or self._logging_in

    def end(self) -> None:
        super().end()
        if self._logging_in and self._checking is not None:
            self._checking.cancel()

    # Rights

    def perform(self, request: requests.Request) -> None:
        if not isinstance(request, _ALWAYS):
            try:
                self._check(request)
            except ClientError as error:
                self._note(request, error)
                if not getattr(request, "noreply", False):
                    self._reply(memcache.error_reply(error))
                return
        super().perform(request)

    def _check(self, request: requests.Request) -> None:
        """@raise ClientError: the client has not logged in, or its user has no right to this."""
        grant = self._grant
        if grant is None:
            raise Unauthenticated()
        if isinstance(request, (requests.Get, requests.Monitor, requests.Confirm)):
            allowed = grant.may_read(request.queue)
        elif isinstance(request, requests.GetMany):
            allowed = all(grant.may_read(queue) for queue in request.queues)
        elif isinstance(request, requests.GetFirst):
            allowed = all(grant.may_read(choice.queue) for choice in request.choices)
        elif isinstance(request, requests.Touch):
            allowed = grant.may_read(request.queue)
        elif isinstance(request, requests.Requeue):
            allowed = grant.may_read(request.origin) and grant.may_write(request.target)
        elif isinstance(request, (requests.Delete, requests.Flush, requests.FlushExpired)):
            allowed = grant.may_administrate(request.queue)
        elif isinstance(request, (requests.DumpStats, requests.DumpConfig)):
            allowed = all(grant.may_see(queue) for queue in request.queues)
        else:
            # What changes all queues, or the server, is for who may administrate all; figures are shown of those that
            # may be seen.
            allowed = grant.everything or isinstance(request, (requests.Stats, requests.Status))
        if not allowed:
            raise NotAllowed()

    def _names(self) -> list[bytes]:
        grant = self._grant
        return [name for name in super()._names() if grant is not None and grant.may_see(name)]

    def takes(self, request: requests.Set) -> bool:
        if self._grant is None:
            return request.size <= MAX_CREDENTIALS
        return self._grant.may_write(request.queue) and super().takes(request)

    def refuse(self, request: requests.Set) -> None:
        if self._grant is not None and self._grant.may_write(request.queue):
            super().refuse(request)
            return
        error = Unauthenticated() if self._grant is None else NotAllowed()
        self._note(request, error)
        self._not_stored(request, error)

    def _note(self, request: requests.Request, error: ClientError) -> None:
        assert self.trail is not None
        self.trail.refused(request, error)

    def put(self, request: requests.Set, payload: bytes) -> None:
        if self._grant is not None and self._grant.may_write(request.queue):
            super().put(request, payload)
        elif self._grant is None and self.takes(request):
            self._log_in(request, payload)
        else:
            self.refuse(request)

    def put_flow(self, request: requests.Set, inflow: PayloadWriter) -> None:
        if self._grant is None:
            # It is small, or it would not have been taken.
            self._log_in(request, inflow.finish())
        else:
            super().put_flow(request, inflow)

    # Logging in

    def _log_in(self, request: requests.Set, credentials: bytes) -> None:
        self._queues.stats.auth_cmds += 1
        self._logging_in = True
        self._update_busy()
        assert self.trail is not None
        self._checking = self._access.log_in(credentials, self.trail.address)
        self._checking.addCallbacks(
            self._logged_in, self._turned_away, callbackArgs=(request, credentials), errbackArgs=(request, credentials)
        ).addErrback(self._fault)

    def _end_log_in(self) -> None:
        self._logging_in = False
        self._update_busy()
        # Also where nothing is said: what was held back may go on.
        self._commit.answers(self)

    def _logged_in(self, grant: Grant, request: requests.Set, credentials: bytes) -> None:
        self._grant = grant
        assert self.trail is not None
        self.trail.logged_in(credentials)
        self._end_log_in()
        if not request.noreply:
            self._reply(memcache.STORED)

    def _turned_away(self, failure: Failure, request: requests.Set, credentials: bytes) -> None:
        if failure.check(CancelledError):
            return  # the client has gone
        self._queues.stats.auth_errors += 1
        error = failure.value
        assert error is not None
        if not isinstance(error, DarnerError):
            self._fault(failure)
        else:
            assert self.trail is not None
            self.trail.log_in_failed(credentials, error)
        self._end_log_in()
        if not request.noreply:
            self._reply(memcache.error_reply(error))
        self.finish()

    def _fault(self, failure: Failure) -> None:
        self._log.failure("could not check a password", failure)
