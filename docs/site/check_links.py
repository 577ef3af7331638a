"""
Check the links inside of a site that was built: every file, and every anchor in a file.  Of the Python API, which
pydoctor makes, the files alone.

    python -m docs.site.check_links DIRECTORY

It prints what leads nowhere; the exit status is 1 if anything does.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Optional
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """
    @ivar anchors: the names that links can lead to.
    @ivar links: where its own links lead.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Optional[str]]]) -> None:
        for name, value in attrs:
            if name == "id" or (name == "name" and tag == "a"):
                self.anchors.add(value or "")
            elif name in ("href", "src") and value:
                self.links.append(value)


def check(directory: Path) -> tuple[int, list[str]]:
    """@return: how many links there are inside of the site, and what is wrong with those that lead nowhere."""
    pages = {path: Page(path.read_text()) for path in sorted(directory.rglob("*.html"))}
    count, faults = 0, []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            count += 1
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path.resolve()
            if target.is_dir():
                target /= "index.html"
            name = f"{path.relative_to(directory)}: {link}"
            if not target.is_file():
                faults.append(f"{name}: there is no such file")
            elif path.is_relative_to(directory / "api"):
                pass  # pydoctor makes some links to attributes that a class inherits, and shows those elsewhere
            elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
                faults.append(f"{name}: the file has no such anchor")
    return count, faults


def main(arguments: list[str]) -> int:
    count, faults = check(Path(arguments[0]).resolve())
    print(*faults, f"{count} links inside of the site, {len(faults)} of them broken", sep="\n")
    return 1 if faults or not count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
