"""
The part of a server's admin HTTP that the program uses, with what a test has it say.
"""

from __future__ import annotations

import base64
import http.server
import json
import threading
from typing import Any, Optional
from urllib.parse import parse_qs, unquote, urlsplit

from twisted.trial.unittest import SynchronousTestCase

NOW = 1_800_000_000_000


class AdminHTTP:
    """
    Answers as the API does.

    @ivar queues: the items of each queue, by state.
    @ivar problem: status and detail that everything is answered with.
    @ivar heard: what was asked.
    """

    def __init__(self, case: SynchronousTestCase) -> None:
        self.queues: dict[str, dict[str, list[dict[str, Any]]]] = {}
        self.payloads: dict[tuple[str, str], bytes] = {}
        self.clients: list[dict[str, Any]] = []
        self.problem: Optional[tuple[int, str]] = None
        self.raw: Optional[tuple[int, str, bytes]] = None
        self.gone: set[str] = set()
        self.heard: list[tuple[str, dict[str, str], dict[str, str]]] = []
        admin = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                admin.heard.append((parts.path, query, dict(self.headers)))
                status, kind, body = admin.answer(parts.path, query)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        case.addCleanup(thread.join)
        case.addCleanup(self._server.server_close)
        case.addCleanup(self._server.shutdown)

    def put(self, queue: str, payload: bytes, state: str = "ready", **facts: Any) -> str:
        """@return: the id of a new item."""
        items = self.queues.setdefault(queue, {}).setdefault(state, [])
        id = str(len(self.payloads))
        self.payloads[queue, id] = payload
        items.append({
            "id": id, "state": state, "flags": 0, "size": len(payload), "time": NOW - 5000, "age_ms": 5000,
            "expires": None, "attempts": 0, "due": None, "opened": None, **facts,
        })  # fmt: skip
        return id

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, str, bytes]:
        if self.raw is not None:
            return self.raw
        if self.problem is not None:
            return self._problem(*self.problem)
        parts = [unquote(part) for part in path.split("/")[1:]]
        if parts[:2] != ["api", "v1"]:
            return 404, "text/html", b"not found"
        value: Any
        if parts[2:] == ["server"]:
            value = {"time": NOW}
        elif parts[2:] == ["queues"]:
            names, offset = sorted(self.queues), int(query["offset"])
            value = {"total": len(names), "queues": [{"name": name} for name in names[offset : offset + 2]]}
        elif parts[2:] == ["clients"]:
            value = {"total": len(self.clients), "clients": self.clients[int(query["offset"]) :]}
        elif parts[4:] == ["items"]:
            value = self._items(parts[3], query)
        else:
            if parts[5] in self.gone:
                return self._problem(404, "there is no such item")
            return 200, "application/octet-stream", self.payloads[parts[3], parts[5]]
        return 200, "application/json", json.dumps(value).encode()

    def _problem(self, status: int, detail: str) -> tuple[int, str, bytes]:
        body = {"type": "about:blank", "title": "x", "status": status, "detail": detail}
        return status, "application/problem+json", json.dumps(body).encode()

    def _items(self, queue: str, query: dict[str, str]) -> dict[str, Any]:
        items = self.queues.get(queue, {}).get(query["state"], [])
        first = int(query.get("after", -1))
        begin = next((n for n, item in enumerate(items) if int(item["id"]) >= first), len(items))
        limit, preview = int(query["limit"]), int(query["preview"])
        page = items[begin : begin + limit]
        behind = items[begin + limit :]
        return {
            "queue": queue, "state": query["state"], "total": len(items), "next": behind[0]["id"] if behind else None,
            "items": [{**item, "preview": self._preview(queue, item["id"], preview)} for item in page],
        }  # fmt: skip

    def _preview(self, queue: str, id: str, length: int) -> dict[str, Any]:
        payload = self.payloads[queue, id]
        data = payload[:length]
        try:
            text, encoding = data.decode(), "utf-8"
        except UnicodeDecodeError:
            text, encoding = base64.b64encode(data).decode(), "base64"
        return {"data": text, "encoding": encoding, "truncated": len(data) < len(payload)}
