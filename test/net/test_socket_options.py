"""Tests of `darner.net.socket_options`, on real sockets."""

from __future__ import annotations

import socket
from typing import Any, Optional, cast

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface

from darner.net.limits import Limits
from darner.net.socket_options import MAX_KEEP_ALIVE, SocketOptions, socket_of

DEFAULT = Limits(keep_alive=60.0, stall_timeout=60.0)
IDLE = socket.TCP_KEEPIDLE
USER_TIMEOUT = socket.TCP_USER_TIMEOUT


class Transport:
    """A transport with this handle, around another one or not."""

    def __init__(self, handle: Any, transport: Optional[Transport] = None) -> None:
        self._handle = handle
        self.transport = transport

    def getHandle(self) -> Any:
        return self._handle


class Broken:
    """A transport without any life in it."""

    def getHandle(self) -> Any:
        raise AttributeError("no handle")


class SocketOptionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def warnings(self) -> list[str]:
        return [str(event.get("name")) for event in self.events if event["log_level"].name == "warn"]

    def make_socket(self, family: int = socket.AF_INET) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_STREAM)
        self.addCleanup(sock.close)
        return sock

    def applied(self, limits: Limits) -> socket.socket:
        """@return: a socket with the options of these limits."""
        sock = self.make_socket()
        SocketOptions(limits).apply(Transport(sock))
        return sock

    def tcp(self, sock: socket.socket, option: int) -> int:
        return int(sock.getsockopt(socket.IPPROTO_TCP, option))

    def test_the_default(self) -> None:
        sock = self.applied(DEFAULT)
        self.assertEqual(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
        self.assertEqual(self.tcp(sock, socket.TCP_NODELAY), 1)
        self.assertEqual(self.tcp(sock, IDLE), 60)
        self.assertEqual(self.tcp(sock, socket.TCP_KEEPINTVL), 15)
        self.assertEqual(self.tcp(sock, socket.TCP_KEEPCNT), 4)
        # What is written is not sent for longer than keep-alive takes to find out.
        self.assertEqual(self.tcp(sock, USER_TIMEOUT), 120_000)
        self.assertEqual(self.warnings(), [])

    def test_no_keep_alive(self) -> None:
        sock = self.applied(Limits(stall_timeout=60.0))
        self.assertEqual(self.tcp(sock, socket.TCP_NODELAY), 1)
        self.assertEqual(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 0)
        self.assertEqual(self.tcp(sock, USER_TIMEOUT), 0)

    def test_a_client_may_be_slow_to_read_as_long_as_the_settings_say(self) -> None:
        self.assertEqual(self.tcp(self.applied(Limits(keep_alive=5.0, stall_timeout=600.0)), USER_TIMEOUT), 1_200_000)
        self.assertEqual(self.tcp(self.applied(Limits(keep_alive=5.0, stall_timeout=0.0)), USER_TIMEOUT), 0)

    def test_what_the_kernel_takes(self) -> None:
        for keep_alive, idle in ((0.001, 1), (40_000.0, MAX_KEEP_ALIVE), (3e9, MAX_KEEP_ALIVE)):
            sock = self.applied(Limits(keep_alive=keep_alive, stall_timeout=3e9))
            self.assertEqual(self.tcp(sock, IDLE), idle)
        self.assertEqual(self.warnings(), [])

    def test_below_tls(self) -> None:
        """An OpenSSL connection is no socket; the one below it is meant."""
        sock = self.make_socket()
        transport = Transport(object(), Transport(object(), Transport(sock)))
        self.assertIs(socket_of(transport), sock)
        SocketOptions(DEFAULT).apply(transport)
        self.assertEqual(self.tcp(sock, IDLE), 60)

    def test_other_transports(self) -> None:
        options = SocketOptions(DEFAULT)
        for transport in (None, object(), Transport(None), Transport(self.make_socket(socket.AF_UNIX)), Interface):
            options.apply(transport)
        self.assertEqual(self.warnings(), [])

    def test_ipv6(self) -> None:
        sock = self.make_socket(socket.AF_INET6)
        SocketOptions(DEFAULT).apply(Transport(sock))
        self.assertEqual(self.tcp(sock, IDLE), 60)

    def test_what_cannot_be_set_is_said_once(self) -> None:
        options = SocketOptions(DEFAULT)
        closed = self.make_socket()
        closed.close()
        options.apply(Transport(closed))
        self.assertEqual(len(self.warnings()), 6)
        options.apply(Transport(closed))
        self.assertEqual(len(self.warnings()), 6)
        options.apply(Broken())
        options.apply(Broken())
        self.assertEqual(self.warnings()[6:], ["any option"])
