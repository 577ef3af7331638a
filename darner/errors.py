"""
What can go wrong, as types.

A front end turns an error into its reply in one place, by these types alone: a L{ClientError} is the peer's doing, a
L{ServerError} is ours.  `darner.front.memcache.error_reply` spells them for the memcache text protocol.
"""

from __future__ import annotations


class DarnerError(Exception):
    """The root of every error that darner raises on purpose."""


class ClientError(DarnerError):
    """The request cannot be done as it was asked.  Its text says what is wrong, in one line."""


class BadQueueName(ClientError):
    """A queue name is not 1 to 250 printable ASCII bytes without ``/`` and white space."""

    def __init__(self) -> None:
        super().__init__("bad queue name")


class TooManyOpenReads(ClientError):
    """This client has as many open reads on the queue as it may have."""

    def __init__(self) -> None:
        super().__init__("close current item first")


class Unauthenticated(ClientError):
    """The connection has to name a user and a password first."""

    def __init__(self) -> None:
        super().__init__("unauthenticated")


class AuthenticationFailed(ClientError):
    """There is no such user, or the password is another."""

    def __init__(self) -> None:
        super().__init__("authentication failure")


class NotAllowed(ClientError):
    """The user has no right to this."""

    def __init__(self) -> None:
        super().__init__("not allowed")


class ServerError(DarnerError):
    """A well-formed request could not be served.  Nothing was changed by it."""


class Unavailable(ServerError):
    """The server was told not to do this for now (`darner.queues.status`)."""

    def __init__(self, status: str) -> None:
        super().__init__(f"server is {status}")


class ItemTooLarge(ServerError):
    """An item is over the limit of its queue."""

    def __init__(self) -> None:
        super().__init__("object too large")


class QueueFull(DarnerError):
    """A queue is at its limit and refuses the item (`NOT_STORED` on the wire)."""

    def __init__(self) -> None:
        super().__init__("queue is full")


class TooManyLogins(ServerError):
    """So many passwords wait to be checked that this one was not looked at."""

    def __init__(self) -> None:
        super().__init__("too many logins, try again")


class Stopped(ServerError):
    """The service is not running: it was not started yet, or it is stopping or has stopped."""

    def __init__(self) -> None:
        super().__init__("server is stopping")


class StoreError(ServerError):
    """
    The store could not read or write.  The text carries the operating system's reason.

    @ivar uncertain: whether what was to be written may be there all the same, as when it was the fsync that failed.
    """

    uncertain = False

    def forget(self) -> None:
        """
        Forget where it came from.

        Who keeps an error would keep every payload that was on its way there, and often himself.
        """
        self.__traceback__ = self.__cause__ = self.__context__ = None


class TooManyQueues(StoreError):
    """A queue is not created, as there are C{max_queues} already."""

    def __init__(self, most: int) -> None:
        """@param most: C{max_queues}."""
        super().__init__(f"too many queues: max_queues is {most}")


class DiskAlmostFull(StoreError):
    """There is so little room on the disk that nothing is put, so that what is there can be taken away."""

    def __init__(self, free: int, kept: int) -> None:
        """
        @param free: bytes that are free.
        @param kept: bytes that are to be kept free.
        """
        super().__init__(f"disk almost full: {free} bytes are free, {kept} are kept free")


class StoreUnusable(StoreError):
    """
    A data directory cannot be served from: it cannot be made or written, another process has it, or what is in it is
    not ours.  The text is one line that says what is wrong and what to do.
    """


class StoreDamaged(StoreUnusable):
    """Files of a store are missing or not as they were written.  The text names one of them and the reason."""

    def __init__(self, path: object, what: object) -> None:
        """@param what: the file and what is wrong with it."""
        super().__init__(f"the store in {path} is damaged: {what}: start with --repair to save what can be read")


class SettingsError(DarnerError):
    """A setting is wrong.  The text names the file, the key and the reason."""
