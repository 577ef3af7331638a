"""
Items, and what the store remembers of a queue.

Plain data that the packages hand each other; nothing here knows how it is written down (`darner.store.records` does).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple, Optional

from darner.values.consumed import Consumed

ITEM_OVERHEAD: Final = 160
"""About how many bytes an item takes in memory besides its payload."""


class Item:
    """
    One item of a queue.

    A small item carries its payload.  The payload of a large one lies in the store as a I{stream} of chunks, and the
    item carries the stream's number; that is what keeps memory apart from the size of items.

    @ivar id: its place in the queue.
    @ivar flags: the client's 32 bit number.
    @ivar time: when it was set, in ms since the epoch.
    @ivar expiry: when it expires, in ms since the epoch; 0 is never.
    @ivar size: its payload in bytes.
    @ivar payload: the payload; empty where there is a stream, or where it is unloaded.
    @ivar stream: the number of the stream that holds the payload; 0 where there is none.
    @ivar refused: whether the store refused it, so that it never was an item.
    @ivar unloaded: whether the payload is to be read from the store again.
    """

    __slots__ = ("expiry", "flags", "id", "payload", "refused", "size", "stream", "time", "unloaded")

    def __init__(
        self, id: int, flags: int, time: int, expiry: int, size: int, payload: bytes = b"", stream: int = 0
    ) -> None:
        self.id = id
        self.flags = flags
        self.time = time
        self.expiry = expiry
        self.size = size
        self.payload = payload
        self.stream = stream
        self.refused = False
        self.unloaded = False

    def unload(self) -> None:
        """Have the payload in the store alone."""
        self.payload = b""
        self.unloaded = True

    def load(self, payload: bytes) -> None:
        """Have the payload here again."""
        self.payload = payload
        self.unloaded = False

    def copy(self) -> Item:
        return Item(self.id, self.flags, self.time, self.expiry, self.size, self.payload, self.stream)

    def _fields(self) -> tuple[object, ...]:
        return self.id, self.flags, self.time, self.expiry, self.size, self.payload, self.stream

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Item):
            return NotImplemented
        return self._fields() == other._fields()

    def __repr__(self) -> str:
        return f"<Item {self.id}: {self.size} bytes, flags {self.flags}>"


@dataclass(frozen=True)
class PutOptions:
    """What a put may ask for."""

    delay: Optional[int] = None
    """After how many ms the item is to be had; C{None}: as its queue's settings say."""
    id: bytes = b""
    """What the producer calls the item, so that it is put once only; empty where it has no name."""


class Mark(NamedTuple):
    """
    How far a queue is consumed, as one small record that a consuming turn writes anew.

    The three numbers besides C{low} let recovery know the queue without reading it (`docs/design/store.rst`).
    """

    low: int = 0
    """The low-water mark: every id below it is consumed."""
    next_id: int = 0
    """The next id to be given, when the mark was written."""
    bytes_put: int = 0
    """Payload bytes of all items ever put, when the mark was written."""
    bytes_consumed: int = 0
    """Payload bytes of all items ever consumed."""
    floor: int = 0
    """Everything below this id is reclaimed already."""


class Delayed(NamedTuple):
    """
    What is known of the items of a queue that are not to be had yet; they lie in the store, in the order in which they
    come due.
    """

    number: int
    """The number under which the store keeps them."""
    items: int = 0
    """How many there are."""
    bytes: int = 0
    """Of their payloads."""
    due: int = 0
    """Nothing is due before, in ms since the epoch."""
    next_id: int = 0
    """The next id to be given; they are not those of the queue."""


class Generation(NamedTuple):
    """Ids under which items were put on a queue, from one time on; they are forgotten together."""

    number: int
    """The number under which the store keeps them."""
    since: int
    """Since when ids are added, or since when none are added any more; in ms since the epoch."""


@dataclass
class QueueState:
    """What recovery finds of one queue."""

    name: bytes
    number: int
    """The number under which the store keeps it; a queue deleted and made again gets a new one."""
    created: int
    """When it was made, in ms since the epoch."""
    next_id: int = 0
    bytes_put: int = 0
    bytes_consumed: int = 0
    floor: int = 0
    consumed: Consumed = field(default_factory=Consumed)
    attempts: dict[int, int] = field(default_factory=dict)
    """How often items were opened, by their ids, where that was counted."""
    delayed: Optional[Delayed] = None
    """Where there are items that are not to be had yet."""
    generations: tuple[Optional[Generation], Optional[Generation]] = (None, None)
    """The ids of producers that may still be known: to which new ones are added, and those before."""


@dataclass(frozen=True)
class Step:
    """What one bounded step of reclaiming did."""

    next_id: Optional[int] = None
    """Where the next step goes on; C{None} when there is nothing more to reclaim."""
    freed: int = 0
    """How many bytes of keys and values were given up."""
    streams: tuple[int, ...] = ()
    """Streams that no item holds from now on; they are reclaimed apart."""
