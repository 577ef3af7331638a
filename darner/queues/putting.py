"""
Putting items: the queues of an item, whether they accept it, and the reply.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Optional

from darner.config.policies import QueueSettings
from darner.errors import ClientError, DarnerError, ItemTooLarge, QueueFull, StoreError
from darner.queues.answers import REPLY_OVERHEAD, Answers
from darner.queues.commit import GroupCommit
from darner.queues.disk_space import DiskSpace
from darner.queues.fifo import Fifo
from darner.queues.producer_ids import Deduplication
from darner.queues.reclaiming import Reclaimer
from darner.queues.routing import Route, Routing
from darner.queues.status import ServerStatus
from darner.queues.streams import PayloadWriter
from darner.store.interfaces import IStore
from darner.values.items import ITEM_OVERHEAD, PutOptions
from darner.values.stats import ServerStats
from darner.values.vocabulary import CHUNK_BYTES, MAX_RELATIVE_EXPIRY

if TYPE_CHECKING:
    from darner.queues.collection import Queues

COPIED_BYTES: Final = 1024 * 1024
"""
The maximum size of all copies of an item that is put on several queues.  A larger one is stored once for all of them,
as a stream.
"""

LAST_EXPIRY: Final = 2**63 - 1
"""The latest possible expiry, in ms since the epoch; later ones are cut to it."""


def _fits(policy: QueueSettings, size: int) -> bool:
    return size <= policy.max_item_bytes and (policy.max_bytes is None or size <= policy.max_bytes)


class Puts:
    """Puts items on the queues of one server."""

    def __init__(
        self, queues: Queues, fifos: dict[bytes, Fifo], routing: Routing, store: IStore, commit: GroupCommit,
        reclaimer: Reclaimer, space: DiskSpace, stats: ServerStats, status: ServerStatus, wall: Callable[[], float],
    ) -> None:  # fmt: skip
        """
        @param fifos: the queues by name, as C{queues} keeps them.
        @param wall: the time in seconds since the epoch.
        """
        self._queues = queues
        self._fifos = fifos
        self._routing = routing
        self._store = store
        self._commit = commit
        self._reclaimer = reclaimer
        self._space = space
        self._stats = stats
        self._status = status
        self._wall = wall

    def item_limit(self, name: bytes) -> int:
        """@return: the maximum size of an item for a queue or alias."""
        queues = self._queues
        return min(queues.policy(queue).max_item_bytes for queue in queues.policies.aliases.get(name, (name,)))

    def fits(self, name: bytes, size: int) -> bool:
        """@return: whether a queue or alias accepts an item of that size while it is empty."""
        fifo = self._fifos.get(name)
        if fifo is not None and not fifo.spreads:
            return _fits(fifo.policy, size)
        return size <= self.item_limit(name) and all(
            _fits(self._queues.policy(queue), size) for queue in self._routing.route(name).keeping
        )

    def put(
        self, answers: Answers, stored: bytes, name: bytes, flags: int, expiry: float, payload: bytes,
        sync: bool = False, options: Optional[PutOptions] = None,
    ) -> None:  # fmt: skip
        """
        Put a small item at the end of a queue, its children or the queues of an alias (`darner.queues.routing`).

        @param answers: the asker's answer sheet.
        @param stored: the reply for success, which becomes an error if the item is not stored; empty: none.  Each item
            counts towards the client's limit for a turn, with a reply or without.
        @param expiry: in seconds, by memcache's rules, with a precision of 1 ms.
        @param sync: whether to sync the item to stable storage before the reply.
        @param options: delay and id, if the client gave any.
        @raise ItemTooLarge: the item is over the limit.
        @raise darner.errors.Unavailable: the server's status refuses puts.
        @raise QueueFull: the queue is full and refuses the item.
        @raise darner.errors.DiskAlmostFull: the disk has too little free space.
        @raise ClientError: the item has an id, and the queue has no C{dedupe_window}.
        @raise darner.errors.StoreError: the store cannot create the queue, or cannot look up the id.
        """
        size = len(payload)
        fifo = self._fifos.get(name)
        if fifo is None or fifo.spreads or options is not None:
            retry = Deduplication(options.id) if options is not None and options.id else None
            fifos = self._all_for_put(name, size, size, options, retry)
            stream = 0
            if size * len(fifos) > COPIED_BYTES and len(fifos) > 1:
                payload, stream = b"", self._store_once(payload)
            self._put_on(fifos, flags, expiry, size, payload, stream, options, retry)
            self._answer(answers, stored, sync, retry, len(fifos))
            return
        if size > fifo.accepted or self._status.refuses_writes:
            self._admit(fifo.policy, size, size, fifo.durable)
        elif fifo.durable:
            self._space.take(size + ITEM_OVERHEAD)
        if fifo.number is None:
            self._queues.existing(name)
        elif fifo.limited:
            fifo.storage.bounds.enforce(size)
        fifo.put(flags, self._expiry_time(expiry) if expiry else 0, size, payload)
        self._stats.total_items += 1
        if sync:
            self._commit.sync()
        if stored:
            self._commit.put(answers, answers.add(stored))
        else:
            answers.size += REPLY_OVERHEAD

    def put_flow(
        self, answers: Answers, stored: bytes, name: bytes, flags: int, expiry: float, inflow: PayloadWriter,
        sync: bool = False, options: Optional[PutOptions] = None,
    ) -> None:  # fmt: skip
        """As L{put}, with a payload that came in pieces."""
        payload = inflow.finish()
        retry = Deduplication(options.id) if options is not None and options.id else None
        try:
            fifos = self._all_for_put(name, inflow.size, len(payload), options, retry)
        except DarnerError:
            inflow.abandon()
            raise
        self._put_on(fifos, flags, expiry, inflow.size, payload, inflow.stream, options, retry)
        if not fifos:
            inflow.abandon()
        self._answer(answers, stored, sync, retry, len(fifos))

    def put_items(
        self, answers: Answers, stored: Callable[[int], bytes], name: bytes, expiry: int, payloads: list[bytes]
    ) -> None:
        """
        Put items, in order, up to the first that is refused.

        @param stored: makes the reply from the number of items that are stored.
        @param expiry: in ms from now; 0: never; below 0: at once.
        @raise DarnerError: the first was refused, and not because the queue is full.
        """
        # By memcache's rules, a large number is Unix time.
        ends = (expiry if expiry <= 1000 * MAX_RELATIVE_EXPIRY else self._commit.now + expiry) / 1000
        count = 0
        for payload in payloads:
            self._stats.cmd_set += 1
            try:
                if len(payload) <= CHUNK_BYTES:
                    self.put(answers, b"", name, 0, ends, payload)
                else:
                    inflow = self.inflow()
                    inflow.write(payload)
                    self.put_flow(answers, b"", name, 0, ends, inflow)
            except DarnerError as error:
                if not count and not isinstance(error, QueueFull):
                    raise
                break
            count += 1
        slot = answers.add(stored(count))
        if count:
            self._commit.put(answers, slot)

    def pressed(self) -> bool:
        """@return: whether the store has fallen behind with its work, so that large payloads should wait."""
        return self._store.pressed()

    def inflow(self) -> PayloadWriter:
        """@return: a writer for a payload that comes in pieces."""
        return PayloadWriter(self._store, self._commit, self._reclaimer, self._space)

    def _store_once(self, payload: bytes) -> int:
        """
        Store a payload once for several queues.

        @return: its stream.
        @raise darner.errors.StoreError: it cannot be stored.
        """
        inflow = self.inflow()
        inflow.write(payload)
        inflow.finish(True)
        return inflow.stream

    def _answer(
        self, answers: Answers, stored: bytes, sync: bool, retry: Optional[Deduplication], count: int
    ) -> None:
        """@param count: the number of queues it was put on; each counts towards the client's limit for a turn."""
        if count > 1:
            answers.size += (count - 1) * REPLY_OVERHEAD
            self._commit.copies += count
        if sync:
            self._commit.sync()
        if stored:
            slot = answers.add(stored)
            if retry is None or sync:
                self._commit.put(answers, slot)
            if retry is not None:
                retry.answered(self._commit, answers, slot)
        else:
            answers.size += REPLY_OVERHEAD

    def _put_on(
        self, fifos: list[Fifo], flags: int, expiry: float, size: int, payload: bytes, stream: int = 0,
        options: Optional[PutOptions] = None, retry: Optional[Deduplication] = None,
    ) -> None:  # fmt: skip
        ends = self._expiry_time(expiry) if expiry else 0
        shared = len(fifos) > 1
        if retry is not None and fifos:
            retry.anew = True
            self._add_id(fifos, retry.id)
        for fifo in fifos:
            delay = self._delay(fifo, options)
            if delay:
                fifo.delay(self._after(delay), flags, ends, size, payload, stream, shared)
            else:
                fifo.put(flags, ends, size, payload, stream, shared)
        self._stats.total_items += len(fifos)

    def _after(self, delay: int) -> int:
        """
        @param delay: in ms.
        @return: the end of the delay, in ms since the epoch.  It counts from now and not from the start of the turn,
            which may be some ms ago, so that a delayed item is never early.  Before 1970 it counts from 1970, as the
            store has no place for a negative time.
        """
        return max(1, int(self._wall() * 1000 + 0.99)) + delay

    @staticmethod
    def _delay(fifo: Fifo, options: Optional[PutOptions]) -> int:
        """@return: the delay of an item for a queue, in ms."""
        if options is not None and options.delay is not None:
            return options.delay
        return int((fifo.policy.default_delay or 0) * 1000)

    def _add_id(self, fifos: list[Fifo], id: bytes) -> None:
        verdict = self._commit.verdict()
        for fifo in fifos:
            fifo.storage.add_id(id, verdict)

    def _find_id(self, route: Route, retry: Deduplication) -> None:
        """
        Find the queues that already have an item with this id.

        @raise ClientError: a queue that needs a C{dedupe_window} has none.
        """
        for queue in route.required:
            if self._queues.policy(queue).dedupe_window is None:
                raise ClientError(f"queue {queue.decode()} has no dedupe_window")
        for queue in (*route.keeping, *route.children):
            fifo = self._fifos.get(queue)
            first = None if fifo is None else fifo.storage.find_id(retry.id)
            if fifo is not None and first is not None:
                retry.left_out.add(queue)
                retry.first.append(first)
                retry.anew |= fifo.storage.leave_out()

    def _admit(self, policy: QueueSettings, size: int, room: int, durable: bool) -> None:
        """
        Check everything about a put that does not depend on the contents of the queue.

        @param policy: the settings of the queue.
        @param size: the size of the item, in bytes.
        @param room: the bytes of these that are still to be written.
        @param durable: whether the queue is on disk.
        @raise DarnerError: the item is refused.
        """
        if self._status.refuses_writes:
            self._status.check_writes()
        if size > policy.max_item_bytes:
            raise ItemTooLarge()
        least = size if durable else size + ITEM_OVERHEAD  # what it counts towards max_bytes
        if policy.max_bytes is not None and least > policy.max_bytes:
            raise QueueFull()
        if durable:
            self._space.take(room + ITEM_OVERHEAD)

    def _all_for_put(
        self, name: bytes, size: int, room: int, options: Optional[PutOptions], retry: Optional[Deduplication]
    ) -> list[Fifo]:
        """
        @param size: the size of the item, in bytes.
        @param room: the bytes of these that are still to be written for each queue.
        @param retry: the id of the item, if it has one: queues that have this id are left out.
        @return: the queues that a set on this name puts the item on; they exist.
        @raise DarnerError: the item is refused; no queue was created.
        """
        fifo = self._fifos.get(name)
        if fifo is not None and not fifo.spreads and options is None:
            self._admit(fifo.policy, size, room, fifo.durable)
            if fifo.limited:
                fifo.storage.bounds.enforce(size)
            return [self._queues.existing(name)]
        route = self._routing.route(name)
        self._status.check_writes()
        if size > self.item_limit(name):
            raise ItemTooLarge()
        if retry is not None:
            # Before the limits: an item that was stored once gets STORED, even if the queue is full now.
            self._find_id(route, retry)
        left_out = retry.left_out if retry is not None else ()
        taking = [queue for queue in route.keeping if queue not in left_out]
        for queue in taking:
            self._admit(self._queues.policy(queue), size, room, self._queues.is_durable(queue))
            self._check_limits(queue, size)
        for child in route.children:
            if child in left_out:
                continue
            fifo = self._fifos.get(child)
            if fifo is None or fifo.number is None:
                self._queues.gone(child)  # its creation was refused
                continue
            with suppress(ItemTooLarge, QueueFull):
                self._admit(fifo.policy, size, room, fifo.durable)
                self._check_limits(child, size)
                taking.append(child)
        new = [queue for queue in taking if queue not in self._fifos or not self._fifos[queue].exists]
        try:
            fifos = [self._queues.existing(queue) for queue in taking]
            for fifo in fifos:
                if retry is not None:
                    fifo.storage.begin_ids()
                if self._delay(fifo, options):
                    fifo.begin_delays()
            for fifo in fifos:
                # Only now that no queue can refuse the item.
                if fifo.limited and fifo.policy.discard_old_when_full:
                    fifo.storage.bounds.enforce(size)
        except StoreError:
            for queue in new:
                self._queues.forget(queue)
            raise
        return fifos

    def _check_limits(self, name: bytes, size: int) -> None:
        fifo = self._fifos.get(name)
        if fifo is not None and fifo.limited:
            fifo.storage.bounds.check(size)

    def _expiry_time(self, expiry: float) -> int:
        """@return: an expiry other than 0, by memcache's rules, as ms since the epoch."""
        if expiry < 0:
            return 1
        if expiry <= MAX_RELATIVE_EXPIRY:
            return self._commit.now + int(expiry * 1000)
        return min(int(expiry * 1000), LAST_EXPIRY)
