"""Tests of `darner.cli.log_format`."""

from __future__ import annotations

import io
import json

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from darner.cli.log_format import JsonObserver, _filtered, describe
from test.servers import Server, until


class JsonTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = io.StringIO()
        self.log = Logger("darner.test", observer=JsonObserver(self.file))

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.file.getvalue().splitlines()]

    def test_fields(self) -> None:
        self.log.warn("user {user} failed:\n{count}", user="ann", count=3, place=("a", 1))
        (line,) = self.lines()
        self.assertRegex(str(line.pop("time")), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00$")
        self.assertEqual(line, {
            "level": "warn", "namespace": "darner.test", "message": "user ann failed:\n3", "user": "ann", "count": 3,
            "place": "('a', 1)",
        })  # fmt: skip

    def test_traceback(self) -> None:
        try:
            raise ValueError("x")
        except ValueError:
            self.log.failure("it failed", Failure())
        (line,) = self.lines()
        self.assertIn("ValueError: x", str(line["traceback"]))
        self.assertEqual(line["level"], "critical")

    def test_legacy(self) -> None:
        line = describe({"log_time": 0.0, "log_format": "{log_text}", "log_text": "old", "system": "-", "isError": 0})
        self.assertEqual(line, {
            "time": "1970-01-01T00:00:00.000+00:00", "level": "info", "namespace": "-", "message": "old",
        })  # fmt: skip

    def test_level(self) -> None:
        log = Logger("darner.test", observer=_filtered(JsonObserver(self.file), LogLevel.warn))
        log.info("no")
        log.warn("yes")
        self.assertEqual([line["message"] for line in self.lines()], ["yes"])


class RealTests(SynchronousTestCase):
    def test_server(self) -> None:
        """Every line of a server's log is JSON, from the first to the last."""
        server = Server(self, "--port=0", "--log-format=json", "--data-dir=data", ready=False)
        server.wait_for('"message": "starting up"')
        server.stop()
        lines = [json.loads(line) for line in server.text.splitlines()]
        self.assertIn("stopped", [line["message"] for line in lines])
        self.assertTrue(all(line["time"] and line["level"] for line in lines))

    def test_levels(self) -> None:
        server = Server(self, "--port=0", "--log-level=warn", "--data-dir=data", ready=False)
        until(lambda: any(server.directory.glob("data/*/CURRENT")), "a database")
        server.stop()
        self.assertEqual(server.text, "")
