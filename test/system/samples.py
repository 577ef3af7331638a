"""
The samples in the documents: what each is, and how it is run.

A comment above a sample says what it is, and C{.. samples:} what all of a page are that have none of their own::

    .. sample: session

C{session}
    Lines with C{$} are typed into a shell, and write what is below them; C{...} stands for anything.  All sessions of a
    page share a directory and a server, which C{darner} finds.  C{http} is the same, with a server that serves HTTP;
    C{import KIND} with the tests' data of another server in place of its directory; C{tutorial} without a server.
C{shell}
    Every line is typed into a shell, and has to succeed.
C{serve}
    Every line runs a server, which has to listen and then to stop when it is told to.
C{file NAME}
    A file in the directory of the page's sessions.
C{client}, C{embedding}
    Python: with a server, and with a queue service called C{queues}.
C{toml}, C{prometheus}
    Settings of a server, or of Prometheus, which have to be right.  Blocks of TOML need no mark.
C{wire}
    What a client and a server send; held with a server by L{test.system.test_docs}.  Needs no mark.
C{output}
    Nothing to run: what a program writes, or the form of a command.
C{install}
    The package is installed; C{.ci/run} does that from an empty directory.
C{by NAME}
    Run by that module of the tests, or that file.
C{long}
    A program that takes minutes to hours.  That it is there, and has all of these options, is checked; nothing more.
C{not run: REASON}
    Not run, nor checked.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final, Optional

from attrs import frozen
from docutils import nodes
from docutils.core import publish_doctree

from test.servers import ROOT

PAGES: Final = [
    ROOT / "README.rst", ROOT / "CONTRIBUTING.rst",
    *sorted(path for path in (ROOT / "docs").rglob("*.rst") if path.stem not in ("contributing", "changes")),
]  # fmt: skip

_MARK: Final = re.compile(r"samples?: (.*)", re.DOTALL)


@frozen
class Sample:
    """
    @ivar kind: what the mark says; C{None} where there is none.
    """

    page: Path
    line: int
    kind: Optional[str]
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {self.text[:60]!r}"

    @property
    def word(self) -> str:
        """The first word of its kind."""
        return (self.kind or "").split(" ")[0].rstrip(":")

    @property
    def rest(self) -> str:
        """What is behind that word."""
        return (self.kind or "").partition(" ")[2]


def _evident(block: nodes.literal_block) -> Optional[str]:
    """@return: the kind of a block that needs no mark."""
    if "toml" in block["classes"]:
        return "toml"
    if re.fullmatch(r"([CS]: .*\n?|[CS]:\n?)+", block.astext()):
        return "wire"
    return None


def read(page: Path) -> list[Sample]:
    """@return: the samples of a page."""
    settings = {"report_level": 5, "file_insertion_enabled": False, "raw_enabled": False}
    document = publish_doctree(page.read_text(), str(page), settings_overrides=settings)
    found, all_of_page, mark = [], None, None
    for node in document.findall(lambda node: isinstance(node, nodes.comment | nodes.literal_block)):
        if isinstance(node, nodes.comment):
            match = _MARK.fullmatch(node.astext())
            if match is not None and node.astext().startswith("samples"):
                all_of_page = match[1]
            elif match is not None:
                mark = match[1]
        elif not isinstance(node.parent, nodes.system_message):
            found.append(Sample(page, node.line or 0, mark or _evident(node) or all_of_page, node.astext()))
            mark = None
    return found


@cache
def samples() -> list[Sample]:
    """@return: those of all pages."""
    return [sample for page in PAGES for sample in read(page)]
