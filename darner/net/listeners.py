"""
Where clients are served: what is known of each place, and holding it before there is anything to serve.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final, Optional

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import ServerFactory

MEMCACHE: Final = "memcache"
TEXT: Final = "text"
HTTP: Final = "http"
"""The protocols that are spoken: memcache's, Kestrel's text protocol, and HTTP for administration."""


@frozen
class Listener:
    """One place to listen at, and what is spoken there."""

    endpoint: IStreamServerEndpoint
    protocol: str = MEMCACHE
    """L{MEMCACHE}, L{TEXT} or L{HTTP}."""
    dialect: Optional[str] = None
    """As the setting of that name (`darner.config.settings.Settings`), for this place; C{None}: as that says."""
    tls: bool = False
    """Whether the endpoint speaks TLS."""
    client_certificates: bool = False
    """Whether only clients with a certificate get in."""

    def describe(self, address: object) -> str:
        """@return: an address where it listens, for people."""
        if self.protocol == HTTP:
            return url_of(address, self.tls)
        if isinstance(address, IPv6Address):
            return f"[{address.host}]:{address.port}{self}"
        return f"{address.host}:{address.port}{self}" if isinstance(address, IPv4Address) else f"{address}{self}"

    def __str__(self) -> str:
        """What is special about it, in brackets, for the log; nothing where nothing is."""
        words = ["TLS"] * self.tls + ["client certificates"] * self.client_certificates
        words += ["text protocol"] * (self.protocol == TEXT) + ["HTTP"] * (self.protocol == HTTP)
        return f" ({', '.join(words)})" if words else ""


def is_reachable(address: object) -> bool:
    """@return: whether other machines may reach what listens at this address: TCP, and not loopback."""
    return isinstance(address, (IPv4Address, IPv6Address)) and not ip_address(address.host).is_loopback


def url_of(address: object, tls: bool) -> str:
    """@return: where a browser finds what is served over HTTP at this address."""
    if not isinstance(address, (IPv4Address, IPv6Address)):
        return str(address)
    host = f"[{address.host}]" if isinstance(address, IPv6Address) else address.host
    if ip_address(address.host).is_unspecified:
        host = socket.gethostname()
    return f"http{'s' * tls}://{host}:{address.port}/"


class Door(ServerFactory):
    """
    In place of a factory while there is nothing to serve yet: an address is taken before anything else is touched.

    No client is served before L{open}; the reactor does not get its turn between the two.
    """

    noisy = False

    def __init__(self) -> None:
        self._factory: Optional[IProtocolFactory] = None
        self._opened: list[Callable[[Any], None]] = []

    def when_open(self, call: Callable[[Any], None]) -> None:
        """Have a port told of the factory, once there is one."""
        self._opened.append(call)

    def open(self, factory: IProtocolFactory) -> None:
        """
        Serve clients from now on.

        @raise CannotListenError: somebody else has taken the address since.
        """
        self._factory = factory
        opened, self._opened = self._opened, []
        for call in opened:
            call(factory)

    def buildProtocol(self, addr: Any) -> Optional[IProtocol]:  # type: ignore[override]
        return None if self._factory is None else self._factory.buildProtocol(addr)
