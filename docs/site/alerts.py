"""
The alert rules, for the page that says what to do about each: C{.. alert:: NAME} is what the rule says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from sphinx.application import Sphinx

from docs.site.links import ROOT
from docs.site.tables import Written

RULES: Final = ROOT / "darner" / "web" / "data" / "darner.rules.yml"


def rules() -> dict[str, dict[str, str]]:
    """@return: by the names of alerts, what the rules have: C{expr}, C{for}, C{severity} and C{runbook_url}."""
    found = {}
    for name, text in re.findall(r"- alert: (\w+)\n((?:(?!\s+- alert).*\n)+)", RULES.read_text()):
        rule = dict(re.findall(r"^\s+(for|runbook_url): \"?([^\"\n]+)\"?$", text, re.MULTILINE))
        rule["severity"] = re.search(r"severity: (\w+)", text)[1]  # type: ignore[index]
        expression = re.search(r"expr: (?:>-\n)?((?:.*\n)+?) +(?:for|labels):", text)
        rule["expr"] = " ".join(expression[1].split())  # type: ignore[index]
        found[name] = rule
    return found


class Alert(Written):
    """What the rule of an alert says."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        rule = rules()[self.arguments[0]]
        yield f"Fires, as *{rule['severity']}*, when this has held for {rule.get('for', 'an instant')}::"
        yield from ("", f"    {rule['expr']}", "")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("alert", Alert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
