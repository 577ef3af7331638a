"""
Whether answers are as the OpenAPI document says.
"""

from __future__ import annotations

from typing import Any

import jsonschema_rs

from darner.web.calls import find
from darner.web.openapi import BASE
from darner.web.schemas import SCHEMAS


def conforms(case: Any, method: str, path: str, status: int, value: Any) -> None:
    """
    Fail unless an answer is as the document says.

    @param method: of the request; or the name of a schema, and no path.
    """
    name = method
    if path:
        endpoint, _ = find(method, (BASE + path.partition("?")[0]).encode())
        case.assertIn(status, (endpoint.status, 204))
        name = endpoint.answer
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": SCHEMAS}}
    errors = list(jsonschema_rs.Draft202012Validator(schema).iter_errors(value))
    case.assertEqual([str(error) for error in errors], [])
