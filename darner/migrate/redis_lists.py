"""
Lists of Redis, read over the network: C{redis://[[USER:]PASSWORD@]HOST[:PORT][/DB]/KEY[?head=right]}.

C{rediss} is Redis over TLS.  In the key, C{*} and C{?} match as in Redis's C{KEYS}, so that several lists are read.

The first element comes first: that is what clients take that put with C{RPUSH} and take with C{LPOP} or C{BLPOP}.
Those that put with C{LPUSH} and take with C{RPOP} or C{BRPOP} need C{?head=right}, which reads from the other end.

Only C{LLEN}, C{LRANGE}, C{SCAN} and C{TYPE} are sent: nothing is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs, unquote_to_bytes, urlsplit

from darner.migrate.sources import Findings, Source, SourceError, SourceItem, SourceQueue, digest

SCHEMES: Final = ("redis", "rediss")
_PORT: Final = 6379
_AT_ONCE: Final = 256 * 1024
"""Bytes that are asked for at a time, once it is known how long elements are."""
_MOST: Final = 1000
"""Elements that are asked for at a time."""
_WITH_PATTERN: Final = frozenset(b"*?[")


class RedisQueue(SourceQueue):
    """A list of Redis."""

    def __init__(self, key: bytes, redis: Any, from_right: bool) -> None:
        super().__init__(key)
        self._redis = redis
        self._from_right = from_right

    def items(self, findings: Findings) -> Iterator[SourceItem]:
        length = _asked(self._redis.llen, self.name)
        at, count = 0, 16
        while at < length:
            found = self._range(at, min(count, length - at))
            if not found:
                findings.lose(f"list {self.name.decode(errors='replace')}", "it became shorter while it was read")
                return
            yield from (SourceItem(len(element), (element,)) for element in found)
            at += len(found)
            longest = max(map(len, found))
            count = max(1, min(_MOST, 2 * count, _AT_ONCE // (longest + 1)))

    def _range(self, at: int, count: int) -> list[bytes]:
        if not self._from_right:
            return list(_asked(self._redis.lrange, self.name, at, at + count - 1))
        return list(reversed(_asked(self._redis.lrange, self.name, -at - count, -at - 1)))

    def ends(self) -> tuple[bytes, ...]:
        """@return: what identifies the contents of the list without reading all of it."""
        return (
            self.name, b"%d" % _asked(self._redis.llen, self.name),
            *_asked(self._redis.lrange, self.name, 0, 0), *_asked(self._redis.lrange, self.name, -1, -1),
        )  # fmt: skip


class RedisLists(Source):
    """Lists of a Redis server."""

    kind: ClassVar[str] = "Redis"

    def __init__(self, url: str) -> None:
        """@raise SourceError: the URL names no list, or redis-py is missing."""
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise SourceError("reading lists of Redis needs redis-py: pip install 'darner[redis]'") from error
        parts = urlsplit(url)
        path = [part for part in parts.path.split("/") if part]
        database = int(path.pop(0)) if len(path) > 1 and path[0].isdecimal() else 0
        head = parse_qs(parts.query).get("head", ["left"])[0]
        try:
            place = f"{parts.hostname or 'localhost'}:{parts.port or _PORT}"
        except ValueError as error:
            raise SourceError(f"bad URL: {error}") from error
        if len(path) != 1 or head not in ("left", "right"):
            raise SourceError("a list of Redis is named as redis://HOST:PORT/DB/LIST, with ?head=right or without")
        super().__init__(f"{parts.scheme}://{place}/{database}/{path[0]}")
        self._key = unquote_to_bytes(path[0])
        self._from_right = head == "right"
        user, password = (unquote_to_bytes(part or "").decode() or None for part in (parts.username, parts.password))
        self._redis = redis.Redis(
            parts.hostname or "localhost", parts.port or _PORT, database, username=user, password=password,
            ssl=parts.scheme == "rediss", socket_connect_timeout=10, socket_timeout=60, protocol=2,
            retry=Retry(NoBackoff(), 1),
        )  # fmt: skip

    def _lists(self) -> list[RedisQueue]:
        keys = [self._key]
        if _WITH_PATTERN.intersection(self._key):
            keys = sorted(set(_asked(lambda: list(self._redis.scan_iter(self._key, 1000, "list")))))
        elif _asked(self._redis.type, self._key) not in (b"list", b"none"):
            raise SourceError(f"{self.place} is not a list")
        return [RedisQueue(key, self._redis, self._from_right) for key in keys]

    def fingerprint(self) -> bytes:
        return digest(b"%d" % self._from_right, *(part for queue in self._lists() for part in queue.ends()))

    def queues(self, findings: Findings) -> list[SourceQueue]:
        lists = self._lists()
        if not any(_asked(queue._redis.llen, queue.name) for queue in lists):
            findings.note(f"{self.place} has no elements", 0)
        return list(lists)

    def close(self) -> None:
        self._redis.close()


def _asked(command: Any, *arguments: Any) -> Any:
    """
    @return: what Redis answers.
    @raise SourceError: instead of what redis-py raises.
    """
    import redis

    try:
        return command(*arguments)
    except redis.RedisError as error:
        raise SourceError(f"Redis: {error}") from error
