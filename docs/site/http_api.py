"""
The HTTP API, from its OpenAPI document.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx

from darner.web.openapi import BASE, document
from docs.site.tables import Written, definition, heading


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"`{name} <http-schema-{name.lower()}_>`_"
    if "enum" in schema:
        return "one of " + ", ".join(f"``{value}``" for value in schema["enum"])
    for several in ("oneOf", "anyOf"):
        if several in schema:
            return " or ".join(_type(one) for one in schema[several])
    kind = schema.get("type", "any value")
    if isinstance(kind, list):
        kind = " or ".join(kind)
    if kind == "array":
        return f"a list of {_type(schema.get('items', {}))}"
    bounds = (("minimum", "at least"), ("maximum", "at most"))
    limits = [f"{word} {schema[key]}" for key, word in bounds if key in schema]
    return ", ".join([kind, *limits])


def _described(name: str, schema: dict[str, Any], doc: str, required: bool) -> Iterator[str]:
    facts = _type(schema) + ("; required" if required else "")
    if schema.get("default") not in (None, ""):
        facts += f"; by default ``{json.dumps(schema['default'])}``"
    yield from definition(f"``{name}``: {facts}", doc or "\\ ")


def _answers(responses: dict[str, Any]) -> str:
    said = []
    for status, answer in responses.items():
        if status == "default":
            continue
        contents = [
            _type(content["schema"]) if "schema" in content else f"``{kind}``"
            for kind, content in answer.get("content", {}).items()
        ]
        what = " or ".join(contents)
        said.append(f"{status}: {what or answer['description'].rstrip('.').lower()}")
    return "Answers " + "; ".join(said) + "."


class HttpApi(Written):
    """C{.. http-api::}: every endpoint, and every schema."""

    def lines(self) -> Iterator[str]:
        api = document()
        yield from (api["info"].get("description", ""), "")
        yield from heading("Endpoints")
        for path, methods in api["paths"].items():
            for method, operation in methods.items():
                yield f".. _http-{operation['operationId'].replace('_', '-')}:"
                yield from heading(f"{method.upper()} {BASE}{path}", "~")
                yield from (operation["summary"], "")
                if "description" in operation:
                    yield from (operation["description"].replace("*", "\\*"), "")
                yield from (f"{_answers(operation['responses'])}  Right: *{operation['x-right']}*.", "")
                for given in operation["parameters"]:
                    if given["in"] != "header":
                        name = given["name"] + (" (in the path)" if given["in"] == "path" else "")
                        yield from _described(name, given["schema"], given["description"], False)
                for kind, content in operation.get("requestBody", {}).get("content", {}).items():
                    if kind != "application/json":
                        yield from (f"The body may be the payload itself, as ``{kind}``.", "")
                        continue
                    schema = content["schema"]
                    yield from ("In the body:", "")
                    for name, member in schema["properties"].items():
                        yield from _described(name, member, member.get("description", ""), name in schema["required"])
        yield from heading("Schemas")
        for name, schema in api["components"]["schemas"].items():
            yield f".. _http-schema-{name.lower()}:"
            yield from heading(name, "~")
            if schema.get("description"):
                yield from (schema["description"], "")
            for member, kind in schema.get("properties", {}).items():
                yield from _described(member, kind, kind.get("description", ""), False)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("http-api", HttpApi)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
