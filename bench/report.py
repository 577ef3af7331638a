"""
Reports of the results: as text, and as a page of the documentation with plots.
"""

from __future__ import annotations

import csv
import inspect
import io
import os
import platform
import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from bench.conditions import Conditions
from bench.outcome import Outcome, Plot, Table

INTRODUCTION: Final = """
``make bench`` writes this page.  It starts the servers below on one machine, each with its own directory, and puts
the same load on one after the other.

* Rates are the median of {rounds} rounds, in which the servers take turns.
* CPU time is what the server process used for a request, from ``/proc``.  It says more than the rate about a server
  that shares its machine.  For darner it includes polling while there are few clients.
* An asterisk marks rates at which the load tool was busy all the time: the server may well be faster.
* All items of a load have the same random text, as in the benchmarks of the C++ Darner, whose database compresses
  several small ones into one.
* Compare figures within this run only.  Other machines give other figures.
"""


@frozen
class Section:
    """A benchmark that was run."""

    name: str
    benchmark: Callable[[Conditions], Outcome]
    outcome: Outcome

    @property
    def text(self) -> str:
        """Describes what it measures."""
        return inspect.getdoc(self.benchmark) or ""


def as_text(section: Section) -> str:
    """@return: the outcome for a terminal."""
    parts = [f"== {section.name}", section.text, ""]
    parts += [_text_table(table) for table in section.outcome.tables]
    parts += [
        f"{'met ' if goal.met else 'MISS'}  {goal.work}: {goal.figure} ({goal.reach})" for goal in section.outcome.goals
    ]
    return "\n".join([*parts, *(f"note: {note}" for note in section.outcome.notes), ""])


def _text_table(table: Table) -> str:
    lines = [table.head, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.head))]
    text = [
        "  ".join(f"{cell:>{width}}" if column else f"{cell:<{width}}"
                  for column, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]  # fmt: skip
    return "\n".join([f"-- {table.title}", *text, ""])


def write_page(path: Path, sections: list[Section], conditions: Conditions) -> None:
    """Write the page, and its plots into C{images} beside it."""
    parts = ["Benchmarks", "==========", INTRODUCTION.format(rounds=conditions.rounds)]
    parts += [_csv(Table("Where", ["", ""], [*_machine(), *sorted(conditions.used.items())]))]
    if conditions.missing:
        parts += [f"Missing on this machine, and left out: {', '.join(sorted(conditions.missing))}.", ""]
    goals = [
        [goal.work, goal.reach, goal.figure, "yes" if goal.met else "**no**", f"``make bench ARGS={section.name}``"]
        for section in sections
        for goal in section.outcome.goals
    ]
    if goals:
        parts += ["Goals", "-----", ""]
        parts += [_csv(Table("Goals of this server", ["work", "goal", "figure", "reached", "repeat"], goals))]
    for section in sections:
        parts += [section.name.capitalize(), "-" * len(section.name), ""]
        parts += [section.text, "", f"Repeat it with ``make bench ARGS={section.name}``.", ""]
        for plot in section.outcome.plots:
            if draw(path.parent / "images", plot):
                parts += [f".. image:: images/bench_{plot.name}.png", f"   :alt: {plot.title}", ""]
        parts += [_csv(table) for table in section.outcome.tables]
        parts += [f"- {note}" for note in section.outcome.notes] + [""] * bool(section.outcome.notes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts).rstrip() + "\n")


def _csv(table: Table) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(table.rows)
    head = io.StringIO()
    csv.writer(head, lineterminator="").writerow(table.head)
    lines = [f".. csv-table:: {table.title}"]
    if any(table.head):
        lines.append(f"   :header: {head.getvalue()}")
    return "\n".join([*lines, "", *(f"   {line}" for line in out.getvalue().splitlines()), ""])


def _machine() -> list[tuple[str, str]]:
    cpu = re.search(r"model name\s*: (.*)", _contents("/proc/cpuinfo"))
    memory = re.search(r"MemTotal:\s+(\d+)", _contents("/proc/meminfo"))
    return [
        ("processor", f"{cpu[1] if cpu else platform.processor()}, {os.cpu_count()} cores"),
        ("memory", f"{int(memory[1]) / 2**20:.0f} GiB" if memory else "unknown"),
        ("system", f"{platform.system()} {platform.release()}"),
        ("Python", _python()),
        ("Twisted", version("twisted")),
        ("plyvel", version("plyvel")),
    ]


def _python() -> str:
    # A Python built by hand mostly lacks profile-guided optimization, and is a fifth slower.
    whose = ", the distribution's" if sys.base_prefix == "/usr" else ""
    return f"{platform.python_implementation()} {platform.python_version()}{whose}"


def _contents(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def draw(directory: Path, plot: Plot) -> bool:
    """
    Draw a plot.

    @return: whether matplotlib is installed.
    """
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("agg")
    from matplotlib import pyplot

    directory.mkdir(parents=True, exist_ok=True)
    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    drawn: Any = axes
    for name, points in plot.lines.items():
        drawn.plot(*zip(*points, strict=True), marker="o", markersize=3, label=name)
    if plot.log_x:
        drawn.set_xscale("symlog", linthresh=1)
        drawn.xaxis.set_major_formatter("{x:,.0f}")
    drawn.set(title=plot.title, xlabel=plot.x, ylabel=plot.y)
    drawn.set_ylim(bottom=0)
    drawn.grid(alpha=0.3)
    drawn.legend(fontsize="small")
    figure.savefig(directory / f"bench_{plot.name}.png", dpi=90, metadata={"Software": None})
    pyplot.close(figure)
    return True
