"""
A Redis server that knows what is needed to read lists, for tests without Redis.  It speaks RESP 2.
"""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

from bench.ports import reserve_port


class RedisServer:
    """
    It serves in threads.

    @ivar lists: the lists by database and key.
    @ivar asked: the commands that came, but for what clients say of themselves.
    @ivar before: is called before each command.
    """

    def __init__(self) -> None:
        self.lists: dict[int, dict[bytes, list[bytes]]] = {0: {}}
        self.asked: list[list[bytes]] = []
        self.before: Callable[[list[bytes]], object] = lambda words: None
        self.password = b""
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                database, known = 0, not outer.password
                while True:
                    words = self._words()
                    if not words:
                        return
                    command = words[0].upper()
                    if command == b"SELECT":
                        database = int(words[1])
                    elif command == b"AUTH":
                        known = words[-1] == outer.password
                    elif not known:
                        self.wfile.write(b"-NOAUTH Authentication required.\r\n")
                        continue
                    elif command not in (b"CLIENT", b"PING"):
                        outer.asked.append(words)
                        outer.before(words)
                        self.wfile.write(outer.answer(command, words, outer.lists.get(database, {})))
                        continue
                    self.wfile.write(b"+OK\r\n")

            def _words(self) -> list[bytes]:
                line = self.rfile.readline()
                words = []
                for _ in range(int(line[1:] or 0)):
                    size = int(self.rfile.readline()[1:])
                    words.append(self.rfile.read(size + 2)[:-2])
                return words

        class Listening(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True

        # Reserved, so that nobody answers there when it has stopped.
        self._server = Listening(("127.0.0.1", reserve_port()), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, command: bytes, words: list[bytes], lists: dict[bytes, list[bytes]]) -> bytes:
        elements = lists.get(words[1], []) if len(words) > 1 else []
        if command == b"LLEN":
            return b":%d\r\n" % len(elements)
        if command == b"TYPE":
            return b"+hash\r\n" if words[1] == b"hash" else b"+list\r\n" if words[1] in lists else b"+none\r\n"
        if command == b"LRANGE":
            start, stop = (int(word) + (len(elements) if int(word) < 0 else 0) for word in words[2:4])
            return _array(elements[max(0, start) : stop + 1])
        if command == b"SCAN":
            pattern = words[words.index(b"MATCH") + 1].decode()
            return _array([b"0", [key for key in lists if fnmatchcase(key.decode(), pattern)]])
        return b"-ERR unknown command\r\n"


def _array(elements: list[Any]) -> bytes:
    parts = [b"*%d\r\n" % len(elements)]
    for element in elements:
        parts.append(_array(element) if isinstance(element, list) else b"$%d\r\n%b\r\n" % (len(element), element))
    return b"".join(parts)
