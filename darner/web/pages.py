"""
The dashboard's files, as they are.
"""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from darner.web.answers import Answer
from darner.web.problems import not_found

DIRECTORY: Final = Path(__file__).parent / "static"
KINDS: Final = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".json": b"application/json",
    ".svg": b"image/svg+xml",
    ".png": b"image/png",
    ".ico": b"image/x-icon",
    ".webmanifest": b"application/manifest+json",
}
_NAME: Final = re.compile(rb"[a-z0-9_]+(?:-[a-z0-9_]+)*\.[a-z]+")


class Pages:
    """Files of one directory, by their names; there are none in directories below it."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._directory = directory

    def answer(self, request: Any) -> Answer:
        """
        @return: C{index.html} for C{/}, and any other below C{/static/}.
        @raise Problem: there is no such file.
        """
        path: bytes = request.path
        name = b"index.html" if path == b"/" else path.removeprefix(b"/static/")
        if name == path or not _NAME.fullmatch(name):
            raise not_found("no such page")
        file = self._directory / name.decode()
        kind = KINDS.get(file.suffix)
        try:
            if kind is None:
                raise FileNotFoundError
            content = file.read_bytes()
        except FileNotFoundError:
            raise not_found("no such page") from None
        tag = b'"%b"' % sha256(content).hexdigest()[:32].encode()
        headers = {b"ETag": tag, b"Cache-Control": b"no-cache"}
        if request.getHeader(b"if-none-match") == tag:
            return Answer(b"", 304, kind, headers)
        return Answer(content, 200, kind, headers)
