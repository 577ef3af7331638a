"""
The queues of a node of a cluster as a Twisted service: served while the node leads.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Optional

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import CooperativeTask, Cooperator, TaskFinished, TaskStopped
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from darner.cli.garbage import permanent_objects
from darner.cluster.exits import EXIT_FENCED
from darner.cluster.interfaces import ILog
from darner.cluster.node import Node
from darner.cluster.notes import LEADER
from darner.cluster.opening import open_log
from darner.cluster.replicated_store import ReplicatedStore
from darner.cluster.snapshots.addresses import join_address, own_address
from darner.cluster.snapshots.giving import Giver
from darner.cluster.snapshots.installing import install
from darner.cluster.snapshots.joining import Joiner
from darner.cluster.status_site import make_site
from darner.config.clusters import parse_cluster
from darner.config.settings import Settings
from darner.errors import SettingsError
from darner.front.access import Access
from darner.front.shard_check import ShardCheck
from darner.front.shard_rights import Here
from darner.net.clock import MonotonicClock
from darner.net.listeners import HTTP, Listener
from darner.queues.collection import Queues
from darner.queues.control import Control
from darner.queues.sharded import ShardedQueues
from darner.service import QueueService
from darner.store.interfaces import IStore

LEAVE: Final = 10.0
"""Seconds that a clean stop of the leader may take; the log may be out of reach."""

SLICE: Final = 0.02
"""Seconds for which queues are loaded at a time."""

REST: Final = 0.005
"""
Seconds between two slices of loading queues.  The threads that speak with etcd get the interpreter then:
one that is always busy would hold up each of their requests by a second where processors are short.
"""


def _is_over(end: float) -> bool:
    return time.monotonic() >= end


class ClusterService(QueueService):
    """
    The queues of a node.

    @ivar node: while the service runs.
    """

    _log = Logger()

    def __init__(
        self, data_dir: Path, places: Sequence[Listener], settings: Settings, reactor: Any,
        open_store: Callable[[Path], IStore], control: Control, log: Optional[ILog] = None,
    ) -> None:  # fmt: skip
        """
        As for L{QueueService}.

        @param open_store: not used, as the store of a node is a L{ReplicatedStore}.
        @param log: what the nodes share; by default what the settings say.
        @raise SystemExit: a file for etcd cannot be read, or packages are missing.
        """
        super().__init__(data_dir, places, settings, reactor, lambda _: self.node.store, control)
        if log is None:
            assert settings.cluster is not None
            try:
                log = open_log(
                    reactor, settings.cluster, settings.cluster_user, settings.cluster_password_file,
                    settings.cluster_ca_file, settings.cluster_certificate, settings.cluster_key,
                )  # fmt: skip
            except SettingsError as error:
                sys.exit(f"darner: {error}")
        self._shared_log = log
        self._here: Optional[Here] = None
        if settings.shard is not None:
            self._here = Here(settings.shard)
            self._make_queues = self._sharded_queues
        self._status_port: Any = None
        self._giver_port: Any = None
        self._load_task: Optional[CooperativeTask[Generator[None, None, None]]] = None

    def startService(self) -> None:
        """
        Open the store and follow; what listens for clients does so from when the node leads.

        @raise darner.errors.StoreError: the data directory cannot be used.
        """
        settings = self._settings
        if install(self.data_dir):
            self._log.info("cluster: installed the snapshot that was taken before")
        store = ReplicatedStore(self.data_dir)
        self._node_clock: Any = MonotonicClock(self._reactor.callFromThread)
        self._node_pool = ThreadPool(0, 1, f"darner node {self.data_dir}")
        self._node_pool.start()
        self._snapshot_pool = ThreadPool(0, 2, f"darner snapshots {self.data_dir}")
        self._snapshot_pool.start()
        name = settings.cluster_node or socket.gethostname()
        self.node = Node(
            self._shared_log, store, name, self._node_clock, time.time,
            lambda work, *arguments: deferToThreadPool(self._reactor, self._node_pool, work, *arguments),
            self._begin_to_serve, self._ask_to_stop, self._end_process, settings.cluster_size,
            f"{settings.interface}:{settings.tcp_port}",
            joiner=Joiner(self._shared_log, self.data_dir, self._node_clock, self._in_snapshot_thread),
            shard=settings.shard, preferred=settings.cluster_prefer,
        )  # fmt: skip
        if settings.cluster_port is not None:
            self._give(settings.cluster_port)
        if settings.cluster_http_port is not None:
            self._status_port = self._reactor.listenTCP(
                settings.cluster_http_port, make_site(self.node), interface=settings.http_interface
            )
            self._log.info("health and metrics of the node: {address}", address=self._status_port.getHost())
        Service.startService(self)
        self._log.info(
            "cluster: node {name} follows from record {number} on", name=name, number=store.position
        )
        self.node.start()

    def _in_snapshot_thread(self, work: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return deferToThreadPool(self._reactor, self._snapshot_pool, work, *arguments)

    def _give(self, port: int) -> None:
        """Give snapshots to nodes that ask at a port."""
        giver = Giver(self.node.given, self._node_clock, self._in_snapshot_thread)
        self._giver_port = self._reactor.listenTCP(port, giver, interface=self._settings.interface)
        host = self._settings.interface
        if host in ("", "0.0.0.0", "::"):
            url = self._settings.cluster
            host = own_address(parse_cluster(url).endpoints if url else ())
        self.node.giver = giver
        self.node.gives_at = join_address(host, self._giver_port.getHost().port)

    def _sharded_queues(self, *arguments: Any, **more: Any) -> Queues:
        queues = ShardedQueues(*arguments, **more)
        queues.shard = self._settings.shard
        return queues

    def _factory(self, queues: Queues, listener: Listener, access: Optional[Access]) -> Any:
        factory = super()._factory(queues, listener, access)
        if self._here is not None and listener.protocol != HTTP:
            factory.make_log_in = partial(ShardCheck, self._here)
        return factory

    def _begin_to_serve(self) -> Deferred[None]:
        """
        Load the queues, beside what the node does, and serve.

        @return: fires when it serves; fails with a C{CancelledError} where it is to stop before that.
        """
        # Not by the reactor's time, which is that of the wall clock.
        cooperator = Cooperator(
            lambda: partial(_is_over, time.monotonic() + SLICE),
            lambda work: self._node_clock.callLater(REST, work),
        )  # fmt: skip
        self._loading = self._load()
        self._load_task = cooperator.cooperate(self._loading)
        return self._load_task.whenDone().addCallbacks(self._serves, self._cannot_serve)

    def _load(self) -> Generator[None, None, None]:
        with permanent_objects():
            yield from self._start()

    def _cannot_serve(self, failure: Failure) -> None:
        if failure.check(TaskStopped):
            raise CancelledError
        failure.raiseException()

    def _close_store(self) -> None:
        """Not yet: the node uses it until it has stopped."""

    def _stop_loading(self) -> None:
        if self._load_task is not None:
            with suppress(TaskFinished):
                self._load_task.stop()
            self._loading.close()

    def _serves(self, _: object) -> None:
        for listener, port in zip(self.listeners, self.ports, strict=True):
            self._log.info("listening on {address}{listener}", address=port.getHost(), listener=listener)

    def _ask_to_stop(self) -> None:
        with suppress(ReactorNotRunning):
            self._reactor.stop()

    def _end_process(self, status: int, reason: str) -> None:
        """At once: what clients were not told by now they must not be told."""
        self._log.critical("cluster: the node ends (status {status}): {reason}", status=status, reason=reason)
        print(f"darner: {reason}", file=sys.__stderr__, flush=True)
        os._exit(status)

    def stopService(self) -> Deferred[None]:
        """Stop.  Where the node leads, another one does at once."""
        return ensureDeferred(self._leave())

    async def _leave(self) -> None:
        late = self._node_clock.callLater(
            LEAVE, self._end_process, EXIT_FENCED, "cannot stop in order: the log is out of reach"
        )
        if self.node.joiner is not None:
            await self.node.joiner.stop()
        if self._giver_port is not None and self.node.giver is not None:
            await self._giver_port.stopListening()
            await self.node.giver.drop()
        # No thread is in the store any more: where the node leads, the queues close it.
        await self.node.rest()
        self._stop_loading()
        if self.node.role == LEADER:
            await super().stopService()
        else:
            Service.stopService(self)
        await self.node.stop()
        if self._status_port is not None:
            await self._status_port.stopListening()
        late.cancel()
        self._node_clock.stop()
        self._node_pool.stop()
        self._snapshot_pool.stop()
        self.node.store.close()
