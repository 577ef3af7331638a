"""
A client of etcd: requests with time-outs, several endpoints, users.

The library C{grpcio} does the work in threads of its own; what comes of it is handed to the reactor.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # read by the library where it is loaded

import grpc
from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.logger import Logger

from darner.cluster.etcd import messages
from darner.cluster.etcd.settings import Credentials, Timings
from darner.errors import LogUnavailable


class IReactor(IReactorFromThreads, IReactorTime):
    """What the client needs of a reactor."""


class Method(NamedTuple):
    """A method of etcd's."""

    path: str
    answer: Any


RANGE = Method("/etcdserverpb.KV/Range", messages.RangeResponse)
PUT = Method("/etcdserverpb.KV/Put", messages.PutResponse)
DELETE = Method("/etcdserverpb.KV/DeleteRange", messages.DeleteRangeResponse)
TXN = Method("/etcdserverpb.KV/Txn", messages.TxnResponse)
COMPACT = Method("/etcdserverpb.KV/Compact", messages.CompactionResponse)
STATUS = Method("/etcdserverpb.Maintenance/Status", messages.StatusResponse)
AUTHENTICATE = Method("/etcdserverpb.Auth/Authenticate", messages.AuthenticateResponse)
WATCH = Method("/etcdserverpb.Watch/Watch", messages.WatchResponse)

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.use_local_subchannel_pool", 1),
)

_REFUSALS = frozenset({
    "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "UNAUTHENTICATED",
})  # fmt: skip
"""What etcd answers where it has not done what it was asked for."""

_OLD_TOKEN = ("etcdserver: invalid auth token", "etcdserver: revision of auth store is old", "auth: revision in header")
_PASSING = ("etcdserver: too many requests", *_OLD_TOKEN)
"""Refusals of those that may be granted when asked again, by the beginning of their text."""


class EtcdError(Exception):
    """
    A request failed.

    @ivar code: gRPC's code, such as C{UNAVAILABLE}.
    @ivar text: what etcd or the library says.
    @ivar sent: whether the request itself was sent.
    """

    def __init__(self, endpoint: str, code: str, text: str, sent: bool = True) -> None:
        super().__init__(f"etcd at {endpoint}: {code}: {text}")
        self.endpoint = endpoint
        self.code = code
        self.text = text
        self.sent = sent

    @property
    def is_refusal(self) -> bool:
        """Whether etcd has surely not done what it was asked for.  Otherwise that is unknown."""
        return not self.sent or self.code in _REFUSALS

    @property
    def is_final(self) -> bool:
        """Whether it makes no sense to ask again."""
        return self.code in _REFUSALS and not self.text.startswith(_PASSING)


