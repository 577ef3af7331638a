"""
Any request line: it is parsed or refused, and the request has the properties that the protocol promises.

The expectations are written independently of `darner.front.memcache_requests`.
"""

from __future__ import annotations

import dataclasses
from typing import Final, Optional, Union

from darner.front import memcache_requests
from darner.values import requests
from darner.values.vocabulary import MAX_DELAY, MAX_WAIT, check_queue_name

_LETTERS: Final = frozenset(range(33, 127)) - {ord("/")}
_ERRORS: Final = (b"ERROR\r\n", b"CLIENT_ERROR ")

_cache = memcache_requests.LineCache()


def check(data: bytes) -> None:
    """
    @param data: request lines.
    @raise AssertionError: one of them is parsed wrongly.
    """
    for line in data.split(b"\n"):
        check_line(line[: memcache_requests.MAX_LINE])


def check_line(line: bytes) -> None:
    request = memcache_requests.parse(line)
    _check_cached(line, request)
    for tolerated in (b" " + line, line + b" ", line + b"\r", line.replace(b" ", b"  ")):
        assert memcache_requests.parse(tolerated) == request, tolerated
    if isinstance(request, requests.Refused):
        _check_refusal(line, request)
        return
    for name in _names(request):
        assert is_name(name), name
    if isinstance(request, requests.Set):
        _check_set(request)
    elif isinstance(request, requests.Get):
        _check_get(line, request)
    elif isinstance(request, requests.GetMany):
        assert len(request.queues) > 1
    elif isinstance(request, requests.GetFirst):
        _check_get_first(line, request)
    elif isinstance(request, requests.Monitor):
        assert 0 <= request.seconds * 1000 <= MAX_WAIT, request
        assert request.maximum is None or request.maximum >= 0, request
    elif isinstance(request, requests.Confirm):
        assert request.count >= 0, request
    respelled = memcache_requests.parse(spell(request))
    if isinstance(request, requests.Get):
        assert isinstance(respelled, requests.Get)
        respelled = dataclasses.replace(respelled, key=request.key)
    elif isinstance(request, requests.GetFirst):
        assert isinstance(respelled, requests.GetFirst)
        pairs = zip(respelled.choices, request.choices, strict=True)
        respelled = requests.GetFirst(tuple(dataclasses.replace(choice, key=other.key) for choice, other in pairs))
    assert respelled == request, (request, respelled)


def is_name(name: bytes) -> bool:
    """Whether this is a valid queue name."""
    return 1 <= len(name) <= 250 and _LETTERS.issuperset(name)


def _check_cached(line: bytes, request: requests.Request) -> None:
    fresh = memcache_requests.LineCache()
    for cache in (_cache, fresh, fresh):
        parsed = cache.parse(line)
        assert (parsed.text, parsed.request) == (line, request), line
    assert len(fresh) == (len(line) <= memcache_requests.LineCache.MAX_LENGTH)
    assert len(_cache) <= memcache_requests.LineCache.MAX_LINES


_WITH_PAYLOAD: Final = {
    **dict.fromkeys((b"set", b"add", b"replace", b"append", b"prepend", b"cas"), 4), b"ms": 2,
}  # fmt: skip
"""The commands with a payload, and the index of the word with its size."""


def _check_refusal(line: bytes, request: requests.Refused) -> None:
    command = line.split()[0].lower() if line.split() else b""
    if request.warning:
        assert request.close, request
        return
    if request.reply:
        assert request.reply.startswith(_ERRORS), request
        # One line, with words of ours only.
        assert request.reply.endswith(b"\r\n"), request
        assert request.reply[:-2].isascii(), request
        assert request.reply[:-2].decode().isprintable(), request
    else:
        raise AssertionError(request)
    if request.noreply:
        assert line.lower().split()[-1] == b"noreply", request
    if request.close or request.payload is not None:
        assert command in _WITH_PAYLOAD, line
        assert request.close != (request.payload is not None), request
    elif command in _WITH_PAYLOAD:
        raise AssertionError(f"out of step after {line!r}")
    if request.payload is not None:
        size = line.split()[_WITH_PAYLOAD[command]]
        assert size.isdigit(), line
        assert request.payload == int(size), line


def _names(request: requests.Request) -> tuple[bytes, ...]:
    if isinstance(request, (requests.GetMany, requests.DumpStats, requests.DumpConfig)):
        return request.queues
    if isinstance(request, requests.GetFirst):
        return tuple(choice.queue for choice in request.choices)
    if isinstance(
        request,
        (requests.Set, requests.Get, requests.Delete, requests.Flush, requests.FlushExpired, requests.Touch),
    ):
        return (request.queue,)
    if isinstance(request, (requests.Monitor, requests.Confirm)):
        return (request.queue,)
    if isinstance(request, requests.Requeue):
        return request.origin, request.target
    return ()


