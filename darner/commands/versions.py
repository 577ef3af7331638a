"""
What this darner is, whether it is compiled, and with what.
"""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import Final

import darner
import darner.values.items

COMPILED_WITH: Final = "compiled_with.txt"
"""The file that ``setup.py`` puts beside compiled code: what compiled it."""


def is_compiled() -> bool:
    """Whether mypyc has compiled what runs for each request."""
    return not darner.values.items.__file__.endswith(".py")


def describe() -> str:
    """@return: version and how it is built, in a line, and what it runs on in another."""
    how = "not compiled"
    if is_compiled():
        note = Path(darner.__file__).with_name(COMPILED_WITH)
        how = f"compiled by {note.read_text().strip()}" if note.exists() else "compiled by mypyc"
    parts = [f"{platform.python_implementation()} {platform.python_version()}"]
    for name in ("Twisted", "plyvel", "click", "rich"):
        try:
            parts.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return f"darner {darner.__version__} ({how})\n{', '.join(parts)}"