class EtcdClient:
    """
    Requests to whichever of several endpoints answers.

    All requests go to one of them, until one fails there.
    """

    _log = Logger()

    def __init__(
        self, reactor: Any, endpoints: Sequence[str], credentials: Optional[Credentials] = None,
        timings: Optional[Timings] = None,
    ) -> None:  # fmt: skip
        """
        @param reactor: an L{IReactor}.
        @param endpoints: C{HOST:PORT} of etcd servers of one cluster; those before are preferred.
        """
        if not endpoints:
            raise ValueError("no endpoints of etcd")
        self.reactor = reactor
        self.timings = timings or Timings()
        self._credentials = credentials or Credentials()
        self._endpoints = list(endpoints)
        self._current = 0
        self._channels: dict[int, Any] = {}
        self._calls: dict[tuple[int, str], Any] = {}
        self._under_way: set[Any] = set()
        self._token: Optional[str] = None
        self._logging_in: Optional[list[Deferred[None]]] = None
        self._refused: Optional[tuple[float, EtcdError]] = None
        self._failing = False
        self._closed = False

    # One attempt

    def call(self, method: Method, request: Any, timeout: Optional[float] = None) -> Deferred[Any]:
        """
        Ask the endpoint of the moment, once.

        @param timeout: in seconds; by default that of an attempt.
        @return: fires with the answer, or fails with L{EtcdError}, of which L{EtcdError.is_refusal} says whether the
            request may have been done, or with L{LogUnavailable} where it was not sent.
        """
        if self._closed:
            return fail(LogUnavailable("the log is closed"))
        if self._credentials.user is not None and self._token is None:
            return ensureDeferred(self._call_as_user(method, request, timeout))
        return self._call(method, request, timeout)

    async def _call_as_user(self, method: Method, request: Any, timeout: Optional[float]) -> Any:
        try:
            await self.log_in(timeout)
        except EtcdError as error:
            raise EtcdError(error.endpoint, error.code, error.text, sent=False) from error
        return await self._call(method, request, timeout)

    def _call(
        self, method: Method, request: Any, timeout: Optional[float], index: Optional[int] = None
    ) -> Deferred[Any]:
        index = self._current if index is None else index
        done: Deferred[Any] = Deferred()
        call = self._method(index, method).future(
            request, timeout=timeout or self.timings.attempt, metadata=self.metadata()
        )
        self._under_way.add(call)
        from_thread = self.reactor.callFromThread
        channel, token = self._channels[index], self._token
        call.add_done_callback(lambda call: from_thread(self._done, index, channel, token, call, done))
        return done

    def _done(self, index: int, channel: Any, token: Optional[str], call: Any, done: Deferred[Any]) -> None:
        self._under_way.discard(call)
        code = call.code()
        if code is grpc.StatusCode.OK:
            if self._failing:
                self._failing = False
                self._log.info("cluster: etcd at {endpoint} answers", endpoint=self._endpoints[index])
            done.callback(call.result())
            return
        error = EtcdError(self._endpoints[index], code.name, call.details() or "")
        if code is grpc.StatusCode.UNAVAILABLE and not error.text.startswith("etcdserver:"):
            self._disconnect(index, channel)
        self.failed_at(index, error, token)
        done.errback(error)

    def _disconnect(self, index: int, channel: Any) -> None:
        """Give up a broken connection: left to itself, the library connects only while requests wait, and fail."""
        if index in self._channels and self._channels[index] is channel:
            del self._channels[index]
            self._calls = {key: method for key, method in self._calls.items() if key[0] != index}
            channel.close()

    def failed_at(self, index: int, error: EtcdError, token: Optional[str]) -> None:
        """
        Have the next requests go to another endpoint, where this one does not serve; forget a token that is old.

        @param token: that of the request.
        """
        if error.text.startswith(_OLD_TOKEN):
            if token == self._token:  # else there is a newer one already
                self._token = None
        elif not error.is_refusal and not self._closed and index == self._current:
            self._current = (index + 1) % len(self._endpoints)
            if not self._failing:
                self._log.warn(
                    "cluster: {error}; trying {endpoint}", error=error, endpoint=self._endpoints[self._current]
                )
            self._failing = True

    async def prefer_leader(self) -> None:
        """
        Have the next requests go to the etcd that leads: it need not pass them on, which takes a third of the time of
        large ones.  Where it is not found, all stays as it is.

        Who leads is told by the endpoint of the moment, which serves: one that is cut off may take itself for it.
        """
        if len(self._endpoints) == 1 or self._closed:
            return
        leader = 0
        for index in sorted(range(len(self._endpoints)), key=lambda index: index != self._current):
            try:
                status = await self._call(STATUS, messages.StatusRequest(), None, index)
                leader = leader or status.leader
            except EtcdError:
                pass
            if not leader or self._closed:
                return
            if status.header.member_id == leader:
                self._current = index
                return

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """@return: what goes with each request: who asks."""
        return () if self._token is None else (("token", self._token),)

    def _channel(self, index: int) -> Any:
        """@return: the channel of an endpoint; a connection is made where it is needed."""
        channel = self._channels.get(index)
        if channel is None:
            endpoint, credentials = self._endpoints[index], self._credentials
            if credentials.secure:
                tls = grpc.ssl_channel_credentials(credentials.authority, credentials.key, credentials.certificate)
                channel = grpc.secure_channel(endpoint, tls, _OPTIONS)
            else:
                channel = grpc.insecure_channel(endpoint, _OPTIONS)
            self._channels[index] = channel
        return channel

    def _method(self, index: int, method: Method) -> Any:
        found = self._calls.get((index, method.path))
        if found is None:
            found = self._calls[index, method.path] = self._channel(index).unary_unary(
                method.path, lambda message: message.SerializeToString(), method.answer.FromString
            )
        return found

    def watch(self, requests: Any) -> tuple[int, Optional[str], Any]:
        """
        Open a stream of watches at the endpoint of the moment.

        @param requests: an iterator over L{messages.WatchRequest}, which a thread of the library's goes through.
        @return: the number of the endpoint, the token, and the call: an iterator over L{messages.WatchResponse}, that
            blocks.
        """
        index = self._current
        call = self._channel(index).stream_stream(
            WATCH.path, lambda message: message.SerializeToString(), WATCH.answer.FromString
        )(requests, metadata=(*self.metadata(), ("hasleader", "true")))
        return index, self._token, call

    def endpoint(self, index: int) -> str:
        """@return: C{HOST:PORT} of an endpoint."""
        return self._endpoints[index]

    def error_at(self, index: int, call: Any) -> EtcdError:
        """@return: why a stream has ended."""
        return EtcdError(self._endpoints[index], call.code().name, call.details() or "")

    # Users

    async def log_in(self, timeout: Optional[float] = None) -> None:
        """
        Get a token, where a user is set and there is none.

        Who asks meanwhile waits for the same answer: etcd takes a tenth of a second of the processor for a password.

        @param timeout: as for L{call}.
        @raise EtcdError: etcd refuses it, or does not answer.
        """
        if self._credentials.user is None or self._token is not None:
            return
        if self._logging_in is not None:
            waiting: Deferred[None] = Deferred()
            self._logging_in.append(waiting)
            await waiting
            return
        if self._refused is not None and self.reactor.seconds() < self._refused[0]:
            raise self._refused[1]
        self._logging_in = []
        error: Optional[Exception] = None
        try:
            answer = await self._call(
                AUTHENTICATE,
                messages.AuthenticateRequest(name=self._credentials.user, password=self._credentials.password),
                timeout,
            )
            self._token, self._refused = answer.token, None
        except EtcdError as failed:
            error = failed
            if failed.is_final:
                self._refused = (self.reactor.seconds() + self.timings.longest_pause, failed)
        finally:
            others, self._logging_in = self._logging_in, None
            for other in others:
                other.callback(None) if error is None else other.errback(error)
        if error is not None:
            raise error

    # Several attempts

    async def ask(self, method: Method, request: Any, attempt: Optional[float] = None) -> Any:
        """
        Ask until there is an answer: for what may be done more than once.

        @param attempt: how long an answer is waited for at first, in seconds; by default that of an attempt.
        @raise LogUnavailable: there was none in time, or etcd refuses it.
        """
        tries = Tries(self)
        while True:
            try:
                return await self.call(method, request, tries.timeout(attempt))
            except (EtcdError, LogUnavailable) as error:
                await tries.again(error)

    def pause(self, seconds: float) -> Deferred[None]:
        """@return: fires after that time."""
        paused: Deferred[None] = Deferred(lambda _: call.cancel())
        call = self.reactor.callLater(seconds, paused.callback, None)
        return paused

    # The end

    def close(self) -> None:
        """Cancel what is under way, and close the connections."""
        self._closed = True
        for call in list(self._under_way):
            call.cancel()
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        self._calls.clear()

    @property
    def is_closed(self) -> bool:
        """Whether L{close} was called."""
        return self._closed


