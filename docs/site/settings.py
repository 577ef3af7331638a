"""
The settings, from the classes that define them: name, default and what stands below each attribute there.
"""

from __future__ import annotations

import inspect
import re
from ast import AnnAssign, Constant, Expr, Name, parse
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import attrs
from sphinx.application import Sphinx

from darner.cli.options import Options
from darner.config.policies import FIELDS, QueueSettings
from darner.config.settings import Rights, Settings
from docs.site.tables import Written, definition

CLASSES: Final = {"server": Settings, "queues": QueueSettings, "rights": Rights}
TABLES: Final = {"policies"}
"""What is no setting of its own, but the tables of the file."""


def documented(kind: type) -> dict[str, str]:
    """@return: what is said of each attribute of a class, by name; C{""} where nothing is."""
    body = parse(inspect.cleandoc("\n" + inspect.getsource(kind))).body[0].body  # type: ignore[attr-defined]
    said = {field.name: "" for field in attrs.fields(kind)}
    for statement, behind in pairwise(body):
        match statement, behind:
            case AnnAssign(target=Name(id=name)), Expr(value=Constant(value=str(text))):
                said[name] = inspect.cleandoc(text)
    return {name: text for name, text in said.items() if name not in TABLES}


def as_rst(text: str) -> str:
    """@return: epytext as reStructuredText."""
    return re.sub(r"\b[CL]\{\"?([^{}\"]*)\"?\}", r"``\1``", text)


def default(kind: type, name: str) -> str:
    """@return: the default of a setting, as the file has it."""
    if kind is QueueSettings:
        return QueueSettings().as_text()[name]
    value: Any = getattr(kind(), name)
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g} s"
    if isinstance(value, tuple):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return str(value)


def options() -> dict[str, str]:
    """@return: the option of the command line for a setting, where there is one."""
    names = [name for name in Options().longOpt if name.rstrip("=") not in ("help", "version")]
    found = {name.rstrip("=").replace("-", "_"): "--" + name.rstrip("=") for name in names}
    return {name: option for name, option in found.items() if name in attrs.fields_dict(Settings)}


class SettingsTable(Written):
    """C{.. settings:: server}: the settings of a class."""

    required_arguments = 1

    def lines(self) -> Iterator[str]:
        kind = CLASSES[self.arguments[0]]
        given = options() if kind is Settings else {}
        for name, text in documented(kind).items():
            facts = [f"Default: ``{default(kind, name)}``."]
            if name in given:
                facts.append(f"Option: ``{given[name]}``.")
            if kind is QueueSettings and FIELDS[name].metadata.get("kind"):
                facts.append(f"A {FIELDS[name].metadata['kind']}.".replace("A sync.", ""))
            yield f".. _setting-{self.arguments[0]}-{name}:"
            yield ""
            yield from definition(f"``{name}``", as_rst(text), "  ".join(facts))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("settings", SettingsTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
