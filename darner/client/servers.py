"""
Which servers a fleet has: a list, what a name stands for in the DNS, or a file that is watched.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Optional, Protocol, Union

from darner.client.addresses import DEFAULT_PORT, Address, address
from darner.client.core import Place

_EVERY: Final = {"file": 1.0, "dns": 30.0, "srv": 30.0}
"""How often to look again, in seconds."""


class Source(Protocol):
    """
    Says which servers there are, again and again.

    @ivar every: how often to ask it, in seconds; None for once.
    """

    every: Optional[float]

    async def look(self, runtime: Any) -> list[Address]:
        """@raise Exception: it cannot be told now; those of before stay."""


Servers = Union[str, Sequence[Place], Source]
"""
Servers: a sequence of addresses; text with commas between them; C{file:/path}, C{dns:HOST:PORT} or C{srv:NAME}; or a
L{Source} of one's own.
"""


class Listed:
    """Always the same."""

    every: Optional[float] = None

    def __init__(self, places: Sequence[Place]) -> None:
        self._addresses = [address(place) for place in places]

    async def look(self, runtime: Any) -> list[Address]:
        return self._addresses


class File:
    """A file with an address a line; what follows a C{#} is a comment.  It is read when it has changed."""

    def __init__(self, path: Union[str, Path], every: float = _EVERY["file"]) -> None:
        self.every: Optional[float] = every
        self._path = Path(path)
        self._stamp: object = None
        self._addresses: list[Address] = []

    async def look(self, runtime: Any) -> list[Address]:
        """@raise OSError: it cannot be read.  @raise ValueError: a line is no address."""
        found = self._path.stat()
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp != self._stamp:
            lines = [line.partition("#")[0].strip() for line in self._path.read_text().splitlines()]
            self._addresses = [address(line) for line in lines if line]
            self._stamp = stamp
        return self._addresses


class Dns:
    """All addresses (A and AAAA) of a host, with the same port."""

    def __init__(self, place: str, every: float = _EVERY["dns"]) -> None:
        self.every: Optional[float] = every
        self._address = address(place)

    async def look(self, runtime: Any) -> list[Address]:
        found = await runtime.resolve(self._address.host, self._address.port)
        return [Address(host, port) for host, port in dict.fromkeys(found)]


class Srv:
    """The hosts and ports that an SRV record names.  With asyncio this needs dnspython."""

    def __init__(self, name: str, every: float = _EVERY["srv"]) -> None:
        self.every: Optional[float] = every
        self._name = name

    async def look(self, runtime: Any) -> list[Address]:
        found = await runtime.services(self._name)
        return [Address(host, port or DEFAULT_PORT) for host, port in found]


def source(servers: Servers) -> Source:
    """
    @return: what says which servers there are.
    @raise ValueError: it is nothing of that.
    """
    if isinstance(servers, str):
        kind, _, rest = servers.partition(":")
        if kind == "file":
            return File(rest)
        if kind == "dns":
            return Dns(rest)
        if kind == "srv":
            return Srv(rest)
        return Listed([place.strip() for place in servers.split(",") if place.strip()])
    return Listed(servers) if isinstance(servers, Sequence) else servers
