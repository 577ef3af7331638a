"""
What a front end may use of the queues.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Optional, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from darner.config.policies import Policies, QueueSettings
from darner.errors import StoreError
from darner.queues.answers import Answers
from darner.queues.backups import Backups
from darner.queues.commit import GroupCommit
from darner.queues.control import Control
from darner.queues.disk_space import DiskSpace
from darner.queues.fifo import Fifo
from darner.queues.figures import Totals
from darner.queues.picking import Picks
from darner.queues.putting import Puts
from darner.queues.reading import Reads
from darner.queues.status import ServerStatus
from darner.queues.timings import Timings
from darner.queues.walk import Adoption, Walks
from darner.values.stats import ServerStats


class IQueues(Protocol):
    """
    The part of L{darner.queues.collection.Queues} that front ends use.

    An asker gets an answer sheet from C{commit.answers_for}, once in a turn, and passes it to each operation, together
    with the reply for success.  The operation adds the reply and registers what it depends on.  When the turn is
    written or refused, the asker's C{deliver} gets the sheet: every reply on it is true by then, or replaced by an
    error.  The asker itself adds replies that depend on nothing; replies keep their order.

    An operation that raises has changed nothing and added nothing.  If the reply is empty, nothing is sent.

    Of the commit a front end uses C{answers_for}, C{rest}, C{busy}, C{written} and C{health}; one that serves many at
    once calls C{begin} and C{end} around them.
    """

    commit: GroupCommit
    puts: Puts
    reads: Reads
    picks: Picks
    """Single items, wherever they are in their queues: dropping, moving and giving them back."""
    stats: ServerStats
    """Counters, which the front end updates as well."""
    status: ServerStatus
    """What the server refuses; to be checked before a request is performed."""
    walks: Walks
    """The names of all queues, and work on them."""
    adoption: Adoption
    """Whether all queues have the settings that were read last."""
    policies: Policies
    """The settings of all queues."""
    control: Control
    """What clients may ask of the process."""
    space: DiskSpace
    """Whether there is room on the disk."""
    backups: Backups
    """Backups of the store, one at a time."""
    clock: IReactorTime
    """For waits."""
    client_bytes: int
    """The maximum number of bytes to buffer for each client, in each direction."""
    stopped: bool
    """Whether the queues are stopped, so that nothing can be written any more."""

    def joined(self) -> None: ...

    def left(self) -> None: ...

    def find(self, name: bytes) -> Optional[Fifo]: ...

    def make(self, name: bytes) -> Fifo: ...

    def release(self, fifo: Fifo) -> None: ...

    def check_queue(self, name: bytes) -> None: ...

    def policy(self, name: bytes) -> QueueSettings: ...

    def measure(self, timer: Callable[[], float]) -> Timings: ...

    def add_up(self, totals: Totals, names: Iterable[bytes]) -> None: ...

    def figures(self, version: str, totals: Optional[Totals] = None) -> dict[str, Any]: ...

    def queue_figures(self, name: bytes) -> dict[str, int]: ...

    def delete(self, answers: Answers, reply: bytes, name: bytes) -> None: ...

    def flush(self, answers: Answers, reply: bytes, name: bytes) -> None: ...

    def flush_all(
        self, answers: Answers, reply: bytes, done: Callable[[Optional[StoreError]], object]
    ) -> bool: ...

    def flush_expired(
        self, name: Optional[bytes], flushed: Callable[[int], tuple[Answers, bytes]]
    ) -> Deferred[None]: ...


if TYPE_CHECKING:
    from darner.queues.collection import Queues

    def _is_one(queues: Queues) -> IQueues:
        return queues
