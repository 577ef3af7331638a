"""
Tests of the documents as a site: what is written from the program's own definitions, the page of alerts, and the check
of links.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import click
from docutils.core import publish_string
from twisted.trial.unittest import SynchronousTestCase

from darner.commands.program import SECTIONS, make_program
from darner.web.openapi import document
from docs.site.check_links import check
from docs.site.scrape import families
from test.servers import ROOT

DOCS = ROOT / "docs"


class DefinitionsTests(SynchronousTestCase):
    """Everything that the reference lists says what it is."""

    def test_every_setting_is_described(self) -> None:
        for name in ("Settings", "QueueSettings", "Rights"):
            described = settings_of(name)
            self.assertGreater(len(described), 2)
            self.assertEqual([setting for setting, text in described.items() if not text], [], name)

    def test_every_setting_has_a_place(self) -> None:
        """Of operations.rst, which explains them together."""
        text = (DOCS / "operations.rst").read_text()
        for setting in settings_of("QueueSettings"):
            self.assertIn(f"``{setting}``", text)

    def test_every_endpoint_is_described(self) -> None:
        for path, methods in document()["paths"].items():
            for method, operation in methods.items():
                self.assertTrue(operation["summary"], f"{method} {path}")
                for parameter in operation["parameters"]:
                    if parameter["in"] != "header":
                        self.assertTrue(parameter["description"], f"{method} {path}: {parameter['name']}")

    def test_every_command_is_described(self) -> None:
        program = make_program()
        context = click.Context(program)
        listed = (DOCS / "reference" / "commands.rst").read_text()
        for names in SECTIONS.values():
            for name in names:
                command = program.get_command(context, name)
                assert command is not None
                self.assertTrue(command.help, name)
                if name not in ("serve", "bench"):  # their options are those of other programs
                    self.assertRegex(listed, rf":commands:.* {name}(,|\n)")
                for parameter in command.params:
                    if isinstance(parameter, click.Option):
                        self.assertTrue(parameter.help, f"{name} {parameter.opts}")

    def test_every_metric_is_described(self) -> None:
        found = families()
        self.assertGreater(len(found), 40)
        self.assertEqual([family.name for family in found if not family.documentation], [])
        self.assertIn("queue", {label for family in found for sample in family.samples for label in sample.labels})


def settings_of(name: str) -> dict[str, str]:
    """@return: the settings of a class, with what stands below each."""
    for path in (ROOT / "darner" / "config").glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return _documented(node)
    raise AssertionError(f"there is no class {name}")


def _documented(node: ast.ClassDef) -> dict[str, str]:
    found: dict[str, str] = {}
    last = ""
    for statement in node.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=setting)):
                found[setting] = ""
                last = setting
            case ast.Expr(value=ast.Constant(value=str(text))) if last:
                found[last] = text
                last = ""
            case _:
                last = ""
    return found


class AlertsTests(SynchronousTestCase):
    """Each alert has a section that says what to do, and leads there."""

    def test_sections(self) -> None:
        rules = (ROOT / "darner" / "web" / "data" / "darner.rules.yml").read_text()
        alerts = re.findall(r"- alert: (\w+)\n", rules)
        text = (DOCS / "howto" / "alerts.rst").read_text()
        sections = re.split(r"^(\w+)\n-+\n", text, flags=re.MULTILINE)[1:]
        self.assertEqual(sections[::2], alerts)
        for alert, section in zip(alerts, sections[1::2], strict=True):
            self.assertIn(f".. alert:: {alert}\n", section)
            for part in ("What it means.", "Look.", "Do."):
                self.assertIn(f"**{part}**", section, alert)

    def test_runbooks(self) -> None:
        rules = (ROOT / "darner" / "web" / "data" / "darner.rules.yml").read_text()
        for rule in rules.split("- alert: ")[1:]:
            alert = rule.split("\n")[0]
            self.assertIn(f'runbook_url: "howto/alerts.html#{alert.lower()}"', rule)


class LinksTests(SynchronousTestCase):
    """The check of links finds those that lead nowhere."""

    def check(self, **pages: str) -> list[str]:
        directory = Path(self.mktemp()).resolve()
        directory.mkdir()
        for name, text in pages.items():
            (directory / f"{name}.html").write_text(text)
        return check(directory)[1]

    def test_whole(self) -> None:
        one = '<a href="two.html#here">2</a> <a href="#top" id="top">1</a> <a href="http://example.org/x">elsewhere</a>'
        self.assertEqual(self.check(one=one, two='<p id="here">'), [])

    def test_broken(self) -> None:
        one = '<a href="two.html#gone">2</a> <img src="missing.png"> <a href="#gone">1</a>'
        faults = self.check(one=one, two='<p id="here">')
        self.assertEqual(len(faults), 3, faults)
        self.assertIn("missing.png: there is no such file", faults[1])


class PagesTests(SynchronousTestCase):
    def test_outside_of_the_site(self) -> None:
        """What Sphinx does not read is well-formed as well."""
        for name in ("README.rst", "CONTRIBUTING.rst"):
            publish_string((ROOT / name).read_text(), name, settings_overrides={"halt_level": 2, "report_level": 5})

    def test_contents(self) -> None:
        """Each page is in one of the site's lists, by its name or by a pattern."""
        listed: set[Path] = set()
        for page in DOCS.rglob("index.rst"):
            listed.add(page)
            for block in re.findall(r"\.\. toctree::\n((?:   .*\n|\n)+)", page.read_text()):
                for name in re.findall(r"^   ([\w/*]+)$", block, re.MULTILINE):
                    listed.update(page.parent.glob(f"{name}.rst"))
        self.assertEqual(sorted(set(DOCS.rglob("*.rst")) - listed), [])
