"""
Memcache clients as people use them, against a real server.

A client library that is missing is an error: these tests are the reason to believe that stock clients work.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
from functools import partial
from typing import Any
from unittest import SkipTest, skipUnless

import aiomcache
import memcache
import pylibmc
import pymemcache
import pymemcache.serde
from twisted.protocols.memcache import MemCacheProtocol
from twisted.trial.unittest import SynchronousTestCase

import darner
from test.servers import PATIENCE, Client, Server, lend_server, until
from test.system.client_contract import BINARY, TYPED, ClientContract
from test.system.clients import NODE, NODE_MODULES, AiomcacheClient, NodeClient, TwistedClient


class PymemcacheTests(ClientContract, SynchronousTestCase):
    """pymemcache, which looks its reply up under the key that it asked for."""

    def connect(self, host: str, port: int) -> Any:
        return pymemcache.Client((host, port), serde=pymemcache.serde.pickle_serde, timeout=30, connect_timeout=30)

    def delete(self, client: Any, key: str) -> Any:
        return client.delete(key, noreply=False)

    def touch(self, client: Any, key: str) -> Any:
        return client.touch(key, noreply=False)

    def get_many(self, client: Any, *keys: str) -> list[Any]:
        values = client.get_many(keys)
        return [values.get(key) for key in keys]

    def flush_all(self, client: Any) -> Any:
        client.set("more", "x")
        self.assertTrue(client.flush_all())  # without a reply
        self.assertIsNone(client.get("more"))
        return client.flush_all(noreply=False)

    def stats(self, client: Any) -> dict[str, str]:
        decoded = {}
        for name, figure in client.stats().items():
            decoded[name.decode()] = figure.decode() if isinstance(figure, bytes) else str(figure)
        return decoded

    def test_bare_queue_name(self) -> None:
        """Without options it needs no setting."""
        server = Server(self)
        client = self.connect(*server.address)
        self.addCleanup(client.close)
        client.set("q", ["x"])
        self.assertEqual(client.get("q"), ["x"])

    def test_noreply(self) -> None:
        """It does not wait for replies by default; what it sends afterwards is answered in step."""
        client = self.client()
        for number in range(200):
            client.set("q", number, noreply=True)
        client.delete("other", noreply=True)
        self.assertEqual([client.get("q") for _ in range(201)], [*range(200), None])

    def test_priorities(self) -> None:
        """The item of the first of several queues that has any; its key may have options."""
        client = self.client()
        client.set_many({"high": 1, "low": 2})
        self.assertEqual(client.get_many(["high", "low/t=5"]), {"high": 1})
        self.assertEqual(client.get_many(["high", "low/t=5"]), {"low/t=5": 2})

    def test_number(self) -> None:
        client = self.client()
        client.set("q", "x")
        value, number = client.gets("q")
        self.assertEqual((value, number.isdigit()), ("x", True))

    def test_version_and_quit(self) -> None:
        client = self.client()
        self.assertEqual(client.version(), darner.__version__.encode())
        client.quit()

    def test_errors(self) -> None:
        """Its exceptions are told from our errors."""
        client = self.client()
        client.set("q", "x", noreply=False)
        client.get("q/open")
        self.assertRaises(pymemcache.MemcacheClientError, client.get, "q")
        self.assertRaises(pymemcache.MemcacheUnknownCommandError, client.incr, "q", 1)


class PythonMemcachedTests(ClientContract, SynchronousTestCase):
    """python-memcached, which sends a space before the line end of a ``set`` and takes any key in a reply."""

    typed = [value for value in TYPED if value is not None]
    """It cannot tell C{None} from nothing."""

    def connect(self, host: str, port: int) -> Any:
        return memcache.Client([f"{host}:{port}"], socket_timeout=30, server_max_value_length=2**30)

    def disconnect(self, client: Any) -> None:
        client.disconnect_all()

    def flush_all(self, client: Any) -> Any:
        client.flush_all()
        return True  # it does not look at the reply

    def get_many(self, client: Any, *keys: str) -> list[Any]:
        values = client.get_multi(keys)
        return [values.get(key) for key in keys]

    def stats(self, client: Any) -> dict[str, str]:
        ((_, stats),) = client.get_stats()
        return stats

    def test_noreply(self) -> None:
        client = self.client()
        for number in range(200):
            client.set("q", number, noreply=True)
        client.delete("other", noreply=True)
        self.assertEqual([client.get("q") for _ in range(201)], [*range(200), None])

    def test_set_of_several(self) -> None:
        client = self.client()
        self.assertEqual(client.set_multi({"a": 1, "b": "2"}), [])
        self.assertEqual((client.get("a"), client.get("b")), (1, "2"))

    def test_number(self) -> None:
        client = self.client()
        client.set("q", "x")
        self.assertEqual(client.gets("q"), "x")


class PythonMemcachedOfKestrelTests(PythonMemcachedTests):
    """It does without the dialect, but for C{gets}."""

    dialect = "kestrel"

    def test_number(self) -> None:
        client = self.client()
        client.set("q", "x")
        self.assertRaises(ValueError, client.gets, "q")


class PylibmcTests(ClientContract, SynchronousTestCase):
    """pylibmc, which is libmemcached: it sends a space before the line end of ``stats`` and ``flush_all``."""

    typed = [value for value in TYPED if value is not None and value is not True and value is not False]
    """It cannot tell C{None} from nothing, and reads truth values back as numbers, whatever the server."""
    figures = {name: figure for name, figure in ClientContract.figures.items() if name != "queue_q_items"}
    """It gives out those that memcached has."""

    def connect(self, host: str, port: int) -> Any:
        behaviors = {"tcp_nodelay": True, "receive_timeout": 30_000_000, "send_timeout": 30_000_000}
        client = pylibmc.Client([f"{host}:{port}"], binary=False, behaviors=behaviors)
        # It gives up on a read after 5 s otherwise, whatever the wait.
        client.behaviors = {"_poll_timeout": 30_000}
        return client

    def disconnect(self, client: Any) -> None:
        client.disconnect_all()

    def touch(self, client: Any, key: str) -> Any:
        return client.touch(key, 0)

    def get_many(self, client: Any, *keys: str) -> list[Any]:
        values = client.get_multi(keys)
        return [values.get(key) for key in keys]

    def test_too_large(self) -> None:
        """libmemcached knows it by memcached's words, and goes on with the same connection."""
        self.start_own()
        self.server.options += ("--config=darner.toml",)
        (self.server.directory / "darner.toml").write_text("defaults.max_item_bytes = 1000")
        self.server.restart()
        client = self.client()
        self.assertRaises(pylibmc.TooBig, client.set, "q", "x" * 1001)
        self.assertTrue(client.set("q", "x"))

    def stats(self, client: Any) -> dict[str, str]:
        ((_, stats),) = client.get_stats()
        return {_text(name): _text(figure) for name, figure in stats.items()}

    def test_set_of_several(self) -> None:
        client = self.client()
        self.assertEqual(client.set_multi({"a": 1, "b": "2"}), [])
        self.assertEqual((client.get("a"), client.get("b")), (1, "2"))

    def test_number(self) -> None:
        client = self.client()
        client.behaviors = {"cas": True}
        client.set("q", "x")
        value, number = client.gets("q")
        self.assertEqual((value, number > 0), ("x", True))

    def test_no_reply(self) -> None:
        """libmemcached's ``NOREPLY`` behaviour."""
        client = self.client()
        client.behaviors = {"_noreply": True}
        for number in range(200):
            client.set("q", number)
        client.behaviors = {"_noreply": False}
        self.assertEqual([client.get("q") for _ in range(201)], [*range(200), None])


