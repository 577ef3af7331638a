"""
Health and metrics of a node by HTTP, whatever its role, for load balancers and Prometheus.

It serves no queues and needs no log-in: it tells who leads, and how far the node is.
"""

from __future__ import annotations

import json
from typing import Any

from twisted.web.resource import Resource
from twisted.web.server import Site

from darner.cluster.node import Node
from darner.cluster.notes import LEADER


def figures(node: Node) -> dict[str, Any]:
    """@return: what a node knows of itself and of the log, by name."""
    leadership = node.leadership
    return {
        "leads": int(node.role == LEADER),
        "serves": int(node.serves),
        "position": node.store.position,
        "durable": node.durable,
        "lag": max(0, node.last - node.store.position),
        "trimmed": node.trimmed,
        "failovers": node.failovers,
        "appended": leadership.appended if leadership else 0,
        "append_seconds": leadership.append_seconds if leadership else 0.0,
        "snapshots_given": node.giver.given if node.giver else 0,
        "snapshot_bytes_given": node.giver.given_bytes if node.giver else 0,
        "snapshots_taken": node.joiner.taken if node.joiner else 0,
        "snapshot_bytes_taken": node.joiner.taken_bytes if node.joiner else 0,
    }


_HELP = {
    "leads": "whether the node leads",
    "serves": "whether the node serves clients: it leads, and has loaded its queues",
    "position": "the last record that is applied",
    "durable": "the last record that is on stable storage",
    "lag": "records of the log that are not applied",
    "trimmed": "the last record that this node has trimmed",
    "failovers": "claims to lead that were seen since the start",
    "appended": "records that this node has appended",
    "append_seconds": "how long the last append took",
    "snapshots_given": "snapshots that this node has given to others",
    "snapshot_bytes_given": "bytes of snapshots that this node has sent",
    "snapshots_taken": "snapshots that this node has taken from others",
    "snapshot_bytes_taken": "bytes of snapshots that this node has received",
}
_COUNTERS = (
    "failovers", "appended", "snapshots_given", "snapshot_bytes_given", "snapshots_taken", "snapshot_bytes_taken",
)  # fmt: skip


class _Told(Resource):
    isLeaf = True

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node

    def render_GET(self, request: Any) -> bytes:
        node = self._node
        if request.path == b"/ping":
            return b"pong\n"
        if request.path == b"/metrics":
            request.setHeader(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
            lines = []
            for name, value in figures(node).items():
                kind = "counter" if name in _COUNTERS else "gauge"
                name = f"darner_cluster_{name}" + "_total" * (kind == "counter")
                told = _HELP[name.removeprefix("darner_cluster_").removesuffix("_total")]
                lines += [f"# HELP {name} {told}", f"# TYPE {name} {kind}", f"{name} {value}"]
            return "\n".join([*lines, ""]).encode()
        if request.path != b"/health":
            request.setResponseCode(404)
            return b"not found: /health, /metrics and /ping\n"
        ok = node.serves
        if not ok and b"live" not in request.uri.partition(b"?")[2].split(b"&"):
            request.setResponseCode(503)
        request.setHeader(b"content-type", b"application/json")
        return json.dumps({"ok": ok, "role": node.role, "leader": node.leader, **figures(node)}).encode() + b"\n"


class _Silent(Site):
    noisy = False

    def log(self, request: Any) -> None:
        """Probes come every second, and are worth no line."""


def make_site(node: Node) -> Site:
    """@return: the site of a node."""
    return _Silent(_Told(node))
