"""Tests of what is shipped beside the code: alert rules, and a dashboard for Grafana."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from unittest import skipUnless

from prometheus_client.parser import text_string_to_metric_families

import darner.web
from test.web.browser import WebTestCase

DATA = Path(darner.web.__path__[0]) / "data"
RULES = DATA / "darner.rules.yml"
GRAFANA = DATA / "grafana.json"


class DataTests(WebTestCase):
    def metrics(self) -> set[str]:
        """@return: the names of all samples."""
        self.put(b"q", b"1")
        self.server.store.room = (10**12, 10**12)
        text = self.browser.get("/metrics").body.decode()
        return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}

    def test_metrics_exist(self) -> None:
        """Rules and panels ask for what there is."""
        known = self.metrics()
        self.queues.space.stop()
        for path in (RULES, GRAFANA):
            asked = set(re.findall(r"\b(?:darner|process)_[a-z_]+(?=[\[{ )\"])", path.read_text()))
            self.assertLessEqual(asked - {"darner_status"}, known, path)
            self.assertGreater(len(asked), 9)

    def test_grafana(self) -> None:
        board = json.loads(GRAFANA.read_text())
        panels = board["panels"]
        self.assertGreater(len(panels), 10)
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        for panel in panels:
            self.assertTrue(panel["title"] and panel["description"] and panel["targets"], panel["id"])
        self.assertEqual([variable["name"] for variable in board["templating"]["list"]][1:], ["instance", "queue"])

    @skipUnless(shutil.which("promtool"), "promtool is not installed")
    def test_rules(self) -> None:
        done = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("11 rules found", done.stdout)
