"""
Memcache clients that are not called as functions that block, made so: asyncio's, Twisted's and node's.
"""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import aiomcache
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.protocols.memcache import MemCacheProtocol
from twisted.python.failure import Failure

from test.servers import PATIENCE

NODE_MODULES: Final = Path(sys.prefix) / "node" / "node_modules"
"""Where C{.ci/setup} installs the clients for node."""
NODE: Final = "node"

PICKLED: Final = 1
"""The flags of an item that is no bytes."""


def _pack(value: Any) -> tuple[bytes, int]:
    return (value, 0) if isinstance(value, bytes) else (pickle.dumps(value), PICKLED)


def _unpack(payload: Any, flags: int) -> Any:
    return pickle.loads(payload) if flags == PICKLED else payload


class AiomcacheClient:
    """aiomcache, with one connection: what is open belongs to that."""

    def __init__(self, host: str, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = aiomcache.FlagClient(
            host, port, pool_size=1, get_flag_handler=self._unpack, set_flag_handler=self._pack
        )

    async def _pack(self, value: Any) -> tuple[bytes, int]:
        return _pack(value)

    async def _unpack(self, payload: bytes, flags: int) -> Any:
        return _unpack(payload, flags)

    def _run(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(call, PATIENCE))

    def set(self, key: str, value: Any) -> Any:
        return self._run(self._client.set(key.encode(), value))

    def get(self, key: str) -> Any:
        return self._run(self._client.get(key.encode()))

    def get_many(self, *keys: str) -> Any:
        return list(self._run(self._client.multi_get(*(key.encode() for key in keys))))

    def delete(self, key: str) -> Any:
        return self._run(self._client.delete(key.encode()))

    def touch(self, key: str) -> Any:
        return self._run(self._client.touch(key.encode(), 0))

    def flush_all(self) -> Any:
        self._run(self._client.flush_all())
        return True

    def stats(self) -> dict[str, str]:
        return {name.decode(): figure.decode() for name, figure in self._run(self._client.stats()).items()}

    def close(self) -> None:
        if not self._loop.is_closed():
            self._run(self._client.close())
            self._run(asyncio.sleep(0))
            self._loop.close()


class TwistedClient:
    """Twisted's C{MemCacheProtocol}, over a socket that blocks."""

    disconnecting = False

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), PATIENCE)
        # It writes a set's line and payload apart: without this the kernel holds the second back for 40 ms.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.write = self._socket.sendall
        self._protocol = MemCacheProtocol()
        self._protocol.callLater = Clock().callLater
        self._protocol.makeConnection(self)

    def loseConnection(self) -> None:
        self.disconnecting = True
        self.close()

    abortConnection = loseConnection

    def _run(self, deferred: Deferred[Any]) -> Any:
        results: list[Any] = []
        deferred.addBoth(results.append)
        while not results:
            data = self._socket.recv(65536)
            if not data:
                self._protocol.connectionLost(Failure(ConnectionDone()))
            self._protocol.dataReceived(data)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def set(self, key: str, value: Any) -> Any:
        payload, flags = _pack(value)
        return self._run(self._protocol.set(key.encode(), payload, flags))

    def get(self, key: str) -> Any:
        flags, payload = self._run(self._protocol.get(key.encode()))
        return _unpack(payload, flags)

    def get_with_number(self, key: str) -> Any:
        """@return: payload and number."""
        flags, number, payload = self._run(self._protocol.get(key.encode(), withIdentifier=True))
        return _unpack(payload, flags), number

    def get_many(self, *keys: str) -> Any:
        values = self._run(self._protocol.getMultiple([key.encode() for key in keys]))
        return [_unpack(payload, flags) or None for flags, payload in (values[key.encode()] for key in keys)]

    def delete(self, key: str) -> Any:
        return self._run(self._protocol.delete(key.encode()))

    def flush_all(self) -> Any:
        return self._run(self._protocol.flushAll())

    def stats(self) -> dict[str, str]:
        return {name.decode(): figure.decode() for name, figure in self._run(self._protocol.stats()).items()}

    def close(self) -> None:
        self._socket.close()


class NodeClient:
    """A client of node's, which runs in a process of its own (C{node_client.js})."""

    def __init__(self, kind: str, host: str, port: int) -> None:
        """@param kind: the name of the npm package."""
        script = Path(__file__).with_name("node_client.js")
        self._process = subprocess.Popen(
            [NODE, str(script), str(NODE_MODULES), kind, f"{host}:{port}"], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def _ask(self, *words: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([self._encode(word) for word in words]) + "\n")
        self._process.stdin.flush()
        late = threading.Timer(PATIENCE, self._process.kill)
        late.start()
        line = self._process.stdout.readline()
        late.cancel()
        reply = json.loads(line)
        if "error" in reply:
            raise NodeError(reply["error"])
        return self._decode(reply["result"])

    @staticmethod
    def _encode(value: Any) -> Any:
        return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value

    @staticmethod
    def _decode(value: Any) -> Any:
        return base64.b64decode(value["base64"]) if isinstance(value, dict) and "base64" in value else value

    def set(self, key: str, value: Any) -> Any:
        return self._ask("set", key, value)

    def get(self, key: str) -> Any:
        return self._ask("get", key)

    def get_many(self, *keys: str) -> Any:
        values = self._ask("get_many", list(keys))
        return [values.get(key) for key in keys]

    def delete(self, key: str) -> Any:
        return self._known("delete", key)

    def touch(self, key: str) -> Any:
        return self._known("touch", key)

    def _known(self, *words: str) -> bool:
        """@return: whether there was what was asked for; the one package throws, the other has false for it."""
        try:
            return bool(self._ask(*words))
        except NodeError as error:
            if str(error) != "NOT_FOUND":
                raise
            return False

    def flush_all(self) -> Any:
        return self._ask("flush_all")

    def stats(self) -> dict[str, Any]:
        stats: dict[str, Any] = self._ask("stats")
        return stats

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class NodeError(Exception):
    """What a client of node's calls back with."""