class PylibmcOfKestrelTests(PylibmcTests):
    """It does without the dialect, but for C{flush_all} and errors that it tells apart."""

    dialect = "kestrel"

    def flush_all(self, client: Any) -> Any:
        # The queues are flushed all the same.
        self.assertRaises(pylibmc.SomeErrors, client.flush_all)
        client.disconnect_all()
        return True

    def test_too_large(self) -> None:
        self.start_own()
        self.server.options += ("--config=darner.toml",)
        (self.server.directory / "darner.toml").write_text("defaults.max_item_bytes = 1000")
        self.server.restart()
        self.assertRaises(pylibmc.ServerError, self.client().set, "q", "x" * 1001)

    def test_number(self) -> None:
        """It has none; the item is there."""
        client = self.client()
        client.behaviors = {"cas": True}
        client.set("q", "x")
        self.assertEqual(client.gets("q"), ("x", 0))


class AiomcacheTests(ClientContract, SynchronousTestCase):
    """aiomcache, which looks its reply up under the key, and asks with C{gets} for several."""

    def connect(self, host: str, port: int) -> Any:
        return AiomcacheClient(host, port)


class TwistedTests(ClientContract, SynchronousTestCase):
    """Twisted's own, which drops a connection whose replies name another key."""

    def connect(self, host: str, port: int) -> Any:
        return TwistedClient(host, port)

    def test_touch(self) -> None:
        """It has no such command."""
        self.assertFalse(hasattr(MemCacheProtocol, "touch"))

    def test_number(self) -> None:
        client = self.client()
        client.set("q", "x")
        value, number = client.get_with_number("q")
        self.assertEqual((value, number.isdigit()), ("x", True))


