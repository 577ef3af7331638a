"""
Checks of settings, whether they come from a file or from Python.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from difflib import get_close_matches
from typing import Any

Check = Callable[[object, Any, Any], None]
"""As C{attrs} has its validators: what is validated, which attribute, and the value."""


def of_type(*kinds: type) -> Check:
    """
    @param kinds: the types that a setting may have.  Whole numbers are good for C{float}; C{bool} is no number.
    @return: a validator that raises C{ValueError} for any other.
    """
    taken = (*kinds, int) if float in kinds else kinds
    names = " or ".join(kind.__name__ for kind in kinds)

    def check(_: object, __: Any, value: Any) -> None:
        if not isinstance(value, taken) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"{value!r} is not of type {names}")

    return check


def meant(name: str, known: Collection[str]) -> str:
    """@return: in brackets, the known name that is most like this one; empty if none is."""
    near = get_close_matches(name, known, 1, 0.7)
    return f" (is {near[0]} meant?)" if near else ""
