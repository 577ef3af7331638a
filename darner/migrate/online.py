"""
Importing into running servers, by the protocol.

Each item has an id that follows from the source and from the item's place in its queue (C{set QUEUE/id=KEY}).  So the
servers drop what they have already when an import is begun again, as long as the queues' C{dedupe_window} lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ssl import SSLContext
from typing import Final, Optional

from darner.client import requests
from darner.client.addresses import address
from darner.client.commands import Commands
from darner.client.requests import Request
from darner.client.sockets import SocketRuntime, run
from darner.errors import DarnerError
from darner.migrate.importing import ImportRefused, QueueDestination
from darner.migrate.sources import SourceItem, SourceQueue

_AT_ONCE: Final = 256
"""Requests that are sent without waiting for replies."""
_BATCH: Final = 1024 * 1024
"""Payload bytes of such requests."""
_LARGE: Final = 256 * 1024
"""A larger payload is sent in pieces."""


class _Server(Commands):
    """One server, and what is to be put there next."""

    def __init__(
        self, place: str, user: str, password: str, timeout: float, tls: Optional[SSLContext],
        server_hostname: Optional[str],
    ) -> None:  # fmt: skip
        runtime = SocketRuntime(tls, server_hostname, timeout)
        super().__init__(runtime, address(place), user=user, password=password, timeout=timeout)
        self._asked: list[Request] = []
        self._size = 0

    def put_later(self, request: Request, size: int) -> None:
        self._asked.append(request)
        self._size += size
        if self._size >= _BATCH or len(self._asked) >= _AT_ONCE:
            self.flush_requests()

    def flush_requests(self) -> None:
        """
        Send what is to be put, and wait for the replies.

        @raise DarnerError: the first that was refused, or is in doubt.
        """
        asked, self._asked, self._size = self._asked, [], 0
        if asked:
            for result in run(self._call_all(asked, None)):
                if isinstance(result, DarnerError):
                    raise result


class _Queue:
    """One queue on the servers."""

    finished = False
    done = 0

    def __init__(
        self, servers: Sequence[_Server], name: bytes, prefix: str, clock: Callable[[], float]
    ) -> None:
        self._servers = servers
        self._name = name
        self._prefix = prefix
        self._clock = clock
        self._count = 0

    def put(self, item: SourceItem) -> None:
        # The same item goes to the same server whenever the import is begun again.
        server = self._servers[self._count // _AT_ONCE % len(self._servers)]
        id = f"{self._prefix}-{self._count}"
        self._count += 1
        delay = item.due / 1000 - self._clock() if item.due else 0
        options = {"expiry": -(-item.expiry // 1000), "delay": delay if delay > 0 else None, "id": id}
        if item.size <= _LARGE:
            payload = b"".join(item.pieces)
            server.put_later(requests.put(self._name, payload, **options), item.size)  # type: ignore[arg-type]
            return
        server.flush_requests()
        run(server.put_stream(self._name, item.pieces, item.size, **options))  # type: ignore[arg-type]

    def skip(self) -> None:
        self._count += 1

    def finish(self) -> None:
        for server in self._servers:
            server.flush_requests()


class ServerImport:
    """Running servers that queues are imported into."""

    def __init__(
        self, servers: Sequence[str], clock: Callable[[], float], user: str = "", password: str = "",
        timeout: float = 60.0, tls: Optional[SSLContext] = None, server_hostname: Optional[str] = None,
    ) -> None:  # fmt: skip
        """
        @param servers: C{host:port}, or as L{address} has it.  Of several each gets a part of every queue.
        @param clock: the time, in s since the epoch.
        @param timeout: seconds that a server may take to answer.
        @param tls: how to speak TLS; C{None} for not at all.
        @param server_hostname: the name that a server's certificate has to have; by default its host's.
        @raise ImportRefused: one is no address.
        """
        self._clock = clock
        try:
            places = sorted({str(address(server)) for server in servers})
        except ValueError as error:
            raise ImportRefused(str(error)) from error
        self._servers = [_Server(place, user, password, timeout, tls, server_hostname) for place in places]

    def begin(self, fingerprint: bytes, queues: list[SourceQueue]) -> None:
        """
        @raise ImportRefused: a queue has no C{dedupe_window}, or has children, which would get its items as well.
        """
        targets = [queue.target for queue in queues]
        for server in self._servers:
            known = {name.encode() for name in run(server.stats()).queues} | set(targets)
            for name in targets:
                if any(other.startswith(name + b"+") for other in known):
                    raise ImportRefused(
                        f"queue {name.decode()} has children (fan-out), which would get its items too: import into a "
                        "data directory instead"
                    )
            self._check_windows(server, targets)

    def _check_windows(self, server: _Server, targets: list[bytes]) -> None:
        for name in targets:
            settings = run(server.dump_config(name)).get(name.decode(), {})
            if settings.get("dedupe_window", "none") == "none":
                raise ImportRefused(
                    f"queue {name.decode()} has no dedupe_window, without which an import that is begun again would "
                    "put items twice: set one that is longer than the import may take, for example "
                    f'[queues."{name.decode()}"] dedupe_window = "1d", and reload the configuration'
                )

    def queue(self, source: bytes, fingerprint: bytes, target: bytes) -> QueueDestination:
        return _Queue(self._servers, target, fingerprint.hex(), self._clock)

    def close(self) -> None:
        for server in self._servers:
            run(server.close())