def _has_node_clients() -> bool:
    return shutil.which(NODE) is not None and NODE_MODULES.exists()


@skipUnless(_has_node_clients(), "there is no node, or .ci/setup could not install its clients")
class MemcachedOfNodeTests(ClientContract, SynchronousTestCase):
    """The package C{memcached} of npm."""

    kind = "memcached"
    typed = [b"bytes", "text", "gr\xfc\xdfe", "x" * 50_000]
    binary = [payload for payload in BINARY if payload]
    """An empty one of bytes comes back as text."""

    def connect(self, host: str, port: int) -> Any:
        return NodeClient(self.kind, host, port)


@skipUnless(_has_node_clients(), "there is no node, or .ci/setup could not install its clients")
class MemcacheClientOfNodeTests(MemcachedOfNodeTests):
    """The package C{memcache-client} of npm, which looks its reply up under the key."""

    kind = "memcache-client"


@skipUnless(_has_node_clients(), "there is no node, or .ci/setup could not install its clients")
class MemjsTests(SynchronousTestCase):
    """The package C{memjs} of npm, which speaks memcached's binary protocol alone."""

    PROGRAM = """
        const [, modules, server] = process.argv
        const client = require(modules + '/memjs').Client.create(server)
        client.set('q', 'x', {}, (error) => console.log(error ? 'an error' : 'stored'))
    """

    def test_hung_up_on(self) -> None:
        """The server ends the connection and says why in its log.  memjs never calls back."""
        server = Server(self, "--port=0", "--dialect=memcache")
        host, port = server.address
        done = subprocess.run(
            [NODE, "-e", self.PROGRAM, str(NODE_MODULES), f"{host}:{port}"], capture_output=True, text=True,
            timeout=PATIENCE,
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stdout), (0, ""))
        server.wait_for("that sent TLS or memcached's binary protocol")
        with server.client() as raw:
            self.assertIsNone(raw.get(b"q"))


