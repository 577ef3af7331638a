"""
The errors that darner raises.

A front end chooses its reply by these types alone: the client caused a L{ClientError}, the server a L{ServerError}.
`darner.front.memcache.error_reply` spells them for the memcache text protocol.
"""

from __future__ import annotations


class DarnerError(Exception):
    """Base class of all errors that darner raises."""


class ClientError(DarnerError):
    """The request is wrong.  The text says why, in one line."""


class BadQueueName(ClientError):
    """A queue name is not 1 to 250 printable ASCII bytes without ``/`` and white space."""

    def __init__(self) -> None:
        super().__init__("bad queue name")


class TooManyOpenReads(ClientError):
    """The client has reached its limit of open reads on the queue."""

    def __init__(self) -> None:
        super().__init__("close current item first")


class Unauthenticated(ClientError):
    """The client must log in first."""

    def __init__(self) -> None:
        super().__init__("unauthenticated")


class AuthenticationFailed(ClientError):
    """The user does not exist, or the password is wrong."""

    def __init__(self) -> None:
        super().__init__("authentication failure")


class NotAllowed(ClientError):
    """The user does not have the right to do this."""

    def __init__(self) -> None:
        super().__init__("not allowed")


class WrongShard(ClientError):
    """The queue is in another shard of the cluster, which other nodes serve."""

    def __init__(self, queue: bytes, right: int, here: int, count: int) -> None:
        """@param right: the queue's shard.  @param here: this one.  @param count: how many there are."""
        super().__init__(
            f"queue {queue.decode('ascii', 'replace')} is in shard {right} of {count}, this is shard {here}"
        )


class ServerError(DarnerError):
    """The server could not serve a well-formed request.  The request changed nothing."""


class Unavailable(ServerError):
    """The server's status forbids this (`darner.queues.status`)."""

    def __init__(self, status: str) -> None:
        super().__init__(f"server is {status}")


class ItemTooLarge(ServerError):
    """The item is larger than its queue allows."""

    def __init__(self) -> None:
        super().__init__("object too large")


class QueueFull(DarnerError):
    """The queue is at its limit and refuses the item (`NOT_STORED` on the wire)."""

    def __init__(self) -> None:
        super().__init__("queue is full")


class TooManyLogins(ServerError):
    """Too many passwords wait to be checked; the server did not check this one."""

    def __init__(self) -> None:
        super().__init__("too many logins, try again")


class Stopped(ServerError):
    """The service is not running: it has not started yet, is stopping, or has stopped."""

    def __init__(self) -> None:
        super().__init__("server is stopping")


class StoreError(ServerError):
    """
    The store could not read or write.  The text carries the operating system's reason.

    @ivar uncertain: whether the write may have happened all the same, for example because only the fsync failed.
    """

    uncertain = False

    def forget(self) -> None:
        """Drop traceback and causes: a kept error would keep alive every payload on the stack where it was raised."""
        self.__traceback__ = self.__cause__ = self.__context__ = None


class TooManyChildren(StoreError):
    """A child is not created, as its parent has C{max_children} already."""

    def __init__(self, parent: bytes, most: int) -> None:
        """
        @param parent: the parent's name.
        @param most: C{max_children}.
        """
        super().__init__(f"queue {parent.decode('ascii', 'replace')} has too many children: max_children is {most}")


class TooManyQueues(StoreError):
    """A queue is not created, as there are C{max_queues} already."""

    def __init__(self, most: int) -> None:
        """@param most: C{max_queues}."""
        super().__init__(f"too many queues: max_queues is {most}")


class DiskAlmostFull(StoreError):
    """The disk is nearly full.  The server refuses puts, so that clients can still consume."""

    def __init__(self, free: int, kept: int) -> None:
        """
        @param free: free bytes on the disk.
        @param kept: bytes that the server keeps free (C{min_free_bytes}, or its default).
        """
        super().__init__(f"disk almost full: {free} bytes are free, {kept} are kept free")


class StoreUnusable(StoreError):
    """
    The server cannot use a data directory: it cannot create or write it, another process uses it, or its contents are
    not darner's.  The text says in one line what is wrong and what to do.
    """


class StoreDamaged(StoreUnusable):
    """Files of a store are missing or damaged.  The text names one of them and the reason."""

    def __init__(self, path: object, what: object) -> None:
        """@param what: the file, and what is wrong with it."""
        super().__init__(f"the store in {path} is damaged: {what}: start with --repair to save what can be read")


class SettingsError(DarnerError):
    """A setting is invalid.  The text names the file, the key and the reason."""


class LogError(DarnerError):
    """The log of a cluster reports this (`darner.cluster.interfaces`).  The text says why, in one line."""


class LogConflict(LogError):
    """Somebody else has appended this number, or the record before it is not there: the caller leads no more."""


class LogUnavailable(LogError):
    """The log cannot be reached for now.  Nothing was done."""


class LogInDoubt(LogError):
    """Whether the record was appended is unknown, and could not be found out in time."""


class LogTrimmed(LogError):
    """The records that were asked for are gone."""


class LogDamaged(LogError):
    """A record, or what says where its parts are, cannot be read."""
