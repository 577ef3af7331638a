"""
The metrics, as a server in memory tells of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx

from docs.site.scrape import families
from docs.site.tables import Written


class MetricsTable(Written):
    """C{.. metrics::}: all of them."""

    def lines(self) -> Iterator[str]:
        yield from (".. list-table::", "   :header-rows: 1", "   :widths: 38 12 15 35", "")
        yield from ("   * - metric", "     - type", "     - labels", "     - what it says")
        for family in families():
            labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
            yield f"   * - ``{family.name}``"
            yield f"     - {family.type}"
            yield f"     - {', '.join(f'``{label}``' for label in labels)}"
            yield f"     - {family.documentation}"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("metrics", MetricsTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
