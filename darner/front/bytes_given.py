"""
Checking that applications pass bytes.
"""

from __future__ import annotations


class TextGiven(TypeError):
    """An application passed text instead of bytes."""


def as_bytes(value: bytes, name: str) -> bytes:
    """@return: C{value}.  @raise TextGiven: it is text."""
    if isinstance(value, str):
        raise TextGiven(f"{name} is text, {value[:40]!r}, and has to be bytes: encode it, as in b'jobs'")
    return value
