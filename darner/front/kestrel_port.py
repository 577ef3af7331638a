"""
Kestrel's text protocol over any Twisted transport: a second front end to the same sessions.

How requests and replies are spelled is the business of `darner.front.kestrel`.  It has no way to log in, so there is no
text port where there are users.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Optional

import darner
from darner.errors import ClientError, DarnerError, QueueFull
from darner.front import kestrel, memcache
from darner.front.framing import Carrier, Framing
from darner.front.outbox import Outlet
from darner.front.protocol import QueueFactory
from darner.front.session import REPLY_OVERHEAD, Session
from darner.queues.collection import RELATIVE_EXPIRY, Queues
from darner.queues.commit import Replies
from darner.values import requests
from darner.values.items import Item
from darner.values.vocabulary import CHUNK_BYTES


class TextSession(Session):
    """A L{Session} whose replies are those of the text protocol."""

    nothing = kestrel.NOTHING
    error_reply = staticmethod(kestrel.error_reply)

    def perform(self, request: requests.Request) -> None:
        performer = _PERFORMERS.get(type(request))
        if performer is None:
            super().perform(request)
            return
        try:
            performer(self, request)
            assert self.trail is not None
            self.trail.performed(request)
        except DarnerError as error:
            self._reply(kestrel.error_reply(error))

    def _hand_out(self, item: Item, key: bytes, end: bytes) -> int:
        if not item.stream:
            return self._reply(kestrel.item(item.payload))
        return self._hand_out_stream(item, kestrel.ITEM_HEADER, kestrel.AFTER_ITEM)

    def put_items(self, request: kestrel.Put, items: list[bytes]) -> None:
        """
        Put items, in order, up to the first that is refused.

        The reply says how many, and that all of those are written; it is an error where that is what the first met.
        """
        expiry = self._expiry(request.expiry)
        stored = 0
        reply = b""
        for payload in items:
            self._queues.stats.cmd_set += 1
            try:
                self._put_item(request.queue, expiry, payload)
            except DarnerError as error:
                if not stored and not isinstance(error, QueueFull):
                    reply = kestrel.error_reply(error)
                break
            stored += 1
        # So that one who puts much waits for its turn.
        self._gathered += stored * REPLY_OVERHEAD
        slot = self._reply(reply or kestrel.count(stored))
        if stored:
            self._commit.put(self._replies, slot)

    def _expiry(self, ms: int) -> float:
        """@return: by memcache's rules, which take what is far away for Unix time."""
        if ms < 1000 * RELATIVE_EXPIRY:
            return ms / 1000
        return (self._commit.now + ms) / 1000

    def _put_item(self, queue: bytes, expiry: float, payload: bytes) -> None:
        if len(payload) <= CHUNK_BYTES:
            self._queues.put(queue, 0, expiry, payload)
            return
        inflow = self._queues.inflow()
        inflow.write(payload)
        self._queues.put_flow(queue, 0, expiry, inflow)

    def _read(self, request: requests.Get) -> None:
        """Every read closes what was open before, also a peek."""
        self._opens.close_all(request.queue)
        self._get(request)

    def _monitor_text(self, request: requests.Monitor) -> None:
        self._opens.close_all(request.queue)
        self._monitor(request)

    def _confirm_text(self, request: requests.Confirm) -> None:
        if not self._opens.confirm(request.queue, request.count):
            raise ClientError("Not that many transactions open.")
        self._commit.consumed(self._replies, self._reply(kestrel.count(request.count)))

    def _flush_text(self, request: requests.Flush) -> None:
        self._status.check_writes()
        self._queues.flush(request.queue)
        self._commit.consumed(self._replies, self._reply(kestrel.DONE))

    def _delete_text(self, request: requests.Delete) -> None:
        self._status.check_writes()
        self._queues.delete(request.queue)
        self._commit.consumed(self._replies, self._reply(kestrel.DONE))

    def _status_text(self, request: requests.Status) -> None:
        self._reply(kestrel.line(self._status.name.upper()))

    def _set_status_text(self, request: requests.SetStatus) -> None:
        self._status.change(request.status)
        self._reply(kestrel.DONE)

    def _version_text(self, request: requests.Version) -> None:
        self._reply(kestrel.line(darner.__version__))

    def deliver(self, replies: Replies) -> None:
        super().deliver(
            [kestrel.error_reply(reply) if isinstance(reply, BaseException) else reply for reply in replies]
        )


