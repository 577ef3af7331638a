"""The API against its own description, by schemathesis: what fits it is answered as it says, and the rest refused."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from twisted.trial.unittest import SynchronousTestCase

from darner.web.endpoints import ENDPOINTS
from darner.web.openapi import BASE, document
from darner.web.schemas import SCHEMAS
from test.web.browser import WebServer
from test.web.schema import conforms

EXAMPLES = 5
"""Of each operation, fitting and not fitting."""


class ApiTests(SynchronousTestCase):
    def test_fitting(self) -> None:
        self.run_all(GenerationMode.POSITIVE)
        self.assertLessEqual({200, 201, 204, 404}, self.statuses)

    def test_not_fitting(self) -> None:
        self.run_all(GenerationMode.NEGATIVE)
        self.assertLessEqual({400, 403}, self.statuses)

    def run_all(self, mode: GenerationMode) -> None:
        schema = schemathesis.openapi.from_dict(document())
        count = 0
        for result in schema.get_all_operations():
            operation = result.ok()
            endpoint = next(
                endpoint
                for endpoint in ENDPOINTS
                if (endpoint.path, endpoint.method.lower()) == (operation.path, operation.method)
            )
            if mode is GenerationMode.NEGATIVE and not (endpoint.parameters or endpoint.query or endpoint.body):
                continue
            self.run_one(operation, endpoint, mode)
            count += 1
        self.assertGreater(count, 15)

    def run_one(self, operation: Any, endpoint: Any, mode: GenerationMode) -> None:
        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def check(case: Any) -> None:
            self.check(case, endpoint, mode)

        check()

    def check(self, case: Any, endpoint: Any, mode: GenerationMode) -> None:
        web = WebServer()
        web.queues.make(b"q").put(0, 0, 1, b"x")
        web.server.commit()
        browser = web.browser()
        query = f"?{urlencode(case.query, doseq=True)}" if case.query else ""
        body = None if isinstance(case.body, schemathesis.core.NotSet) else case.body
        kind = case.media_type if body is not None else None
        if isinstance(body, bytes) and kind is None:
            kind = "application/octet-stream"
        headers = {name: str(value) for name, value in (case.headers or {}).items()}
        if any(not value.isascii() or "\n" in value or "\r" in value for value in headers.values()):
            headers = {}
        if body is not None and not isinstance(body, bytes) and kind == "application/octet-stream":
            body = str(body).encode()
        if kind is not None:
            headers["Content-Type"] = kind
        path = BASE + case.formatted_path + query
        if not path.isascii() or " " in path or len(path) > 8000:
            return  # no request line of HTTP
        browser.send(case.method, path, body, **headers)
        for _ in range(70):
            web.server.clock.advance(1)
            if web.is_answered(browser) or endpoint.name == "events":
                break
        self.assertTrue(browser.transport.value(), (case.method, path, headers, body))
        reply = browser.reply()
        browser.close()
        web.root.close()
        self.assertNotEqual(reply.status, 500, (path, body))
        if reply.status >= 400:
            self.assertEqual(reply.headers["content-type"], "application/problem+json", path)
            conforms(self, "Problem", "", 0, reply.json)
        elif endpoint.answer in SCHEMAS and reply.status != 204:
            conforms(self, endpoint.answer, "", reply.status, reply.json)
        self.statuses.add(reply.status)

    def setUp(self) -> None:
        self.statuses: set[int] = set()
