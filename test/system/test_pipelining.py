"""
Requests that are sent ahead, against a real server.
"""

from __future__ import annotations

import threading

from twisted.trial.unittest import SynchronousTestCase

import darner
from test.servers import Client, Server, until


class PipeliningTests(SynchronousTestCase):
    """Requests that are sent without waiting for replies are answered in their order."""

    def setUp(self) -> None:
        self.server = Server(self)

    def connect(self) -> Client:
        client = self.server.client()
        self.addCleanup(client.close)
        return client

    def test_in_order(self) -> None:
        client = self.connect()
        requests, replies = [], []
        for number in range(3000):
            payload = b"%d" % number * (number % 50)
            requests.append(b"set q %d 0 %d\r\n%b\r\n" % (number, len(payload), payload))
            replies.append(b"STORED\r\n")
            if number % 3 == 0:
                requests.append(b"get empty\r\nnonsense\r\nget q/peek\r\ndelete x\r\n")
                replies.append(b"END\r\nERROR\r\nVALUE q 0 0\r\n\r\nEND\r\nDELETED\r\n")
        for number in range(3000):
            payload = b"%d" % number * (number % 50)
            requests.append(b"get q\r\n")
            replies.append(b"VALUE q %d %d\r\n%b\r\nEND\r\n" % (number, len(payload), payload))
        requests.append(b"quit\r\n")
        sending = threading.Thread(target=client.send, args=(b"".join(requests),))
        sending.start()
        self.assertEqual(client.rest(), b"".join(replies))
        sending.join()

    def test_behind_a_wait(self) -> None:
        """What was sent behind a waiting read waits with it."""
        client, other = self.connect(), self.connect()
        client.send(b"get q/t=600000\r\nset q 5 0 6\r\nbehind\r\nget q\r\nget q/t=1\r\nversion\r\n")
        until(lambda: other.stats().get(b"cmd_get") == b"1", "it waits")
        self.assertEqual(other.count(b"q"), 0)
        self.assertEqual(other.set(b"q", b"first"), b"STORED")
        self.assertEqual(client.value(), (0, b"first"))
        self.assertEqual(client.line(), b"STORED")
        self.assertEqual(client.value(), (5, b"behind"))
        self.assertEqual(client.value(), None)
        self.assertEqual(client.line(), b"VERSION " + darner.__version__.encode())

    def test_behind_a_large_item(self) -> None:
        client = self.connect()
        large = bytes(range(256)) * 20_000
        client.send_set(b"q", large)
        client.send_set(b"q", b"small")
        client.send(b"get q\r\nget q\r\n")
        self.assertEqual([client.line(), client.line()], [b"STORED", b"STORED"])
        self.assertEqual([client.value(), client.value()], [(0, large), (0, b"small")])

    def test_noreply(self) -> None:
        client = self.connect()
        client.send(b"set q 0 0 1 noreply\r\na\r\nset q 0 0 1 noreply\r\nb\r\ndelete x noreply\r\nget q\r\nget q\r\n")
        self.assertEqual([client.value(), client.value()], [(0, b"a"), (0, b"b")])
        client.send(b"set q 0 0 1 noreply\r\na\r\nflush_all noreply\r\nget q\r\n")
        self.assertIsNone(client.value())

    def test_waiting_client_that_dies(self) -> None:
        """An item is not handed to a client that waited for it and has gone."""
        client, other = self.connect(), self.connect()
        for _ in range(5):
            gone = self.server.client()
            gone.send(b"get q/t=60000\r\nget q\r\n")
            until(lambda: other.stats().get(b"curr_connections") == b"3", "it has come")
            gone.close()
            until(lambda: other.stats().get(b"curr_connections") == b"2", "it has gone")
            self.assertEqual(client.set(b"q", b"x"), b"STORED")
            self.assertEqual(other.get(b"q"), b"x")
