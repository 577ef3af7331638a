"""
Items, and what the store records about a queue.

Plain data; `darner.store.records` encodes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple, Optional

from darner.values.consumed import Consumed

ITEM_OVERHEAD: Final = 160
"""Approximate bytes that an item takes in memory besides its payload."""


class Item:
    """
    One item of a queue.

    A small item contains its payload.  The store keeps the payload of a large item as a I{stream} of chunks, and the
    item contains the stream's number.  So memory does not grow with the size of items.

    @ivar id: the item's position in the queue.
    @ivar flags: the client's 32 bit number.
    @ivar time: when the item was put, in ms since the epoch.
    @ivar expiry: when the item expires, in ms since the epoch; 0 is never.
    @ivar size: length of the payload in bytes.
    @ivar payload: the payload; empty if it is in a stream or unloaded.
    @ivar stream: the number of the stream with the payload; 0 if there is none.
    @ivar refused: whether the store refused the item; it was then never part of the queue.
    @ivar unloaded: whether the payload must be read from the store again.
    @ivar run: how many items the run has that ends with this item, so that the store has it under this id; 0: it is not
        the last one of a run, or not in the store.
    @ivar returnable: whether who reads it may give it back when it is already recorded as consumed.
    """

    __slots__ = (
        "expiry", "flags", "id", "payload", "refused", "returnable", "run", "size", "stream", "time", "unloaded",
    )  # fmt: skip

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
        self.run = 0
        self.returnable = False

    def unload(self) -> None:
        """Drop the payload from memory; the store has it."""
        self.payload = b""
        self.unloaded = True

    def load(self, payload: bytes) -> None:
        self.payload = payload
        self.unloaded = False

    def copy(self) -> Item:
        copy = Item(self.id, self.flags, self.time, self.expiry, self.size, self.payload, self.stream)
        copy.run = self.run
        return copy

    def resembles(self, other: Item) -> bool:
        """@return: whether all but id and payload are the same, as in most items of a turn."""
        return (
            self.size == other.size and self.time == other.time and self.flags == other.flags
            and self.expiry == other.expiry and bool(self.stream) == bool(other.stream)
        )  # fmt: skip

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
    """Options of a put."""

    delay: Optional[int] = None
    """Milliseconds until the item becomes available; C{None}: as the queue's settings say."""
    id: bytes = b""
    """The producer's id of the item, for deduplication; empty if it gives none."""


class Mark:
    """
    How far a queue is consumed: one small record that every consuming turn overwrites.

    With the other numbers recovery need not read the queue's items (`docs/design/store.rst`).  A class and no
    C{NamedTuple}, as it costs a tenth to make one.

    @ivar low: the low-water mark: every id below it is consumed.
    @ivar next_id: the queue's next id when the mark was written.
    @ivar bytes_put: payload bytes of all items put until the mark was written.
    @ivar bytes_consumed: payload bytes of all items consumed so far.
    @ivar floor: every item below this id is reclaimed.
    """

    __slots__ = ("bytes_consumed", "bytes_put", "floor", "low", "next_id")

    def __init__(
        self, low: int = 0, next_id: int = 0, bytes_put: int = 0, bytes_consumed: int = 0, floor: int = 0
    ) -> None:
        self.low = low
        self.next_id = next_id
        self.bytes_put = bytes_put
        self.bytes_consumed = bytes_consumed
        self.floor = floor

    def fields(self) -> tuple[int, int, int, int, int]:
        return self.low, self.next_id, self.bytes_put, self.bytes_consumed, self.floor

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mark):
            return NotImplemented
        return self.fields() == other.fields()

    def __repr__(self) -> str:
        return f"Mark{self.fields()}"


class Delayed(NamedTuple):
    """Summary of a queue's delayed items.  The store keeps the items in the order in which they become due."""

    number: int
    """The number under which the store keeps them."""
    items: int = 0
    """How many there are."""
    bytes: int = 0
    """Their payload bytes."""
    due: int = 0
    """No item is due before this time, in ms since the epoch."""
    next_id: int = 0
    """The next id of a delayed item.  Delayed items have ids of their own."""


class Generation(NamedTuple):
    """Producers' ids that a queue recorded during one period.  The queue forgets them together."""

    number: int
    """The number under which the store keeps them."""
    since: int
    """When the queue began to add ids to it or, for the previous generation, stopped; in ms since the epoch."""


class Imported(NamedTuple):
    """How far a queue was imported from another server's (`darner.migrate`)."""

    source: bytes
    """16 bytes that name the source and its queue."""
    fingerprint: bytes
    """16 bytes that tell whether the source has changed since."""
    items: int
    """How many of its items were gone through, from the first on."""
    finished: bool
    """Whether these were all."""


@dataclass
class QueueState:
    """What recovery reads about one queue."""

    name: bytes
    number: int
    """The number under which the store keeps the queue.  A queue that is deleted and created again gets a new one."""
    created: int
    """When the queue was created, in ms since the epoch."""
    next_id: int = 0
    bytes_put: int = 0
    bytes_consumed: int = 0
    floor: int = 0
    consumed: Consumed = field(default_factory=Consumed)
    attempts: dict[int, int] = field(default_factory=dict)
    """How often items were opened, by id, if that was counted."""
    delayed: Optional[Delayed] = None
    """C{None} if no item is delayed."""
    generations: tuple[Optional[Generation], Optional[Generation]] = (None, None)
    """The current and the previous generation of producers' ids."""

    @property
    def unreclaimed(self) -> bool:
        """Whether there are consumed ids that were not reclaimed."""
        return any(stop > self.floor for _, stop in self.consumed.intervals())

    @property
    def busy(self) -> bool:
        """Whether the queue has more to do by itself than to look for expired items."""
        return bool(self.attempts or self.delayed is not None or any(self.generations) or self.unreclaimed)


@dataclass(frozen=True)
class Step:
    """What one bounded step of reclaiming did."""

    next_id: Optional[int] = None
    """Where the next step continues; C{None} when nothing more is to be reclaimed."""
    freed: int = 0
    """Bytes of keys and values that were deleted."""
    streams: tuple[int, ...] = ()
    """Streams that no item holds any more.  They are reclaimed separately."""
