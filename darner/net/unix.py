"""
Listening on unix sockets, even if a killed server has left one behind.

Twisted's own endpoint has a lock file with a process id: the socket counts as in use while a process has that id.  In a
container the next server has the same id.  Here a socket is in use if, and only if, a process accepts connections.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, execute
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

PATIENCE: Final = 1.0
"""Seconds to wait for a connection to a socket that is already there; after that it counts as in use."""


@implementer(IStreamServerEndpoint)
class UnixEndpoint:
    """An endpoint that listens on a unix socket."""

    def __init__(self, reactor: Any, path: str, backlog: int = 50, mode: int = 0o666) -> None:
        """
        @param path: the path of the socket; in the abstract namespace if it starts with a NUL.
        @param mode: the socket's permissions.
        """
        self._reactor = reactor
        self._path = path
        self._backlog = backlog
        self._mode = mode

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """@return: fails with C{CannotListenError} if the path cannot be used, or another process listens there."""
        return execute(self._listen, protocolFactory)

    def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        if self._path.startswith("\0"):
            return self._bind(factory)
        path = Path(self._path)
        if not path.parent.is_dir():
            raise self._cannot(f"the directory {path.parent} does not exist")
        with self._alone(path.parent):
            self._clear(path)
            return self._bind(factory)

    def _bind(self, factory: IProtocolFactory) -> IListeningPort:
        port: IListeningPort = self._reactor.listenUNIX(
            self._path, factory, backlog=self._backlog, mode=self._mode, wantPID=False
        )
        return port

    @contextmanager
    def _alone(self, directory: Path) -> Iterator[None]:
        """Lock the directory, so that another server that starts now does not remove this one's socket as stale."""
        try:
            lock = os.open(directory, os.O_RDONLY)
        except OSError:
            yield  # the directory may be writable but not readable
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _clear(self, path: Path) -> None:
        """Remove a socket on which no process listens any more."""
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise self._cannot("a file with this name exists, and is not a socket")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            try:
                client.connect(self._path)
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
                return
            except OSError:
                pass
        raise self._cannot("another process listens there")

    def _cannot(self, reason: str) -> CannotListenError:
        return CannotListenError("unix", self._path, OSError(reason))
