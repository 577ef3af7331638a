"""
One call of the API: a request whose parameters are understood and whose user may do this.
"""

from __future__ import annotations

import json
from typing import Any, Final, Optional
from urllib.parse import unquote_to_bytes

from darner.front.audit import AuditTrail
from darner.web.endpoints import ENDPOINTS, Endpoint
from darner.web.fields import BadField, Field
from darner.web.openapi import BASE
from darner.web.pacing import Pace
from darner.web.problems import Problem, bad_request, not_found
from darner.web.served import Served
from darner.web.visitors import Visitor

MOST_JSON: Final = 256 * 1024
"""The longest body of JSON, in bytes: more would take too long to read."""

_PATHS: Final = [(endpoint, tuple(endpoint.path.split("/"))) for endpoint in ENDPOINTS]


class Call:
    """
    One call.

    @ivar values: the values of its fields, by their names.
    @ivar queue: the queue in its path; empty where there is none.
    @ivar pace: how long it works at once.
    """

    def __init__(
        self, served: Served, endpoint: Endpoint, request: Any, visitor: Visitor, trail: AuditTrail,
        values: dict[str, Any],
    ) -> None:  # fmt: skip
        self.served = served
        self.endpoint = endpoint
        self.request = request
        self.visitor = visitor
        self.trail = trail
        self.values = values
        self.queue: bytes = values.get("name", "").encode()
        self.pace = Pace(served.queues)
        self.about = ""

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def describe(self) -> str:
        """@return: what it does, for the log."""
        words = ["http", self.endpoint.name, *(str(self.values[field.name]) for field in self.endpoint.parameters)]
        return " ".join([*words, self.about] if self.about else words)


def find(method: str, path: bytes) -> tuple[Endpoint, dict[str, Any]]:
    """
    @param path: of a request, all of it.
    @return: what it is for, and the values of the path's fields.
    @raise Problem: there is nothing.
    """
    try:
        parts = [unquote_to_bytes(part).decode() for part in path[len(BASE) :].split(b"/")]
    except UnicodeDecodeError:
        raise not_found("no such path") from None
    allowed: list[str] = []
    for endpoint, pattern in _PATHS:
        if len(parts) == len(pattern) and all(
            part == given or given[:1] == "{" for part, given in zip(parts, pattern, strict=True)
        ):
            if endpoint.method == method:
                given = [part for part, shape in zip(parts, pattern, strict=True) if shape[:1] == "{"]
                fields = zip(endpoint.parameters, given, strict=True)
                return endpoint, {field.name: _of_text(field, text) for field, text in fields}
            allowed.append(endpoint.method)
    if not allowed:
        raise not_found("no such path")
    raise Problem(405, "no such method here", {b"Allow": ", ".join(sorted(set(allowed))).encode()})


def _of_text(field: Field, text: str) -> Any:
    try:
        return field.of_text(text)
    except BadField as error:
        raise bad_request(str(error)) from None


def query_values(fields: tuple[Field, ...], arguments: dict[bytes, list[bytes]]) -> dict[str, Any]:
    """
    @param arguments: the request's, as twisted.web has them.
    @raise Problem: one is wrong.
    """
    values: dict[str, Any] = {}
    known = {field.name: field for field in fields}
    for key, texts in arguments.items():
        try:
            name, (text, *more) = key.decode(), [text.decode() for text in texts]
        except UnicodeDecodeError:
            raise bad_request("the query is not UTF-8") from None
        if name not in known:
            raise bad_request(f"unknown parameter {name[:40]!r}")
        if more:
            raise bad_request(f"{name}: given more than once")
        values[name] = _of_text(known[name], text)
    return _complete(fields, values)


def _complete(fields: tuple[Field, ...], values: dict[str, Any]) -> dict[str, Any]:
    for field in fields:
        if field.name not in values:
            if field.required:
                raise bad_request(f"{field.name}: missing")
            values[field.name] = field.default
    return values


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def body_values(fields: tuple[Field, ...], request: Any) -> dict[str, Any]:
    """
    @return: the members of a body of JSON.
    @raise Problem: it is wrong.
    """
    content = request.content.read(MOST_JSON + 1)
    if len(content) > MOST_JSON:
        raise Problem(413, f"JSON is taken up to {MOST_JSON} bytes")
    body: Any = {}
    if content:
        if request.media_type != b"application/json":
            raise Problem(415, "the body is to be of the type application/json")
        try:
            body = json.loads(content.decode(), parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise bad_request("the body is no JSON") from None
    if not isinstance(body, dict):
        raise bad_request("the body is no object")
    known = {field.name: field for field in fields}
    for name, value in body.items():
        if name not in known:
            raise bad_request(f"unknown member {name[:40]!r}")
        try:
            known[name].check(value)
        except BadField as error:
            raise bad_request(str(error)) from None
    return _complete(fields, body)


def understand(endpoint: Endpoint, request: Any) -> dict[str, Any]:
    """
    @return: the values of the fields of query and body.  Where the body is the payload itself, C{payload} is C{None}.
    @raise Problem: one is wrong.
    """
    raw = endpoint.raw and request.media_type == b"application/octet-stream"
    values: dict[str, Any] = {}
    if not endpoint.raw or raw:
        values = query_values(endpoint.query, request.args)
    elif request.args:
        raise bad_request("fields go into the body, or into the query where the body is application/octet-stream")
    if raw:
        return {**values, "payload": None, "encoding": ""}
    return {**values, **body_values(endpoint.body, request)}


def no_body(endpoint: Endpoint, request: Any) -> Optional[Problem]:
    """@return: what is wrong with a body where none is wanted."""
    return None if endpoint.body or not request.content.read(1) else bad_request("no body is taken here")