def _check_set(request: requests.Set) -> None:
    assert 0 <= request.flags < 2**32, request
    assert 0 <= request.size < 10**18, request
    assert -(10**18) < request.expiry < 10**18, request
    if request.options is not None:
        id, delay = request.options.id, request.options.delay
        assert id or delay is not None, request
        assert not id or check_queue_name(id) == id, request
        assert delay is None or 0 <= delay <= MAX_DELAY, request


def _check_get(line: bytes, request: requests.Get) -> None:
    assert line.split()[1:] == [request.key], request
    assert request.key.split(b"/")[0] == request.queue, request
    assert 0 <= request.wait <= MAX_WAIT, request
    alone = sum((request.open or request.close, request.abort, request.peek))
    assert alone <= 1, request
    assert not (request.abort and request.wait), request
    assert request.fetches == (request.open or request.peek or not (request.close or request.abort)), request


def _check_get_first(line: bytes, request: requests.GetFirst) -> None:
    first = request.choices[0]
    assert len(set(_names(request))) == len(request.choices) < len(line.split()), request
    assert not first.abort, request
    last = line.split()[-1]
    for choice in request.choices:
        key = last if choice.queue == last.split(b"/")[0] else choice.queue
        assert choice == dataclasses.replace(first, queue=choice.queue, key=key), request
        _check_get(b"get " + key, choice)


def _get(request: Union[requests.Get, requests.GetMany]) -> bytes:
    return b"gets " if request.numbered else b"get "


def spell(request: requests.Request) -> bytes:
    """@return: the simplest line with the same meaning; C{request} is not a refusal."""
    spelling = _spell(request)
    assert spelling is not None, request
    return spelling


def _spell(request: requests.Request) -> Optional[bytes]:
    noreply = b" noreply" if getattr(request, "noreply", False) else b""
    if isinstance(request, requests.Set):
        asked = b"/sync" if request.sync else b""
        if request.options is not None and request.options.delay is not None:
            asked += b"/delay=%d" % request.options.delay
        if request.options is not None and request.options.id:
            asked += b"/id=" + request.options.id
        return b"set %b%b %d %d %d%b" % (
            request.queue, asked, request.flags, request.expiry, request.size, noreply,
        )  # fmt: skip
    if isinstance(request, requests.Get):
        options = [option for option in ("open", "close", "abort", "peek") if getattr(request, option)]
        wait = b"/t=%d" % request.wait if request.wait else b""
        return _get(request) + b"/".join([request.queue, *(option.encode() for option in options)]) + wait
    if isinstance(request, requests.GetMany):
        return _get(request) + b" ".join(request.queues)
    if isinstance(request, requests.GetFirst):
        # The last one twice, as there may be only one; and always with a wait, so that the reply has one item.
        last = request.choices[-1]
        wait = b"" if last.wait else b"/t=0"
        return b"%b%b %b%b" % (_get(last), b" ".join(_names(request)), spell(last).split()[1], wait)
    if isinstance(request, requests.Monitor):
        maximum = b"" if request.maximum is None else b" %d" % request.maximum
        return b"monitor %b %d%b" % (request.queue, request.seconds, maximum)
    if isinstance(request, requests.Confirm):
        return b"confirm %b %d" % (request.queue, request.count)
    if isinstance(request, requests.Delete):
        return b"delete %b%b" % (request.queue, noreply)
    if isinstance(request, requests.Flush):
        return b"flush " + request.queue
    if isinstance(request, requests.FlushExpired):
        return b"flush_expired " + request.queue
    if isinstance(request, requests.FlushAll):
        return b"flush_all%b%b" % (b" 0" if request.delayed else b"", noreply)
    if isinstance(request, requests.Touch):
        return b"touch %b%b" % (request.queue, noreply)
    if isinstance(request, requests.Requeue):
        count = b"" if request.count is None else b" %d" % request.count
        return b"requeue %b %b%b" % (request.origin, request.target, count)
    if isinstance(request, requests.DumpStats):
        return b" ".join([b"dump_stats", *request.queues])
    if isinstance(request, requests.DumpConfig):
        return b" ".join([b"dump_config", *request.queues])
    if isinstance(request, requests.SetStatus):
        return b"status " + request.status.encode()
    return _ALONE.get(type(request))


_ALONE: Final = {
    requests.Stats: b"stats", requests.Status: b"status", requests.Reload: b"reload", requests.Shutdown: b"shutdown",
    requests.Version: b"version", requests.Quit: b"quit",
    requests.FlushAllExpired: b"flush_all_expired",
}  # fmt: skip
