"""
Tests of ports that tests have reserved.
"""

from __future__ import annotations

import socket

from twisted.trial.unittest import SynchronousTestCase

from bench.ports import reserve_port
from test.servers import Server, make_directory


class ReservedTests(SynchronousTestCase):
    def test_reserved(self) -> None:
        """Until a server listens there nobody answers, and nobody else gets it; the same after the server."""
        port = reserve_port()
        directory = make_directory(self)
        server = Server(self, f"--port={port}", f"--data-dir={directory / 'data'}", directory=directory)
        server.restart()
        self.assertEqual(server.address, ("127.0.0.1", port))
        server.kill()
        with socket.socket() as client:
            self.assertRaises(ConnectionRefusedError, client.connect, ("127.0.0.1", port))
        with socket.socket() as other:
            self.assertRaises(OSError, other.bind, ("", port))
        self.assertNotEqual(reserve_port(), port)
