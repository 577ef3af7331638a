"""
The OpenAPI document, made of the table of endpoints.
"""

from __future__ import annotations

import functools
import json
from typing import Any, Final

import darner
from darner.web.endpoints import ENDPOINTS, Endpoint, Right
from darner.web.fields import Field
from darner.web.schemas import SCHEMAS, ref

BASE: Final = "/api/v1"
CHANGE_HEADER: Final = "X-Darner-Request"
"""Which requests that change something have to have, with the value 1: no other site can have a browser send it."""

_PROBLEM: Final = {
    "description": "An error.  Nothing was changed.",
    "content": {"application/problem+json": {"schema": ref("Problem")}},
}
_DOC: Final = (
    "Errors are application/problem+json (RFC 9457), and have changed nothing.  Requests with another method than GET "
    f"need the header '{CHANGE_HEADER}: 1', and a body of theirs the type application/json; a body may be left out "
    "where no member is required.  Where the server has users, requests need HTTP basic authentication or the cookie "
    "of a session (POST /session); 401 says that it is missing or over, and 403 that the user may not do this.  Times "
    "are in ms since the epoch, durations in ms, sizes in bytes, rates in items per second.  Beside the API the server "
    "has /ping, /health, /stats.json, /metrics, and the dashboard at / with its files under /static/."
)


def _parameter(field: Field, where: str) -> dict[str, Any]:
    schema = field.schema if field.default is None else {**field.schema, "default": field.default}
    return {"name": field.name, "in": where, "required": field.required, "description": field.doc, "schema": schema}


def _body(endpoint: Endpoint) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {field.name: field.described() for field in endpoint.body},
        "required": [field.name for field in endpoint.body if field.required],
        "additionalProperties": False,
    }
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if endpoint.raw:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    return {"required": bool(schema["required"]), "content": content}


def _answer(endpoint: Endpoint) -> dict[str, Any]:
    if not endpoint.answer:
        return {"description": "Done."}
    if endpoint.answer in SCHEMAS:
        return {"description": "Done.", "content": {"application/json": {"schema": ref(endpoint.answer)}}}
    return {"description": "Done.", "content": {endpoint.answer: {}}}


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    parameters = [_parameter(field, "path") for field in endpoint.parameters]
    parameters += [_parameter(field, "query") for field in endpoint.query]
    if endpoint.changes:
        header = {"type": "string", "enum": ["1"]}
        parameters.append({"name": CHANGE_HEADER, "in": "header", "required": True, "schema": header})
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "parameters": parameters,
        "responses": {str(endpoint.status): _answer(endpoint), "default": _PROBLEM},
        "x-right": endpoint.right,
    }
    if endpoint.doc:
        operation["description"] = endpoint.doc
    if endpoint.may_be_empty:
        operation["responses"]["204"] = {"description": "There is no item."}
    if endpoint.body:
        operation["requestBody"] = _body(endpoint)
    if endpoint.right == Right.ANYONE:
        operation["security"] = []
    return operation


@functools.cache
def document() -> dict[str, Any]:
    """@return: the whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {"title": "darner", "version": darner.__version__, "description": _DOC},
        "servers": [{"url": BASE}],
        "security": [{"basic": []}, {"session": []}, {}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "session": {"type": "apiKey", "in": "cookie", "name": "darner_session"},
            },
        },
    }


@functools.cache
def encoded() -> bytes:
    """@return: it as JSON."""
    return json.dumps(document(), indent=1).encode()