class Tries:
    """The attempts of one operation: how long it is tried, and the pauses between, which get longer."""

    def __init__(self, client: EtcdClient, patience: Optional[float] = None) -> None:
        """@param patience: how long it is tried, in seconds; C{inf} for ever."""
        self._client = client
        self._deadline = client.reactor.seconds() + (client.timings.patience if patience is None else patience)
        self._pause = client.timings.first_pause
        self._count = 0

    def timeout(self, attempt: Optional[float] = None) -> float:
        """
        @param attempt: how long the first answer is waited for; by default that of an attempt.
        @return: how long to wait for the next one, in seconds: longer each time, as the machines may just be slow.
        """
        self._count += 1
        wanted = (self._client.timings.attempt if attempt is None else attempt) * min(self._count, 4)
        return min(wanted, max(self.left, 0.1))

    @property
    def left(self) -> float:
        """How many seconds are left."""
        return float(self._deadline - self._client.reactor.seconds())

    async def again(self, error: Exception) -> None:
        """
        Wait before the next attempt.

        @raise LogUnavailable: there is no time for one, or it makes no sense.
        """
        if self._client.is_closed:
            raise LogUnavailable("the log is closed") from error
        pause = self.next_pause()
        if (isinstance(error, EtcdError) and error.is_final) or pause > self.left:
            raise LogUnavailable(str(error)) from error
        await self._client.pause(pause)

    def next_pause(self) -> float:
        """@return: how many seconds to wait before the next attempt; each time more."""
        pause = self._pause * random.uniform(0.5, 1)
        self._pause = min(2 * self._pause, self._client.timings.longest_pause)
        return pause

    def restart(self) -> None:
        """Something has worked: the next pause is short again."""
        self._pause = self._client.timings.first_pause
