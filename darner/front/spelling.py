"""
How replies are spelled: one class for each protocol and dialect of it, so that sessions know none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Union


class Spelling:
    """
    How the replies of one protocol, or of one dialect of it, are spelled.

    @ivar stored: an item is stored.
    @ivar nothing: there is no item to be had.
    @ivar closed: an open read is closed or given back.
    @ivar flushed: a queue is flushed.
    @ivar deleted: a queue is deleted.
    @ivar not_found: a queue that was to be deleted does not exist.
    @ivar status_changed: the server has another status.
    @ivar whole_key: whether the reply to a read names the key as the client sent it, options and all, and not the bare
        queue.
    @ivar relative_expiry: the longest expiry, in seconds, that counts from now; above it is Unix time.
    """

    def __init__(
        self, stored: bytes, nothing: bytes, closed: bytes, flushed: bytes, deleted: bytes, not_found: bytes,
        status_changed: bytes, whole_key: bool, relative_expiry: int,
    ) -> None:  # fmt: skip
        self.stored = stored
        self.nothing = nothing
        self.closed = closed
        self.flushed = flushed
        self.deleted = deleted
        self.not_found = not_found
        self.status_changed = status_changed
        self.whole_key = whole_key
        self.relative_expiry = relative_expiry

    def error(self, error: BaseException) -> bytes:
        """@param error: a L{darner.errors.DarnerError}, or anything else, which tells the client nothing more."""
        raise NotImplementedError

    def item(self, key: bytes, flags: int, payload: bytes, whole: bool) -> bytes:
        """@param whole: whether the item is all of the reply; else others or L{nothing} follow."""
        raise NotImplementedError

    def before_item(self, key: bytes, flags: int, size: int) -> bytes:
        """@return: what comes before the payload of a large item."""
        raise NotImplementedError

    def before_numbered_item(self, key: bytes, flags: int, size: int, number: int) -> bytes:
        """
        As L{before_item}, for a client that wants a number that identifies the item (memcache's C{gets}).

        @param number: such a number, above 0.
        """
        raise NotImplementedError

    def after_item(self, whole: bool) -> bytes:
        """@return: what comes after it."""
        raise NotImplementedError

    def number(self, number: int) -> bytes:
        """So many items were dealt with."""
        raise NotImplementedError

    def confirmed(self, count: int) -> bytes:
        """@param count: of the open reads that are closed; 0 where not as many were open as were to be closed."""
        raise NotImplementedError

    def touched(self, any: bool) -> bytes:
        """@param any: whether there was an open read."""
        raise NotImplementedError

    def flushed_all(self, delayed: bool) -> bytes:
        """@param delayed: L{darner.values.requests.FlushAll.delayed}."""
        raise NotImplementedError

    def reloaded(self) -> bytes:
        """The settings are read again."""
        raise NotImplementedError

    def status(self, name: str) -> bytes:
        """@param name: one of L{darner.values.vocabulary.STATUSES}."""
        raise NotImplementedError

    def version(self, number: str) -> bytes:
        raise NotImplementedError

    def stats(
        self, server: Mapping[str, Union[int, str]], queues: Iterable[tuple[bytes, Mapping[str, int]]]
    ) -> bytes:
        """@return: a part of the statistics: figures of the server, and those of some queues."""
        raise NotImplementedError

    def dump(self, queues: Iterable[tuple[bytes, Mapping[str, Union[int, str]]]]) -> bytes:
        """@return: a part of the statistics or settings of queues, a block for each of these."""
        raise NotImplementedError

    def after_report(self) -> bytes:
        """@return: what ends statistics and settings."""
        raise NotImplementedError
