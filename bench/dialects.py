"""
The spelling of the same load for other servers.
"""

from __future__ import annotations

import re
from typing import Final, Union

from darner.cli.workload import GET, INCOMPLETE, SET, Dialect, Reply, Workload

_NEVER: Final = b"(not said)"
_INTEGER: Final = re.compile(rb":\d+\r\n")
_INSERTED: Final = re.compile(rb"INSERTED \d+\r\n")
_RESERVED: Final = re.compile(rb"RESERVED (\d+) (\d+)\r\n")


class RedisLists(Dialect):
    """A list for a queue: C{RPUSH} and C{LPOP}."""

    miss = b"$-1\r\n"

    def __init__(self, load: Workload) -> None:
        super().__init__(load)
        self.requests = (
            _command(b"RPUSH", load.queue.encode(), self.payload),
            _command(b"LPOP", load.queue.encode()),
        )
        self.replies = (_NEVER, b"$%d\r\n%b\r\n" % (len(self.payload), self.payload))

    def read(self, data: Union[bytes, bytearray], at: int, kind: int) -> Reply:
        if kind == SET and (match := _INTEGER.match(data, at)):
            return Reply(match.end() - at)
        return super().read(data, at, kind)


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


class Beanstalk(Dialect):
    """C{put}, and C{reserve-with-timeout 0} followed by C{delete}: a get takes two round trips here."""

    miss = b"TIMED_OUT\r\n"

    def __init__(self, load: Workload) -> None:
        super().__init__(load)
        tube = load.queue.encode()
        self.requests = (
            b"put 0 0 3600 %d\r\n%b\r\n" % (len(self.payload), self.payload),
            b"reserve-with-timeout 0\r\n",
            b"",
        )
        self.replies = (_NEVER, _NEVER, b"DELETED\r\n")
        self.greeting = (
            b"use %b\r\nwatch %b\r\nignore default\r\n" % (tube, tube),
            b"USING %b\r\nWATCHING 2\r\nWATCHING 1\r\n" % tube,
        )

    def read(self, data: Union[bytes, bytearray], at: int, kind: int) -> Reply:
        if kind == SET and (match := _INSERTED.match(data, at)):
            return Reply(match.end() - at)
        if kind == GET and (match := _RESERVED.match(data, at)):
            start = match.end()
            end = start + int(match[2]) + 2
            if len(data) < end:
                return INCOMPLETE
            right = end - start - 2 == len(self.payload) and data.startswith(self.payload, start)
            return Reply(end - at, error="" if right else "another item", follow_up=b"delete %b\r\n" % match[1])
        return super().read(data, at, kind)
