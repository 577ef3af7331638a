"""
Statistics and settings of all queues, a few queues in each piece: so no turn takes longer where there are more of them,
and nobody has to keep what a client does not read.

A queue that is made or deleted while a report is on its way is in it or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, Union

import darner
from darner.queues.figures import Totals

if TYPE_CHECKING:
    from darner.front.session import Session

QUEUES: Final = 16
"""Of how many queues a piece tells."""
COUNTED: Final = 512
"""The items of how many queues are counted for a piece that tells of none."""


def _names(session: Session, count: int) -> Iterator[list[bytes]]:
    """@return: the names of all queues that somebody knows, in order, C{count} at most at a time."""
    names = session.queues.walks.names
    some = names.after(b"", count)
    while some:
        yield some
        some = names.after(some[-1], count)


def _seen(session: Session, names: list[bytes], waiting: bool) -> list[bytes]:
    """
    @param waiting: whether also those that do not exist yet, and for whose items somebody waits.
    @return: those of the queues that exist and that the client may see.
    """
    queues, log_in = session.queues, session.log_in
    seen = []
    for name in names:
        fifo = queues.find(name)
        known = fifo is not None and (fifo.exists or (waiting and fifo.waiters.line))
        if known and (log_in is None or log_in.may_see(name)):
            seen.append(name)
    return seen


def stats(session: Session) -> Iterator[bytes]:
    """@return: the pieces of the statistics of the server and its queues."""
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
    yield piece + spelling.after_report()


def dump(
    session: Session, asked: tuple[bytes, ...], tell: Callable[[bytes], Mapping[str, Union[int, str]]],
    waiting: bool = True,
) -> Iterator[bytes]:  # fmt: skip
    """
    @param waiting: whether also of queues that do not exist yet, and for whose items somebody waits.
    @param asked: the queues that are told of; none: all that the client may see.
    @param tell: gives what is told of one; of those without anything, nothing is.
    @return: the pieces of that.
    """
    spelling = session.spelling
    for names in _asked(asked) if asked else _names(session, QUEUES):
        told = [(name, tell(name)) for name in (names if asked else _seen(session, names, waiting))]
        yield spelling.dump([(name, figures) for name, figures in told if figures])
    yield spelling.after_report()


def _asked(names: tuple[bytes, ...]) -> Iterator[list[bytes]]:
    for start in range(0, len(names), QUEUES):
        yield list(names[start : start + QUEUES])


def dump_config(session: Session, asked: tuple[bytes, ...]) -> Iterator[bytes]:
    """
    @param asked: the queues that are told of, whether they exist or not; none: all that the client may see.
    @return: the pieces of their settings.
    """
    return dump(session, asked, lambda name: session.queues.policy(name).as_text(), False)
