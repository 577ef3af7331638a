"""
A watch: etcd's changes of a range of keys, as a stream.

The library's stream blocks, so a thread reads it.  It reads no further than a few answers ahead of who asks for them;
then etcd waits.
"""

from __future__ import annotations

from collections import deque
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import Any, Optional

import grpc
from twisted.internet.defer import Deferred

from darner.cluster.etcd import messages
from darner.cluster.etcd.client import EtcdClient, EtcdError

AHEAD = 4
"""How many answers are read before they are asked for."""

_ASK = 1.0
"""After how many seconds without a word etcd is asked whether it is there."""


class Watch:
    """One stream with one watch."""

    def __init__(self, client: EtcdClient, start: bytes, end: bytes, revision: int) -> None:
        """
        Watch what is put.

        @param start: the first key.
        @param end: the key after the last one.
        @param revision: the first revision whose changes are wanted.
        """
        self._client = client
        self._reactor = client.reactor
        self._requests: SimpleQueue[Any] = SimpleQueue()
        self._requests.put(messages.WatchRequest(create_request=messages.WatchCreateRequest(
            key=start, range_end=end, start_revision=revision, filters=[messages.NO_DELETE], fragment=True
        )))  # fmt: skip
        self._room = Semaphore(AHEAD)
        self._answers: deque[Any] = deque()
        self._error: Optional[Exception] = None
        self._waiting: Optional[Deferred[Any]] = None
        self._closed = False
        self._index, self._token, self._call = client.watch(iter(self._requests.get, None))
        Thread(target=self._read, name="etcd watch", daemon=True).start()

    def _read(self) -> None:
        """Read the stream: in a thread."""
        try:
            for answer in self._call:
                self._room.acquire()
                self._reactor.callFromThread(self._came, answer)
                if self._closed:
                    break
        except grpc.RpcError:
            pass
        self._reactor.callFromThread(self._ended)

    def _came(self, answer: Any) -> None:
        self._answers.append(answer)
        self._give()

    def _ended(self) -> None:
        if self._closed:
            return
        self._error = error = self._client.error_at(self._index, self._call)
        self._client.failed_at(self._index, error, self._token)
        self._give()

    def _give(self) -> None:
        if self._waiting is not None and (self._answers or self._error is not None):
            waiting, self._waiting = self._waiting, None
            if self._answers:
                self._room.release()
                waiting.callback(self._answers.popleft())
            else:
                waiting.errback(self._error)

    async def next(self) -> Any:
        """
        @return: the next L{messages.WatchResponse}.
        @raise EtcdError: the stream has ended, or etcd says nothing any more.
        """
        waiting = self._waiting = Deferred()
        self._give()
        calls = [
            self._reactor.callLater(_ASK, self._requests.put, self._progress()),
            self._reactor.callLater(self._client.timings.silence, self._silent),
        ]
        try:
            return await waiting
        finally:
            for call in calls:
                if call.active():
                    call.cancel()

    def _progress(self) -> Any:
        return messages.WatchRequest(progress_request=messages.WatchProgressRequest())

    def _silent(self) -> None:
        seconds = self._client.timings.silence
        self._error = EtcdError(self._client.endpoint(self._index), "SILENT", f"not a word for {seconds:g} s")
        self._client.failed_at(self._index, self._error, self._token)
        self._give()

    def close(self) -> None:
        """End the stream.  It is not read any more."""
        self._closed = True
        self._requests.put(None)
        self._call.cancel()
        self._room.release()
