"""
The interface between the nodes of a cluster and the engine that keeps their log.

A log is a sequence of records, numbered from 1, which all nodes of a cluster share.  The one that leads appends; all
follow.  L{ILog.append} is replication, the claim to lead and the fence at once: it is done only if the record before
it is the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Optional

from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

MAX_RECORD_BYTES = 64 << 20
"""What a record may have at most, unless an engine is told otherwise."""

Received = Callable[[int, bytes], "Optional[Deferred[None]]"]
"""Is called with a record and its number; returns a Deferred where the next record has to wait."""


class IFollowing(Interface):
    """One who follows a log."""

    ended: Deferred[None] = Attribute(
        """
        Fires with C{None} once following has stopped, as L{stop} asks for, or with why it cannot go on:
        L{darner.errors.LogTrimmed}, L{darner.errors.LogDamaged}, or what C{received} raised or failed with.  Where the
        log cannot be reached, following is tried again inside.
        """
    )

    def stop() -> None:
        """
        Call C{received} no more.  A Deferred that it returned and that has not fired yet is not cancelled.  Harmless
        when it has ended.
        """


class ILog(Interface):
    """
    Records, numbered from 1, that all nodes of a cluster share.

    Any method may fail with L{darner.errors.LogUnavailable}: the log could not be reached in time, and nothing was
    done.  A record is opaque to the log.  An engine cuts one that is too large for it into pieces, whole or not at all.
    """

    max_record_bytes: int = Attribute("What a record may have at most.  More is a C{ValueError}.")

    def last() -> Deferred[int]:
        """
        Ask for the number of the last record, 0 if there was never any.

        The answer is that of a majority (linearizable): every record that was appended before this call is counted.
        """

    def first() -> Deferred[int]:
        """
        Ask for the lowest number that is not trimmed: 1 in a new log.  If all records are trimmed, it is one more than
        L{last}.  Linearizable as L{last}.
        """

    def append(number: int, record: bytes) -> Deferred[None]:
        """
        Append a record, only if C{number - 1} is the last one.  It is durable on a majority when the Deferred fires.

        Several may be in flight: their numbers are given in order, without holes, and they are appended in this order.
        Where one fails, all that were given after it fail, too: with L{darner.errors.LogConflict}, or with
        L{darner.errors.LogInDoubt} where they may be appended all the same.  Cancelling the Deferred does nothing to
        the record.

        Failures: L{darner.errors.LogConflict}, somebody else has appended this number, or the one before is not there;
        L{darner.errors.LogUnavailable}, it is not appended, and never will be; L{darner.errors.LogInDoubt}, whether it
        is or will be is unknown.
        """

    def read(after: int, max_bytes: int) -> Deferred[list[tuple[int, bytes]]]:
        """
        Read records with higher numbers than C{after}, in order and without holes.

        The Deferred fires with numbers and records: at least one if there is any, then more until C{max_bytes} are
        reached; an empty list if there is none.  Linearizable as L{last}.

        Failures: L{darner.errors.LogTrimmed}, the next one is gone; L{darner.errors.LogDamaged}, it cannot be read, or
        the log ends before C{after}: it has lost records.
        """

    def follow(after: int, received: Received) -> IFollowing:
        """
        Call C{received} with each record after that number, once each, in order, as they are appended.

        Where it returns a Deferred, the next record waits for it.  Meanwhile the log holds a bounded number of bytes.
        """

    def trim(to: int) -> Deferred[None]:
        """
        Drop all records up to and including that number.  Harmless where they are gone.  A number after the last record
        is a C{ValueError}.
        """

    def note(node: str, value: bytes) -> Deferred[None]:
        """
        Set the note of a node, a small value beside the log (position, role, address), in place of the one before.

        @param node: the name of the node: 1 to 250 printable ASCII characters without C{/} and white space.
        @param value: at most 64 KiB.
        """

    def notes() -> Deferred[dict[str, tuple[bytes, float]]]:
        """
        Ask for the notes of all nodes, by their names.

        Each comes with the number of seconds since it was set, by the reckoning of the log or of this process, never by
        clocks of other nodes.  Where that is not known exactly, it is the least that it can be.
        """

    def close() -> Deferred[None]:
        """
        End what is under way: appends fail with L{darner.errors.LogInDoubt} or L{darner.errors.LogUnavailable}, the
        rest with L{darner.errors.LogUnavailable}, and followings stop.  The Deferred fires when connections are closed.
        """
