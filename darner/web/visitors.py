"""
Who asks by HTTP: by basic authentication or the cookie of a session, as the users of the protocols.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections import OrderedDict
from ipaddress import ip_address
from typing import Any, Final, Optional

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReactorTime
from twisted.web.iweb import IRequest

from darner.errors import AuthenticationFailed, DarnerError, NotAllowed, Unauthenticated
from darner.front.access import MAX_CREDENTIALS, Access, Grant
from darner.front.audit import AuditLog, AuditTrail
from darner.web.endpoints import Right
from darner.web.problems import Problem, problem_of

COOKIE: Final = b"darner_session"
MOST_SESSIONS: Final = 1000
"""The one that was not used for longest goes."""
IDLE: Final = 12 * 3600.0
"""Seconds after which a session ends that is not used."""
LONGEST: Final = 7 * 24 * 3600.0
"""Seconds after which any session ends."""


@frozen
class Visitor:
    """
    Somebody whose requests are served.

    @ivar user: C{None} where the server has no users.
    @ivar grant: what the user may do; C{None}: everything.
    """

    user: Optional[str] = None
    grant: Optional[Grant] = None

    def may(self, right: str, queue: bytes = b"") -> bool:
        """@param right: one of L{Right}."""
        grant = self.grant
        if grant is None or right in (Right.ANYONE, Right.USER):
            return True
        if right == Right.SERVER:
            return grant.everything
        rights = {
            Right.SEE: grant.may_see, Right.READ: grant.may_read, Right.WRITE: grant.may_write,
            Right.ADMIN: grant.may_administrate,
        }  # fmt: skip
        return rights[right](queue)

    def check(self, right: str, queue: bytes = b"") -> None:
        """@raise NotAllowed: the visitor may not."""
        if not self.may(right, queue):
            raise NotAllowed()

    @property
    def sees_all(self) -> bool:
        """Whether no queue is hidden from the visitor."""
        return self.grant is None or self.grant.sees_all

    def may_see(self, queue: bytes) -> bool:
        return self.grant is None or self.grant.may_see(queue)


def is_local(address: object) -> bool:
    """@return: whether a client with this address runs on this machine."""
    if isinstance(address, (IPv4Address, IPv6Address)):
        host = ip_address(address.host.partition("%")[0])
        mapped = getattr(host, "ipv4_mapped", None)
        return (mapped or host).is_loopback
    return True  # a unix socket


@frozen
class _Session:
    user: bytes
    stamp: object
    """What L{Access.stamp} said when it began."""
    began: float
    used: float


class Sessions:
    """Those who are logged in by the page."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._sessions: OrderedDict[bytes, _Session] = OrderedDict()

    def begin(self, user: bytes, stamp: object) -> bytes:
        """@return: the value of the cookie."""
        token = secrets.token_urlsafe(32).encode()
        now = self._clock.seconds()
        self._sessions[token] = _Session(user, stamp, now, now)
        if len(self._sessions) > MOST_SESSIONS:
            self._sessions.popitem(last=False)
        return token

    def find(self, token: bytes, access: Access) -> Optional[bytes]:
        """@return: whose session it is; C{None} where it is over, also as the user's password is another one by now."""
        session = self._sessions.get(token)
        if session is None:
            return None
        now = self._clock.seconds()
        over = now - session.used > IDLE or now - session.began > LONGEST
        if over or session.stamp is None or access.stamp(session.user) != session.stamp:
            del self._sessions[token]
            return None
        self._sessions[token] = _Session(session.user, session.stamp, session.began, now)
        self._sessions.move_to_end(token)
        return session.user

    def end(self, token: bytes) -> None:
        self._sessions.pop(token, None)


def basic_credentials(header: bytes) -> Optional[bytes]:
    """
    @param header: the value of C{Authorization}.
    @return: user, a space, password; C{None} where it is of another kind.
    """
    kind, _, encoded = header.partition(b" ")
    if kind.lower() != b"basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except binascii.Error:
        return None
    if not colon or b" " in user:
        return None
    return user + b" " + password


class Reception:
    """Finds out who sends a request, and lets in those who may."""

    def __init__(self, access: Optional[Access], audit: AuditLog, clock: IReactorTime, trusting: bool) -> None:
        """
        @param access: the users; C{None}: there are none.
        @param trusting: whether other machines are served without users, and passwords taken without encryption.
        """
        self.access = access
        self._audit = audit
        self._trusting = trusting
        self.sessions = Sessions(clock)

    @property
    def has_users(self) -> bool:
        return self.access is not None

    def check_place(self, request: IRequest, certified: bool) -> None:
        """
        @param certified: whether the client has shown a certificate.
        @raise Problem: those who come from there are not served.
        """
        if self._trusting or certified or is_local(request.getClientAddress()):
            return
        if self.access is None:
            raise Problem(403, (
                "without users only this machine is served: set password_file, or trusted_network = true where "
                "everybody who reaches the server may do everything"
            ))  # fmt: skip
        if not request.isSecure():
            raise Problem(403, "passwords are taken over TLS, or from this machine: use http_listen with ssl:")

    def trail(self, request: IRequest, user: str = "-") -> AuditTrail:
        return AuditTrail(self._audit, request.getClientAddress(), user)

    async def identify(self, request: Any) -> Visitor:
        """
        @return: who sends the request.
        @raise Problem: who sends it is not known, or the password is wrong.
        """
        if self.access is None:
            return Visitor()
        header = request.getHeader(b"authorization")
        if header is not None:
            credentials = basic_credentials(header)
            if credentials is None:
                raise self._turned_away(request, Unauthenticated())
            return await self.log_in(request, credentials)
        token = request.getCookie(COOKIE)
        user = None if token is None else self.sessions.find(token, self.access)
        if user is None:
            raise self._turned_away(request, Unauthenticated())
        return Visitor(user.decode(), self.access.grant(user))

    async def log_in(self, request: Any, credentials: bytes) -> Visitor:
        """
        @param credentials: user, a space, password.
        @raise Problem: they are wrong, or too many passwords are to be checked.
        """
        assert self.access is not None
        try:
            if len(credentials) > MAX_CREDENTIALS:
                raise AuthenticationFailed()
            grant = await self.access.log_in(credentials, request.getClientAddress())
        except DarnerError as error:
            self.trail(request).log_in_failed(credentials, error)
            raise self._turned_away(request, error) from error
        return Visitor(credentials.partition(b" ")[0].decode(errors="replace"), grant)

    def _turned_away(self, request: Any, error: DarnerError) -> Problem:
        problem = problem_of(error)
        if problem.status == 401:
            # A browser asks for a password by itself where it hears of basic authentication; the page has a form.
            by_page = request.getHeader(b"sec-fetch-mode") not in (None, b"navigate")
            kind = b"Session" if by_page else b"Basic"
            problem.headers[b"WWW-Authenticate"] = kind + b' realm="darner", charset="UTF-8"'
        return problem
