"""
Where a cluster keeps its log, as operators write it: C{etcd://HOST:PORT,HOST:PORT/NAME}.
"""

from __future__ import annotations

import re
from typing import Any, Final

import attrs
from attrs import frozen

from darner.config.policies import SPECIAL, TARGETS, Policies
from darner.errors import SettingsError, WrongShard
from darner.values.shards import Shard, parse_shard

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


def check_shard(_: object, __: Any, value: Any) -> None:
    """For attrs.  @raise ValueError: it is no shard."""
    if value is not None:
        parse_shard(value)


def check_within(shard: Shard, policies: Policies) -> None:
    """
    Check that no item would have to go to another shard.

    Queues of other shards may have settings, as all shards may share a file.  But what the defaults and patterns say is
    for queues of this one.

    @raise SettingsError: a queue of this shard, or an alias, has a target in another one.
    """
    tables = [("defaults", attrs.asdict(policies.defaults))]
    tables += [
        (f"queues.{name}", dict(changes)) for name, changes in policies.overrides.items()
        if SPECIAL.search(name) or shard.has(name.encode())
    ]  # fmt: skip
    for where, table in tables:
        for setting in TARGETS:
            if table.get(setting) is not None:
                _check_target(shard, table[setting].encode(), f"{where}.{setting}")
    for alias, queues in policies.aliases.items():
        if shard.has(alias):
            for queue in queues:
                _check_target(shard, queue, f"aliases.{alias.decode()}")


def _check_target(shard: Shard, queue: bytes, where: str) -> None:
    try:
        shard.check(queue)
    except WrongShard as error:
        raise SettingsError(f"{where}: {error}") from None


def check_cluster(_: object, __: Any, value: Any) -> None:
    """For attrs.  @raise ValueError: it is none."""
    if value is not None:
        parse_cluster(value)
