"""
A reference for the queues with all of their settings: what `docs/protocol.rst` and `docs/operations.rst` promise, as a
description that can be read and believed.  It knows neither store, windows, ids nor timers.

The rules
---------

- A queue holds items in the order of their puts.  An item is I{ready}, I{open} (with one client), I{set aside} (given
  back, and not to be had yet), or gone.  What is given back goes to its old place.
- What is I{delayed} is put when it is due, and not before; of what is due at a time, in the order of its times.  How
  soon after that is not promised: L{Model.came_due} is told how much is still delayed.
- An id is known from the put that was stored on until the queue's C{dedupe_window} is over.  Queues that know it are
  left out, and the set is told what the first one is told.  Whether a longer window brings back what an earlier one was
  over for is not promised: there L{Model.knows} is told.
- The L{head<Model.head>} of a queue is the first ready item that may be handed out.  What has expired before it is
  dropped, or goes to the end of C{expire_to_queue}; what was opened C{max_attempts} times goes to the end of
  C{dead_letter_queue}.  That happens when somebody looks at the head.  I{When} the server itself looks there is not
  promised: L{Model.looked} is told by the statistics how far it came, and checks that it went no further than it may.
- Limits count what is ready and what is delayed; in memory also what is set aside, and what each item takes.  All
  queues that a set is for take it in one write, or none does; children that have no room are passed over.
- Clients who wait are served in the order in which they came, by the first of their queues that has an item.
- All that happens in a turn is written together, and answered then.  Where the write is refused (L{Model.end}), what
  was put never was, what was moved or dropped for it is where it was, and replies that said otherwise are errors.  If
  not even the rest can be written, plain reads never were.
- After the end of the process the store has what the last turn wrote.  Open items and those set aside are ready then,
  and only attempts, delays and ids are remembered.
- A queue that is not durable when it is made is in memory until it is deleted or the process ends.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Container, Iterable, Sequence
from functools import partial
from typing import Optional, Union

from attrs import Factory, define

from darner.config.policies import Policies, QueueSettings, parent_of
from darner.front import memcache
from darner.values import requests
from darner.values.items import ITEM_OVERHEAD, PutOptions
from darner.values.vocabulary import CHUNK_BYTES
from test.harness import EPOCH, REFUSED, value

TOO_MANY = b"CLIENT_ERROR close current item first\r\n"
TOO_LARGE = b"SERVER_ERROR object too large\r\n"
LARGE = CHUNK_BYTES
"""Above this size an item takes more than one piece."""
TRIED_AGAIN = 1.0
"""Seconds after which a move to the dead letters that was refused is tried again."""


@define(eq=False)
class Item:
    queue: Queue
    order: int
    flags: int
    payload: bytes
    expiry: int = 0
    """In ms since the epoch; 0 is never."""
    attempts: int = 0
    refused: bool = False

    def __lt__(self, other: Item) -> bool:
        return self.order < other.order


@define(eq=False)
class Queue:
    name: bytes
    exists: bool = False
    created: int = 0
    durable: bool = True
    ready: list[Item] = Factory(list)
    aside: list[tuple[float, Item]] = Factory(list)
    """What was given back, and when it is to be had again."""
    delayed: list[tuple[int, Item]] = Factory(list)
    """When it is due, in ms since the epoch, and what is to be put then."""
    seen: dict[bytes, Seen] = Factory(dict)
    """Ids."""
    line: list[Client] = Factory(list)
    """Who waits for an item."""
    expired: int = 0
    discarded: int = 0
    dead: int = 0
    duplicates: int = 0

    def clear(self) -> None:
        self.ready.clear()
        self.aside.clear()
        self.delayed.clear()

    def begin(self, exists: bool) -> None:
        """There is a new queue of this name, or none any more."""
        self.clear()
        self.seen = {}
        self.exists = exists
        self.expired = self.discarded = self.dead = self.duplicates = 0


@define(eq=False)
class Seen:
    """An id under which an item was put."""

    time: int
    put: Item
    over: bool = False
    """Whether its time was over under the settings of then."""


@define(eq=False)
class Read:
    """An open read."""

    item: Item
    since: tuple[float, int]
    """When it was opened or extended; and the how manieth time that was, as of two the earlier is over first."""
    open: bool = True
    late: bool = False
    """Whether it was given back behind the client's back."""


