"""
The annotated sample of a configuration file: it has every setting, and its values are the defaults.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from darner.config.policies import Policies, QueueSettings
from darner.config.settings import DEFAULT_PORT, Settings, make_settings, read_toml
from darner.queues.disk_space import KEPT

SAMPLE = Path(__file__).resolve().parents[2] / "docs" / "darner.toml"

SETTING = re.compile(r"^#(?=[a-z\[])", re.MULTILINE)


def names(kind: Any) -> list[str]:
    return [field.name for field in attrs.fields(kind)]


class SampleTests(SynchronousTestCase):
    def uncommented(self) -> dict[str, Any]:
        path = Path(self.mktemp())
        path.write_text(SETTING.sub("", SAMPLE.read_text()))
        return read_toml(path)

    def test_as_it_is(self) -> None:
        """It sets nothing."""
        self.assertEqual(read_toml(SAMPLE), {})

    def test_the_defaults(self) -> None:
        """
        Uncommented, all of it says what holds without it.  For two settings the default is left to what else there is:
        the sample has what they come to by themselves.
        """
        settings = make_settings(self.uncommented(), str(SAMPLE))
        self.assertEqual((settings.port, settings.min_free_bytes), (DEFAULT_PORT, KEPT))
        self.assertEqual(Settings().tcp_port, DEFAULT_PORT)
        self.assertEqual(evolve(settings, port=None, min_free_bytes=None), Settings())
        self.assertEqual(settings.policies, Policies(QueueSettings()))

    def test_every_setting(self) -> None:
        values = self.uncommented()
        tables = {"defaults", "aliases"}
        self.assertEqual(sorted(set(values) - tables), sorted(set(names(Settings)) - {"policies"}))
        self.assertEqual(list(values["defaults"]), names(QueueSettings), "in the order of the code")
        self.assertEqual(values["aliases"], {})

    def test_every_setting_is_explained(self) -> None:
        """There is a line of words before each, or before the one above it."""
        lines = SAMPLE.read_text().splitlines()
        for above, line in pairwise(lines):
            if SETTING.match(line) and "[" not in line[:2]:
                self.assertTrue(above.startswith("#"), line)

    def test_the_examples_are_right(self) -> None:
        """What the words give as an example can be used."""
        lines = [line[6:] for line in SAMPLE.read_text().splitlines() if line.startswith("#     ")]
        path = Path(self.mktemp())
        path.write_text("\n".join(lines[1:]).replace("\nlog = ", "\n[aliases]\nlog = "))
        settings = make_settings(read_toml(path), str(path))
        self.assertEqual((len(settings.listen), list(settings.users)), (2, ["mailer"]))
        self.assertEqual(settings.policies.of(b"mail_urgent").max_age, 300.0)
        self.assertEqual(settings.policies.of(b"mail_x").max_age, 86400.0)
        self.assertEqual(settings.policies.aliases, {b"log": (b"log_disk", b"log_mail")})
