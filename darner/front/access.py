"""
Users, their rights by queue name, and log-ins.
"""

from __future__ import annotations

import fnmatch
import functools
import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Optional

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger, LogLevel

from darner.config.passwords import Passwords
from darner.config.settings import Rights
from darner.errors import AuthenticationFailed, SettingsError
from darner.front.login_queue import LoginQueue
from darner.net.log_limits import LimitedLog

MAX_CREDENTIALS: Final = 1024
"""The maximum size of a payload with user and password."""
NAMES: Final = 1024
"""The number of queue names for which each right of a user is cached."""


class _Names:
    """The queue names that match some patterns."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self.all = "*" in patterns
        form = re.compile("|".join(f"(?:{fnmatch.translate(pattern)})" for pattern in patterns) or r"(?!)")
        # Names are ASCII (`darner.front.memcache.check_queue_name`).
        self.include = functools.lru_cache(NAMES)(lambda name: form.match(name.decode("ascii")) is not None)


class Grant:
    """
    The rights of one user.

    @ivar everything: whether that is to administrate all queues, and so the server.
    @ivar sees_all: whether no queue is hidden from the user.
    """

    def __init__(self, rights: Rights) -> None:
        self._read = _Names(rights.read)
        self._write = _Names(rights.write)
        self._admin = _Names(rights.admin)
        self.everything = self._admin.all
        self.sees_all = self._read.all or self._write.all or self._admin.all

    def may_read(self, queue: bytes) -> bool:
        return self._read.include(queue)

    def may_write(self, queue: bytes) -> bool:
        return self._write.include(queue)

    def may_administrate(self, queue: bytes) -> bool:
        return self._admin.include(queue)

    def may_see(self, queue: bytes) -> bool:
        """Whether the user may see the queue's name and statistics."""
        return self.may_read(queue) or self.may_write(queue) or self.may_administrate(queue)


def network_of(address: Optional[IAddress]) -> str:
    """
    @return: the key under which clients of one origin are counted: the host, with IPv6 its /64 network; empty for unix
        sockets.
    """
    if isinstance(address, IPv4Address):
        return str(address.host)
    if not isinstance(address, IPv6Address):
        return ""
    host = ipaddress.IPv6Address(address.host.partition("%")[0])
    if host.ipv4_mapped is not None:
        return str(host.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(host) >> 64 << 64, 64)))


class Access:
    """
    The users of a server.

    A worker thread checks passwords, one after the other (`darner.front.login_queue`), so that clients that guess
    passwords cannot use more than one thread, and the server serves others meanwhile.

    @ivar log: the log for errors of log-ins.
    """

    _log = Logger()

    def __init__(
        self,
        passwords: Passwords,
        rights: Mapping[str, Rights],
        in_thread: Callable[..., Deferred[Any]],
        clock: IReactorTime,
    ) -> None:
        """
        @param rights: rights by user; users without an entry may read and write all queues.
        @param in_thread: calls a function with arguments in a worker thread; fires with the result.
        """
        self._passwords = passwords
        self._rights = {user.encode(): given for user, given in rights.items()}
        self._grants: dict[bytes, Grant] = {}
        self.log = LimitedLog(self._log, clock)
        self._queue = LoginQueue(lambda user, password: in_thread(passwords.check, user, password), clock)
        for user in sorted(set(self._rights) - passwords.users):
            self._log.warn("user {user} has rights, but is not in the password file", user=user.decode())
        if passwords.exposed:
            self._log.warn("others than its owner can read the password file: use chmod 600")

    def log_in(self, credentials: bytes, address: Optional[IAddress] = None) -> Deferred[Grant]:
        """
        @param credentials: user, a space, password.
        @param address: the client's address.
        @return: fires with the rights of the user; fails with L{AuthenticationFailed} or
            L{darner.errors.TooManyLogins}.  The caller must cancel it when the client disconnects.
        """
        self._refresh()
        user, _, password = credentials.partition(b" ")
        if self._passwords.is_known(user, password):
            return succeed(self.grant(user))
        checking = self._queue.add(user, password, network_of(address), self._passwords.has(user))
        return checking.addCallback(self._checked, user)

    def _checked(self, right: bool, user: bytes) -> Grant:
        if not right:
            raise AuthenticationFailed()
        return self.grant(user)

    def _refresh(self) -> None:
        try:
            self._passwords.refresh()
        except SettingsError as error:
            self.log.emit(LogLevel.error, "{error}; the passwords read before stay in force", error=str(error))

    def stamp(self, user: bytes) -> object:
        """@return: as L{Passwords.stamp<darner.config.passwords.Passwords.stamp>}, of the file as it is now."""
        self._refresh()
        return self._passwords.stamp(user)

    def grant(self, user: bytes) -> Grant:
        """@return: what a user may do who has logged in."""
        grant = self._grants.get(user)
        if grant is None:
            grant = self._grants[user] = Grant(self._rights.get(user, Rights()))
        return grant