@define(eq=False)
class Wait:
    """Waiting for one item of the first queue that has any."""

    requests: Sequence[requests.Get]
    deadline: float
    births: Sequence[Item] = ()
    """What has to be written for there to be anything to wait for."""

    @property
    def names(self) -> list[bytes]:
        return [request.queue for request in self.requests]


@define(eq=False)
class Monitor:
    """Opening what comes."""

    queue: bytes
    left: Optional[int]
    over: bool
    """Whether it is for what is there, and not for what comes."""
    deadline: float
    births: Sequence[Item] = ()

    @property
    def names(self) -> list[bytes]:
        return [self.queue]


@define(eq=False)
class Client:
    opens: dict[bytes, list[Read]] = Factory(dict)
    waiting: Optional[Union[Wait, Monitor]] = None
    receiving: bool = False
    """Whether a large item or the end of a C{requeue} is on its way: nothing more is asked before it is there."""
    heard: bytes = b""

    @property
    def silent(self) -> bool:
        return self.waiting is not None or self.receiving


@define(eq=False)
class Reply:
    client: Client
    end: bytes
    values: list[tuple[bytes, Item]] = Factory(list)
    puts: Sequence[Item] = ()
    """What has to be written for it to be true."""
    consuming: bool = False
    """Whether it says that something is gone."""
    monitored: bool = False
    """Whether each item is a reply of its own, and what was refused is left out without an error."""

    def text(self) -> bytes:
        there = [(name, item) for name, item in self.values if not item.refused]
        refused = any(item.refused for item in self.puts) or (len(there) < len(self.values) and not self.monitored)
        end = REFUSED if refused and self.end else self.end
        own_end = memcache.END if self.monitored else b""
        return b"".join(value(name, item.payload, item.flags, own_end) for name, item in there) + end


@define
class Turn:
    """What is written together."""

    replies: list[Reply] = Factory(list)
    puts: list[Item] = Factory(list)
    ids: list[tuple[Queue, bytes, Optional[Seen]]] = Factory(list)
    """Ids that are new, and what was known under them before."""
    born: list[Queue] = Factory(list)
    moves: list[tuple[Queue, Item, str]] = Factory(list)
    """What is gone from a queue because of what is put, and by what that happened."""
    reads: list[tuple[Queue, Item, Reply]] = Factory(list)


@define
class Contents:
    """What the store has of a queue."""

    items: list[tuple[Item, int]]
    """How often each was opened, too."""
    delayed: list[tuple[int, Item]]
    seen: dict[bytes, Seen]


