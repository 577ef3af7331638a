"""
Where nodes give snapshots, as their notes say it.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from contextlib import suppress

from darner.cluster.snapshots.exchange import SnapshotError


def join_address(host: str, port: int) -> str:
    """@return: C{HOST:PORT}."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(text: str) -> tuple[str, int]:
    """@param text: C{HOST:PORT} of a note.  @raise SnapshotError: it is none."""
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) < 65536:
        raise SnapshotError(f"{text!r} is no address")
    return host.strip("[]"), int(port)


def own_address(endpoints: Sequence[str]) -> str:
    """
    @param endpoints: C{HOST:PORT} of what all nodes reach.
    @return: this machine's address on the way to them, by which other nodes reach it; that of the loopback interface
        only where all of them are on this machine.
    """
    found = ""
    for endpoint in endpoints:
        with suppress(OSError, SnapshotError):
            for family, kind, protocol, _, address in socket.getaddrinfo(
                *split_address(endpoint), type=socket.SOCK_DGRAM
            ):
                with socket.socket(family, kind, protocol) as trying:
                    trying.connect(address)  # sends nothing
                    found = str(trying.getsockname()[0])
                if not ipaddress.ip_address(found.partition("%")[0]).is_loopback:
                    return found
    return found or socket.gethostname()
