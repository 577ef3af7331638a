"""
The fields of a request: parameters of its path and query, and members of its JSON body.

One declaration both checks a value and describes it in the OpenAPI document.
"""

from __future__ import annotations

import re
from typing import Any, Final, Optional

from attrs import frozen

from darner.values.vocabulary import STATUSES

_TYPES: Final = {"string": str, "integer": int, "boolean": bool, "object": dict, "array": list}


class BadField(Exception):
    """A field has a value that it cannot have.  The text says which, and what it may be."""


@frozen
class Field:
    """
    One field.

    @ivar schema: its JSON schema; of a type in L{_TYPES}.
    @ivar default: its value where it is missing and not C{required}.
    """

    name: str
    schema: dict[str, Any]
    doc: str
    default: Any = None
    required: bool = False

    def of_text(self, text: str) -> Any:
        """
        @param text: the value in a path or a query.
        @raise BadField: it is wrong.
        """
        kind = self.schema["type"]
        if kind == "integer":
            if not re.fullmatch(r"-?[0-9]{1,18}", text):
                raise BadField(f"{self.name}: not a whole number")
            return self.check(int(text))
        if kind == "boolean":
            if text not in ("true", "false"):
                raise BadField(f"{self.name}: neither true nor false")
            return text == "true"
        return self.check(text)

    def check(self, value: Any) -> Any:
        """
        @param value: one of JSON.
        @return: it.
        @raise BadField: it is wrong.
        """
        _check(self.name, self.schema, value)
        return value

    def described(self) -> dict[str, Any]:
        """@return: its schema, with what it is for and its default."""
        schema = {**self.schema, "description": self.doc}
        return schema if self.default is None else {**schema, "default": self.default}


def _check(name: str, schema: dict[str, Any], value: Any) -> None:
    kind: str = schema["type"]
    given: type = type(value)
    if given is not _TYPES[kind]:
        raise BadField(f"{name}: not of type {kind}")
    if kind == "integer":
        if value < schema.get("minimum", value):
            raise BadField(f"{name}: at least {schema['minimum']}")
        if value > schema.get("maximum", value):
            raise BadField(f"{name}: at most {schema['maximum']}")
    elif kind == "string":
        _check_text(name, schema, value)
    elif kind == "array":
        if not schema.get("minItems", 0) <= len(value) <= schema["maxItems"]:
            raise BadField(f"{name}: at most {schema['maxItems']} entries, and at least {schema.get('minItems', 0)}")
        for entry in value:
            _check(name, schema["items"], entry)
    elif kind == "object":
        _check_members(name, schema, value)


def _check_text(name: str, schema: dict[str, Any], value: str) -> None:
    if len(value) > schema.get("maxLength", len(value)):
        raise BadField(f"{name}: at most {schema['maxLength']} characters")
    if len(value) < schema.get("minLength", 0):
        raise BadField(f"{name}: at least {schema['minLength']} characters")
    if "enum" in schema and value not in schema["enum"]:
        raise BadField(f"{name}: one of {', '.join(schema['enum'])}")
    if "pattern" in schema and not re.fullmatch(schema["pattern"].strip("^$"), value):
        raise BadField(f"{name}: {schema.get('x-error', 'malformed')}")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise BadField(f"{name}: not Unicode")


def _check_members(name: str, schema: dict[str, Any], value: dict[str, Any]) -> None:
    unknown = sorted(set(value) - set(schema["properties"]))
    if unknown:
        raise BadField(f"{name}: unknown member {unknown[0][:40]!r}")
    for member in schema.get("required", ()):
        if member not in value:
            raise BadField(f"{name}: {member} is missing")
    for member, inner in value.items():
        _check(f"{name}.{member}", schema["properties"][member], inner)


QUEUE_NAME: Final = {
    "type": "string", "pattern": "^[!-.0-~]{1,250}$",
    "x-error": "a queue name is 1 to 250 printable ASCII characters without / and white space",
}  # fmt: skip


def text(name: str, doc: str, *, max_length: int = 250, default: Optional[str] = None, **rest: Any) -> Field:
    required = rest.pop("required", False)
    return Field(name, {"type": "string", "maxLength": max_length, **rest}, doc, default, required)


def whole(
    name: str, doc: str, minimum: int = 0, maximum: int = 2**53 - 1, *, default: Optional[int] = None,
    required: bool = False,
) -> Field:  # fmt: skip
    return Field(name, {"type": "integer", "minimum": minimum, "maximum": maximum}, doc, default, required)


def flag(name: str, doc: str, default: bool = False) -> Field:
    return Field(name, {"type": "boolean"}, doc, default)


def choice(name: str, doc: str, values: tuple[str, ...], default: Optional[str] = None) -> Field:
    return Field(name, {"type": "string", "enum": list(values)}, doc, default, default is None)


def queue_name(name: str, doc: str, required: bool = True) -> Field:
    return Field(name, QUEUE_NAME, doc, None, required)


STATUS: Final = choice("status", "What the server is to refuse from now on: nothing, puts, or reads as well.", STATUSES)
