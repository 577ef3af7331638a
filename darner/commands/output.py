"""
What commands write: items, tables that fit the terminal, JSON, and a word where something is amiss.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from io import RawIOBase
from typing import Any, BinaryIO, Final, Optional, cast

from darner.commands.client_settings import ClientSettings

Row = Sequence[Any]

_CONTROLS: Final = {number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160)) if number not in (9, 10)}


def printable(text: str) -> str:
    """@return: a text that does nothing to a terminal."""
    return text.translate(_CONTROLS)


def payload_text(payload: bytes) -> str:
    """@return: a payload as a person reads it."""
    return printable(payload.decode("utf-8", "backslashreplace"))


def payload_json(payload: bytes) -> dict[str, str]:
    """@return: a payload as JSON has it: as text, or where it is none in base64."""
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(payload).decode()}


def size(count: float) -> str:
    """@return: a number of bytes, such as C{1.5 MiB}."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration(seconds: float) -> str:
    """@return: a time, such as C{3d 4h}, C{5m 10s} or C{0.2s}."""
    if seconds < 10:
        return f"{seconds:.1f}s" if seconds else "0s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


def count(number: float) -> str:
    """@return: a number with commas."""
    return f"{number:,.0f}"


def items_text(number: float) -> str:
    """@return: so many items."""
    return "1 item" if number == 1 else f"{count(number)} items"


class _Whole:
    """Writes all that it is given to a stream without a buffer, which may take only a part when a signal comes."""

    def __init__(self, raw: RawIOBase) -> None:
        self._raw = raw
        self.fileno = raw.fileno
        self.flush = raw.flush

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        while rest:
            written = self._raw.write(rest)
            if written is None:
                raise BlockingIOError(errno.EAGAIN, "standard output takes no more")
            rest = rest[written:]
        return len(data)


def binary_output() -> BinaryIO:
    """@return: standard output, for bytes; it has no buffer where C{PYTHONUNBUFFERED} is set."""
    stream = sys.stdout.buffer
    return cast(BinaryIO, _Whole(stream)) if isinstance(stream, RawIOBase) else stream


class Output:
    """
    Standard output and standard error.

    @ivar json: whether JSON is written.
    @ivar on_terminal: whether a person reads standard output as it is written.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self.json = settings.json
        self.quiet = settings.quiet
        self.on_terminal = sys.stdout.isatty()

    # Standard output

    def line(self, text: str) -> None:
        """Write a line."""
        sys.stdout.write((printable(text) if self.on_terminal else text) + "\n")
        sys.stdout.flush()

    def data(self, data: bytes) -> None:
        """Write bytes as they are, and see them off."""
        stream = binary_output()
        stream.write(data)
        stream.flush()

    def document(self, value: Any) -> None:
        """Write a value as a line of JSON."""
        self.line(json.dumps(value, ensure_ascii=False, default=str))

    def done(self, text: str, **facts: Any) -> None:
        """Say that all went well, and what was done: the facts where JSON is wanted."""
        if self.json:
            self.document(facts)
        elif not self.quiet:
            self.line(text)

    def table(self, headers: Sequence[str], rows: Iterable[Row]) -> None:
        """
        Write a table: on a terminal one that fits it, elsewhere columns with two spaces between them and nothing cut.

        @param headers: those that begin with C{>} are of columns to the right.
        """
        if self.on_terminal:
            from rich.console import Console

            console = Console()
            console.print(rich_table(headers, rows, console.width))
            return
        names = [header.lstrip(">") for header in headers]
        cells = [names, *([str(cell) for cell in row] for row in rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(names))]
        for row in cells:
            parts = [
                cell.rjust(width) if header.startswith(">") else cell.ljust(width)
                for cell, width, header in zip(row, widths, headers, strict=True)
            ]
            self.line("  ".join(parts).rstrip())

    def pairs(self, values: Mapping[str, Any]) -> None:
        """Write names and values."""
        width = max(map(len, values), default=0)
        for name, value in values.items():
            self.line(f"{name.ljust(width)}  {value}")

    # Standard error

    def warn(self, text: str) -> None:
        """Say what is amiss, though it goes on."""
        with contextlib.suppress(OSError):
            print(f"darner: {printable(text)}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """Say on a terminal what goes on; scripts are not told."""
        if sys.stderr.isatty() and not self.quiet:
            self.warn(text)

    @property
    def somebody_is_there(self) -> bool:
        """Whether there is a person to ask."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def confirm(self, question: str) -> bool:
        """@return: whether the person at the terminal agrees; true where nobody is there to ask."""
        if not self.somebody_is_there:
            return True
        sys.stderr.write(f"{printable(question)} [y/N] ")
        sys.stderr.flush()
        return sys.stdin.readline().strip().lower() in ("y", "yes")


