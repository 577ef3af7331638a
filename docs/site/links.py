"""
Links between the documents, as they are written for readers of the plain files.

The documents link to each other by file, as in C{`protocol.rst <protocol.rst>`__}, which leads somewhere in the
checkout and on sites that show it.  Here such links become links between the site's pages, and those to other files
become downloads.  C{api/} is made by pydoctor.  Lists of contents are left out, as the theme has one beside each page.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Final, Optional

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging

DOCS: Final = Path(__file__).resolve().parent.parent
ROOT: Final = DOCS.parent
PAGES: Final = {
    "CONTRIBUTING.rst": "contributing", "CHANGES.rst": "changes", "README.rst": "index", "examples": "examples",
}  # fmt: skip
"""Pages of the site that stand for files and directories outside of docs/."""

_logger = logging.getLogger(__name__)


def find(target: str, directory: Path) -> Optional[str]:
    """
    @param target: a path that a document has, relative to itself or, in documents that others include, to the checkout.
    @param directory: the directory of the document.
    @return: the path relative to the checkout, or C{None} where nothing is there.
    """
    for base in (directory, ROOT):
        path = Path(os.path.normpath(base / target))
        if path.exists() and path.is_relative_to(ROOT):
            return path.relative_to(ROOT).as_posix()
    return None


def _link(reference: nodes.reference, page: str, document: str) -> nodes.Node:
    text = reference.astext()
    explicit = not text.endswith((".rst", "/"))
    link = addnodes.pending_xref(
        "", nodes.inline(text, text, classes=["xref", "std", "std-doc"]), refdomain="std", reftype="doc",
        refexplicit=explicit, refdoc=document, reftarget=f"/{page}", refwarn=True,
    )  # fmt: skip
    link.source, link.line = reference.source, reference.line
    return link


def resolve(app: Sphinx, doctree: nodes.document) -> None:
    """Make links to files links of the site."""
    document = app.env.docname
    directory = (DOCS / document).parent
    for contents in list(doctree.findall(nodes.topic)):
        if "contents" in contents["classes"]:
            contents.parent.remove(contents)
            for title in doctree.findall(nodes.title):
                title.attributes.pop("refid", None)
    for reference in list(doctree.findall(nodes.reference)):
        target = reference.get("refuri", "")
        if not target or target.startswith(("#", "mailto:", "../api/")) or "://" in target:
            continue
        path = find(target, directory)
        if path is None:
            _logger.warning("no such file: %s", target, location=reference)
            continue
        page = PAGES.get(path)
        if page is None and path.startswith("docs/") and path.endswith(".rst"):
            page = path[len("docs/") : -len(".rst")]
        if page is not None:
            reference.replace_self(_link(reference, page, document))
            continue
        if (ROOT / path).is_dir():
            reference.replace_self(nodes.literal("", path))
            continue
        reference.replace_self(
            addnodes.download_reference(
                "", "", *reference.children, reftarget=os.path.relpath(ROOT / path, directory), refdoc=document
            )
        )


def drop_empty_patterns(_: Sphinx, document: str, source: list[str]) -> None:
    """Leave patterns out of the lists of pages that match no page but those that are listed by their names."""
    listed = set(re.findall(r"^   ([\w/]+)$", source[0], re.MULTILINE))
    place = (DOCS / document).parent

    def keep(found: re.Match[str]) -> str:
        matching = {path.stem for path in place.glob(f"{found[1]}.rst")} - listed - {Path(document).name}
        return found[0] if matching else ""

    source[0] = re.sub(r"^   (\w*\*)\n", keep, source[0], flags=re.MULTILINE)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", drop_empty_patterns)
    # Before Sphinx collects the files that are to be copied.
    app.connect("doctree-read", resolve, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
