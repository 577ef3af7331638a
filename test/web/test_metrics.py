"""Tests of the metrics, also by Prometheus's own tools."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any
from unittest import skipUnless

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from bench.ports import reserve_port
from darner.values.stats import QueueStats, ServerStats
from darner.web.metrics import MOST_QUEUES, OTHERS, QUEUE_COUNTERS, QUEUE_GAUGES, SERVER_COUNTERS, TOTALS
from test.servers import ROOT, Server, make_directory, until
from test.web.test_queues_api import ApiTestCase
from test.web.test_site import UsersTestCase

HAS_PROMETHEUS = shutil.which("prometheus") is not None and shutil.which("promtool") is not None


class MetricsTests(ApiTestCase):
    def text(self, **headers: str) -> str:
        reply = self.browser.get("/metrics", **headers)
        self.assertEqual(reply.status, 200)
        return reply.body.decode()

    def samples(self) -> dict[str, float]:
        """@return: every sample by its name and labels."""
        return {
            sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
            for family in text_string_to_metric_families(self.text())
            for sample in family.samples
        }

    def test_figures(self) -> None:
        self.put(b"q", b"123", b"4")
        client = self.server.client()
        client.does(b"get q/open")
        self.look()
        found = self.samples()
        self.assertEqual((found["darner_items"], found["darner_queue_items q"]), (1, 1))
        self.assertEqual((found["darner_open_items"], found["darner_queue_open_items q"]), (1, 1))
        self.assertEqual((found["darner_items_put_total"], found["darner_queue_items_put_total q"]), (2, 2))
        self.assertEqual(found["darner_requests_total set"], 2)
        self.assertEqual(found["darner_request_seconds_count set"], 2)
        self.assertGreater(found["darner_commit_seconds_count"], 0)
        self.assertEqual(found["darner_queue_oldest_item_age_seconds q"], 1)
        self.assertEqual((found["darner_status up"], found["darner_status readonly"]), (1, 0))
        self.assertEqual((found["darner_healthy"], found["darner_store_writable"]), (1, 1))
        self.assertIn("process_resident_memory_bytes", found)
        self.assertEqual(self.samples()["darner_http_request_seconds_count metrics"], 2)
        client.session.leave()

    def test_trouble(self) -> None:
        self.server.store.room = (10**12, 2 * 10**12)
        self.server.store.full = True
        self.put(b"q", b"1")
        found = self.samples()
        self.assertEqual((found["darner_healthy"], found["darner_store_writable"]), (0, 0))
        self.assertEqual(found["darner_disk_free_bytes"], 10**12)
        self.queues.space.stop()

    def test_bounded(self) -> None:
        """The queues with most items are named, the rest is summed."""
        for number in range(MOST_QUEUES + 50):
            fifo = self.queues.make(b"q%03d" % number)
            for _ in range(number % 3 + 1):
                fifo.put(0, 0, 1, b"x")
        self.server.commit()
        self.look()
        found = self.samples()
        named = [name for name in found if name.startswith("darner_queue_items ")]
        self.assertEqual(len(named), MOST_QUEUES + 1)
        self.assertEqual(found[f"darner_queue_items {OTHERS}"], 50)
        self.assertEqual(sum(found[name] for name in named), found["darner_items"])
        self.assertEqual(len([name for name in found if name.startswith("darner_queue_flushes_total")]), MOST_QUEUES)

    def test_openmetrics(self) -> None:
        self.put(b"q", b"1")
        text = self.text(Accept="application/openmetrics-text; version=1.0.0")
        self.assertTrue(text.endswith("# EOF\n"))
        self.assertEqual(text.count("# EOF"), 1)
        names = {family.name for family in parse_openmetrics(text)}
        self.assertLessEqual({"darner_items_put", "darner_build", "darner_commit_seconds"}, names)

    def test_every_counter(self) -> None:
        """What is counted is told."""
        known = set(SERVER_COUNTERS) | {"cmd_get", "cmd_set", "cmd_peek", "curr_connections", "waiters"}
        self.assertEqual({field.name for field in dataclasses.fields(ServerStats)}, known)
        self.assertEqual({field.name for field in dataclasses.fields(QueueStats)} - {"age_msec"}, set(QUEUE_COUNTERS))

    def test_every_metric_is_described(self) -> None:
        """In docs/metrics.rst."""
        pages = (ROOT / "docs" / "metrics.rst").read_text()
        described = set(re.findall(r"``(darner_\w+)``", pages))
        self.put(b"q", b"1")
        self.server.store.room = (1, 10**12)
        families = {family.name for family in parse_openmetrics(self.text(Accept="application/openmetrics-text"))}
        self.queues.space.stop()
        self.assertEqual({name for name in families if name.startswith("darner_")}, described)
        for names in (SERVER_COUNTERS, QUEUE_COUNTERS, TOTALS, QUEUE_GAUGES):
            self.assertLessEqual({name for name, _ in names.values()}, described)

    @skipUnless(HAS_PROMETHEUS, "promtool is not installed")
    def test_promtool(self) -> None:
        self.put(b"q", b"1")
        self.look()
        done = subprocess.run(["promtool", "check", "metrics"], input=self.text().encode(), capture_output=True)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))


class MetricsRightsTests(UsersTestCase):
    def test_rights(self) -> None:
        self.put(b"jobs_a", b"1")
        self.put(b"other", b"1")
        text = self.browser.get("/metrics", Authorization="Basic Ym9iOndvcmQ=").body.decode()
        self.assertIn('queue="jobs_a"', text)
        self.assertNotIn("other", text.replace(OTHERS, ""))
        self.browser.headers.clear()
        self.assertEqual(self.browser.get("/metrics", Host="localhost").status, 401)


class PrometheusTests(SynchronousTestCase):
    """A real Prometheus scrapes a real server."""

    @skipUnless(HAS_PROMETHEUS, "prometheus is not installed")
    def test_scrape(self) -> None:
        directory = make_directory(self)
        server = Server(self, "--port=0", "--http-port=0", f"--data-dir={directory / 'data'}", directory=directory)
        place = re.search(r"dashboard, HTTP API and metrics: http://([0-9.:]+)/", server.text)
        assert place is not None
        with server.client() as client:
            client.send(b"set jobs 0 0 1\r\nx\r\nquit\r\n")
            client.rest()
        port = reserve_port()
        config = directory / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 1s}\n"
            f"scrape_configs: [{{job_name: darner, static_configs: [{{targets: ['{place[1]}']}}]}}]\n"
        )
        self.run_prometheus(directory, config, port)
        found: list[Any] = []

        def scraped() -> bool:
            found[:] = self.ask(port, 'darner_queue_items{queue="jobs"}')
            return bool(found) and found[0]["value"][1] == "1"

        until(scraped, "the metric in Prometheus")
        # Where a scrape took too long it is down, until the next one.
        until(lambda: [entry["value"][1] for entry in self.ask(port, "up")] == ["1"], "the server is up")

    def run_prometheus(self, directory: Path, config: Path, port: int) -> None:
        process = subprocess.Popen(
            [
                "prometheus", f"--config.file={config}", f"--storage.tsdb.path={directory / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)

    @staticmethod
    def ask(port: int, query: str) -> list[Any]:
        url = f"http://127.0.0.1:{port}/api/v1/query?query={urllib.request.quote(query)}"  # type: ignore[attr-defined]
        try:
            with urllib.request.urlopen(url, timeout=10) as reply:
                found: list[Any] = json.load(reply)["data"]["result"]
                return found
        except OSError:
            return []
