"""
What clients need besides a server: TLS, the DNS, and signals that end a worker's process.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from typing import Any, Optional
from unittest.mock import patch

import dns.asyncresolver
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.names import client as twisted_names
from twisted.names.dns import IN, SRV, Message, Record_SRV, RRHeader
from twisted.trial.unittest import SynchronousTestCase, TestCase

from darner.client.asyncio import Fleet
from darner.client.errors import ConnectionFailed
from darner.client.twisted import Fleet as TwistedFleet
from test.client.front_ends import LONG, WHOLE, AsyncioFront, BlockingFront, TwistedFront, run_in_asyncio
from test.client.test_fleet import place, start_server
from test.servers import PATIENCE, ROOT, Server, environment, make_certificate, make_directory, until


class _TlsContract:
    front: Any

    def setUp(self: Any) -> None:
        directory = make_directory(self)
        self.certificate = make_certificate(directory, "localhost")
        listen = f"--listen=ssl:0:interface=127.0.0.1:privateKey={self.certificate}:certKey={self.certificate}"
        self.server = Server(self, listen, directory=directory)

    def trusting(self: Any) -> Any:
        """@return: what a client is given that trusts the server's certificate."""
        return ssl.create_default_context(cafile=str(self.certificate))

    def client(self: Any) -> Any:
        return self.front.client(f"localhost:{self.server.address[1]}", tls=self.trusting(), timeout=LONG)

    def test_tls(self: Any) -> Any:
        """Items of any size, open reads and waits over TLS."""

        async def scenario() -> None:
            async with self.client() as client:
                large = bytes(range(256)) * 2000
                await client.put("q", b"small", flags=3)
                await client.put("q", large)
                item = await client.get("q")
                self.assertEqual((item.payload, item.flags), (b"small", 3))
                async with await client.open("q", timeout=LONG) as read:
                    self.assertEqual(read.payload, large)
                self.assertIsNone(await client.get("q", timeout=0.1))

        return self.run_async(scenario())

    def wrong(self) -> list[tuple[Any, str]]:
        """@return: TLS settings and names with which the server's certificate is refused."""
        return [(True, "localhost"), (self.trusting(), "queues.example.com")]

    def test_not_trusted(self: Any) -> Any:
        """Nothing is sent to a server whose certificate is not known, or is somebody else's."""

        async def scenario() -> None:
            for tls, name in self.wrong():
                async with self.front.client(
                    f"localhost:{self.server.address[1]}", tls=tls, server_hostname=name, timeout=0.5
                ) as client:
                    try:
                        await client.put("q", b"secret")
                        self.fail("that is not the server")
                    except ConnectionFailed:
                        pass
            async with self.client() as client:
                self.assertIsNone(await client.get("q"))

        return self.run_async(scenario())


class AsyncioTlsTests(_TlsContract, SynchronousTestCase):
    front = AsyncioFront()

    def run_async(self, coroutine: Any) -> None:
        run_in_asyncio(coroutine)


class BlockingTlsTests(AsyncioTlsTests):
    front = BlockingFront()


class TwistedTlsTests(_TlsContract, TestCase):
    front = TwistedFront()
    timeout = WHOLE

    def run_async(self, coroutine: Any) -> Any:
        return ensureDeferred(coroutine)

    def trusting(self) -> Any:
        return optionsForClientTLS("localhost", Certificate.loadPEM(self.certificate.read_bytes()))

    def wrong(self) -> list[tuple[Any, str]]:
        other = optionsForClientTLS("queues.example.com", Certificate.loadPEM(self.certificate.read_bytes()))
        return [(True, "localhost"), (other, "localhost")]


