"""
The admin HTTP of a server, for what its protocol does not tell: what is in a queue, and who is connected.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Optional
from urllib.parse import quote, urlencode, urlsplit

from darner.commands.client_settings import ClientSettings, reason
from darner.commands.exits import FAILED, NOT_ALLOWED, NOTHING, UNREACHABLE, USAGE, Failure

BASE: Final = "/api/v1"
CHANGE_HEADER: Final = "X-Darner-Request"
PAGE: Final = 200
"""Items of one page, and more than the API gives of anything in one."""
PREVIEW: Final = 4096
"""Bytes of a payload that come with its page."""
STATES: Final = ("ready", "retrying", "delayed", "open", "dead")
_PIECE: Final = 256 * 1024


@dataclass(frozen=True)
class BrowsedItem:
    """
    An item that stays where it is.

    @ivar expires: when, in ms since the epoch; 0 is never.
    @ivar due: when it is to be had, in ms since the epoch; 0 is now.
    @ivar beginning: its payload, or as much of it as came with the page.
    @ivar facts: all that the server says of it.
    """

    id: str
    state: str
    flags: int
    size: int
    time: int
    expires: int
    due: int
    beginning: bytes
    facts: dict[str, Any]


class Admin:
    """Requests to the admin HTTP, one after the other on one connection."""

    def __init__(self, settings: ClientSettings, purpose: str) -> None:
        """
        @param purpose: what it is for, to say so where there is none.
        @raise Failure: it is not named, or not by a URL.
        """
        if not settings.http:
            raise Failure(
                f"{purpose} needs the admin HTTP of the server: name its address by --http, such as "
                "--http http://127.0.0.1:8080, where the server has one (http_port)",
                USAGE,
            )
        try:
            parts = urlsplit(settings.http)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise Failure(f"not the URL of an admin HTTP: {settings.http}: {error}", USAGE) from None
        if parts.scheme not in ("http", "https") or not host:
            raise Failure(f"not the URL of an admin HTTP: {settings.http}; it begins with http:// or https://", USAGE)
        self._url = settings.http.rstrip("/")
        self._base = parts.path.rstrip("/") + BASE
        self._headers = {"Accept": "application/json"}
        login = settings.login()
        if login:
            token = base64.b64encode(f"{login['user']}:{login['password']}".encode()).decode()
            self._headers["Authorization"] = f"Basic {token}"
        self._connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = settings.context() or ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(host, port, timeout=settings.timeout, context=context)
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=settings.timeout)

    def __enter__(self) -> Admin:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def post(self, path: str, body: dict[str, Any], patience: Optional[float]) -> http.client.HTTPResponse:
        """
        Ask for what changes something, or takes long.

        @param patience: how many seconds to wait for the answer, and for each piece of it; C{None} is for ever.
        @return: the answer, also where it is an error.
        @raise Failure: there is none.
        """
        headers = {**self._headers, CHANGE_HEADER: "1", "Content-Type": "application/json"}
        self._connection.close()
        try:
            self._connection.connect()
            assert self._connection.sock is not None
            self._connection.sock.settimeout(patience)
            self._connection.request("POST", self._base + path, json.dumps(body), headers)
            return self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Failure(f"no answer from {self._url}: {reason(error)}", UNREACHABLE) from None

    def _send(self, path: str, query: dict[str, Any]) -> http.client.HTTPResponse:
        """@raise Failure: there is no answer, or it is an error."""
        asked = {name: value for name, value in query.items() if value is not None}
        target = self._base + path + ("?" + urlencode(asked) if asked else "")
        for again in (True, False):
            try:
                self._connection.request("GET", target, headers=self._headers)
                response = self._connection.getresponse()
                break
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
                # What is kept open may have been closed meanwhile; what only looks may be asked twice.
                self._connection.close()
                if not again:
                    raise Failure(f"no answer from {self._url}: {reason(error)}", UNREACHABLE) from None
            except (OSError, http.client.HTTPException) as error:
                self._connection.close()
                raise Failure(f"no answer from {self._url}: {reason(error)}", UNREACHABLE) from None
        if response.status != 200:
            self.refuse(response)
        return response

    def read(self, response: http.client.HTTPResponse, size: Optional[int] = None) -> bytes:
        try:
            return response.read(size)
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise Failure(f"the answer of {self._url} broke off: {reason(error)}", UNREACHABLE) from None

    def refuse(self, response: http.client.HTTPResponse) -> None:
        """@raise Failure: what the answer says."""
        body = self.read(response)
        kind = response.headers.get_content_type()
        detail = ""
        if kind == "application/problem+json":
            try:
                problem = json.loads(body)
                detail = str(problem.get("detail") or problem.get("title") or "")
            except (ValueError, AttributeError):
                pass
        if response.status in (401, 403):
            raise Failure(detail or f"{self._url}: not allowed", NOT_ALLOWED)
        if response.status == 404 and detail:
            raise Failure(detail, NOTHING)
        if not detail:
            raise Failure(f"{self._url} is not the admin HTTP of a darner: it answers {response.status}", FAILED)
        raise Failure(detail, FAILED)

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """
        @return: what a resource is.
        @raise Failure: it cannot be had.
        """
        body = self.read(self._send(path, query))
        try:
            value = json.loads(body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise Failure(f"{self._url} is not the admin HTTP of a darner: its answer is no JSON", FAILED)
        return value

    def queues(self) -> list[str]:
        """@return: the names of all queues."""
        names: list[str] = []
        while True:
            page = self.get("/queues", offset=len(names), limit=1000)
            names += [row["name"] for row in page["queues"]]
            if not page["queues"] or len(names) >= page["total"]:
                return names

    def time(self) -> int:
        """@return: the server's time, in ms since the epoch."""
        return int(self.get("/server")["time"])

    def page(
        self, queue: str, state: str, after: Optional[str] = None, limit: int = PAGE, preview: int = PREVIEW,
        **filters: Any,
    ) -> tuple[list[BrowsedItem], Optional[str], int]:  # fmt: skip
        """
        @param after: where it begins: the position that the page before has given, or the id of an item, which is the
            first then if it is still there.
        @return: items, the position of the next page or None at the end, and how many there are in this state.
        """
        path = f"/queues/{quote(queue, safe='')}/items"
        page = self.get(path, state=state, after=after, limit=limit, preview=preview, **filters)
        return [_item(facts) for facts in page["items"]], page["next"], int(page["total"])

    def payload(self, queue: str, item: BrowsedItem) -> Iterator[bytes]:
        """
        @return: the whole payload, in pieces.
        @raise Failure: with C{NOTHING} where the item is gone by now.
        """
        if len(item.beginning) == item.size:
            yield item.beginning
            return
        path = f"/queues/{quote(queue, safe='')}/items/{quote(item.id, safe='')}/payload"
        response = self._send(path, {"state": item.state})
        left = item.size
        while piece := self.read(response, _PIECE):
            left -= len(piece)
            yield piece
        if left:
            raise Failure(f"the payload of item {item.id} of {queue} broke off", UNREACHABLE)


def _item(facts: dict[str, Any]) -> BrowsedItem:
    preview = facts["preview"]
    data = base64.b64decode(preview["data"]) if preview["encoding"] == "base64" else preview["data"].encode()
    return BrowsedItem(
        facts["id"], facts["state"], facts["flags"], facts["size"], facts["time"], facts["expires"] or 0,
        facts["due"] or 0, data, facts,
    )  # fmt: skip