_NARROWEST: Final = 8
"""What is left at least of a column of text that is cut."""
_GAP: Final = 2


def rich_table(headers: Sequence[str], rows: Iterable[Row], width: int) -> Any:
    """
    Make a table that fits: the texts in its columns to the left are cut, and where that is not enough the last columns
    are left out.

    @param width: columns of the terminal.
    @return: a table of rich's; names of queues are text and no markup in it.
    """
    from rich.table import Table
    from rich.text import Text

    cells = [[printable(str(cell)) for cell in row] for row in rows]
    names = [header.lstrip(">") for header in headers]
    longest = [max(len(name), *(len(row[column]) for row in cells), 0) for column, name in enumerate(names)]
    widths = [
        wanted if header.startswith(">") else min(wanted, max(len(name), _NARROWEST))
        for header, name, wanted in zip(headers, names, longest, strict=True)
    ]
    shown = len(names)
    while shown > 1 and sum(widths[:shown]) + _GAP * (shown - 1) > width:
        shown -= 1
    left = max(0, width - sum(widths[:shown]) - _GAP * (shown - 1))
    for column in range(shown):
        more = min(left, longest[column] - widths[column])
        widths[column] += more
        left -= more
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    for header, name, wide in zip(headers[:shown], names, widths, strict=False):
        justify: Any = "right" if header.startswith(">") else "left"
        table.add_column(Text(name), justify=justify, no_wrap=True, overflow="ellipsis", width=wide)
    for row in cells:
        table.add_row(*map(Text, row[:shown]))
    return table


class Progress:
    """
    How far something is, on standard error where that is a terminal: count, rate, and the time left where the total is
    known.

    @ivar done: how many.
    """

    def __init__(
        self, output: Output, what: str, total: Optional[float] = None, bytes: bool = False,
        shown: bool = True,
    ) -> None:  # fmt: skip
        """
        @param what: what is counted, such as C{items}.
        @param bytes: whether it is bytes that are counted.
        @param shown: false where it would be in the way.
        """
        self.done = 0.0
        self.total = total
        self._shown = shown and sys.stderr.isatty() and not output.quiet
        self._what = what
        self._bytes = bytes
        self._bar: Any = None
        self._task: Any = None
        self._told = 0.0

    def __enter__(self) -> Progress:
        if self._shown:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            known = self.total is not None
            columns: list[Any] = [TextColumn("{task.fields[counted]}", markup=False)]
            if known:
                columns += [BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f} %", markup=False)]
            columns += [TextColumn("{task.fields[rate]}", markup=False)]
            columns += [TimeRemainingColumn(compact=True), TextColumn("left")] if known else [TimeElapsedColumn()]
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=self.total, counted=self._counted(), rate="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _counted(self) -> str:
        number = size if self._bytes else count
        of = f" of {number(self.total)}" if self.total is not None else ""
        return f"{number(self.done)}{of}{'' if self._bytes else ' ' + self._what}"

    def advance(self, by: float = 1) -> None:
        """So many more are done."""
        self.reach(self.done + by)

    def reach(self, done: float, total: Optional[float] = None) -> None:
        """So many are done now, of so many."""
        self.done = done
        if total is not None:
            self.total = total
        if self._bar is None:
            return
        now = time.monotonic()
        if now - self._told < 0.05:
            return  # drawing costs more than the work
        self._told = now
        speed = self._bar.tasks[0].speed or 0
        rate = f"{size(speed)}/s" if self._bytes else f"{count(speed)}/s"
        self._bar.update(self._task, completed=done, total=self.total, counted=self._counted(), rate=rate)
