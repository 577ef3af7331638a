"""
Who is connected, and who has which item open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Optional

from attrs import frozen

from darner.front.audit import describe_address
from darner.net.listeners import HTTP
from darner.web.pacing import Pace
from darner.web.reads import OpenReads

HTTP_NUMBERS: Final = 10**15
"""The number of an HTTP connection is that much above its place among them."""


@frozen
class Place:
    """
    Where the server listens.

    @ivar factory: what serves the clients there; its C{connections} are those that are open.
    @ivar address: for people.
    """

    listener: Any
    factory: Any
    address: str


class Owners:
    """The clients of one server."""

    def __init__(
        self, places: Callable[[], list[Place]], reads: OpenReads, clock: Any, wall: Callable[[], float]
    ) -> None:
        """@param reads: the items that are open by HTTP."""
        self._places = places
        self._reads = reads
        self._clock = clock
        self._wall = wall

    def _connections(self) -> Iterator[tuple[Place, Any]]:
        for place in self._places():
            for connection in list(place.factory.connections):
                yield place, connection

    async def of(self, queue: bytes, pace: Pace) -> dict[int, dict[str, Any]]:
        """@return: who has the items of a queue open, by the items' ids, as the schema C{Item} says."""
        found = dict(self._reads.owners(queue))
        for place, connection in self._connections():
            if place.listener.protocol != HTTP:
                session = connection.session
                for read in session.reads.opens.still_open(queue):
                    found[read.item.id] = {
                        "by": "client",
                        "client": str(connection.number),
                        "address": _address(session),
                        "user": _user(session),
                        "since": read.opened,
                    }
            await pace.ease()
        return found

    async def list(self, filter: str, offset: int, limit: int, pace: Pace) -> tuple[int, list[dict[str, Any]]]:
        """@return: how many clients there are whose address or user contains a text, and those of a page."""
        found: list[tuple[int, Place, Any]] = []
        for place, connection in self._connections():
            if not filter or filter in self._label(place, connection):
                found.append((_number(place, connection), place, connection))
            await pace.ease()
        found.sort(key=lambda entry: entry[0])
        told = []
        for number, place, connection in found[offset : offset + limit]:
            told.append(self._describe(number, place, connection))
            await pace.ease()
        return len(found), told

    @staticmethod
    def _label(place: Place, connection: Any) -> str:
        if place.listener.protocol == HTTP:
            return describe_address(connection.transport.getPeer())
        return f"{_address(connection.session)} {_user(connection.session) or ''}"

    def _describe(self, number: int, place: Place, connection: Any) -> dict[str, Any]:
        now = self._clock.seconds()
        told = {
            "id": str(number),
            "tls": place.listener.tls,
            "listener": place.address,
            "protocol": place.listener.protocol,
            "since": int((self._wall() - (now - connection.connected_at)) * 1000),
        }
        if place.listener.protocol == HTTP:
            return {
                **told, "address": describe_address(connection.transport.getPeer()), "user": None, "idle_ms": None,
                "waits_for": [], "open": {}, "open_reads": 0, "bytes_held": 0,
            }  # fmt: skip
        session = connection.session
        opened: dict[str, int] = {}
        for read in session.reads.opens.still_open():
            name = read.fifo.name.decode()
            opened[name] = opened.get(name, 0) + 1
        quiet = connection.quiet_since
        return {
            **told,
            "address": _address(session),
            "user": _user(session),
            "idle_ms": None if quiet is None or connection.active else int((now - quiet) * 1000),
            "waits_for": [name.decode() for name in session.reads.waits_for],
            "open": opened,
            "open_reads": sum(opened.values()),
            "bytes_held": connection.held,
        }

    def cut_off(self, number: int) -> Optional[str]:
        """
        End a client's connection.

        @return: its address; C{None} where there is no such client.
        """
        for place, connection in self._connections():
            if _number(place, connection) == number:
                label = self._label(place, connection)
                if place.listener.protocol == HTTP:
                    connection.transport.abortConnection()
                else:
                    connection.abort()
                return label
        return None


def _number(place: Place, connection: Any) -> int:
    number: int = connection.number
    return HTTP_NUMBERS + number if place.listener.protocol == HTTP else number


def _address(session: Any) -> str:
    return "unknown" if session.trail is None else describe_address(session.trail.address)


def _user(session: Any) -> Optional[str]:
    user: str = "-" if session.trail is None else session.trail.user
    return None if user == "-" else user
