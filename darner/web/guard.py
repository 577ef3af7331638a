"""
What keeps other web sites from using a visitor's browser against the server, and what browsers are told of each answer.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any, Final, Optional
from urllib.parse import urlsplit

from darner.web.openapi import CHANGE_HEADER
from darner.web.problems import Problem

HEADERS: Final = {
    b"Content-Security-Policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        b"connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    b"X-Content-Type-Options": b"nosniff",
    b"X-Frame-Options": b"DENY",
    b"Referrer-Policy": b"no-referrer",
    b"Cross-Origin-Opener-Policy": b"same-origin",
    b"Cross-Origin-Resource-Policy": b"same-origin",
    b"Permissions-Policy": b"camera=(), geolocation=(), microphone=()",
    b"Cache-Control": b"no-store",
}
"""Of every answer."""

OPEN_PATHS: Final = (b"/ping", b"/health")
"""For load balancers, which tell nothing that is worth a guard."""

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/@?#\s]+)(?::[0-9]{1,5})?")


def _host_of(header: str) -> Optional[str]:
    """@return: the host of a C{Host} header, without its port; C{None} where it is none."""
    match = _HOST.fullmatch(header)
    return None if match is None else match[1].strip("[]").rstrip(".").lower()


def _netloc(origin: str) -> str:
    """@return: host and port of an origin, in lower case; empty where it is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class Guard:
    """Checks where requests come from, before anything else is looked at."""

    def __init__(self, hosts: Iterable[str]) -> None:
        """@param hosts: names by which it may be reached, besides addresses, localhost and the machine's host name."""
        self._hosts = {host.lower() for host in (*hosts, "localhost", socket.gethostname())}

    def check(self, request: Any, authorized_by_header: bool) -> None:
        """
        @param authorized_by_header: whether the server has users, and the request brings a password, which no
            other site could know: then any name will do.
        @raise Problem: it is not to be answered.
        """
        if request.path in OPEN_PATHS:
            return
        # As bytes: to be text they would have to be UTF-8.
        hosts = request.requestHeaders.getRawHeaders(b"host", [])
        if len(hosts) > 1:
            raise Problem(400, "more than one Host")
        host = hosts[0].decode("latin-1") if hosts else ""
        if not authorized_by_header:
            self._check_host(host)
        self._check_origin(request, host)

    def _check_host(self, host: str) -> None:
        """A name that leads to this machine may be anybody's (DNS rebinding): only those that are known will do."""
        name = _host_of(host)
        if name is None:
            raise Problem(400, "no Host")
        if not (_is_address(name) or name in self._hosts or name.endswith(".localhost")):
            raise Problem(421, "the server is not known by that name: see http_hosts in its settings")

    def _check_origin(self, request: Any, host: str) -> None:
        site = request.getHeader(b"sec-fetch-site")
        if site not in (None, b"same-origin", b"none") and not self._is_visit(request):
            raise Problem(403, "a request of another site")
        origin = request.getHeader(b"origin")
        if origin is not None and _netloc(origin.decode("latin-1")) != host.lower():
            raise Problem(403, "a request of another origin")
        if request.method not in (b"GET", b"HEAD") and request.getHeader(CHANGE_HEADER.encode()) != b"1":
            raise Problem(403, f"a request that changes something needs the header {CHANGE_HEADER}: 1")

    @staticmethod
    def _is_visit(request: Any) -> bool:
        """@return: whether somebody follows a link to the page."""
        return bool(
            request.path == b"/"
            and request.method == b"GET"
            and request.getHeader(b"sec-fetch-mode") == b"navigate"
            and request.getHeader(b"sec-fetch-dest") == b"document"
        )
