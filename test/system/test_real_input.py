"""
Real input through a real server: every file of Python's standard library, and one item of 1 GiB.
"""

from __future__ import annotations

import hashlib
import random
import sysconfig
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Optional, Union

import pymemcache
from pymemcache.exceptions import MemcacheError
from twisted.trial.unittest import SynchronousTestCase

from bench.remains import disk_usage
from test.servers import PATIENCE, Client, Server, until

PIECE = 256 * 1024


def standard_library() -> list[Path]:
    """@return: every file of the standard library's folder, but for what was installed into it later."""
    folder = Path(sysconfig.get_path("stdlib"))
    others = {folder / "site-packages", folder / "dist-packages"}
    return [path for path in _files(folder) if not others.intersection(path.parents)]


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


class StandardLibraryTests(SynchronousTestCase):
    """Each file is an item, its name an item of another queue; what comes out is what went in, byte for byte."""

    def setUp(self) -> None:
        self.server = Server(self)
        self.connect()

    def connect(self) -> None:
        host, port = self.server.address
        self.client = pymemcache.Client((host, port), timeout=30)
        self.addCleanup(self.client.close)

    def restart(self) -> None:
        self.client.close()
        self.server.restart()
        self.connect()

    def kill_soon(self) -> None:
        """Kill the server at any point of what comes next."""
        self.victim = self.server.process
        self.killing = threading.Timer(0.05, self.victim.kill)
        self.killing.start()
        self.addCleanup(self.killing.join)

    def killed(self) -> None:
        """Wait until it is killed, where all that came next was done before."""
        self.killing.join()
        if self.server.process is self.victim:
            self.restart()

    def count(self, queue: bytes) -> int:
        with self.server.client() as raw:
            return raw.count(queue)

    def put(self, queue: str, payload: Union[str, bytes], count: int) -> None:
        """
        Put an item, and see to it that it is there once where the server dies meanwhile.

        @param count: how many items the queue has without it.
        """
        try:
            self.assertTrue(self.client.set(queue, payload, noreply=False))
        except (OSError, MemcacheError):
            self.restart()
            there = self.count(queue.encode())
            self.assertIn(there, (count, count + 1))
            if there == count:
                self.assertTrue(self.client.set(queue, payload, noreply=False))

    def fill(self) -> tuple[list[bytes], list[bytes]]:
        """
        Put all files, with a kill -9 in the middle.

        @return: their names and what is in them (as hashes).
        """
        names: list[bytes] = []
        hashes: list[bytes] = []
        paths = standard_library()
        self.assertGreater(len(paths), 500)
        for number, path in enumerate(paths):
            content = path.read_bytes()
            if number == len(paths) // 2:
                self.kill_soon()
            self.put("files", content, number)
            self.put("names", str(path), number)
            names.append(str(path).encode())
            hashes.append(_hash(content))
        self.killed()
        self.assertEqual([self.count(b"files"), self.count(b"names")], [len(paths)] * 2)
        return names, hashes

    def test_plain_reads(self) -> None:
        """Between two reads the server is killed; nothing is lost and nothing comes twice."""
        names, hashes = self.fill()
        self.restart()
        for number, (name, hash) in enumerate(zip(names, hashes, strict=True)):
            if number == len(names) // 2:
                self.restart()
            self.assertEqual(self.client.get("names"), name)
            self.assertEqual(_hash(self.client.get("files")), hash, name)
        self.assertEqual([self.client.get("files"), self.client.get("names")], [None, None])

    def test_reliable_reads(self) -> None:
        """What is open, or on its way, when the server is killed comes again; nothing is lost."""
        names, hashes = self.fill()
        self.restart()
        # Options in the key: this client finds its reply under the key that it asked for.
        self.server.options += ("--dialect=memcache",)
        self.restart()
        for number, (name, hash) in enumerate(zip(names, hashes, strict=True)):
            if number == len(names) // 2:
                self.assertEqual(self.client.get("names/open"), name)
                self.assertEqual(_hash(self.client.get("files/open")), hash)
                self.restart()
                self.kill_soon()
            left = len(names) - number
            self.assertEqual(self.read("names", left), name)
            self.assertEqual(_hash(self.read("files", left)), hash, name)
        self.killed()
        self.assertEqual([self.client.get("files"), self.client.get("names")], [None, None])

    def read(self, queue: str, left: int) -> Optional[bytes]:
        """
        Open an item and close it, again where the server dies before that is done.

        @param left: how many items the queue has.
        """
        payload: Optional[bytes] = None
        while True:
            try:
                payload = self.client.get(f"{queue}/open")
                self.client.get(f"{queue}/close")
                return payload
            except (OSError, MemcacheError):
                self.restart()
                there = self.count(queue.encode())
                if payload is not None and there == left - 1:
                    return payload
                self.assertEqual(there, left)


def _hash(content: Optional[bytes]) -> bytes:
    return hashlib.blake2b(content or b"").digest()


class LargeItemTests(SynchronousTestCase):
    """Memory depends neither on the size of an item nor on the speed of who sends or reads it."""

    SIZE = 1024**3
    MEMORY = 64 * 1024**2

    def setUp(self) -> None:
        self.server = Server(self)

    def pieces(self) -> Iterator[bytes]:
        """@return: an item's payload, of bytes that do not repeat and do not compress."""
        noise = random.Random(1).randbytes(PIECE)
        for number in range(self.SIZE // PIECE):
            yield number.to_bytes(8, "big") + noise[8:]

    def send(self, client: Client) -> bytes:
        """
        Set the item.

        @return: its hash.
        """
        hash = hashlib.blake2b()
        client.send(b"set q 7 0 %d\r\n" % self.SIZE)
        for piece in self.pieces():
            hash.update(piece)
            client.send(piece)
        client.send(b"\r\n")
        self.assertEqual(client.line(), b"STORED")
        return hash.digest()

    def receive(self, client: Client, request: bytes) -> bytes:
        """
        Get the item.

        @return: its hash.
        """
        hash = hashlib.blake2b()
        self.assertEqual(client.ask(request), b"VALUE q 7 %d" % self.SIZE)
        left = self.SIZE
        while left:
            piece = client.read(min(left, PIECE))
            self.assertTrue(piece)
            hash.update(piece)
            left -= len(piece)
        self.assertEqual([client.line(), client.line()], [b"", b"END"])
        return hash.digest()

    def test_memory(self) -> None:
        """1 GiB goes in and out, and the server's peak memory stays within 64 MiB of idle."""
        with self.server.client() as client, self.server.client() as other:
            self.assertEqual(client.set(b"small", b"x"), b"STORED")
            self.assertEqual(client.get(b"small"), b"x")
            idle = self.server.memory("VmRSS")
            self.server.reset_peak_memory()
            sent = self.send(client)
            put = self.server.memory("VmHWM") - idle
            self.server.reset_peak_memory()
            self.assertEqual(self.receive(client, b"get q/open"), sent)
            self.assertIsNone(other.get(b"q"))
            self.assertEqual(client.ask(b"get q/abort"), b"END")
            self.assertEqual(self.receive(other, b"get q"), sent)
            got = self.server.memory("VmHWM") - idle
            self.assertIsNone(other.get(b"q"))
        until(lambda: disk_usage(self.server.data) < self.SIZE // 20, "the room is given back", 10 * PATIENCE)
        reclaimed = self.server.memory("VmHWM") - idle
        for peak in put, got, reclaimed:
            self.assertLess(peak, self.MEMORY)
