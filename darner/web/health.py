"""
Whether the server does what it is there for, and if not, why.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from darner.errors import DiskAlmostFull
from darner.queues.front_end import IQueues


def health(queues: IQueues) -> dict[str, Any]:
    """@return: as the schema C{Health} says."""
    reasons: list[dict[str, Any]] = []
    if queues.stopped:
        reasons.append({"code": "stopping", "text": "the server is stopping", "since": None})
    store = queues.commit.health
    if not store.writable:
        reasons.append({"code": "store", "text": store.reason, "since": int(store.since * 1000)})
    with suppress(DiskAlmostFull):
        queues.space.take(0)  # looks, if that was long ago
    disk = queues.space.health
    if not disk.writable:
        reasons.append({"code": "disk", "text": disk.reason, "since": int(disk.since * 1000)})
    if queues.status.name != "up":
        reasons.append({"code": "status", "text": f"the status is {queues.status.name}", "since": None})
    return {"ok": not reasons, "reasons": reasons}
