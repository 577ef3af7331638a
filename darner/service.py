"""
Queues as a Twisted service: for applications that embed darner, and what the server itself runs.

`docs/embedding.rst` shows it in use.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Optional, TypeVar, Union

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred, execute, fail
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from darner.config.passwords import Passwords
from darner.config.policies import Policies
from darner.config.settings import Settings
from darner.errors import ClientError, DarnerError, ItemTooLarge, Stopped
from darner.front.access import Access
from darner.front.bytes_given import TextGiven, as_bytes
from darner.front.calls import Call, Consuming, Opening, Peeking, Putting, Reading, Requeueing
from darner.front.kestrel_port import TextFactory
from darner.front.memcache import DIALECTS
from darner.front.protocol import QueueFactory
from darner.interfaces import IMessage, IOpenRead, IQueueService
from darner.net.clock import MonotonicClock
from darner.net.limits import Limits
from darner.net.listeners import HTTP, TEXT, Door, Listener, listen
from darner.net.worker import Worker, start_worker
from darner.queues.answers import Answers
from darner.queues.collection import Queues
from darner.queues.control import Control
from darner.queues.status import ServerStatus
from darner.queues.surroundings import Surroundings
from darner.store.directory import STATUS
from darner.store.interfaces import IStore
from darner.store.leveldb import LevelStore
from darner.store.status_file import StatusFile
from darner.values.items import PutOptions
from darner.values.stats import Health
from darner.values.vocabulary import MAX_DELAY, MAX_FLAGS, check_expiry, check_id, check_queue_name

DRAIN: Final = 2.0
"""Seconds that clients have, when the service stops, to read their pending replies."""

_C = TypeVar("_C", bound=Union[Call, Requeueing])


@implementer(IQueueService)
class QueueService(Service):
    """
    The queues of one data directory, with or without listeners.

    Any number of services, each with its own data directory, live side by side in one process.  All methods are to be
    called in the reactor's thread.

    @ivar data_dir: where the queues are kept.
    @ivar queues: the queues while the service runs; C{None} otherwise.
    @ivar listeners: the listeners, in the order of the endpoints.
    @ivar ports: the listening ports while it runs, in the same order.
    """

    _log = Logger()
    _worker: Optional[Worker] = None
    _make_queues: Callable[..., Queues] = Queues

    def __init__(
        self,
        data_dir: Union[str, Path],
        endpoints: Sequence[Union[IStreamServerEndpoint, Listener]] = (),
        settings: Settings = Settings(),  # noqa: B008  (it is frozen)
        reactor: Any = None, open_store: Callable[[Path], IStore] = LevelStore,
        control: Control = Control(),  # noqa: B008  (it is frozen)
    ) -> None:  # fmt: skip
        """
        @param data_dir: the directory of the queues; created if missing.
        @param endpoints: where to serve clients; none for an application's own use only.  A L{Listener} says more of
            one of them than its endpoint, such as the protocol that is spoken there.
        @param settings: limits and the like; its C{data_dir} and places to listen at are not used here.
        @param reactor: the reactor; by default the global one.
        @param open_store: makes the store of a data directory.
        @param control: requests of clients to the process.
        """
        if reactor is None:
            from twisted.internet import reactor
        self._reactor = reactor
        self.data_dir = Path(data_dir)
        self.listeners = [
            endpoint if isinstance(endpoint, Listener) else Listener(endpoint) for endpoint in endpoints
        ]
        self._settings = settings
        self._policies = settings.policies
        self._open_store = open_store
        self._control = control
        self.queues: Optional[Queues] = None
        self.ports: list[IListeningPort] = []
        self._factories: list[Any] = []
        self._root: Any = None
        self._waiting: set[Union[Reading, Requeueing]] = set()

    def apply(self, policies: Policies) -> None:
        """Apply new settings of queues and aliases, to what is loaded and to what will be."""
        self._policies = policies
        if self.queues is not None:
            self.queues.apply(policies)

    # Start and stop

    def startService(self) -> None:
        """
        Listen, open the store, and serve.

        Nothing is touched before all addresses are taken.

        @raise darner.errors.StoreError: the data directory cannot be served from.
        @raise darner.errors.SettingsError: the password file cannot be read.
        @raise twisted.internet.error.CannotListenError: a port is taken.
        @raise OSError: there are no descriptors left.
        """
        for _ in self._start():
            pass
        super().startService()

    def _start(self) -> Iterator[None]:
        """
        L{startService} in steps: one for each queue.  If this is closed before its end, nothing stays open.
        """
        passwords = self._read_passwords()
        doors = [(Door(listener), listener) for listener in self.listeners]
        ports: list[IListeningPort] = []
        try:
            for door, listener in doors:
                ports.append(listen(listener.endpoint, door))
            yield from self._open(doors, passwords)
        except BaseException:
            for port in ports:
                port.stopListening()
            raise
        self.ports = ports

    def _open(self, doors: Sequence[tuple[Door, Listener]], passwords: Optional[Passwords]) -> Iterator[None]:
        """Open the store, then the listeners."""
        self._store = self._open_store(self.data_dir)
        try:
            surroundings = self._start_surroundings()
        except OSError:
            self._store.close()
            raise
        settings = self._settings
        self._wall = surroundings.wall
        status = ServerStatus(
            surroundings.clock, settings.default_status, settings.status_change_grace_period, self._status_file()
        )
        queues = self._make_queues(
            self._store, surroundings, self._policies, settings.min_free_bytes, status, self._control,
            max_queues=settings.max_queues, max_children=settings.max_children,
        )  # fmt: skip
        queues.commit.worker = self._worker
        access = None
        if passwords is not None:
            access = Access(passwords, settings.users, self._in_thread, self._clock)
        try:
            yield from queues.load()
            self.queues = queues
            if self._policies is not queues.policies:
                queues.apply(self._policies)
            for door, listener in doors:
                factory = self._factory(queues, listener, access)
                door.open(factory)
                self._factories.append(factory)
        except BaseException:
            self._factories = []
            self._root = None
            queues.reclaimer.stop()
            self._shut()
            raise

    def _factory(self, queues: Queues, listener: Listener, access: Optional[Access]) -> Any:
        """@return: what serves the clients of a listener."""
        settings = self._settings
        limits = Limits(settings.max_connections, settings.idle_timeout, settings.stall_timeout, settings.keep_alive)
        if listener.protocol == HTTP:
            from darner.web.site import WebFactory, make_root  # only who serves HTTP needs the packages for that

            if self._root is None:
                places = lambda: zip(self.listeners, self._factories, self.ports, strict=False)  # noqa: E731
                self._root = make_root(queues, settings, access, places, self._wall)
            return WebFactory(self._root, listener.client_certificates)
        if listener.protocol == TEXT:
            return TextFactory(queues, debug=settings.debug, limits=limits, access=access)
        spelling = DIALECTS[listener.dialect or settings.dialect]
        return QueueFactory(queues, spelling, settings.debug, limits, access)

    def _start_surroundings(self) -> Surroundings:
        """Start the clock and the threads; L{_stop_surroundings} ends them."""
        self._clock: Any = MonotonicClock(self._reactor.callFromThread)
        self._pool = ThreadPool(0, 2, f"darner {self.data_dir}")
        self._pool.start()
        try:
            self._worker = start_worker(self._reactor, f"darner sync {self.data_dir}")
        except OSError:
            self._stop_surroundings()
            raise
        return Surroundings(self._clock, self._reactor.callFromThread, self._in_thread)

    def _stop_surroundings(self) -> None:
        if self._worker is not None:
            self._end(self._worker.stop)
            self._worker = None
        self._end(self._clock.stop)
        self._end(self._pool.stop)

    def _end(self, end: Callable[[], object]) -> None:
        """End a part of the service.  An error is logged, so that the other parts are ended too."""
        try:
            end()
        except Exception:
            self._log.failure("internal error while stopping a part of the service")

    def _close_store(self) -> None:
        self._end(self._store.close)

    def _status_file(self) -> Optional[StatusFile]:
        return StatusFile(self.data_dir / STATUS)

    def _read_passwords(self) -> Optional[Passwords]:
        path = self._settings.password_file
        return None if path is None else Passwords(Path(path))

    def _in_thread(self, work: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._pool, work, *arguments)

    def stopService(self) -> Deferred[None]:
        """
        Stop listening, send pending replies, give back open reads, end the threads, close the store.

        @return: fires when all of that is done; waiting calls fail with L{Stopped}.
        """
        super().stopService()
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        queues, self.queues = self.queues, None
        if queues is None:
            return
        ports, self.ports = self.ports, []
        await DeferredList([execute(port.stopListening) for port in ports], consumeErrors=True)
        while self._waiting:
            # One at a time, as a callback may cancel others.
            next(iter(self._waiting)).stop()
        root, self._root = self._root, None
        if root is not None:
            root.close()
        await DeferredList([self._drain(factory) for factory in self._factories])
        self._factories = []
        try:
            await queues.stop()
        except Exception:
            # What is acknowledged is in the store, and the process has to end.
            self._log.failure("internal error while stopping the queues; what was acknowledged is stored")
        self._shut()

    def _drain(self, factory: Any) -> Deferred[None]:
        gone: Deferred[None] = factory.finish()
        late = self._clock.callLater(DRAIN, factory.abort)

        def punctual(_: object) -> None:
            if late.active():
                late.cancel()

        return gone.addCallback(punctual)

    def _shut(self) -> None:
        self.queues = None
        self.ports = []
        self._stop_surroundings()
        self._close_store()

    # IQueueService

    def _call(self, kind: Callable[[Queues], _C], start: Callable[[_C], object]) -> Deferred[Any]:
        """Create a call and start it; its Deferred fails with what it raises."""
        if self.queues is None:
            return fail(Stopped())
        try:
            call = kind(self.queues)
            start(call)
        except (DarnerError, TextGiven):
            return fail()
        return call.deferred

    def put(
        self, queue: bytes, payload: bytes, flags: int = 0, expiry: int = 0, sync: bool = False, *,
        delay: Optional[float] = None, id: bytes = b"",
    ) -> Deferred[None]:  # fmt: skip
        def start(call: Putting) -> None:
            check_queue_name(as_bytes(queue, "queue"))
            as_bytes(payload, "payload")
            if id:
                check_id(id)
            # Checked now: in the batch, a value that cannot be written would make the puts of all others fail.
            if not isinstance(flags, int) or not 0 <= flags <= MAX_FLAGS:
                raise ClientError("bad flags")
            if not isinstance(expiry, int):
                raise ClientError("bad expiry")
            check_expiry(expiry)
            if delay is not None and not 0 <= delay <= MAX_DELAY / 1000:
                raise ClientError("bad delay")
            if len(payload) > self._running().puts.item_limit(queue):
                raise ItemTooLarge()
            self._running().status.check_writes()
            options = None
            if delay is not None or id:
                options = PutOptions(None if delay is None else int(delay * 1000), id)
            call.start(queue, payload, flags, expiry, sync, options)

        return self._call(Putting, start)

    def _read(self, kind: type[Reading], queue: bytes, timeout: Optional[float]) -> Deferred[Any]:
        def start(call: Reading) -> None:
            check_queue_name(queue)
            self._running().status.check_reads()
            if call.start(timeout):
                self._waiting.add(call)

        return self._call(lambda queues: kind(queues, as_bytes(queue, "queue"), self._waiting.discard), start)

    def get(self, queue: bytes, timeout: Optional[float] = 0) -> Deferred[Optional[IMessage]]:
        return self._read(Reading, queue, timeout)

    def open(self, queue: bytes, timeout: Optional[float] = 0) -> Deferred[Optional[IOpenRead]]:
        return self._read(Opening, queue, timeout)

    def peek(self, queue: bytes, timeout: Optional[float] = 0) -> Deferred[Optional[IMessage]]:
        return self._read(Peeking, queue, timeout)

    async def items(self, queue: bytes) -> AsyncIterator[IOpenRead]:
        while True:
            read = await self.open(queue, timeout=None)
            assert read is not None
            try:
                yield read
            except BaseException:
                # Not awaited: the generator may be closed by the garbage collector.
                read.abort().addErrback(lambda _: None)
                raise
            await read.close()

    def flush(self, queue: bytes) -> Deferred[None]:
        return self._consume(queue, Queues.flush)

    def delete(self, queue: bytes) -> Deferred[None]:
        return self._consume(queue, Queues.delete)

    def requeue(self, origin: bytes, target: bytes, count: Optional[int] = None) -> Deferred[int]:
        def start(call: Requeueing) -> None:
            as_bytes(origin, "origin"), as_bytes(target, "target")
            if check_queue_name(origin) == check_queue_name(target):
                raise ClientError("requeue needs two queues")
            self._running().status.check_reads()
            self._running().status.check_writes()
            self._running().check_queue(target)
            self._waiting.add(call)
            try:
                call.start(origin, target, count)
            except BaseException:
                self._waiting.discard(call)
                raise

        return self._call(lambda queues: Requeueing(queues, self._waiting.discard), start)

    def _consume(self, queue: bytes, consume: Callable[[Queues, Answers, bytes, bytes], None]) -> Deferred[None]:
        def start(call: Consuming) -> None:
            queues = self._running()
            check_queue_name(as_bytes(queue, "queue"))
            queues.status.check_writes()
            call.start(lambda answers, done: consume(queues, answers, done, queue))

        return self._call(Consuming, start)

    def _running(self) -> Queues:
        if self.queues is None:
            raise Stopped()
        return self.queues

    def health(self) -> Health:
        return self._running().health()

    def count(self, queue: bytes) -> int:
        fifo = self._running().find(queue)
        return 0 if fifo is None else fifo.count

    def names(self) -> list[bytes]:
        return self._running().names()
