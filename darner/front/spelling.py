"""
How replies are spelled: a class for each protocol and dialect, so that sessions need to know none of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Union


class Spelling:
    """
    How the replies of one protocol, or of one dialect of it, are spelled.

    @ivar stored: the reply when an item is stored.
    @ivar nothing: the reply when there is no item.
    @ivar closed: the reply when an open read is closed or given back.
    @ivar flushed: the reply when a queue is flushed.
    @ivar deleted: the reply when a queue is deleted.
    @ivar not_found: the reply when the queue to be deleted does not exist.
    @ivar status_changed: the reply when the server's status is changed.
    @ivar whole_key: whether the reply to a read has the key as the client sent it, with its options, instead of the
        bare queue name.
    @ivar relative_expiry: the longest expiry, in seconds, that counts from now; a larger number is Unix time.
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
        """@param error: a L{darner.errors.DarnerError}; of any other the client gets no details."""
        raise NotImplementedError

    def item(self, key: bytes, flags: int, payload: bytes, whole: bool) -> bytes:
        """@param whole: whether the reply has only this item; otherwise others or C{nothing} follow."""
        raise NotImplementedError

    def before_item(self, key: bytes, flags: int, size: int) -> bytes:
        """@return: the bytes before the payload of a large item."""
        raise NotImplementedError

    def before_numbered_item(self, key: bytes, flags: int, size: int, number: int) -> bytes:
        """
        As L{before_item}, for a client that wants a number to identify the item (memcache's C{gets}).

        @param number: the number, above 0.
        """
        raise NotImplementedError

    def after_item(self, whole: bool) -> bytes:
        """@return: the bytes after the payload of a large item."""
        raise NotImplementedError

    def number(self, number: int) -> bytes:
        """The reply with a number of items."""
        raise NotImplementedError

    def confirmed(self, count: int) -> bytes:
        """@param count: the number of open reads that were closed; 0 if fewer were open than the client said."""
        raise NotImplementedError

    def touched(self, any: bool) -> bytes:
        """@param any: whether there was an open read."""
        raise NotImplementedError

    def flushed_all(self, delayed: bool) -> bytes:
        """@param delayed: L{darner.values.requests.FlushAll.delayed}."""
        raise NotImplementedError

    def reloaded(self) -> bytes:
        """The reply when the settings are reloaded."""
        raise NotImplementedError

    def status(self, name: str) -> bytes:
        """@param name: one of L{darner.values.vocabulary.STATUSES}."""
        raise NotImplementedError

    def version(self, number: str) -> bytes:
        raise NotImplementedError

    def stats(
        self, server: Mapping[str, Union[int, str]], queues: Iterable[tuple[bytes, Mapping[str, int]]]
    ) -> bytes:
        """@return: a part of the statistics: figures of the server and of some queues."""
        raise NotImplementedError

    def dump(self, queues: Iterable[tuple[bytes, Mapping[str, Union[int, str]]]]) -> bytes:
        """@return: statistics or settings of some queues, a block for each."""
        raise NotImplementedError

    def after_report(self) -> bytes:
        """@return: the end of statistics and settings."""
        raise NotImplementedError
