"""
Listeners: what is known of each, and a factory that holds its address until there are queues to serve.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final, Optional, Protocol

from attrs import frozen
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint, UNIXServerEndpoint
from twisted.internet.interfaces import IListeningPort, IProtocol, IStreamServerEndpoint
from twisted.internet.protocol import ServerFactory
from twisted.python.failure import Failure

from darner.net.refusal import SPARE_DESCRIPTORS, Dismissal, descriptors_are_scarce
from darner.net.unix import UnixEndpoint

MEMCACHE: Final = "memcache"
TEXT: Final = "text"
HTTP: Final = "http"
"""The protocols that are spoken: memcache's, Kestrel's text protocol, and HTTP for administration."""


_BARE: Final = (TCP4ServerEndpoint, TCP6ServerEndpoint, UNIXServerEndpoint, UnixEndpoint)
"""Endpoints that put nothing between a connection and its protocol."""


@frozen
class Listener:
    """An endpoint to listen on, and its protocol."""

    endpoint: IStreamServerEndpoint
    protocol: str = MEMCACHE
    """L{MEMCACHE}, L{TEXT} or L{HTTP}."""
    dialect: Optional[str] = None
    """Overrides the setting of that name (`darner.config.settings.Settings`) for this listener, unless C{None}."""
    tls: bool = False
    """Whether the endpoint speaks TLS."""
    client_certificates: bool = False
    """Whether clients need a certificate."""

    def describe(self, address: object) -> str:
        """@return: an address where it listens, for people."""
        if self.protocol == HTTP:
            return url_of(address, self.tls)
        if isinstance(address, IPv6Address):
            return f"[{address.host}]:{address.port}{self}"
        return f"{address.host}:{address.port}{self}" if isinstance(address, IPv4Address) else f"{address}{self}"

    def __str__(self) -> str:
        """What differs from the memcache protocol over plain TCP, in brackets, for the log; empty if nothing does."""
        words = ["TLS"] * self.tls + ["client certificates"] * self.client_certificates
        words += ["text protocol"] * (self.protocol == TEXT) + ["HTTP"] * (self.protocol == HTTP)
        return f" ({', '.join(words)})" if words else ""


def is_reachable(address: object) -> bool:
    """@return: whether other machines can reach this address: TCP, and not loopback."""
    return isinstance(address, (IPv4Address, IPv6Address)) and not ip_address(address.host).is_loopback


def url_of(address: object, tls: bool) -> str:
    """@return: where a browser finds what is served over HTTP at this address."""
    if not isinstance(address, (IPv4Address, IPv6Address)):
        return str(address)
    host = f"[{address.host}]" if isinstance(address, IPv6Address) else address.host
    if ip_address(address.host).is_unspecified:
        host = socket.gethostname()
    return f"http{'s' * tls}://{host}:{address.port}/"


class Serving(Protocol):
    """The factory of a listener's connections."""

    def buildProtocol(self, addr: Any) -> Optional[IProtocol]: ...

    def rejected(self) -> None:
        """Count and log a client that is refused."""


class Door(ServerFactory):
    """
    Stands in for the factory of a listener, so that the server takes its addresses before it opens the store.

    No client is served before L{open} (L{listen}).  Nor is one whose descriptor the rest of the process may need.
    """

    noisy = False

    def __init__(self, listener: Listener) -> None:
        """@param listener: where it stands.  An operator is served over L{HTTP} when clients of queues are not."""
        self._factory: Optional[Serving] = None
        self._spare = SPARE_DESCRIPTORS // 2 if listener.protocol == HTTP else SPARE_DESCRIPTORS
        self._bare = isinstance(listener.endpoint, _BARE)
        self._opened: list[Callable[[Any], None]] = []

    def when_open(self, call: Callable[[Any], None]) -> None:
        """Call C{call} with the factory when L{open} is called."""
        self._opened.append(call)

    def open(self, factory: Serving) -> None:
        """
        Serve clients from now on.

        @raise CannotListenError: another process has taken the address since.
        """
        self._factory = factory
        opened, self._opened = self._opened, []
        for call in opened:
            call(factory)

    def buildProtocol(self, addr: Any) -> Optional[IProtocol]:  # type: ignore[override]
        if self._factory is None:
            return None
        if descriptors_are_scarce(self._spare):
            self._factory.rejected()
            # Twisted closes a connection without a protocol at once, but fails where TLS, for example, is above it.
            return None if self._bare else Dismissal()
        return self._factory.buildProtocol(addr)


def listen(endpoint: IStreamServerEndpoint, door: Door) -> IListeningPort:
    """
    Listen without waiting.  Until the door is opened clients wait, or where a fast port has the address are refused.

    @return: the port.
    @raise CannotListenError: or another error of the endpoint.
    """
    ports: list[IListeningPort] = []
    failures: list[Failure] = []
    endpoint.listen(door).addCallbacks(ports.append, failures.append)
    if failures:
        failures[0].raiseException()
    port = ports[0]
    if isinstance(port, FileDescriptor):
        port.stopReading()
        door.when_open(lambda _: port.startReading())
    return port