class PoolsTests(SynchronousTestCase):
    """Which connection has an item open, and which is asked to close it: ``docs/stock_clients.rst`` has the rules."""

    def setUp(self) -> None:
        self.server = lend_server(self, Server, "--port=0", "--dialect=memcache")
        self.put()

    def put(self) -> None:
        with self.server.client() as raw:
            raw.set(b"q", b"x")

    def open_count(self) -> int:
        with self.server.client() as raw:
            return int(raw.stats()[b"queue_q_open_transactions"])

    def use_two(self, wait: Any) -> None:
        """Have a pool make two connections: two that wait at the same time need them."""
        threads = [threading.Thread(target=wait, args=(f"{name}/t=600000",)) for name in "ab"]
        with self.server.client() as raw:
            before = int(raw.stats()[b"cmd_get"])
            for thread in threads:
                thread.start()
            self.serve_two(raw, before)
        for thread in threads:
            thread.join()

    def serve_two(self, raw: Client, before: int) -> None:
        """Wait until there are two more reads than before, and give them what they wait for."""
        until(lambda: int(raw.stats()[b"cmd_get"]) == before + 2, "both wait")
        for queue in b"a", b"b":
            raw.set(queue, b"x")

    def test_pymemcache(self) -> None:
        for size, left_open in ((1, 0), (2, 1)):
            pool = pymemcache.PooledClient(self.server.address, max_pool_size=size, timeout=30)
            self.addCleanup(pool.close)
            if size > 1:
                self.use_two(pool.get)
            self.assertEqual(pool.get("q/open"), b"x")
            self.assertIsNone(pool.get("q/close"))
            self.assertEqual(self.open_count(), left_open)
            self.put()

    def test_aiomcache(self) -> None:
        async def scenario(size: int) -> None:
            client = aiomcache.Client(*self.server.address, pool_size=size)
            if size > 1:
                with self.server.client() as raw:
                    serving = asyncio.to_thread(self.serve_two, raw, int(raw.stats()[b"cmd_get"]))
                    await asyncio.gather(client.get(b"a/t=600000"), client.get(b"b/t=600000"), serving)
            self.assertEqual(await client.get(b"q/open"), b"x")
            self.assertIsNone(await client.get(b"q/close"))
            self.assertEqual(self.open_count(), size - 1)
            await client.close()

        asyncio.run(scenario(1))
        self.put()
        asyncio.run(scenario(2))

    def test_python_memcached(self) -> None:
        """Each thread has its own connection."""
        client = memcache.Client([f"127.0.0.1:{self.server.address[1]}"], socket_timeout=30)
        self.addCleanup(client.disconnect_all)
        self.assertEqual(client.get("q/open"), b"x")
        other = threading.Thread(target=client.get, args=("q/close",))
        other.start()
        other.join()
        self.assertEqual(self.open_count(), 1)
        client.get("q/close")
        self.assertEqual(self.open_count(), 0)

    def test_pylibmc(self) -> None:
        """As above, with the pool that it has for threads."""
        pool = pylibmc.ThreadMappedPool(pylibmc.Client([f"127.0.0.1:{self.server.address[1]}"], binary=False))

        def close_elsewhere() -> None:
            with pool.reserve() as client:
                client.get("q/close")

        with pool.reserve() as client:
            self.assertEqual(client.get("q/open"), b"x")
        other = threading.Thread(target=close_elsewhere)
        other.start()
        other.join()
        self.assertEqual(self.open_count(), 1)
        with pool.reserve() as client:
            client.get("q/close")
        self.assertEqual(self.open_count(), 0)


class KestrelDialectTests(SynchronousTestCase):
    """What goes wrong with clients that expect memcached's replies; ``docs/stock_clients.rst`` warns of each."""

    def setUp(self) -> None:
        self.server = lend_server(self, Server)
        with self.server.client() as raw:
            for queue in b"q", b"r":
                raw.set(queue, b"x")

    def connect(self, kind: Any) -> Any:
        client = kind(*self.server.address)
        self.addCleanup(client.close)
        return client

    def figure(self, name: bytes) -> int:
        with self.server.client() as raw:
            return int(raw.stats()[name])

    def test_aiomcache(self) -> None:
        client = self.connect(AiomcacheClient)
        self.assertIsNone(client.get("q/open"))
        self.assertEqual(self.figure(b"queue_q_open_transactions"), 1)
        self.assertRaises(aiomcache.ClientException, client.flush_all)
        with self.server.client() as raw:
            raw.set(b"q", b"x")
        self.assertRaises(IndexError, client.get_many, "q", "r")

    def test_pymemcache(self) -> None:
        client = pymemcache.Client(self.server.address)
        self.addCleanup(client.close)
        self.assertRaises(KeyError, client.get, "q/t=5")
        self.assertEqual(self.figure(b"queue_q_items"), 0)
        self.assertRaises(ValueError, client.gets, "r")

    def test_twisted(self) -> None:
        self.assertRaises(RuntimeError, self.connect(TwistedClient).get, "q/open")
        self.assertRaises(ValueError, self.connect(TwistedClient).flush_all)

    def test_node(self) -> None:
        if not _has_node_clients():
            raise SkipTest("there is no node, or .ci/setup could not install its clients")
        client = self.connect(partial(NodeClient, "memcache-client"))
        self.assertIsNone(client.get("q/open"))
        self.assertEqual(self.figure(b"queue_q_open_transactions"), 1)
        self.assertEqual(self.connect(partial(NodeClient, "memcached")).get("r/open"), "x")


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else value
