"""
What is wrong with a file.
"""

from __future__ import annotations

from typing import NamedTuple


class Damage(NamedTuple):
    """What is wrong with a file."""

    file: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"
