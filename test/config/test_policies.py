"""Tests of `darner.config.policies` and `darner.config.units`."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from darner.config.policies import Policies, QueueSettings, parent_of
from darner.config.policy_tables import make_policies
from darner.config.settings import tomllib
from darner.config.units import duration_text, parse_duration, parse_size, size_text
from darner.errors import SettingsError


def policies(text: str) -> Policies:
    tables = tomllib.loads(text)
    return make_policies(
        tables.get("defaults", {}), tables.get("queues", {}), tables.get("aliases", {}), "darner.toml"
    )


class InheritanceTests(SynchronousTestCase):
    """The inheritance of settings."""

    def test_nothing_said(self) -> None:
        self.assertEqual(policies("").of(b"q"), QueueSettings())

    def test_what_is_counted_is_whole(self) -> None:
        """Also for settings given in Python."""
        for name in ("max_items", "max_bytes", "max_item_bytes", "max_expire_sweep", "max_open_reads", "max_attempts"):
            self.assertRaises(ValueError, QueueSettings, **{name: 1e6})

    def test_defaults(self) -> None:
        self.assertEqual(policies("[defaults]\nmax_items = 5").of(b"q"), QueueSettings(max_items=5))

    def test_own_table_over_patterns_over_defaults(self) -> None:
        found = policies(
            """
            [defaults]
            max_items = 1
            max_open_reads = 9
            [queues.jobs_special]
            max_items = 4
            [queues."jobs_*"]
            max_items = 2
            max_age = "1h"
            [queues."*_s*"]
            max_items = 3
            """
        )
        for name, expected in (
            (b"other", QueueSettings(max_items=1, max_open_reads=9)),
            (b"jobs_x", QueueSettings(max_items=2, max_open_reads=9, max_age=3600)),
            (b"jobs_slow", QueueSettings(max_items=3, max_open_reads=9, max_age=3600)),
            (b"jobs_special", QueueSettings(max_items=4, max_open_reads=9, max_age=3600)),
        ):
            self.assertEqual(found.of(name), expected, name)

    def test_children(self) -> None:
        """As in Kestrel's guide: a child has its parent's settings, overridden by its own."""
        found = policies(
            """
            [defaults]
            max_bytes = "8MiB"
            [queues.q]
            max_items = 500
            fanout_only = true
            [queues."q+fanout"]
            max_age = "1min"
            """
        )
        parent = QueueSettings(max_bytes=8 * 2**20, max_items=500, fanout_only=True)
        self.assertEqual(found.of(b"q"), parent)
        self.assertEqual(found.of(b"q+other"), parent)
        self.assertEqual(found.of(b"q+fanout"), evolve(parent, max_age=60))
        self.assertEqual(found.of(b"q+fanout+more"), parent)

    def test_names_of_children(self) -> None:
        for name, parent in (
            (b"a+b", b"a"), (b"a+b+c", b"a"), (b"a", None), (b"+b", None), (b"a+", None), (b"+", None),
        ):  # fmt: skip
            self.assertEqual(parent_of(name), parent, name)

    def test_limit_taken_back(self) -> None:
        found = policies('[defaults]\nmax_items = 5\nmax_age = "1s"\n[queues.q]\nmax_items = "none"\nmax_age = "none"')
        self.assertEqual(found.of(b"q"), QueueSettings())

    def test_not_to_itself(self) -> None:
        """The queue for dead letters and expired items, even if the pattern that sets it matches it too."""
        found = policies(
            """
            [queues."*"]
            max_attempts = 3
            dead_letter_queue = "dead"
            expire_to_queue = "old"
            """
        )
        self.assertEqual(found.of(b"q").dead_letter_queue, "dead")
        self.assertEqual(found.of(b"dead"), QueueSettings(expire_to_queue="old"))
        self.assertEqual(found.of(b"old"), QueueSettings(max_attempts=3, dead_letter_queue="dead"))

    def test_aliases(self) -> None:
        found = policies('[aliases]\nall = ["a", "b", "a"]')
        self.assertEqual(found.aliases, {b"all": (b"a", b"b")})


class RefusalTests(SynchronousTestCase):
    """What is refused, with file, key and reason."""

    def test_reasons(self) -> None:
        for text, reason in (
            ("defaults = 5", "defaults: not a table"),
            ("queues = 5", "queues: not a table"),
            ("queues.q = 5", "queues.q: not a table"),
            ("aliases = 5", "aliases: not a table"),
            ("[defaults]\nmax_item = 5\ncolour = 6", "defaults: unknown setting colour, max_item"),
            ("[queues.q]\nmax_items = 0", "queues.q.max_items: 'max_items' must be > 0: 0"),
            ("[queues.q]\nmax_items = '5'", "queues.q.max_items: '5' is not of type int"),
            ("[queues.q]\nmax_items = true", "queues.q.max_items: True is not of type int"),
            ("[queues.q]\nfanout_only = 1", "queues.q.fanout_only: 1 is not of type bool"),
            ("[queues.q]\nmax_bytes = 'much'", "queues.q.max_bytes: 'much' is not a size like 64KiB, 16MiB or 1000000"),
            ("[queues.q]\nmax_item_bytes = 'none'", "queues.q.max_item_bytes: 'none' is not a size"),
            ("[queues.q]\nmax_age = '5 weeks'", "queues.q.max_age: '5 weeks' is not a duration"),
            ("[queues.q]\nmax_age = 0", "queues.q.max_age: 'max_age' must be > 0: 0.0"),
            ("[queues.q]\nsync = 'often'", "queues.q.sync: 'often' is not never, always or a duration"),
            ("[queues.q]\nsync = 0", "queues.q.sync: 0 is not above 0; use always"),
            ("[queues.q]\nexpire_to_queue = 'a/b'", "queues.q.expire_to_queue: 'a/b' is not the name of a queue"),
            ("[queues.q]\nexpire_to_queue = 5", "queues.q.expire_to_queue: 5 is not of type str"),
            ("[queues.q]\nexpire_to_queue = 'q'", "queues.q.expire_to_queue: this is the queue itself"),
            ("[queues.'a b']\n", "queues.a b: 'a b' is not the name of a queue"),
            ("[queues.q]\nmax_attempts = 3", "queues.q: max_attempts and dead_letter_queue must be set together"),
            (
                "[queues.'q*']\ndead_letter_queue = 'd'",
                "queues.q*: max_attempts and dead_letter_queue must be set together",
            ),
            ("[defaults]\ndurable = false", "defaults: durable = false needs max_bytes, which bounds its memory"),
            ("[queues.q]\ndurable = false", "queues.q: durable = false needs max_bytes"),
            (
                "[defaults]\ndurable = false\nmax_bytes = '1MiB'\n[queues.q]\nmax_bytes = 'none'",
                "queues.q: durable = false needs max_bytes",
            ),
            (
                "[queues.q]\ndurable = false\nmax_bytes = '1MiB'\n[queues.'q+c']\nmax_bytes = 'none'",
                "queues.q+c: durable = false needs max_bytes",
            ),
            (
                "[defaults]\nmax_bytes = '1MiB'\n[queues.'q*']\ndurable = false",
                "queues.q*.durable: a pattern with false must also set max_bytes",
            ),
            (
                "[queues.q]\ndurable = false\nmax_bytes = '1MiB'\n[queues.'*q']\nmax_bytes = 'none'",
                "queues.*q.max_bytes: none needs durable = true",
            ),
            (
                "[defaults]\ndurable = false\nmax_bytes = '1MiB'\n[queues.'*q']\nmax_bytes = 'none'",
                "queues.*q.max_bytes: none needs durable = true",
            ),
            ("[aliases]\na = 'b'", "aliases.a: not a list of queues"),
            ("[aliases]\na = []", "aliases.a: not a list of queues"),
            ("[aliases]\na = ['b/c']", "aliases.a: 'b/c' is not the name of a queue"),
            ("[aliases]\na = ['b']\nc = ['a']", "aliases.c: a is an alias itself"),
            ("[defaults]\nexpire_to_queue = 'a'\n[aliases]\na = ['b']", "defaults.expire_to_queue: a is an alias"),
            (
                "[queues.q]\nmax_attempts = 1\ndead_letter_queue = 'a'\n[aliases]\na = ['b']",
                "queues.q.dead_letter_queue: a is an alias",
            ),
            ("[aliases]\na = ['b']\n[queues.a]", "aliases.a: [queues] has settings for a queue of that name"),
        ):
            message = str(self.assertRaises(SettingsError, policies, text))
            self.assertTrue(message.startswith(f"darner.toml: {reason}"), message)
            self.assertNotIn("\n", message)

    def test_given_in_python(self) -> None:
        """Settings given in Python are checked as those of a file are."""
        wrong: list[dict[str, Any]] = [
            {"dead_letter_queue": b"dead"}, {"dead_letter_queue": "dead/x"}, {"expire_to_queue": "a b"},
            {"sync": "sometimes"}, {"sync": 0}, {"durable": "no"}, {"fanout_only": 1}, {"max_age": "1d"},
            {"max_age": 0}, {"max_items": True}, {"max_bytes": 1.5}, {"retry_delay": float("inf")},
        ]  # fmt: skip
        for settings in wrong:
            self.assertRaises(ValueError, QueueSettings, **settings)
        policies: list[tuple[tuple[Any, ...], str]] = [
            (({"max_items": 3},), "defaults: {'max_items': 3} is not of type QueueSettings"),
            ((QueueSettings(), {"q": {"max_itmes": 3}}), "queues.q: unknown setting max_itmes (is max_items meant?)"),
            ((QueueSettings(), {"q": {"sync": "often"}}), "queues.q.sync: 'often' is not never, always or a duration"),
            ((QueueSettings(), {"mail_[": {}}), "queues.mail_[: the pattern's bracket is not closed"),
            ((QueueSettings(), {}, {"log": (b"a",)}), "aliases.log: 'log' is not of type bytes"),
            ((QueueSettings(), {}, {b"log": (b"a b",)}), "aliases.log: b'a b' is not the name of a queue"),
        ]
        for arguments, reason in policies:
            self.assertIn(reason, str(self.assertRaises(SettingsError, Policies, *arguments)))
        for name in ("mail_[ab]", "mail_[]]", "mail_[!]a]", "mail_[[]"):
            Policies(QueueSettings(), {name: {"max_items": 1}})

    def test_what_is_not_durable_and_has_a_bound(self) -> None:
        found = policies(
            "[defaults]\nmax_bytes = '1MiB'\n"
            "[queues.q]\ndurable = false\n"
            "[queues.'m*']\ndurable = false\nmax_bytes = '2MiB'\n"
            "[queues.'*d']\ndurable = true\nmax_bytes = 'none'\n"
            "[queues.big]\nmax_bytes = 'none'"
        )
        names = (b"q", b"q+c", b"m", b"md", b"d", b"big")
        settings = [found.of(name) for name in names]
        self.assertEqual(
            [(one.durable, one.max_bytes) for one in settings],
            [(False, 2**20), (False, 2**20), (False, 2**21), (True, None), (True, None), (True, None)],
        )

    def test_what_a_child_inherits_counts(self) -> None:
        text = "[queues.q]\nmax_attempts = 3\ndead_letter_queue = 'd'\n[queues.'q+c']\nmax_attempts = 'none'"
        message = str(self.assertRaises(SettingsError, policies, text))
        self.assertIn("queues.q+c: max_attempts and dead_letter_queue must be set together", message)


SETTINGS = QueueSettings(
    max_items=5, max_bytes=3 * 2**20, max_item_bytes=1000, discard_old_when_full=True, max_age=90.0,
    expire_to_queue="old", max_expire_sweep=7, max_queue_age=86400.0, open_timeout=120.0,
    retry_delay=1.5, max_attempts=3, dead_letter_queue="dead", fanout_only=True, max_open_reads=10, sync=0.25,
)  # fmt: skip


class TextTests(SynchronousTestCase):
    """Settings as shown can be written in a file."""

    def test_round_trip(self) -> None:
        for settings in (QueueSettings(), SETTINGS, QueueSettings(sync="always")):
            table: dict[str, Any] = {}
            for name, text in settings.as_text().items():
                value = getattr(settings, name)
                table[name] = value if isinstance(value, (bool, int)) else text
            self.assertEqual(make_policies(table, {}, {}, "f").defaults, settings)

    def test_readable(self) -> None:
        text = SETTINGS.as_text()
        self.assertEqual(
            [text[name] for name in ("max_bytes", "max_item_bytes", "max_age", "sync", "fanout_only")],
            ["3MiB", "1000B", "90s", "250ms", "true"],
        )
        self.assertEqual(QueueSettings().as_text()["max_age"], "none")

    @given(st.integers(0, 2**50))
    def test_sizes(self, size: int) -> None:
        self.assertEqual(parse_size(size_text(size)), size)

    @given(st.integers(0, 10**12))
    def test_durations(self, ms: int) -> None:
        self.assertEqual(round(parse_duration(duration_text(ms / 1000)) * 1000), ms)
