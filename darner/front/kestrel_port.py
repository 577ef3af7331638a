"""
Kestrel's text protocol over any Twisted transport: a second front end to the same sessions.

`darner.front.kestrel` knows how requests and replies are spelled.  If the server has users, a client logs in by a first
C{put}, on any queue, of one item: user and password with a space between them.
"""

from __future__ import annotations

from typing import Optional

from darner.front import kestrel
from darner.front.access import MAX_CREDENTIALS, Access
from darner.front.framing import Carrier, Framing
from darner.front.memcache_requests import Line, LineCache
from darner.front.protocol import QueueFactory
from darner.net.limits import Limits
from darner.queues.collection import Queues
from darner.values import requests


class TextFraming(Framing):
    """
    Takes the requests of one client of the text protocol out of its bytes.

    It collects the items of a C{put} until the empty line, so that they are stored together or not at all.
    """

    def __init__(self, carrier: Carrier, queues: Queues, lines: LineCache) -> None:
        super().__init__(carrier, queues, lines)
        self._put: Optional[requests.PutItems] = None
        self._put_refusal = b""
        self._items: list[bytes] = []
        self._line = bytearray()
        self._room = 0

    def _take(self, line: bytes) -> None:
        request = kestrel.parse(line)
        if isinstance(request, requests.PutItems):
            self._put = request
            self._put_refusal = request.refusal
            # Before the log-in, no more than a user and a password is buffered.
            self._room = MAX_CREDENTIALS if self.session.anonymous else kestrel.MAX_PUT
        elif isinstance(request, requests.Refused):
            self._refuse(request)
        else:
            self.session.perform(request)

    def _take_like(self, line: Line) -> bool:
        return False  # lines of this protocol are not cached

    def _is_too_long(self, line: bytes) -> bool:
        return len(line.removesuffix(b"\r")) > self.max_line

    def _line_too_long(self) -> None:
        self._lose_step(kestrel.LINE_TOO_LONG)

    def _take_line(self) -> bool:
        return super()._take_line() if self._put is None else self._take_item(self._put)

    def _take_item(self, put: requests.PutItems) -> bool:
        """Take some of an item's line.  @return: true, as there is always some."""
        data, at = self._data, self._at
        end = data.find(b"\n", at)
        stop = end if end >= 0 else len(data)
        self._at = stop + 1 if end >= 0 else stop
        self._line += data[at:stop]
        self._room -= stop - at
        if self._room < 0:
            self._refuse_put(kestrel.TOO_MUCH)
        if self._put_refusal:
            # Only whether this is the empty line matters now.
            del self._line[2:]
        if end >= 0:
            self._line_complete(put)
        return True

    def _refuse_put(self, refusal: bytes) -> None:
        """Drop the items of this put; the refusal is sent after the empty line."""
        self._put_refusal = self._put_refusal or refusal
        self._items.clear()

    def _line_complete(self, put: requests.PutItems) -> None:
        item = bytes(self._line.removesuffix(b"\r"))
        self._line.clear()
        if not item:
            self._put_complete(put)
        elif len(self._items) == kestrel.MAX_ITEMS:
            self._refuse_put(kestrel.TOO_MUCH)
        elif not self._put_refusal:
            self._items.append(item)

    def _put_complete(self, put: requests.PutItems) -> None:
        items, self._items = self._items, []
        self._put = None
        if self._put_refusal:
            self._refuse(requests.Refused(self._put_refusal))
        else:
            self.session.put_items(put, items)

    @property
    def stalled(self) -> bool:
        return super().stalled or (self._put is not None and not self.session.busy)


class TextFactory(QueueFactory):
    """The factory of the connections of a listener for the text protocol."""

    refusal = kestrel.TOO_MANY_CONNECTIONS

    def __init__(
        self, queues: Queues, debug: bool = False, limits: Limits = Limits(),  # noqa: B008  (it is frozen)
        access: Optional[Access] = None,
    ) -> None:  # fmt: skip
        """As L{QueueFactory}."""
        super().__init__(queues, kestrel.TEXT, debug, limits, access)

    def make_framing(self, carrier: Carrier) -> Framing:
        return TextFraming(carrier, self.queues, self.lines)
