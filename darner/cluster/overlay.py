"""
What is given to the log and not in the database yet: a LevelDB is read as it will be once all of it is written.

Turns go on with what those before them have changed, and the database must not have what the log may not have.  So the
writes of batches in flight lie over it in memory, until the log has them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Optional, Union

from darner.store.batch import Write

Entry = Union[bytes, tuple[bytes, bytes]]
"""A key and its value, or the key alone."""


class _Layer:
    """
    The writes of one batch.

    @ivar number: counts the batches.
    """

    def __init__(self, writes: Sequence[Write], number: int) -> None:
        self.number = number
        self.values = dict(writes)
        self._keys: Optional[list[bytes]] = None

    def between(self, start: Optional[bytes], stop: Optional[bytes]) -> Iterator[Write]:
        """@return: the writes in a range of keys, as of C{plyvel.DB.iterator}, in their order."""
        # Few ranges are read while a batch is in flight.
        keys = self._keys
        if keys is None:
            keys = self._keys = sorted(self.values)
        low = 0 if start is None else bisect_left(keys, start)
        high = len(keys) if stop is None else bisect_left(keys, stop)
        return ((key, self.values[key]) for key in keys[low:high])


class Overlay:
    """
    The batches in flight.  They are added and written in the reactor's thread; any thread may read.

    @ivar layers: their writes, the oldest first.  A new tuple each time.
    @ivar begun: the number of the last one that the database has, or is about to have.
    """

    def __init__(self, open_database: Callable[..., Any]) -> None:
        """@param open_database: as C{plyvel.DB}."""
        self._open_database = open_database
        self.layers: tuple[_Layer, ...] = ()
        self.begun = self._added = 0

    def open(self, path: str, **options: Any) -> Overlaid:
        """@return: the database there, with what is in flight, also with what will be."""
        return Overlaid(self._open_database(path, **options), self)

    def add(self, writes: Sequence[Write]) -> None:
        """Read the database as if a batch were written, behind those that were added before."""
        self._added += 1
        self.layers = (*self.layers, _Layer(writes, self._added))

    def settle(self, write: Callable[[], None]) -> None:
        """
        Write the oldest batch to the database.

        @param write: does that.  Where it raises an error, the batch stays in flight.
        """
        self.begun += 1
        write()
        self.layers = self.layers[1:]

    def opened(self, open_iterator: Callable[[], Any]) -> tuple[Any, tuple[_Layer, ...]]:
        """
        @param open_iterator: opens an iterator of the database.
        @return: the iterator, and what lies over it.
        """
        while True:
            layers = self.layers
            entries = open_iterator()
            # It may have seen some of these batches already, but must have seen no later one: values of these would
            # hide what that has written.
            if not layers or self.begun <= layers[-1].number:
                return entries, layers
            entries.close()


class Overlaid:
    """
    A C{plyvel.DB} with what is in flight: L{get}, L{iterator} and L{raw_iterator} have it, and all else is the
    database's own.  So a snapshot and a backup have what the log has.
    """

    def __init__(self, database: Any, overlay: Overlay) -> None:
        self._database = database
        self._overlay = overlay

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def get(self, key: bytes, default: Optional[bytes] = None, **options: Any) -> Optional[bytes]:
        # First here: what is written meanwhile is found in the database.
        for layer in reversed(self._overlay.layers):
            if key in layer.values:
                value = layer.values[key]
                return default if value is None else value
        found: Optional[bytes] = self._database.get(key, default, **options)
        return found

    def iterator(
        self, prefix: Optional[bytes] = None, start: Optional[bytes] = None, stop: Optional[bytes] = None,
        include_value: bool = True, **options: Any,
    ) -> Any:  # fmt: skip
        """As of C{plyvel.DB}, forwards."""
        if prefix is not None:
            start, stop = prefix, after(prefix)
        entries, layers = self._overlay.opened(
            lambda: self._database.iterator(start=start, stop=stop, include_value=include_value, **options)
        )
        changes: dict[bytes, Optional[bytes]] = {}
        for layer in layers:
            changes.update(layer.between(start, stop))
        return _Merged(entries, sorted(changes.items()), include_value) if changes else entries

    def raw_iterator(self, **options: Any) -> Any:
        """@return: of what C{plyvel.DB.raw_iterator} gives, what L{darner.store.database.Database.last} needs."""
        entries, layers = self._overlay.opened(lambda: self._database.raw_iterator(**options))
        changes: dict[bytes, Optional[bytes]] = {}
        for layer in layers:
            changes.update(layer.values)
        return _RawMerged(entries, changes) if changes else entries


def after(prefix: bytes) -> Optional[bytes]:
    """@return: the key behind all that begin with C{prefix}; C{None} if there is none."""
    short = prefix.rstrip(b"\xff")
    return short[:-1] + bytes([short[-1] + 1]) if short else None


class _Merged:
    """The entries of an iterator, with changes."""

    def __init__(self, entries: Any, changes: Sequence[Write], include_value: bool) -> None:
        """@param changes: in the order of their keys."""
        self._entries = entries
        self._merged = self._merge(changes, include_value)

    def _merge(self, changes: Sequence[Write], include_value: bool) -> Iterator[Entry]:
        entry: Optional[Entry] = next(self._entries, None)
        for key, value in changes:
            while entry is not None and (entry[0] if isinstance(entry, tuple) else entry) < key:
                yield entry
                entry = next(self._entries, None)
            if entry is not None and (entry[0] if isinstance(entry, tuple) else entry) == key:
                entry = next(self._entries, None)
            if value is not None:
                yield (key, value) if include_value else key
        while entry is not None:
            yield entry
            entry = next(self._entries, None)

    def __iter__(self) -> Iterator[Entry]:
        return self._merged

    def __next__(self) -> Entry:
        return next(self._merged)

    def __enter__(self) -> _Merged:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._entries.close()


class _RawMerged:
    """An iterator that is moved, with changes.  It finds the entry before a key."""

    def __init__(self, entries: Any, changes: dict[bytes, Optional[bytes]]) -> None:
        self._entries = entries
        self._changes = changes
        self._keys = sorted(changes)
        self._at = b""
        self._found: tuple[bytes, bytes] = (b"", b"")

    def __enter__(self) -> _RawMerged:
        return self

    def __exit__(self, *_: object) -> None:
        self._entries.close()

    def seek(self, key: bytes) -> None:
        """Go to the first entry at this key or behind."""
        self._at = key

    def prev(self) -> None:
        """Go to the entry before."""
        while True:
            at = bisect_left(self._keys, self._at)
            changed = self._keys[at - 1] if at else None
            self._entries.seek(self._at)
            if self._entries.valid():
                self._entries.prev()
            else:
                self._entries.seek_to_last()
            key = self._entries.key() if self._entries.valid() else None
            if changed is None or (key is not None and key > changed):
                self._found = self._entries.item()
                return
            self._at = changed
            value = self._changes[changed]
            if value is not None:
                self._found = (changed, value)
                return

    def item(self) -> tuple[bytes, bytes]:
        """@return: where it is."""
        return self._found
