"""
Directives that write a part of a page from what the program has.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective


class Written(SphinxDirective):
    """A part of a page, in reStructuredText that a method yields line by line."""

    def run(self) -> list[nodes.Node]:
        node = nodes.section()
        node.document = self.state.document
        lines = StringList(list(self.lines()), source=type(self).__module__)
        self.state.nested_parse(lines, 0, node, match_titles=True)
        return node.children

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """@return: the lines of the part."""


def definition(term: str, *paragraphs: str) -> Iterator[str]:
    """@return: the lines of an entry in a list of definitions."""
    yield term
    for paragraph in paragraphs:
        yield "    " + " ".join(paragraph.split())
        yield ""


def heading(text: str, level: str = "-") -> Iterator[str]:
    """@return: the lines of a heading."""
    yield from ("", text, level * len(text), "")