class _Names(threading.Thread):
    """A name server, which knows one SRV record of two servers."""

    NAME = "_darner._tcp.example.com"

    def __init__(self, ports: list[int]) -> None:
        super().__init__(daemon=True)
        self._ports = ports
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def run(self) -> None:
        while True:
            data, peer = self._socket.recvfrom(4096)
            if not data:
                self._socket.close()
                return
            message = Message()
            message.fromStr(data)
            answer = Message(message.id, answer=1, recDes=1, recAv=1)
            answer.queries = message.queries
            for query in message.queries:
                if query.type == SRV and str(query.name) == self.NAME:
                    answer.answers += [
                        RRHeader(self.NAME, SRV, IN, 60, Record_SRV(priority, 0, port, "localhost", 60))
                        for priority, port in enumerate(self._ports)
                    ]
            self._socket.sendto(answer.toStr(), peer)

    def end(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", ("127.0.0.1", self.port))
        self.join(PATIENCE)


class SrvTests(TestCase):
    """Servers that are found by an SRV record."""

    timeout = WHOLE

    def setUp(self) -> None:
        self.servers = [start_server(self) for _ in range(2)]
        self.names = _Names([server.address[1] for server in self.servers])
        self.names.start()
        self.addCleanup(self.names.end)
        self.expected = [f"localhost:{server.address[1]}" for server in self.servers]

    async def use(self, fleet: Any) -> None:
        self.assertEqual(fleet.servers, self.expected, "the preferred one first")
        self.assertEqual({await fleet.put("q", b"x") for _ in range(40)}, set(self.expected))

    def test_asyncio(self) -> None:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], self.names.port
        resolver.lifetime = LONG

        async def scenario() -> None:
            async with Fleet(f"srv:{_Names.NAME}", timeout=LONG, connect_timeout=LONG) as fleet:
                await self.use(fleet)

        with patch.object(dns.asyncresolver, "default_resolver", resolver):
            run_in_asyncio(scenario())

    def test_asyncio_without_dnspython(self) -> None:
        async def scenario() -> None:
            fleet = Fleet(f"srv:{_Names.NAME}")
            with self.assertRaisesRegex(ValueError, "SRV records need dnspython"):
                await fleet.start()

        with patch.dict(sys.modules, {"dns.asyncresolver": None}):
            run_in_asyncio(scenario())

    async def test_twisted(self) -> None:
        resolver = twisted_names.Resolver(
            servers=[("127.0.0.1", self.names.port)], reactor=reactor, timeout=(3, 10, 30, 120)
        )  # fmt: skip
        self.patch(twisted_names, "createResolver", lambda *_, **__: resolver)
        async with TwistedFleet(reactor, f"srv:{_Names.NAME}", timeout=LONG, connect_timeout=LONG) as fleet:
            await self.use(fleet)


_BLOCKING = """
import sys, threading, time
from darner.client.blocking import Client, Worker

stopped = threading.Event()

def say(*words):
    sys.stdout.write(" ".join(words) + "\\n")  # at once: other threads write, too
    sys.stdout.flush()

def handle(read):
    say("begun", read.payload.decode())
    stopped.wait(600) if read.payload == b"short" else time.sleep(600)
    say("done", read.payload.decode())

class Told(Worker):
    def stop(self):
        super().stop()
        stopped.set()

with Client(sys.argv[1], timeout=240) as client:
    Told(client, "q", handle, grace=float(sys.argv[2])).run()
print("ended", flush=True)
"""

_TWISTED = """
import sys
from twisted.internet import defer, task
from darner.client.twisted import Client, Worker

stopped = defer.Deferred()

class Told(Worker):
    def stop(self):
        super().stop()
        if not stopped.called:
            stopped.callback(None)

async def main(reactor):
    async def handle(read):
        print("begun", read.payload.decode(), flush=True)
        await (stopped if read.payload == b"short" else task.deferLater(reactor, 600))
        print("done", read.payload.decode(), flush=True)

    async with Client(reactor, sys.argv[1], timeout=240) as client:
        await Told(client, "q", handle, grace=float(sys.argv[2])).run()
    print("ended", flush=True)

task.react(main)
"""
"""Programs whose handler of C{short} returns once the worker is told to stop."""


class SignalTests(SynchronousTestCase):
    """A worker in a process of its own, which is told to end."""

    def check(self, program: str, number: int) -> None:
        """What is done in time is finished, what takes too long is given back, and nothing more is begun."""
        self.check_item(program, number, "short", LONG, "done short\nended\n", [b"next", None])
        self.check_item(program, number, "long", 0.3, "ended\n", [b"long", b"next", None])

    def check_item(
        self, program: str, number: int, payload: str, grace: float, expected: str, left: list[Optional[bytes]]
    ) -> None:
        """
        @param expected: what the worker writes once it is told to end.
        @param left: what is in the queue then.
        """
        server = start_server(self)
        with server.client() as client:
            client.set(b"q", payload.encode())
            client.set(b"q", b"next")
            process = subprocess.Popen(
                [sys.executable, "-c", program, place(server), str(grace)], text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env={**environment(), "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
            )  # fmt: skip
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), f"begun {payload}\n")
            process.send_signal(number)
            said, errors = process.communicate(timeout=PATIENCE)
            self.assertEqual(said, expected, errors)
            self.assertEqual((process.returncode, errors), (0, ""))
            until(lambda: client.count(b"q") == len(left) - 1, "it is given back")
            self.assertEqual([client.get(b"q") for _ in left], left)

    def test_blocking(self) -> None:
        self.check(_BLOCKING, signal.SIGTERM)

    def test_twisted(self) -> None:
        self.check(_TWISTED, signal.SIGTERM)

    def test_interrupted(self) -> None:
        self.check(_BLOCKING, signal.SIGINT)
