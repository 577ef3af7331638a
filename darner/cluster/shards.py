"""
How a log knows its shard: the id of the cluster, which its first claim makes, says it.

The id is in each record, in each store, and in the note of each node.  So a node that is told another shard than its
store has, or the log, finds that out before it applies or serves anything.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from struct import Struct
from typing import Final, Optional

from darner.cluster.interfaces import ILog
from darner.cluster.notes import Note, read_notes
from darner.errors import LogDamaged, LogUnavailable
from darner.values.shards import Shard

_MARK: Final = b"shd1"
_ENDING: Final = Struct(">4sHH")  # the mark, number and count


def new_cluster_id(shard: Optional[Shard]) -> bytes:
    """@return: 16 bytes for a new cluster."""
    if shard is None:
        return secrets.token_bytes(16)
    return secrets.token_bytes(16 - _ENDING.size) + _ENDING.pack(_MARK, shard.number, shard.count)


def shard_in(cluster: bytes) -> Optional[Shard]:
    """@return: the shard that a cluster is; C{None}: it has all queues."""
    if len(cluster) != 16:
        return None
    mark, number, count = _ENDING.unpack(cluster[-_ENDING.size :])
    return Shard(number, count) if mark == _MARK else None


def cluster_of(note: Note) -> bytes:
    """@return: the id in a note; empty if there is none."""
    try:
        return bytes.fromhex(note.cluster)
    except ValueError:
        return b""


def describe(shard: Optional[Shard]) -> str:
    return "all queues" if shard is None else f"shard {shard.number} of {shard.count}"


def check_shard(cluster: bytes, shard: Optional[Shard], what: str) -> None:
    """
    @param cluster: the id of a cluster; empty while it is not known.
    @param shard: what a node is told to have.
    @param what: has that id, for people.
    @raise LogDamaged: it is another shard.
    """
    found = shard_in(cluster)
    if cluster and found != shard:
        raise LogDamaged(
            f"{what} has {describe(found)}, and this node is told to have {describe(shard)}: each shard has a log and "
            "data directories of its own (cluster_shard)"
        )


async def check_log(log: ILog, shard: Optional[Shard]) -> None:
    """
    Look at what the nodes say of a log, as far as it is in reach.

    @raise LogDamaged: as L{check_shard}.
    """
    with suppress(LogUnavailable):
        for note in read_notes(await log.notes()).values():
            check_shard(cluster_of(note), shard, "the log")
