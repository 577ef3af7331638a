"""
The requests of the clients of a server that is killed again and again, and whether it kept the promises of its replies.

The books know no server and no socket.  Clients record a request before they send it, and a reply when they have all
of it; a request without a reply is *in doubt*, and either outcome of it is right.  Time is the order in which requests
and replies were recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final, Optional
from zlib import crc32

from attrs import define, frozen

from bench.ledger import Flush, Item, Ledger, Read, View

LOST: Final = "lost"
TWICE: Final = "handed out twice"
NEVER_SET: Final = "never set"
GARBAGE: Final = "garbage"
ORDER: Final = "out of order"
FLUSHED: Final = "flushed and still there"
COUNT: Final = "miscounted"
REPLY: Final = "wrong reply"
SERVER: Final = "server at fault"
LEFT: Final = "room not given back"


class ServerGone(EOFError):
    """The server is gone, or about to be killed: no more requests can be sent."""


@frozen
class Fault:
    """A promise that was broken."""

    round: int
    kind: str
    text: str


@define
class Figures:
    """Counts of what the clients did."""

    stored: int = 0
    bytes_stored: int = 0
    sets_in_doubt: int = 0
    half_sent: int = 0
    read: int = 0
    closed: int = 0
    opened: int = 0
    given_back: int = 0
    left_open: int = 0
    """Items that were open when the server was killed or all clients left."""
    reads_in_doubt: int = 0
    closes_in_doubt: int = 0
    flushes: int = 0
    flushes_in_doubt: int = 0
    flushed: int = 0
    """Items that a flush or delete removed."""
    gone_in_doubt: int = 0
    """Items that a read or close without a reply removed."""


class Books:
    """
    All requests and replies.

    @ivar faults: the promises that the server has broken.
    @ivar round: the number of the server's life; the caller that kills it counts them.
    """

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.figures = Figures()
        self.round = 0
        self._now = 0
        self._ended = False
        self._producers = 0
        self._numbers: Counter[int] = Counter()
        self._ledgers: dict[bytes, Ledger] = {}

    def _tick(self) -> int:
        self._now += 1
        return self._now

    def _ask(self) -> int:
        """@return: the time, if requests can be sent."""
        if self._ended:
            raise ServerGone()
        return self._tick()

    def _ledger(self, queue: bytes) -> Ledger:
        ledger = self._ledgers.get(queue)
        if ledger is None:
            ledger = self._ledgers[queue] = Ledger(queue)
        return ledger

    def fault(self, kind: str, text: str) -> None:
        """Record a broken promise."""
        self.faults.append(Fault(self.round, kind, text))

    # Sets

    def new_producer(self) -> int:
        """@return: the number of a new producer's connection; the order of items is kept for each producer alone."""
        self._producers += 1
        return self._producers

    def set(self, queue: bytes, producer: int, body: bytes, half: bool = False) -> tuple[Item, bytes]:
        """
        Record a set that is about to be sent.

        @param half: whether only a part of it will be sent.
        @return: the item and its payload.
        """
        asked = self._ask()
        ledger = self._ledger(queue)
        self._numbers[producer] += 1
        number = self._numbers[producer]
        payload = b"%b %d %d %d %d\n%b" % (queue, producer, number, len(body), crc32(body), body)
        item = Item(ledger, producer, number, len(payload), self.round, asked, half=half)
        ledger.items[producer, number] = item
        if half:
            self.figures.half_sent += 1
        else:
            self.figures.sets_in_doubt += 1
        return item, payload

    def stored(self, item: Item) -> None:
        """Record that a set was acknowledged."""
        item.stored = self._tick()
        self.figures.sets_in_doubt -= 1
        self.figures.stored += 1
        self.figures.bytes_stored += item.size

    # Reads

    def read(self, queue: bytes, plain: bool, view: Optional[View] = None) -> Read:
        """Record a read that is about to be sent."""
        ledger = self._ledger(queue)
        read = Read(ledger, plain, self._ask(), view)
        if plain:
            ledger.reading.add(read)
            self.figures.reads_in_doubt += 1
        else:
            ledger.opened = True
        return read

    def answered(self, read: Read, payload: Optional[bytes]) -> Optional[Item]:
        """
        Record the reply to a read: an item, or C{None} for no item.

        @return: the item, if it is a valid reply.
        """
        if read.plain:
            read.ledger.reading.discard(read)
            self.figures.reads_in_doubt -= 1
        item = None if payload is None else self._recognise(read.ledger, payload)
        if payload is not None and item is None:
            return None
        self._check_return(read.view, item)
        if item is None:
            return None
        if item.had or item.open is not None:
            how = "had before" if item.had else "open elsewhere"
            self.fault(TWICE, f"{item}: {how}")
            return item
        if item.ledger.must_be_flushed(item, read.asked):
            self.fault(FLUSHED, str(item))
        if read.view is not None:
            self._check_order(read.view, item)
        item.closing = False
        if read.plain:
            item.had = True
            self.figures.read += 1
        else:
            item.open = read
            self.figures.opened += 1
        return item

    def _recognise(self, ledger: Ledger, payload: bytes) -> Optional[Item]:
        head, _, body = payload.partition(b"\n")
        try:
            name, *figures = head.split(b" ")
            producer, number, size, check = map(int, figures)
        except ValueError:
            return self._garbage(ledger, payload, "cannot be read")
        if size != len(body) or check != crc32(body):
            return self._garbage(ledger, payload, "is not as it was set")
        if name != ledger.name:
            return self._garbage(ledger, payload, "was set on another queue")
        item = ledger.items.get((producer, number))
        if item is not None and not item.half:
            return item
        what = f"item {producer}.{number} from {name.decode()}"
        if item is not None:
            self.fault(NEVER_SET, f"{what}: not all of it was sent")
        elif producer <= ledger.settled:
            self.fault(TWICE, f"{what}: it was had before, or gone")
        else:
            self.fault(NEVER_SET, what)
        return None

    def _garbage(self, ledger: Ledger, payload: bytes, why: str) -> Optional[Item]:
        self.fault(GARBAGE, f"{payload[:60]!r}, {len(payload)} bytes, from {ledger.name.decode()}: {why}")
        return None

    def _check_return(self, view: Optional[View], item: Optional[Item]) -> None:
        if view is None or view.returned is None:
            return
        returned, view.returned = view.returned, None
        if not returned.had and item is not returned:
            self.fault(ORDER, f"{returned}: it was given back, and then {item or 'nothing'} came")

    def _check_order(self, view: View, item: Item) -> None:
        if view.last.get(item.producer, 0) >= item.number:
            self.fault(ORDER, f"{item}: after number {view.last[item.producer]} of the same producer")
        elif item.stored is not None and item.stored < view.newest:
            self.fault(ORDER, f"{item}: after one that was set when this one was there already")
        if not view.alone:
            self._see(view, item)

    def _see(self, view: View, item: Item) -> None:
        view.last[item.producer] = max(item.number, view.last.get(item.producer, 0))
        view.newest = max(item.asked, view.newest)

    def closing(self, item: Item) -> None:
        """Record a close that is about to be sent."""
        self._ask()
        read, item.open = item.open, None
        item.closing = True
        self.figures.closes_in_doubt += 1
        if read is not None and read.view is not None and read.view.alone:
            self._see(read.view, item)
            # If the close is lost and the item comes again, that is not out of order.
            read.view.last[item.producer] = item.number - 1

    def closed(self, item: Item) -> None:
        """Record the reply to a close."""
        item.closing = False
        item.had = True
        self.figures.closes_in_doubt -= 1
        self.figures.closed += 1

    def given_back(self, item: Item) -> None:
        """Record that an item is about to be aborted, or its connection to be closed."""
        read, item.open = item.open, None
        self.figures.given_back += 1
        if read is not None and read.view is not None and read.view.alone:
            read.view.returned = item

    # Flushes

    def flush(self, queue: bytes) -> Flush:
        """Record a flush or delete that is about to be sent."""
        flush = Flush(self._ask())
        self.figures.flushes_in_doubt += 1
        self._ledger(queue).flushes.append(flush)
        return flush

    def flushed(self, flush: Flush) -> None:
        """Record the reply to a flush or delete."""
        flush.answered = flush.until = self._tick()
        self.figures.flushes_in_doubt -= 1
        self.figures.flushes += 1

    # Reckoning

    def end_asking(self) -> None:
        """Called when the server is gone, or all clients are about to leave.  New requests raise L{ServerGone}."""
        self._ended = True

    def all_gone(self) -> None:
        """Called when all clients have read their replies; no more will come.  New clients may send requests now."""
        self._ended = False
        for ledger in self._ledgers.values():
            ledger.doubts[self.round] += len(ledger.reading)
            ledger.reading.clear()
            for flush in ledger.flushes:
                flush.until = flush.until or self._tick()
            for item in ledger.items.values():
                if item.open is not None:
                    self.given_back(item)
                    self.figures.left_open += 1

    def any_open(self, queue: bytes) -> bool:
        """@return: whether a client has an item of a queue open."""
        ledger = self._ledgers.get(queue)
        return ledger is not None and any(item.open is not None for item in ledger.items.values())

    def names(self) -> list[bytes]:
        """@return: the queues on which anything was set."""
        return [ledger.name for ledger in self._ledgers.values() if ledger.items or ledger.settled]

    def _sure(self, ledger: Ledger) -> list[Item]:
        """@return: the items that must be in the queue, except those that a read in doubt may have taken."""
        return [
            item
            for item in ledger.items.values()
            if item.stored is not None and not item.had and not item.closing and not ledger.may_be_flushed(item)
        ]

    def bounds(self, queue: bytes) -> tuple[int, int]:
        """@return: the minimum and maximum number of items of a queue while no request is pending."""
        ledger = self._ledger(queue)
        possible = sum(
            not (item.had or item.half or ledger.must_be_flushed(item, self._now + 1))
            for item in ledger.items.values()
        )
        return max(0, len(self._sure(ledger)) - ledger.doubts.total()), possible

    def check_counts(self, counts: Mapping[bytes, int]) -> None:
        """
        Check the server's counts, taken while no request is pending.

        @param counts: items by queue.
        """
        known = self.names()
        for queue in known:
            low, high = self.bounds(queue)
            count = counts.get(queue, 0)
            if not low <= count <= high:
                self.fault(COUNT, f"{queue.decode()} has {count} items, and should have {low} to {high}")
        for queue in counts.keys() - set(known):
            self.fault(COUNT, f"there is a queue {queue.decode()}, on which nothing was set")

    def settle(self, queue: bytes) -> None:
        """
        Check a queue that one client has emptied while no other request was pending: items that did not come are
        gone, and there must be a reason for each.
        """
        ledger = self._ledger(queue)
        missing = self._sure(ledger)
        for item in ledger.items.values():
            if item.stored is not None and not item.had:
                self.figures.gone_in_doubt += item.closing
                self.figures.flushed += ledger.may_be_flushed(item) and not item.closing
        spare = 0
        for round in range(self.round, -1, -1):
            # A read takes items that were set before it, in its round or an earlier one.
            spare += ledger.doubts[round]
            for item in (item for item in missing if item.round == round):
                if spare:
                    spare -= 1
                    self.figures.gone_in_doubt += 1
                else:
                    self.fault(LOST, str(item))
        ledger.items.clear()
        ledger.doubts.clear()
        ledger.flushes.clear()
        ledger.opened = False
        ledger.settled = self._producers
