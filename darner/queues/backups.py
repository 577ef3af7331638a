"""
Backups of the running server: one at a time, in threads of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any, Optional

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from darner.errors import Stopped, StoreError
from darner.store.interfaces import IBackedUp


class Backup:
    """
    One backup that is being made.

    Its work runs in a thread of its own: the pool's threads are few, and requests with C{/sync} wait for them.
    """

    def __init__(self, backups: Backups, store: Any, schedule: Callable[..., Any]) -> None:
        self._backups = backups
        self._schedule = schedule
        self._ended = False
        self._working = False
        self._last: Optional[Callable[[], Any]] = None
        self.store = store

    def run(self, work: Callable[[], Any]) -> Deferred[Any]:
        """
        Work in a thread.  One call at a time.

        @return: fires with the result.  Cancelling gives up waiting for it.
        """
        done: Deferred[Any] = Deferred()
        self._start(work, done)
        return done

    def _start(self, work: Callable[[], Any], done: Deferred[Any]) -> None:
        self._working = True

        def begin() -> None:
            try:
                result = work()
            except BaseException:
                result = Failure()
            self._schedule(self._done, done, result)

        Thread(target=begin, name="darner backup", daemon=True).start()

    def _done(self, done: Deferred[Any], result: Any) -> None:
        self._working = False
        if not done.called:
            done.callback(result)
        last, self._last = self._last, None
        if last is not None:
            self._start(last, Deferred().addErrback(lambda _: None))
        self._leave()

    def proceed(self) -> None:
        """@raise Stopped: the backup has ended.  Called by the thread from time to time."""
        if self._ended:
            raise Stopped()

    def end(self) -> None:
        """No more is to be done for it.  Idempotent."""
        self._ended = True
        self._leave()

    def finish(self, work: Callable[[], Any]) -> None:
        """Do something in a thread as the last of it, also if one is at work still, and L{end}."""
        if self._working:
            self._last = work
        else:
            self._start(work, Deferred().addErrback(lambda _: None))
        self.end()

    def _leave(self) -> None:
        if self._ended and not self._working:
            self._backups.left(self)


class Backups:
    """Gives out the right to make a backup."""

    def __init__(self, store: Any, schedule: Callable[..., Any]) -> None:
        """
        @param store: what is backed up, if it can be.
        @param schedule: calls a function in the reactor's thread.
        """
        self._store = store
        self._schedule = schedule
        self._current: Optional[Backup] = None
        self._stopped: Optional[Deferred[None]] = None

    def begin(self) -> Backup:
        """
        @return: a backup, to be ended.
        @raise StoreError: another one is being made, or the store is not on disk.
        """
        if self._stopped is not None:
            raise Stopped()
        if not IBackedUp.providedBy(self._store):
            raise StoreError("the store is not on disk: there is nothing to back up")
        if self._current is not None:
            raise StoreError("another backup is being made: try again later")
        self._current = backup = Backup(self, self._store, self._schedule)
        return backup

    def left(self, backup: Backup) -> None:
        if self._current is backup:
            self._current = None
            if self._stopped is not None:
                self._stopped.callback(None)

    def stop(self) -> Deferred[None]:
        """@return: fires when no thread is at work for a backup any more."""
        self._stopped = Deferred()
        if self._current is None:
            self._stopped.callback(None)
        else:
            self._current.end()
        return self._stopped
