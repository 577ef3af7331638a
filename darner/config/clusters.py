"""
Where a cluster keeps its log, as operators write it: C{etcd://HOST:PORT,HOST:PORT/NAME}.
"""

from __future__ import annotations

import re
from typing import Any, Final

from attrs import frozen

_URL: Final = re.compile(r"(etcds?)://([^/]*)/([!-.0-~]{1,250})")
_ENDPOINT: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


@frozen
class ClusterLog:
    """
    @ivar endpoints: C{HOST:PORT} of etcd servers.
    @ivar name: of the log.
    @ivar tls: whether TLS is spoken (C{etcds://}).
    """

    endpoints: tuple[str, ...]
    name: str
    tls: bool


def parse_cluster(url: str) -> ClusterLog:
    """@raise ValueError: it is none."""
    match = _URL.fullmatch(url)
    endpoints = tuple(match[2].split(",")) if match else ()
    if match is None or not all(_ENDPOINT.fullmatch(endpoint) for endpoint in endpoints):
        raise ValueError(f"{url!r} is not of the form etcd://HOST:PORT,HOST:PORT/NAME")
    return ClusterLog(endpoints, match[3], match[1] == "etcds")


def check_cluster(_: object, __: Any, value: Any) -> None:
    """For attrs.  @raise ValueError: it is none."""
    if value is not None:
        parse_cluster(value)
