"""
What C{GET /metrics} tells of a server in memory.
"""

from __future__ import annotations

from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from darner.config.settings import Settings
from test.web.browser import WebServer

ROOM: Final = (1, 10**12)
"""Free bytes and all bytes of the disk."""


def families() -> list[Metric]:
    """@return: every metric of darner's own, with samples that have all of its labels."""
    web = WebServer(Settings(), None)
    try:
        client = web.server.client()
        client.set(b"jobs", b"1")
        web.server.commit()
        web.server.store.room = ROOM
        browser = web.browser()
        browser.get("/metrics")
        text = browser.get("/metrics", Accept="application/openmetrics-text; version=1.0.0").body.decode()
        client.session.leave()
        web.queues.space.stop()
    finally:
        web.root.close()
    return [family for family in text_string_to_metric_families(text) if family.name.startswith("darner_")]
