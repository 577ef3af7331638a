"""
The results of a benchmark, as plain data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from attrs import define, field, frozen


@frozen
class Table:
    """Figures."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@frozen
class Plot:
    """Lines over an axis."""

    name: str
    """The name of the file."""
    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]]
    log_x: bool = True


@frozen
class Goal:
    """A target for a figure, and whether it was met."""

    work: str
    reach: str
    figure: str
    met: bool


@define
class Outcome:
    """All results of one benchmark."""

    tables: list[Table] = field(factory=list)
    plots: list[Plot] = field(factory=list)
    goals: list[Goal] = field(factory=list)
    notes: list[str] = field(factory=list)

    def at_least(self, work: str, reach: float, figure: Optional[float]) -> None:
        """Add a goal for a ratio; nothing if C{figure} is C{None}, as there was no server to compare with."""
        if figure is not None:
            self.goals.append(Goal(work, f"at least {reach:g}", f"{figure:.2f}", figure >= reach))

    def at_most(self, work: str, reach: float, unit: str, figure: Optional[float]) -> None:
        """Add a goal for a size or time; nothing if C{figure} is C{None}."""
        if figure is not None:
            self.goals.append(Goal(work, f"at most {reach:g} {unit}", f"{figure:.1f} {unit}", figure <= reach))
