"""
A model of the queue of one client, which knows what the client was told and what it was not told.

The client is the only one at its queue, and asks for one thing after the other.  Where a request had no answer, it may
have been done or not, and the model holds both to be possible.  Whatever is not possible is a fault of the server, and
is kept with the history that led to it.
"""

from __future__ import annotations

from typing import Optional


class Fault(AssertionError):
    """The server did what no queue does.  The text has the history."""


class QueueModel:
    """
    The items that may be in a queue, in their order.

    @ivar history: what was asked and answered.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._items: list[list[object]] = []  # item, and whether it is there for certain
        self.history: list[str] = []

    def _fault(self, text: str) -> Fault:
        return Fault("\n".join([f"{self.name}: {text}", *self.history[-60:], f"model: {self._items[:20]}"]))

    def put(self, item: bytes, answered: bool) -> None:
        """An item was put; C{answered}: the server said that it is stored."""
        self.history.append(f"put {item!r} {'stored' if answered else 'in doubt'}")
        self._items.append([item, answered])

    def taken(self, item: Optional[bytes]) -> None:
        """The server handed out an item for good, or said that there is none."""
        self.history.append(f"take {item!r}")
        self._expect(item)
        if item is not None:
            del self._items[0]

    def opened(self, item: Optional[bytes]) -> None:
        """The server handed out an item until it is closed or given back."""
        self.history.append(f"open {item!r}")
        self._expect(item)
        if item is not None:
            self._items[0][1] = True

    def closed(self, answered: bool) -> None:
        """The item that was opened was closed."""
        self.history.append(f"close {'done' if answered else 'in doubt'}")
        if answered:
            del self._items[0]
        else:
            self._items[0][1] = False

    def in_doubt(self) -> None:
        """A take had no answer: whichever item was the first may be gone."""
        self.history.append("take in doubt")
        for entry in self._items:
            certain, entry[1] = entry[1], False
            if certain:
                break

    def _expect(self, item: Optional[bytes]) -> None:
        """Drop what cannot have been there, as C{item} was the first."""
        for index, (known, certain) in enumerate(self._items):
            if known == item:
                del self._items[:index]
                return
            if certain:
                raise self._fault(f"{item!r} came, but {known!r} is before it: it is lost, or the order is wrong")
        if item is not None:
            raise self._fault(f"{item!r} came, and was never put or was there twice")
        self._items.clear()