_PERFORMERS: Final[dict[type, Callable[[TextSession, Any], None]]] = {
    requests.Get: TextSession._read,
    requests.Monitor: TextSession._monitor_text,
    requests.Confirm: TextSession._confirm_text,
    requests.Flush: TextSession._flush_text,
    requests.Delete: TextSession._delete_text,
    requests.Status: TextSession._status_text,
    requests.SetStatus: TextSession._set_status_text,
    requests.Version: TextSession._version_text,
}


class TextFraming(Framing):
    """
    The requests of one client by the text protocol.

    The items of a C{put} are gathered until the empty line, so that they are stored together or not at all.
    """

    def __init__(self, carrier: Carrier, queues: Queues, lines: memcache.LineCache) -> None:
        super().__init__(carrier, queues, lines)
        self._put: Optional[kestrel.Put] = None
        self._put_refusal = b""
        self._items: list[bytes] = []
        self._line = bytearray()
        self._room = 0

    def _take(self, line: bytes) -> None:
        request = kestrel.parse(line)
        if isinstance(request, kestrel.Put):
            self._put = request
            self._put_refusal = request.refusal
            self._room = kestrel.MAX_PUT
        elif isinstance(request, requests.Refused):
            self._refuse(request)
        else:
            self.session.perform(request)

    def _line_too_long(self) -> None:
        self._lose_step(kestrel.LINE_TOO_LONG)

    def _take_line(self) -> bool:
        return super()._take_line() if self._put is None else self._take_item(self._put)

    def _take_item(self, put: kestrel.Put) -> bool:
        """@return: whether there was any of an item's line."""
        data, at = self._data, self._at
        if at == len(data):
            return False
        end = data.find(b"\n", at)
        stop = end if end >= 0 else len(data)
        self._at = stop + 1 if end >= 0 else stop
        self._line += data[at:stop]
        self._room -= stop - at
        if self._room < 0:
            self._refuse_put(kestrel.TOO_MUCH)
        if self._put_refusal:
            # Whether it is the empty line is all that matters.
            del self._line[2:]
        if end >= 0:
            self._line_complete(put)
        return True

    def _refuse_put(self, refusal: bytes) -> None:
        """Keep nothing of what is being put, and say so when it is over."""
        self._put_refusal = self._put_refusal or refusal
        self._items.clear()

    def _line_complete(self, put: kestrel.Put) -> None:
        item = bytes(self._line.removesuffix(b"\r"))
        self._line.clear()
        if not item:
            self._put_complete(put)
        elif len(self._items) == kestrel.MAX_ITEMS:
            self._refuse_put(kestrel.TOO_MUCH)
        elif not self._put_refusal:
            self._items.append(item)

    def _put_complete(self, put: kestrel.Put) -> None:
        items, self._items = self._items, []
        self._put = None
        if self._put_refusal:
            self._refuse(requests.Refused(self._put_refusal))
        else:
            assert isinstance(self.session, TextSession)
            self.session.put_items(put, items)

    @property
    def stalled(self) -> bool:
        return super().stalled or (self._put is not None and not self.session.busy)


class TextFactory(QueueFactory):
    """Connections by the text protocol to one set of queues."""

    refusal = kestrel.TOO_MANY_CONNECTIONS

    def make_framing(self, carrier: Carrier) -> Framing:
        return TextFraming(carrier, self.queues, self.lines)

    def make_session(self, outlet: Outlet) -> TextSession:
        return TextSession(self.queues, outlet)
