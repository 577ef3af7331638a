"""
A model of the queues of one client, which knows what the client was told and what it was not told.

The client is the only one at its queues, and asks for one thing after the other.  Where a request had no answer, it may
have been done or not, and the model holds both to be possible.  Whatever is not possible is a fault of the server, and
is kept with the history that led to it.
"""

from __future__ import annotations

from math import inf
from typing import Optional

from attrs import define, field


class Fault(AssertionError):
    """The server did what no queue does.  The text has the history."""


@define(eq=False)
class _Put:
    """A set, on a queue and its children.  C{stored}: C{None} while that is in doubt."""

    stored: Optional[bool]


@define(eq=False)
class _Copy:
    """
    An item on one queue.

    @ivar places: the queues where it may be.  It is in one of them at most.
    @ivar due: between which times its delay ends, in seconds since the epoch.
    @ivar gone: whether a read or close in doubt may have removed it.
    @ivar least: how often it was opened at least, where that is limited.
    @ivar most: how often it was opened at most.
    """

    item: bytes
    put: _Put
    places: list[QueueModel]
    due: tuple[float, float]
    gone: bool = False
    least: int = 0
    most: int = 0

    @property
    def is_certain(self) -> bool:
        """Whether it is at its place without doubt."""
        return self.put.stored is True and not self.gone and len(self.places) == 1

    def __repr__(self) -> str:
        return f"{_shown(self.item)}{'' if self.is_certain else '?'}"


def _shown(item: Optional[bytes]) -> str:
    return f"{item[:30]!r}... of {len(item)} bytes" if item is not None and len(item) > 30 else repr(item)


@define(eq=False)
class QueueModel:
    """
    The items that may be in a queue, in their order.

    Without options, each item is there once and has no delay.

    @ivar history: what was asked and answered; queues of one client may share it.
    @ivar children: what is put here is put there as well.
    @ivar dead_letters: where an item goes that was opened C{max_attempts} times and given back.
    """

    name: str
    history: list[str] = field(factory=list, repr=False)
    children: list[QueueModel] = field(factory=list)
    max_attempts: int = 0
    dead_letters: Optional[QueueModel] = None
    _copies: list[_Copy] = field(factory=list, init=False)

    def __len__(self) -> int:
        return len(self._copies)

    def _note(self, text: str) -> None:
        self.history.append(f"{self.name}: {text}")

    def _fault(self, text: str) -> Fault:
        return Fault("\n".join([f"{self.name}: {text}", *self.history[-100:], f"model: {self._copies[:20]}"]))

    # Puts

    def put(self, item: bytes, answered: bool, due: tuple[float, float] = (0, 0)) -> None:
        """
        An item was put.

        @param answered: whether the server said that it is stored.
        @param due: between which times its delay ends.  Items of one queue are due in the order of their puts.
        """
        self._note(f"put {_shown(item)} {'stored' if answered else 'in doubt'}")
        put = _Put(answered or None)
        for queue in (self, *self.children):
            queue._copies.append(_Copy(item, put, [queue], due))

    # Reads

    def taken(self, item: Optional[bytes], asked: float = inf, answered: float = inf) -> None:
        """
        The server handed out an item for good, or said that there is none.

        @param asked: when, in seconds since the epoch; matters where items are delayed.
        """
        self._note(f"take {_shown(item)}")
        copy = self._expect(item, asked, answered)
        if copy is not None:
            self._leave(copy)

    def in_doubt(self) -> None:
        """A take had no answer: whichever item was the first may be gone."""
        self._note("take in doubt")
        for copy in self._copies:
            certain, copy.gone = copy.is_certain, True
            if certain:
                break

    def peeked(self, item: Optional[bytes]) -> None:
        """The server showed the first item."""
        self._note(f"peek {_shown(item)}")
        self._expect(item)

    def opened(self, item: Optional[bytes]) -> None:
        """The server handed out an item until it is closed or given back."""
        self._note(f"open {_shown(item)}")
        copy = self._expect(item)
        if copy is not None:
            copy.least += 1
            copy.most += 1

    def open_in_doubt(self) -> None:
        """
        An open had no answer: whichever item was the first may have been opened, and was given back then.

        Where attempts are limited, the client looks (L{peeked}) before it asks for dead letters, as the server moves
        them when somebody looks.
        """
        self._note("open in doubt")
        for copy in list(self._copies):
            certain = copy.is_certain
            copy.most += 1
            self._return(copy)
            if certain:
                break

    def closed(self, answered: bool) -> None:
        """The item that was opened was closed; or it was given back, if that is not answered."""
        self._note(f"close {'done' if answered else 'in doubt'}")
        if answered:
            self._leave(self._copies[0])
        else:
            self._copies[0].gone = True
            self._return(self._copies[0])

    def given_back(self) -> None:
        """The item that was opened was given back, whether that was answered or the connection is lost."""
        self._note("give back")
        self._return(self._copies[0])

    def _return(self, copy: _Copy) -> None:
        if self.dead_letters is None or copy.most < self.max_attempts:
            return
        if self.dead_letters not in copy.places:
            copy.places.append(self.dead_letters)
            self.dead_letters._copies.append(copy)
        if copy.least >= self.max_attempts:
            self._leave(copy)

    # Moves

    def moved(self, target: QueueModel, count: int, repeated: bool = False) -> None:
        """
        All items were moved to the end of another queue.

        @param count: how many, as the server said.
        @param repeated: whether requests before this one had no answer, and may have moved some.
        """
        self._note(f"move {count} to {target.name}{' after doubt' * repeated}")
        least = 0 if repeated else sum(copy.is_certain for copy in self._copies)
        if not least <= count <= len(self._copies):
            raise self._fault(f"{count} items were moved, and {least} to {len(self._copies)} were there")
        for copy in self._copies:
            copy.places.remove(self)
            copy.least, copy.most = 0, copy.most if copy.places else 0
            copy.places.append(target)
        target._copies += self._copies
        self._copies = []

    # What is possible

    def _expect(self, item: Optional[bytes], asked: float = inf, answered: float = inf) -> Optional[_Copy]:
        """Drop what cannot have been there, as C{item} was the first.  @return: it, which is the first here now."""
        for copy in list(self._copies):
            if copy.item == item and copy.put.stored is not False:
                if answered < copy.due[0]:
                    raise self._fault(f"{_shown(item)} came {copy.due[0] - answered:.3f} s before its time")
                self._found(copy)
                return copy
            if item is None and copy.due[1] > asked:
                return None
            if copy.is_certain:
                raise self._fault(
                    f"{_shown(item)} came, but {_shown(copy.item)} is before it: it is lost, or the order is wrong"
                )
            self._leave(copy)
            if not copy.places and not copy.gone:
                # Nobody can have taken it, so it was never stored: on no other queue either.
                copy.put.stored = False
        if item is not None:
            raise self._fault(f"{_shown(item)} came, and was never put or was there twice")
        return None

    def _found(self, copy: _Copy) -> None:
        copy.put.stored, copy.gone = True, False
        for place in copy.places:
            place._copies.remove(copy)
        copy.places = [self]
        self._copies.insert(0, copy)
        if self.dead_letters is not None:
            copy.most = min(copy.most, self.max_attempts - 1)

    def _leave(self, copy: _Copy) -> None:
        """It is not here, or not any more."""
        self._copies.remove(copy)
        copy.places.remove(self)
