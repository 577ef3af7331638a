"""
The endpoint for plain TCP, with a transport that is faster than Twisted's (`darner.net.port`).
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import Deferred, execute
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import classImplements

from darner.net.listeners import Door
from darner.net.port import FastPort, ServedFactory


class FastEndpoint:
    """A TCP endpoint whose connections are served by a L{FastPort}."""

    def __init__(self, reactor: Any, port: int, interface: str) -> None:
        self._reactor = reactor
        self._port = port
        self._interface = interface

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """@param protocolFactory: a L{ServedFactory}, or a L{Door} that will get one."""
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        port = FastPort(self._reactor, self._port, self._interface)
        port.startListening()
        if isinstance(factory, Door):
            factory.when_open(port.serve)
        else:
            port.serve(cast(ServedFactory, factory))
        return port


classImplements(FastEndpoint, IStreamServerEndpoint)


def tcp_endpoint(reactor: Any, port: int, interface: str) -> IStreamServerEndpoint:
    """
    @return: the fastest endpoint for plain TCP that this reactor supports.
    """
    if type(reactor).__name__ == "EPollReactor":
        return FastEndpoint(reactor, port, interface)
    kind = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
    return kind(reactor, port, interface=interface)
