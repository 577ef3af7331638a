"""
The endpoint for plain TCP, with a transport that is faster than Twisted's (`darner.net.port`).
"""

from __future__ import annotations

import socket
from typing import Any, cast

from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.error import AlreadyListened
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import classImplements

from darner.net.listeners import Door
from darner.net.port import FastPort
from darner.net.served import ServedFactory


class FastEndpoint:
    """A TCP endpoint whose connections are served by a L{FastPort}."""

    def __init__(self, reactor: Any, port: int, interface: str) -> None:
        self._reactor = reactor
        self._port = port
        self._interface = interface

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """@param protocolFactory: a L{ServedFactory}, or a L{Door} that will get one."""
        return execute(self._listen, protocolFactory)

    def _make_port(self) -> FastPort:
        return FastPort(self._reactor, self._port, self._interface)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        port = self._make_port()
        port.startListening()
        if isinstance(factory, Door):
            factory.when_open(port.serve)
        else:
            port.serve(cast(ServedFactory, factory))
        return port


classImplements(FastEndpoint, IStreamServerEndpoint)


class InheritedEndpoint(FastEndpoint):
    """A listening TCP socket that the process was started with, as systemd does it, served by a L{FastPort}."""

    def __init__(self, reactor: Any, descriptor: int) -> None:
        """@param descriptor: that of the socket, which the port closes when it stops listening."""
        super().__init__(reactor, 0, "")
        self._descriptor = descriptor
        self._used = False

    def _make_port(self) -> FastPort:
        if self._used:
            raise AlreadyListened()
        self._used = True
        inherited = socket.socket(fileno=self._descriptor)
        host, port = inherited.getsockname()[:2]
        return FastPort(self._reactor, port, host, inherited)


def fastest(reactor: Any, endpoint: IStreamServerEndpoint) -> IStreamServerEndpoint:
    """@return: an endpoint that does the same as C{endpoint}, and faster where that can be."""
    if (
        isinstance(endpoint, AdoptedStreamServerEndpoint)
        and endpoint.addressFamily in (socket.AF_INET, socket.AF_INET6)
        and type(reactor).__name__ == "EPollReactor"
    ):
        return InheritedEndpoint(reactor, endpoint.fileno)
    return endpoint


def tcp_endpoint(reactor: Any, port: int, interface: str) -> IStreamServerEndpoint:
    """
    @return: the fastest endpoint for plain TCP that this reactor supports.
    """
    if type(reactor).__name__ == "EPollReactor":
        return FastEndpoint(reactor, port, interface)
    kind = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
    return kind(reactor, port, interface=interface)