@define(eq=False)
class Model:
    policies: Policies
    clients: list[Client]
    queues: dict[bytes, Queue] = Factory(dict)
    """Those that were ever named, the ones that exist in the order in which they were made."""
    status: str = "up"
    now: float = 0.0
    commit: Turn = Factory(Turn)
    store: dict[bytes, Contents] = Factory(dict)
    told: Callable[[Queue, int], bool] = lambda queue, duplicates: False
    """Says of a queue whether the server counts more duplicates than these."""
    orders: int = 0
    ticks: int = 0

    @property
    def wall(self) -> int:
        return int((EPOCH + self.now) * 1000)

    def queue(self, name: bytes) -> Queue:
        return self.queues.setdefault(name, Queue(name))

    def settings(self, queue: Queue) -> QueueSettings:
        return self.policies.of(queue.name)

    def reply(self, client: Client, end: bytes, consuming: bool = False, puts: Sequence[Item] = ()) -> Reply:
        reply = Reply(client, end, consuming=consuming, puts=puts)
        self.commit.replies.append(reply)
        return reply

    def refuses(self, client: Client, writes: bool, reads: bool = False) -> bool:
        """@return: whether the status forbids it; the client is told."""
        refused = (writes and self.status != "up") or (reads and self.status == "quiescent")
        if refused:
            self.reply(client, b"SERVER_ERROR server is %b\r\n" % self.status.encode())
        return refused

    # Putting

    def set(self, client: Client, request: requests.Set, payload: bytes) -> None:
        puts: list[Item] = []
        options = request.options or PutOptions()
        end = self.refusal(request, len(payload), bool(options.id))
        if not end:
            known = self.known(request.queue, options.id)
            puts += [seen.put for seen in known.values()]
            takers = self.takers(request.queue, len(payload), known)
            if takers is None:
                end = memcache.NOT_STORED
            else:
                end = memcache.STORED
                for queue in takers:
                    self.discard(queue, 1, len(payload))
                new = [self.put_for(queue, request, payload, options.delay) for queue in takers]
                if options.id:
                    for item in new:
                        self.see(item, options.id)
                elif not new:
                    new = self.stands_for(self.queue(request.queue))  # nobody keeps it, and still it is not well
                puts += new
        self.reply(client, b"" if request.noreply else end, puts=puts)

    def put_for(self, queue: Queue, request: requests.Set, payload: bytes, delay: Optional[int]) -> Item:
        expiry = self.due(request.expiry)
        if delay is None:
            delay = int((self.settings(queue).default_delay or 0) * 1000)
        if not delay:
            return self.put(queue, request.flags, payload, expiry)
        self.bear(queue)
        item = self.new_item(queue, request.flags, payload, expiry)
        # A delay never ends early: a part of a millisecond counts as a whole one.
        insort(queue.delayed, (int((EPOCH + self.now) * 1000 + 0.99) + delay, item))
        return item

    def refusal(self, request: requests.Set, size: int, has_id: bool) -> bytes:
        """@return: why it is not stored, whatever is in the queues; nothing if it may be."""
        queues = self.required(request.queue)
        if self.status != "up":
            return b"SERVER_ERROR server is %b\r\n" % self.status.encode()
        if any(size > self.settings(queue).max_item_bytes for queue in queues):
            return TOO_LARGE
        if any(size > (self.settings(queue).max_bytes or size) for queue in queues if self.keeps(queue)):
            return memcache.NOT_STORED
        for queue in queues:
            if has_id and self.settings(queue).dedupe_window is None:
                return b"CLIENT_ERROR queue %b has no dedupe_window\r\n" % queue.name
        return b""

    # Ids

    def known(self, name: bytes, id: bytes) -> dict[Queue, Seen]:
        """@return: of the queues that a set on this name is for, those that know the id."""
        required = [queue for queue in self.required(name) if self.keeps(queue)]
        known = {}
        for queue in [*required, *self.children(name)]:
            if id in queue.seen and self.knows(queue, queue.seen[id]):
                known[queue] = queue.seen[id]
                queue.duplicates += 1
        return known

    def knows(self, queue: Queue, seen: Seen) -> bool:
        if seen.over and not self.is_over(queue, seen):
            return self.told(queue, queue.duplicates)
        return not self.is_over(queue, seen)

    def is_over(self, queue: Queue, seen: Seen) -> bool:
        return self.wall - seen.time >= (self.settings(queue).dedupe_window or 0) * 1000

    def see(self, item: Item, id: bytes) -> None:
        queue = item.queue
        if self.settings(queue).dedupe_window is not None:
            self.commit.ids.append((queue, id, queue.seen.get(id)))
            queue.seen[id] = Seen(self.wall, item)

    def apply(self, policies: Policies) -> None:
        """Have other settings."""
        for queue in self.queues.values():
            for seen in queue.seen.values():
                seen.over |= self.is_over(queue, seen)
        self.policies = policies
        for queue in self.queues.values():
            if self.settings(queue).dedupe_window is None:
                queue.seen.clear()
        self.advance(self.now)

    # Where it goes

    def required(self, name: bytes) -> list[Queue]:
        return [self.queue(queue) for queue in self.policies.aliases.get(name, (name,))]

    def keeps(self, queue: Queue) -> bool:
        return parent_of(queue.name) is not None or not self.settings(queue).fanout_only

    def children(self, name: bytes) -> list[Queue]:
        required = self.required(name)
        parents = [queue.name for queue in required]
        return [
            queue for queue in self.queues.values()
            if queue.exists and queue not in required and parent_of(queue.name) in parents
        ]  # fmt: skip

    def takers(self, name: bytes, size: int, known: Container[Queue]) -> Optional[list[Queue]]:
        """@return: who gets an item; nobody is nobody, and C{None} that it is refused."""
        required = [queue for queue in self.required(name) if self.keeps(queue) and queue not in known]
        if not all(self.has_room(queue, size) for queue in required):
            return None
        fitting = [queue for queue in self.children(name) if size <= self.settings(queue).max_item_bytes]
        return required + [queue for queue in fitting if queue not in known and self.has_room(queue, size)]

    def is_durable(self, queue: Queue) -> bool:
        return queue.durable if queue.exists else self.settings(queue).durable

    def over(self, queue: Queue, items: int, size: int, held: Optional[Sequence[Item]] = None) -> bool:
        """
        @param held: what there is to be had; by default what is ready.
        @return: whether it is over its limits with so many items and bytes more.
        """
        limits = self.settings(queue)
        held = [*(queue.ready if held is None else held), *(item for _, item in queue.delayed)]
        items += len(held)
        size += total(held)
        if not self.is_durable(queue):
            aside = [item for _, item in queue.aside]
            size += total(aside) + (items + len(aside)) * ITEM_OVERHEAD
        return (limits.max_items is not None and items > limits.max_items) or (
            limits.max_bytes is not None and size > limits.max_bytes
        )

    def has_room(self, queue: Queue, size: int) -> bool:
        """What has expired makes room, so much as goes at once; so does what a queue discards, and that is ready."""
        limits = self.settings(queue)
        least = size if self.is_durable(queue) else size + ITEM_OVERHEAD
        if limits.max_bytes is not None and least > limits.max_bytes:
            return False
        if limits.discard_old_when_full:
            return not self.over(queue, 1, size, held=())
        left = limits.max_expire_sweep
        while self.over(queue, 1, size):
            if not left or not queue.ready or not self.has_expired(queue.ready[0]):
                return False
            self.expire(queue)
            left -= 1
        return True

    def discard(self, queue: Queue, items: int, size: int) -> None:
        while self.settings(queue).discard_old_when_full and self.over(queue, items, size) and queue.ready:
            if self.has_expired(queue.ready[0]):
                self.expire(queue)
            else:
                self.discard_first(queue)

    def discard_first(self, queue: Queue) -> None:
        self.commit.moves.append((queue, queue.ready.pop(0), "discarded"))
        queue.discarded += 1

    def due(self, expiry: float) -> int:
        """@return: when an item expires, by memcache's rules."""
        if expiry < 0:
            return 1
        return int(self.wall + expiry * 1000 if 0 < expiry < 1_000_000 else expiry * 1000)

    def put(self, queue: Queue, flags: int, payload: bytes, expiry: int) -> Item:
        """At the end of a queue, which is made by that."""
        self.bear(queue)
        age = self.settings(queue).max_age
        if age is not None:
            latest = self.wall + int(age * 1000)
            expiry = min(expiry or latest, latest)
        item = self.new_item(queue, flags, payload, expiry)
        queue.ready.append(item)
        self.serve(queue)
        return item

    def new_item(self, queue: Queue, flags: int, payload: bytes, expiry: int) -> Item:
        item = Item(queue, self.orders, flags, payload, expiry)
        self.orders += 1
        self.commit.puts.append(item)
        return item

    def bear(self, queue: Queue) -> None:
        if not queue.exists:
            queue.begin(exists=True)
            queue.created = self.wall
            queue.durable = self.settings(queue).durable
            self.queues[queue.name] = self.queues.pop(queue.name)
            self.commit.born.append(queue)

    def move(self, queue: Queue, item: Item, target: str, reason: str) -> Item:
        """To the end of another queue, by no limit held up, without its expiry and attempts."""
        moved = self.put(self.queue(target.encode()), item.flags, item.payload, 0)
        self.commit.moves.append((queue, item, reason))
        return moved

    # The head of a queue

    def has_expired(self, item: Item) -> bool:
        return item.expiry != 0 and item.expiry <= self.wall

    def expire(self, queue: Queue) -> None:
        item = queue.ready.pop(0)
        queue.expired += 1
        target = self.settings(queue).expire_to_queue
        if target is not None:
            self.move(queue, item, target, "expired")

    def is_spent(self, queue: Queue, item: Item) -> bool:
        most = self.settings(queue).max_attempts
        return most is not None and item.attempts >= most

    def bury(self, queue: Queue, item: Item) -> None:
        target = self.settings(queue).dead_letter_queue
        assert target is not None
        queue.dead += 1
        self.move(queue, item, target, "dead")

    def head(self, queue: Queue) -> Optional[Item]:
        while queue.ready:
            item = queue.ready[0]
            if self.has_expired(item):
                self.expire(queue)
            elif self.is_spent(queue, item):
                self.bury(queue, queue.ready.pop(0))
            else:
                return item
        return None

    def came_due(self, queue: Queue, delayed: int) -> None:
        """The server put what was due; the statistics tell how much is delayed still."""
        while len(queue.delayed) > delayed and queue.delayed[0][0] <= self.wall:
            _, item = queue.delayed.pop(0)
            self.put(queue, item.flags, item.payload, item.expiry)

    def looked(self, queue: Queue, expired: int, dead: int, discarded: int) -> bool:
        """
        The server looked at the head of a queue; its statistics tell what went by that.

        @return: whether anything did.
        """
        at_first = len(queue.ready)
        while queue.ready:
            item = queue.ready[0]
            if queue.expired < expired and self.has_expired(item):
                self.expire(queue)
            elif queue.dead < dead and self.is_spent(queue, item):
                self.bury(queue, queue.ready.pop(0))
            elif queue.discarded < discarded and self.settings(queue).discard_old_when_full and self.over(queue, 0, 0):
                self.discard_first(queue)
            else:
                break
        return len(queue.ready) != at_first

    def may_vanish(self, queue: Queue) -> bool:
        """@return: whether the server may delete it for its age."""
        age = self.settings(queue).max_queue_age
        return (
            age is not None and self.wall >= queue.created + int(age * 1000)
            and not (queue.ready or queue.aside or queue.delayed or queue.line or self.open_reads(queue))
        )  # fmt: skip

    def open_reads(self, queue: Queue) -> list[Read]:
        reads = [read for client in self.clients for read in client.opens.get(queue.name, ())]
        return [read for read in reads if read.open]

    # Reading

    def get(self, client: Client, requests: Sequence[requests.Get]) -> None:
        """Of one queue, or with a wait of the first of several that has an item."""
        first = requests[0]
        if first.abort:
            self.end_read(client, first.queue, given_back=True)
            self.reply(client, memcache.END)
            return
        if first.close:
            for request in requests:
                self.end_read(client, request.queue, given_back=False)
        if not first.fetches:
            self.reply(client, memcache.END, consuming=True)
        elif self.refuses(client, writes=False, reads=True):
            pass
        elif not first.peek and any(not self.may_read(client, request) for request in requests):
            self.reply(client, TOO_MANY)
        elif not self.hand_out(client, requests):
            births = self.refer([request.queue for request in requests])
            if first.wait:
                self.wait(client, Wait(requests, self.now + first.wait / 1000, births))
            else:
                self.reply(client, memcache.END, puts=births)

    def may_read(self, client: Client, request: requests.Get) -> bool:
        reads = self.reads_of(client, request.queue)
        return not reads or (request.open and self.may_open(client, request.queue))

    def may_open(self, client: Client, name: bytes) -> bool:
        """Late ones do not count; a client that opens more than it may, but for those, knows of them."""
        reads = self.reads_of(client, name)
        most = self.policies.of(name).max_open_reads
        still = [read for read in reads if read.open]
        if len(reads) >= most > len(still):
            reads[:] = still
        return len(still) < most

    def reads_of(self, client: Client, name: bytes) -> list[Read]:
        """
        @return: the reads that the client has to close.  Where it may have several, a late one is among them: it does
        not know, and means that one when it closes its oldest.
        """
        reads = client.opens.get(name, [])
        several = self.policies.of(name).max_open_reads > 1
        while reads and not (reads[0].open or (reads[0].late and several)):
            del reads[0]
        if not reads:
            client.opens.pop(name, None)  # so that the queues stand in the order in which they were opened
        return reads

    def end_read(self, client: Client, name: bytes, given_back: bool) -> None:
        reads = self.reads_of(client, name)
        if reads:
            read = reads.pop(0)
            if read.open:
                read.open = False
                if given_back:
                    self.give_back(read.item)

    def give_back(self, item: Item) -> None:
        queue = item.queue
        delay = self.settings(queue).retry_delay
        if self.is_spent(queue, item):
            self.bury(queue, item)
        elif delay is not None:
            queue.aside.append((self.now + delay, item))
        else:
            insort(queue.ready, item)
        self.serve(queue)

    def refer(self, names: Iterable[bytes]) -> list[Item]:
        """
        Reading makes children.

        @return: for each one that is new in this turn something that stands for its being written.
        """
        births: list[Item] = []
        for name in names:
            if parent_of(name) is not None and name not in self.policies.aliases:
                queue = self.queue(name)
                if not queue.exists and self.status == "up":
                    self.bear(queue)
                if queue in self.commit.born:
                    births += self.stands_for(queue)
        return births

    def stands_for(self, queue: Queue) -> list[Item]:
        """@return: no item, but what is refused with those that are put in this turn."""
        nothing = Item(queue, -1, 0, b"")
        self.commit.puts.append(nothing)
        return [nothing]

    def hand_out(self, client: Client, requests: Sequence[requests.Get]) -> bool:
        """@return: whether there was an item."""
        for request in requests:
            queue = self.queue(request.queue)
            item = self.head(queue)
            if item is not None:
                reply = self.reply(client, memcache.END)
                if not request.peek:
                    queue.ready.remove(item)
                    if request.open:
                        self.open(client, queue, item)
                    else:
                        self.commit.reads.append((queue, item, reply))
                self.attach(reply, queue, item)
                return True
        return False

    def open(self, client: Client, queue: Queue, item: Item) -> None:
        client.opens.setdefault(queue.name, []).append(Read(item, self.tick()))
        if self.settings(queue).max_attempts is not None:
            item.attempts += 1

    def tick(self) -> tuple[float, int]:
        self.ticks += 1
        return self.now, self.ticks

    def attach(self, reply: Reply, queue: Queue, item: Item) -> None:
        reply.values.append((queue.name, item))
        if len(item.payload) > LARGE:
            reply.client.receiving = True

    def get_many(self, client: Client, names: Sequence[bytes]) -> None:
        if self.refuses(client, writes=False, reads=True):
            return
        if any(self.reads_of(client, name) for name in names):
            self.reply(client, TOO_MANY)
            return
        for name in names:
            self.head(self.queue(name))  # what has expired anywhere is dropped first, or has gone where it goes
        reply = self.reply(client, memcache.END)
        births: list[Item] = []
        for name in dict.fromkeys(names):
            queue = self.queue(name)
            item = self.head(queue)
            if item is None:
                births += self.refer([name])
            else:
                queue.ready.remove(item)
                self.commit.reads.append((queue, item, reply))
                self.attach(reply, queue, item)
        reply.puts = births

    # Waiting

    def wait(self, client: Client, waiting: Union[Wait, Monitor]) -> None:
        client.waiting = waiting
        for name in dict.fromkeys(waiting.names):
            self.queue(name).line.append(client)

    def stop_waiting(self, client: Client) -> None:
        client.waiting = None
        for queue in self.queues.values():
            if client in queue.line:
                queue.line.remove(client)

    def serve(self, queue: Queue) -> None:
        while queue.line and self.head(queue) is not None:
            client = queue.line[0]
            waiting = client.waiting
            if isinstance(waiting, Monitor):
                queue.line.pop(0)
                self.monitor_one(client, waiting, queue)
            else:
                assert waiting is not None
                self.stop_waiting(client)
                self.hand_out(client, waiting.requests)

    def monitor(self, client: Client, request: requests.Monitor) -> None:
        if self.refuses(client, writes=False, reads=True):
            return
        births = self.refer([request.queue])
        over = not request.seconds
        monitor = Monitor(request.queue, request.maximum, over, self.now + request.seconds, births)
        client.waiting = monitor
        self.go_on(client)
        if client.waiting is None:
            self.commit.replies[-1].puts = births

    def go_on(self, client: Client) -> None:
        """Let a monitor take what there is, and wait for what comes."""
        monitor = client.waiting
        if not isinstance(monitor, Monitor):
            return
        queue = self.queue(monitor.queue)
        while client not in queue.line and self.is_hungry(client, monitor):
            if self.head(queue) is not None:
                self.open_for_monitor(client, monitor, queue)
            elif monitor.over:
                self.give_up(client)
                break
            else:
                queue.line.append(client)

    def is_hungry(self, client: Client, monitor: Monitor) -> bool:
        """@return: whether it should have an item now; it may be over after that."""
        full = monitor.left == 0 or not self.may_open(client, monitor.queue)
        if full or (client.receiving and monitor.over):
            self.give_up(client)
            return False
        return not client.receiving

    def monitor_one(self, client: Client, monitor: Monitor, queue: Queue) -> None:
        self.open_for_monitor(client, monitor, queue)
        if self.is_hungry(client, monitor):
            queue.line.append(client)

    def open_for_monitor(self, client: Client, monitor: Monitor, queue: Queue) -> None:
        item = queue.ready.pop(0)
        self.open(client, queue, item)
        reply = self.reply(client, b"")
        reply.monitored = True
        self.attach(reply, queue, item)
        if monitor.left is not None:
            monitor.left -= 1

    def give_up(self, client: Client) -> None:
        self.stop_waiting(client)
        self.reply(client, memcache.END)

    # Other requests

    def confirm(self, client: Client, request: requests.Confirm) -> None:
        reads = client.opens.get(request.queue, [])
        if 0 < request.count <= len(reads):
            for read in reads[: request.count]:
                read.open = False
            del reads[: request.count]
            self.reply(client, memcache.END, consuming=True)
        else:
            self.reply(client, memcache.ERROR)

    def touch(self, client: Client, name: bytes) -> None:
        reads = [read for read in self.reads_of(client, name) if read.open]
        for read in reads:
            read.since = self.tick()
        self.reply(client, memcache.TOUCHED if reads else memcache.NOT_FOUND)

    def requeue(self, client: Client, request: requests.Requeue) -> None:
        if self.refuses(client, writes=True):
            return
        if request.target in self.policies.aliases:
            self.reply(client, b"CLIENT_ERROR an alias is no queue\r\n")
            return
        queue = self.queue(request.origin)
        most = len(queue.ready) + len(queue.aside)
        left = most if request.count is None else min(request.count, most)
        puts: list[Item] = []
        while len(puts) < left and (item := self.head(queue)) is not None:
            queue.ready.remove(item)
            puts.append(self.move(queue, item, request.target.decode(), "moved"))
        self.reply(client, memcache.count(len(puts)), puts=puts)
        client.receiving = True

    def flush(self, client: Client, names: Iterable[bytes], end: bytes) -> None:
        if self.refuses(client, writes=True):
            return
        for name in names:
            queue = self.queue(name)
            queue.clear()
            self.commit.moves = [move for move in self.commit.moves if move[0] is not queue]
        self.reply(client, end, consuming=True)

    def flush_expired(self, client: Client, names: Iterable[bytes]) -> None:
        if self.refuses(client, writes=True):
            return
        dropped = 0
        for queue in map(self.queue, names):
            while queue.ready and self.has_expired(queue.ready[0]):
                self.expire(queue)
                dropped += 1
        self.reply(client, memcache.count(dropped), consuming=True)

    def delete(self, client: Client, name: bytes) -> None:
        if self.refuses(client, writes=True):
            return
        self.vanish(self.queue(name))
        self.reply(client, memcache.DELETED, consuming=True)

    def vanish(self, queue: Queue) -> None:
        """Open reads have nowhere to go back to; who waits goes on waiting."""
        for read in self.open_reads(queue):
            read.open = False
        queue.begin(exists=False)

    def leave(self, client: Client, successor: Client) -> None:
        self.clients[self.clients.index(client)] = successor
        self.stop_waiting(client)
        for reads in client.opens.values():
            for read in reads:
                if read.open:
                    read.open = False
                    self.give_back(read.item)

    # Time

    def advance(self, now: float) -> None:
        """Do what is due, in the order in which it is."""
        while (due := min(self.times(), key=lambda time: time[:2], default=None)) is not None and due[0] <= now:
            self.now = max(self.now, due[0])
            due[2]()
        self.now = now

    def times(self) -> Iterable[tuple[float, int, Callable[[], None]]]:
        """@return: when what is to happen; of things at the same time in one queue, which goes first."""
        for client in self.clients:
            if client.waiting is not None:
                yield client.waiting.deadline, 0, partial(self.give_up, client)
            for reads in client.opens.values():
                for read in reads:
                    timeout = self.settings(read.item.queue).open_timeout
                    if read.open and timeout is not None:
                        yield read.since[0] + timeout, read.since[1], partial(self.time_out, read)
        for queue in self.queues.values():
            for time, item in queue.aside:
                yield time, item.order, partial(self.come_back, queue, (time, item))

    def time_out(self, read: Read) -> None:
        read.open, read.late = False, True
        self.give_back(read.item)

    def come_back(self, queue: Queue, entry: tuple[float, Item]) -> None:
        queue.aside.remove(entry)
        item = entry[1]
        if self.is_spent(queue, item):
            self.bury(queue, item)
        else:
            insort(queue.ready, item)
        self.serve(queue)

    # Turns

    def end(self, faults: int = 0) -> None:
        """
        What was asked for is written and answered, and what follows from that.

        @param faults: 1: what is put cannot be written; 2: nor can anything else, before the next turn.
        """
        commit, self.commit = self.commit, Turn()
        if faults:
            self.refuse(commit, faults)
        for reply in commit.replies:
            reply.client.heard += reply.text()
        for client in dict.fromkeys(reply.client for reply in commit.replies):
            client.receiving = any(reply.client is client and is_large(reply) for reply in self.commit.replies)
            self.go_on(client)
        for client in self.clients:
            if client.waiting is not None and any(item.refused for item in client.waiting.births):
                self.stop_waiting(client)
                self.reply(client, REFUSED)
        if self.commit != Turn():
            self.end()
        self.store = self.contents()

    def refuse(self, commit: Turn, faults: int) -> None:
        for item in commit.puts:
            item.refused = True
        for queue in self.queues.values():
            queue.ready = [item for item in queue.ready if not item.refused]
            queue.aside = [(time, item) for time, item in queue.aside if not item.refused]
            queue.delayed = [(due, item) for due, item in queue.delayed if not item.refused]
        for queue, id, before in reversed(commit.ids):
            if id in queue.seen and queue.seen[id].put.refused:
                del queue.seen[id]
                if before is not None:
                    queue.seen[id] = before
        for client in self.clients:
            for name, reads in client.opens.items():
                client.opens[name] = [read for read in reads if not read.item.refused]
        for queue in commit.born:
            queue.begin(exists=False)
        for queue, item, reason in commit.moves:
            if not item.refused:
                self.undo_move(queue, item, reason)
        if faults > 1:
            for queue, item, reply in commit.reads:
                if not item.refused:
                    reply.values = [given for given in reply.values if given[1] is not item]
                    reply.end = REFUSED
                    insort(queue.ready, item)
                    self.serve(queue)
            for reply in commit.replies:
                if reply.consuming:
                    reply.end = REFUSED

    def undo_move(self, queue: Queue, item: Item, reason: str) -> None:
        if reason == "dead":
            queue.dead -= 1
            queue.aside.append((self.now + TRIED_AGAIN, item))
        else:
            queue.expired -= reason == "expired"
            queue.discarded -= reason == "discarded"
            insort(queue.ready, item)
        self.serve(queue)

    def contents(self) -> dict[bytes, Contents]:
        """@return: what there is of every queue on disk, in order, whoever has it open."""
        found = {}
        for queue in self.queues.values():
            if queue.exists and queue.durable:
                aside = [item for _, item in queue.aside]
                items = queue.ready + aside + [read.item for read in self.open_reads(queue)]
                found[queue.name] = Contents(
                    [(item, item.attempts) for item in sorted(items)], list(queue.delayed), dict(queue.seen)
                )
        return found

    def crash(self, clients: list[Client], now: float) -> None:
        """Only the store is left, and the next process begins C{now}."""
        self.clients = clients
        self.commit = Turn()
        self.status = "up"
        self.now = now
        for queue in self.queues.values():
            contents = self.store.get(queue.name)
            queue.begin(exists=contents is not None)
            queue.line.clear()
            if contents is not None:
                queue.delayed = contents.delayed
                queue.seen = contents.seen
                for item, attempts in contents.items:
                    item.attempts = attempts
                    queue.ready.append(item)
        for queue in list(self.queues.values()):
            for item in [item for item in queue.ready if self.is_spent(queue, item)]:
                queue.ready.remove(item)
                self.bury(queue, item)
        self.end()


def total(items: Iterable[Item]) -> int:
    return sum(len(item.payload) for item in items)


def is_large(reply: Reply) -> bool:
    return any(len(item.payload) > LARGE for _, item in reply.values)
