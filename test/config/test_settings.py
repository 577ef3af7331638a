"""
Tests of `darner.config.settings`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from darner.config.policies import Policies, QueueSettings
from darner.config.settings import (
    DEFAULT_PORT,
    Listener,
    Rights,
    Settings,
    make_settings,
    parse_duration,
    parse_size,
    read_toml,
)
from darner.config.units import LONGEST
from darner.errors import SettingsError
from darner.values.shards import Shard


class SettingsTests(SynchronousTestCase):
    """The settings of a server."""

    def refusal(self, **values: Any) -> str:
        message = str(self.assertRaises(SettingsError, make_settings, values, "darner.toml"))
        self.assertNotIn("\n", message)
        source, _, reason = message.partition(": ")
        self.assertEqual(source, "darner.toml")
        return reason

    def test_defaults(self) -> None:
        settings = make_settings({}, "darner.toml")
        self.assertEqual(settings, Settings())
        self.assertEqual((settings.data_dir, settings.interface), ("data", "127.0.0.1"))
        self.assertEqual((settings.dialect, settings.policies), ("kestrel", Policies()))
        self.assertFalse(settings.debug)
        self.assertIsNone(settings.min_free_bytes)

    def test_sizes(self) -> None:
        self.assertEqual(make_settings({"min_free_bytes": "2 GiB"}, "").min_free_bytes, 2**31)
        self.assertEqual(make_settings({"min_free_bytes": 0}, "").min_free_bytes, 0)
        self.assertEqual(self.refusal(min_free_bytes="much")[:15], "min_free_bytes:")
        self.assertEqual(self.refusal(min_free_bytes=-1), "'min_free_bytes' must be >= 0: -1")

    def test_frozen(self) -> None:
        with self.assertRaises(attrs.exceptions.FrozenInstanceError):
            Settings().debug = True  # type: ignore[misc]

    def test_values_are_left_alone(self) -> None:
        values: dict[str, Any] = {"min_free_bytes": "1KiB", "defaults": {"max_bytes": "1KiB"}}
        settings = make_settings(values, "darner.toml")
        self.assertEqual((settings.min_free_bytes, settings.policies.defaults.max_bytes), (1024, 1024))
        self.assertEqual(values, {"min_free_bytes": "1KiB", "defaults": {"max_bytes": "1KiB"}})

    def test_all(self) -> None:
        self.assertEqual(
            make_settings(
                {
                    "data_dir": "/srv/queues",
                    "port": 0,
                    "interface": "::",
                    "listen": ["tcp6:1", {"endpoint": "unix:/s", "dialect": "memcache"}],
                    "dialect": "memcache",
                    "defaults": {"max_item_bytes": "16MiB"},
                    "queues": {"q": {"max_open_reads": 100}},
                    "aliases": {"a": ["b"]},
                    "max_connections": 5,
                    "max_queues": 6,
                    "max_children": 7,
                    "idle_timeout": "2h",
                    "stall_timeout": 1.5,
                    "keep_alive": 0,
                    "password_file": "/etc/passwords",
                    "users": {"ann": {"read": ["a*"]}, "bob": {}},
                    "debug": True,
                },
                "darner.toml",
            ),
            Settings(
                "/srv/queues", 0, "::", (Listener("tcp6:1"), Listener("unix:/s", "memcache")), "memcache",
                Policies(QueueSettings(max_item_bytes=16 * 2**20), {"q": {"max_open_reads": 100}}, {b"a": (b"b",)}),
                5, 7200.0, 1.5, 0.0, "/etc/passwords",
                {"ann": Rights(read=("a*",)), "bob": Rights()}, True, max_queues=6, max_children=7,
            ),
        )  # fmt: skip

    def test_users_without_passwords(self) -> None:
        """Users without a password file are refused, as everybody would be let in."""
        self.assertIn("without password_file nobody can log in", self.refusal(users={"ann": {}}))

    def test_given_in_python(self) -> None:
        """Settings given in Python are checked as those of a file are."""
        wrong: list[dict[str, Any]] = [
            {"policies": QueueSettings()}, {"port": "1"}, {"port": True}, {"debug": 1}, {"idle_timeout": "1h"},
            {"listen": ["tcp:1"]}, {"data_dir": b"data"}, {"users": {"ann": {}}, "password_file": "p"},
            {"min_free_bytes": 1.5}, {"trusted_network": "yes"}, {"max_connections": 1.0}, {"max_queues": True},
            {"max_queues": -1}, {"max_children": -1}, {"max_children": 1.5}, {"port": 70000},
        ]  # fmt: skip
        for settings in wrong:
            self.assertRaises(ValueError, Settings, **settings)
        together: list[tuple[dict[str, Any], str]] = [
            ({"users": {"ann": Rights()}}, "users: set password_file"),
            ({"policies": Policies(QueueSettings(max_attempts=3))}, "defaults: max_attempts and dead_letter_queue"),
            ({"policies": Policies(QueueSettings(durable=False))}, "defaults: durable = false needs max_bytes"),
        ]
        for settings, reason in together:
            self.assertIn(reason, str(self.assertRaises(SettingsError, Settings, **settings)))

    def test_keep_alive(self) -> None:
        """Linux takes no more."""
        self.assertEqual(make_settings({"keep_alive": 32767}, "").keep_alive, 32767)
        self.assertIn("keep_alive", self.refusal(keep_alive="10h"))

    def test_shard(self) -> None:
        """C{photos} and C{mail.dead} are in the first of two shards, C{jobs} and C{orders} in the second one."""
        cluster = {"cluster": "etcd://127.0.0.1:1/first", "cluster_shard": "1/2"}
        settings = make_settings({**cluster, "cluster_prefer": True}, "darner.toml")
        self.assertEqual((settings.shard, settings.cluster_prefer), (Shard(1, 2), True))
        self.assertIsNone(make_settings({"cluster_shard": "none"}, "darner.toml").shard)
        self.assertIn("'3/2': K is from 1 to N", self.refusal(**{**cluster, "cluster_shard": "3/2"}))
        self.assertIn("only a node of a cluster has a shard", self.refusal(cluster_shard="1/2"))

    def test_targets_in_another_shard(self) -> None:
        cluster = {"cluster": "etcd://127.0.0.1:1/first", "cluster_shard": "1/2"}
        wrong = {"max_attempts": 3, "dead_letter_queue": "orders"}
        reason = "queue orders is in shard 2 of 2, this is shard 1"
        for tables, place in (
            ({"defaults": wrong}, "defaults.dead_letter_queue"),
            ({"queues": {"photos": wrong}}, "queues.photos.dead_letter_queue"),
            ({"queues": {"x*": wrong}}, "queues.x*.dead_letter_queue"),
            ({"queues": {"photos": {"expire_to_queue": "orders"}}}, "queues.photos.expire_to_queue"),
            ({"aliases": {"photos": ["mail.dead", "orders"]}}, "aliases.photos"),
        ):
            self.assertEqual(self.refusal(**cluster, **tables), f"{place}: {reason}")
        right = {"max_attempts": 3, "dead_letter_queue": "mail.dead"}
        make_settings(
            {**cluster, "queues": {"events": wrong, "photos": right}, "aliases": {"jobs": ["orders"]}}, "darner.toml"
        )

    def test_unknown(self) -> None:
        self.assertEqual(self.refusal(prot=1, data=2), "unknown setting data, prot (is port meant?)")
        self.assertEqual(self.refusal(policies={}), "unknown setting policies")

    def test_types(self) -> None:
        self.assertEqual(self.refusal(port="1"), "port: '1' is not of type int")
        self.assertEqual(self.refusal(port=True), "port: True is not of type int")
        self.assertEqual(self.refusal(data_dir=5), "data_dir: 5 is not of type str")
        self.assertEqual(self.refusal(debug="yes"), "debug: 'yes' is not of type bool")

    def test_ranges(self) -> None:
        self.assertEqual(self.refusal(port=65536), "'port' must be <= 65535: 65536")
        self.assertEqual(self.refusal(port=-1), "'port' must be >= 0: -1")
        self.assertEqual(self.refusal(max_connections=-1), "'max_connections' must be >= 0: -1")
        self.assertEqual(self.refusal(queues={"q": {"max_items": 0}}), "queues.q.max_items: 'max_items' must be > 0: 0")
        self.assertEqual(
            self.refusal(dialect="both"), "'dialect' must be in ('kestrel', 'memcache') (got 'both')"
        )

    def test_users(self) -> None:
        for users, reason in (
            ([], "users: not a table"),
            ({"ann": "all"}, "users['ann']: 'all' is not a table of rights"),
            ({"ann": {"read": "*"}}, "users['ann'].read: '*' is not a list of names"),
            ({"ann": {"read": [5]}}, "users['ann'].read[0]: 5 is not of type str"),
            ({"ann": {"reed": []}}, "users['ann']: unknown setting reed (is read meant?)"),
        ):
            self.assertEqual(self.refusal(users=users), reason)

    def test_durations(self) -> None:
        self.assertEqual(
            self.refusal(idle_timeout="soon"),
            "idle_timeout: 'soon' is not a duration like 250ms, 30s, 5min, 2h or a number of seconds",
        )
        self.assertEqual(self.refusal(idle_timeout=[]), "idle_timeout: not a duration like 30s or a number of seconds")
        self.assertEqual(self.refusal(stall_timeout=-1), "'stall_timeout' must be >= 0: -1.0")

    def test_all_that_is_wrong(self) -> None:
        self.assertEqual(
            self.refusal(port="1", debug=1), "port: '1' is not of type int; debug: 1 is not of type bool"
        )

    def test_listen(self) -> None:
        for listen, reason in (
            ("tcp:1", "listen: 'tcp:1' is not a list of endpoints"),
            (5, "listen: 5 is not a list of endpoints"),
            ([5], "listen[0]: 5 is neither an endpoint string nor a table with one"),
            (["tcp:1", {"dialect": "kestrel"}], "listen[1].endpoint: missing"),
            ([{"endpoint": "tcp:1", "port": 2}], "listen[0]: unknown setting port"),
            (
                [{"endpoint": "tcp:1", "dialect": "both"}],
                "listen[0]: 'dialect' must be in ('kestrel', 'memcache') (got 'both')",
            ),
        ):
            self.assertEqual(self.refusal(listen=listen), reason)

    def test_tcp_port(self) -> None:
        """The default port, unless there are other endpoints."""
        elsewhere = (Listener("unix:/s"),)
        self.assertEqual(Settings().tcp_port, DEFAULT_PORT)
        self.assertEqual(Settings(port=5).tcp_port, 5)
        self.assertEqual(Settings(port=0).tcp_port, 0)
        self.assertIsNone(Settings(listen=elsewhere).tcp_port)
        self.assertEqual(Settings(port=5, listen=elsewhere).tcp_port, 5)


class SizeTests(SynchronousTestCase):
    """Sizes, as people write them."""

    def test_good(self) -> None:
        for text, size in (
            (5, 5), ("5", 5), ("5B", 5), ("1KiB", 1024), (" 16 MiB ", 16 * 2**20), ("1gib", 2**30), ("1KB", 1000),
            ("2MB", 2_000_000), ("1GB", 10**9), ("0", 0),
        ):  # fmt: skip
            self.assertEqual(parse_size(text), size, text)

    def test_bad(self) -> None:
        for text in ("", "KiB", "1.5MiB", "-1", "1 parsec", "1KiB and more"):
            error = self.assertRaises(ValueError, parse_size, text)
            self.assertEqual(str(error), f"{text!r} is not a size like 64KiB, 16MiB or 1000000")
        for value in (True, 1.5, None, []):
            error = self.assertRaises(ValueError, parse_size, value)
            self.assertEqual(str(error), "not a size like 64KiB or a number of bytes")

    def test_in_settings(self) -> None:
        error = self.assertRaises(SettingsError, make_settings, {"min_free_bytes": "much"}, "command line")
        self.assertEqual(
            str(error), "command line: min_free_bytes: 'much' is not a size like 64KiB, 16MiB or 1000000"
        )


class DurationTests(SynchronousTestCase):
    """Durations, as people write them."""

    def test_good(self) -> None:
        for text, seconds in (
            (5, 5), (0.5, 0.5), ("250ms", 0.25), ("30s", 30), ("1.5 s", 1.5), ("5m", 300), ("5min", 300), ("2H", 7200),
            (" 1d ", 86400),
        ):  # fmt: skip
            self.assertEqual(parse_duration(text), seconds, text)

    def test_bad(self) -> None:
        for text in ("", "5", "s", "-1s", "1 week", "1s 2s"):
            self.assertRaises(ValueError, parse_duration, text)
        for value in (True, None, []):
            error = self.assertRaises(ValueError, parse_duration, value)
            self.assertEqual(str(error), "not a duration like 30s or a number of seconds")

    def test_out_of_range(self) -> None:
        for value in ("0.4ms", 0.0001, "36501d", 4e9, float("inf"), float("nan"), "9" * 20 + "d"):
            error = self.assertRaises(ValueError, parse_duration, value)
            self.assertEqual(str(error), f"{value!r} is not between 1ms and 100 years")
        self.assertEqual((parse_duration("36500d"), parse_duration("0s"), parse_duration("1ms")), (LONGEST, 0, 0.001))
        self.assertRaises(ValueError, QueueSettings, max_age=float("inf"))


class TomlTests(SynchronousTestCase):
    """Reading a configuration file."""

    def file(self, content: bytes) -> Path:
        path = Path(self.mktemp())
        path.write_bytes(content)
        return path

    def test_read(self) -> None:
        path = self.file(b'port = 5\nlisten = ["tcp:1"]\n[[more]]\nx = 1\n')
        self.assertEqual(read_toml(path), {"port": 5, "listen": ["tcp:1"], "more": [{"x": 1}]})

    def test_missing(self) -> None:
        error = self.assertRaises(SettingsError, read_toml, Path("nowhere.toml"))
        self.assertEqual(str(error), "cannot read nowhere.toml: No such file or directory")

    def test_not_toml(self) -> None:
        for content in (b"port: 5\n", b"port = \xff\n"):
            path = self.file(content)
            message = str(self.assertRaises(SettingsError, read_toml, path))
            self.assertTrue(message.startswith(f"{path} is not TOML: "), message)
