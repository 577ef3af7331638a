"""
Where servers are, and how long to wait before trying one again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Union

DEFAULT_PORT: Final = 22133


@dataclass(frozen=True)
class Address:
    """
    Of a server.

    @ivar path: of its unix socket; empty where it is a host and a port.
    """

    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return "unix:" + self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address(place: Union[str, Address, tuple[str, int]]) -> Address:
    """
    @param place: C{host}, C{host:port}, C{[::1]:port}, C{unix:/path}, C{/path}, or host and port.
    @raise ValueError: it is none of these.
    """
    if isinstance(place, Address):
        return place
    if isinstance(place, tuple):
        return Address(place[0], place[1])
    if place.startswith(("unix:", "/")):
        return Address(path=place.removeprefix("unix:"))
    host, port = place, str(DEFAULT_PORT)
    if place.startswith("["):
        host, end, rest = place[1:].partition("]")
        if not end or (rest and not rest.startswith(":")):
            raise ValueError(f"not the address of a server: {place!r}")
        port = rest[1:] or port
    elif place.count(":") == 1:
        host, _, port = place.partition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"not the address of a server: {place!r}")
    return Address(host, int(port))


def addresses(places: Union[str, Sequence[Union[str, Address, tuple[str, int]]]]) -> list[Address]:
    """@param places: a sequence of what L{address} takes, or text with commas between them."""
    return [address(place) for place in (places.split(",") if isinstance(places, str) else places)]


class Backoff:
    """
    Pauses between attempts: twice as long each time, up to a limit, and each by chance between a half of that and all,
    so that many clients do not come back at the same instant.
    """

    def __init__(self, first: float = 0.05, most: float = 5.0) -> None:
        """@param first: the longest first pause, in seconds.  @param most: the longest of all."""
        self._first = first
        self._most = most
        self._next = first

    def next(self) -> float:
        """@return: how long to wait now, in seconds."""
        pause, self._next = self._next, min(self._next * 2, self._most)
        return pause * random.uniform(0.5, 1)

    def reset(self) -> None:
        """It went well."""
        self._next = self._first
