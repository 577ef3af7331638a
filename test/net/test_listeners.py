"""Tests of `darner.net.listeners`."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from darner.net import listeners
from darner.net.listeners import HTTP, MEMCACHE, TEXT, Door, Listener, is_reachable
from darner.net.refusal import SPARE_DESCRIPTORS, Dismissal

ENDPOINT = cast(IStreamServerEndpoint, object())


class ListenerTests(SynchronousTestCase):
    def test_what_the_log_says_of_it(self) -> None:
        for listener, text in (
            (Listener(ENDPOINT), ""),
            (Listener(ENDPOINT, TEXT), " (text protocol)"),
            (Listener(ENDPOINT, MEMCACHE, "request", tls=True), " (TLS)"),
            (Listener(ENDPOINT, tls=True, client_certificates=True), " (TLS, client certificates)"),
            (Listener(ENDPOINT, TEXT, tls=True), " (TLS, text protocol)"),
        ):
            self.assertEqual(str(listener), text)

    def test_reachable(self) -> None:
        for address, expected in (
            (IPv4Address("TCP", "127.0.0.1", 1), False),
            (IPv4Address("TCP", "127.8.0.1", 1), False),
            (IPv6Address("TCP", "::1", 1), False),
            (UNIXAddress(b"/s"), False),
            (IPv4Address("TCP", "0.0.0.0", 1), True),
            (IPv4Address("TCP", "10.0.0.1", 1), True),
            (IPv6Address("TCP", "::", 1), True),
        ):
            self.assertEqual(is_reachable(address), expected, address)


class DoorTests(SynchronousTestCase):
    def test_nobody_gets_in_before_it_is_open(self) -> None:
        door = Door(Listener(ENDPOINT))
        told: list[Any] = []
        door.when_open(told.append)
        self.assertIsNone(door.buildProtocol(None))
        factory: Any = Factory.forProtocol(Protocol)
        door.open(factory)
        self.assertEqual(told, [factory])
        self.assertIsInstance(door.buildProtocol(None), Protocol)

    def test_no_descriptors(self) -> None:
        """A client for which there is no descriptor is counted and sent away; an operator is still served."""
        rejected: list[str] = []
        bare, wrapped = TCP4ServerEndpoint(None, 0), ENDPOINT
        for protocol, endpoint, expected in (
            (MEMCACHE, bare, type(None)), (TEXT, wrapped, Dismissal), (HTTP, bare, Protocol), (HTTP, wrapped, Protocol),
        ):
            door = Door(Listener(endpoint, protocol))
            factory: Any = Factory.forProtocol(Protocol)
            factory.rejected = partial(rejected.append, protocol)
            door.open(factory)
            self.patch(listeners, "descriptors_are_scarce", lambda spare: spare == SPARE_DESCRIPTORS)
            self.assertIs(type(door.buildProtocol(None)), expected)
        self.assertEqual(rejected, [MEMCACHE, TEXT])
