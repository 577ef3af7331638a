"""
Statistics and settings of all queues, a few queues in each piece: so turns do not take longer with more queues, and the
server need not buffer what a client does not read.

A report may or may not include queues that are created or deleted while it is being sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, Union

import darner
from darner.queues.figures import Totals

if TYPE_CHECKING:
    from darner.front.session import Session

QUEUES: Final = 16
"""The number of queues in a piece."""
COUNTED: Final = 512
"""The number of queues that are added up in one turn, for the totals."""


def _names(session: Session, count: int) -> Iterator[list[bytes]]:
    """@return: the names of all queues, also of those that do not exist, in order, at most C{count} at a time."""
    names = session.queues.walks.names
    some = names.after(b"", count)
    while some:
        yield some
        some = names.after(some[-1], count)


def _seen(session: Session, names: list[bytes], waiting: bool) -> list[bytes]:
    """
    @param waiting: whether to include queues that do not exist yet but have waiting clients.
    @return: the queues that exist and that the client may see.
    """
    queues, log_in = session.queues, session.log_in
    seen = []
    for name in names:
        fifo = queues.find(name)
        known = fifo is not None and (fifo.exists or (waiting and fifo.waiters.line))
        if known and (log_in is None or log_in.may_see(name)):
            seen.append(name)
    return seen


def _with_end(pieces: Iterator[bytes], end: bytes) -> Iterator[bytes]:
    """@return: the pieces, with the end in the last one: some clients need a small report in one piece."""
    last = next(pieces, b"")
    for piece in pieces:
        yield last
        last = piece
    yield last + end


def stats(session: Session) -> Iterator[bytes]:
    """@return: the pieces of the statistics of the server and its queues."""
    return _with_end(_stats(session), session.spelling.after_report())


def _stats(session: Session) -> Iterator[bytes]:
    queues, spelling = session.queues, session.spelling
    totals = Totals()
    counted = 0
    for names in _names(session, COUNTED):
        queues.add_up(totals, names)
        counted += len(names)
        if counted >= COUNTED:
            counted = 0
            yield b""
    piece = spelling.stats(queues.figures(darner.__version__, totals), ())
    for names in _names(session, QUEUES):
        yield piece + spelling.stats({}, [(name, queues.queue_figures(name)) for name in _seen(session, names, True)])
        piece = b""
    if piece:
        yield piece


def dump(
    session: Session, asked: tuple[bytes, ...], tell: Callable[[bytes], Mapping[str, Union[int, str]]],
    waiting: bool = True,
) -> Iterator[bytes]:  # fmt: skip
    """
    @param waiting: whether to include queues that do not exist yet but have waiting clients.
    @param asked: the queues to report; empty: all that the client may see.
    @param tell: returns the figures or settings of a queue; queues without any are left out.
    @return: the pieces of the report.
    """
    return _with_end(_dump(session, asked, tell, waiting), session.spelling.after_report())


def _dump(
    session: Session, asked: tuple[bytes, ...], tell: Callable[[bytes], Mapping[str, Union[int, str]]], waiting: bool
) -> Iterator[bytes]:
    spelling = session.spelling
    for names in _asked(asked) if asked else _names(session, QUEUES):
        told = [(name, tell(name)) for name in (names if asked else _seen(session, names, waiting))]
        yield spelling.dump([(name, figures) for name, figures in told if figures])


def _asked(names: tuple[bytes, ...]) -> Iterator[list[bytes]]:
    for start in range(0, len(names), QUEUES):
        yield list(names[start : start + QUEUES])


def dump_config(session: Session, asked: tuple[bytes, ...]) -> Iterator[bytes]:
    """
    @param asked: the queues to report, whether they exist or not; empty: all that the client may see.
    @return: the pieces of the report of their settings.
    """
    return dump(session, asked, lambda name: session.queues.policy(name).as_text(), False)
