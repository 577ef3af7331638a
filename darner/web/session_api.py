"""
Logging in by the page, and the document of the API.
"""

from __future__ import annotations

from typing import Any, Optional

import darner
from darner.config.settings import Rights
from darner.web.answers import Answer, encode
from darner.web.calls import Call
from darner.web.endpoints import handles
from darner.web.openapi import encoded
from darner.web.problems import Problem, bad_request
from darner.web.visitors import COOKIE, LONGEST, Visitor


@handles("openapi")
async def openapi(call: Call) -> Answer:
    return Answer(encoded())


def describe(call: Call, visitor: Optional[Visitor]) -> dict[str, Any]:
    """
    @param visitor: who asks; C{None}: nobody who is logged in.
    @return: as the schema C{Session} says.
    """
    served = call.served
    rights: Optional[dict[str, Any]] = None
    if visitor is not None and visitor.user is None:
        rights = {"read": ["*"], "write": ["*"], "admin": ["*"], "server": True}
    elif visitor is not None and visitor.user is not None:
        given = served.settings.users.get(visitor.user, Rights())
        rights = {
            "read": list(given.read), "write": list(given.write), "admin": list(given.admin),
            "server": "*" in given.admin,
        }  # fmt: skip
    return {
        "user": None if visitor is None else visitor.user,
        "login_required": served.reception.has_users,
        "authenticated": visitor is not None,
        "rights": rights,
        "version": darner.__version__,
        "instance": served.instance,
    }


@handles("session")
async def session(call: Call) -> dict[str, Any]:
    try:
        visitor = await call.served.reception.identify(call.request)
    except Problem as problem:
        if problem.status != 401 or call.request.getHeader(b"authorization") is not None:
            raise
        return describe(call, None)
    return describe(call, visitor)


def _cookie(call: Call, value: bytes, seconds: int) -> dict[bytes, bytes]:
    secure = b"; Secure" if call.request.isSecure() else b""
    cookie = b"%b=%b; Path=/; Max-Age=%d; HttpOnly; SameSite=Strict%b" % (COOKIE, value, seconds, secure)
    return {b"Set-Cookie": cookie}


@handles("log_in")
async def log_in(call: Call) -> Answer:
    reception = call.served.reception
    access = reception.access
    if access is None:
        raise bad_request("the server has no users")
    if " " in call["user"]:
        raise bad_request("user: a blank is in no name")
    user = call["user"].encode()
    visitor = await reception.log_in(call.request, user + b" " + call["password"].encode())
    call.trail = reception.trail(call.request, visitor.user or "-")
    token = reception.sessions.begin(user, access.stamp(user))
    return Answer(encode(describe(call, visitor)), headers=_cookie(call, token, int(LONGEST)))


@handles("log_out")
async def log_out(call: Call) -> Answer:
    token = call.request.getCookie(COOKIE)
    if token is not None:
        call.served.reception.sessions.end(token)
    return Answer(b"", 204, headers=_cookie(call, b"", 0))
