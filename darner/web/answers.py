"""
What requests are answered.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator
from typing import Any, Optional, Union


class Answer:
    """
    One answer.

    @ivar body: all of it, or the pieces of it.
    @ivar kind: its media type.
    """

    def __init__(
        self, body: Union[bytes, AsyncGenerator[bytes, None]] = b"", status: int = 200,
        kind: bytes = b"application/json", headers: Optional[dict[bytes, bytes]] = None,
    ) -> None:  # fmt: skip
        self.body = body
        self.status = status
        self.kind = kind
        self.headers = headers or {}


def encode(value: Any) -> bytes:
    """@return: a value as JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def payload(data: bytes, truncated: bool = False) -> dict[str, Any]:
    """@return: bytes for JSON, as the schema C{Payload} says."""
    try:
        return {"encoding": "utf-8", "data": data.decode(), "truncated": truncated}
    except UnicodeDecodeError as error:
        if truncated and error.start >= len(data) - 3 and error.reason == "unexpected end of data":
            return {"encoding": "utf-8", "data": data[: error.start].decode(), "truncated": True}
    return {"encoding": "base64", "data": base64.b64encode(data).decode(), "truncated": truncated}
