"""
Tests of the log in etcd, with one real etcd.
"""

from __future__ import annotations

import atexit
from base64 import b64decode, b64encode
from itertools import count
from typing import Any, ClassVar, Optional
from unittest import skipIf

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from darner.cluster.etcd.keys import Head, Keys, Stored, new_head, read_first, read_head, read_stored
from darner.cluster.etcd.log import EtcdLog
from darner.cluster.etcd.settings import Credentials, Sizes, Timings
from darner.errors import LogDamaged, LogTrimmed, LogUnavailable
from test.cluster.etcd_servers import ETCD, EtcdServers
from test.cluster.log_contract import EVERYTHING, LogContract, Reading, until
from test.servers import make_certificate, make_directory

PATIENT = Timings(attempt=10, patience=120, silence=10)
"""For a machine that is busy with other things."""

needs_etcd = skipIf(ETCD is None, "there is no etcd: apt-get install etcd-server")

_names = count()


class OneEtcd(TestCase):
    """There is one etcd for all of them; each test has a log of its own."""

    timeout = 300

    servers: ClassVar[Optional[EtcdServers]] = None

    def setUp(self) -> None:
        if OneEtcd.servers is None:
            OneEtcd.servers = EtcdServers(size=1)
            atexit.register(OneEtcd.servers.end)
        self.endpoints = OneEtcd.servers.endpoints
        self.name = f"test{next(_names)}"

    def member(self, **options: Any) -> EtcdLog:
        options.setdefault("timings", PATIENT)
        log = EtcdLog(reactor, self.endpoints, self.name, **options)
        self.addCleanup(log.close)
        return log


@needs_etcd
class EtcdLogContract(LogContract, OneEtcd):
    """It keeps the contract."""

    large = 700_000


def ascii64(value: bytes) -> str:
    """@return: bytes as etcd's JSON has them."""
    return b64encode(value).decode("ascii")


@needs_etcd
class EtcdLogTests(OneEtcd):
    """What is etcd's own."""

    def ask(self, path: str, **body: Any) -> Any:
        """Ask etcd behind the log's back."""
        assert OneEtcd.servers is not None
        return OneEtcd.servers.servers[0].surely(path, body)

    def put(self, key: bytes, value: bytes) -> None:
        self.ask("/v3/kv/put", key=ascii64(key), value=ascii64(value))

    def keys_with(self, prefix: bytes) -> int:
        """@return: how many keys begin so."""
        end = prefix[:-1] + bytes([prefix[-1] + 1])
        answer = self.ask("/v3/kv/range", key=ascii64(prefix), range_end=ascii64(end), count_only=True)
        return int(answer.get("count", 0))

    async def test_sizes_around_the_limits(self) -> None:
        """Records are cut where they have to be, and what is read is what was appended."""
        log = self.member(sizes=Sizes(whole=1000, piece=300, pieces=2))
        sizes = (0, 1, 299, 999, 1000, 1001, 1199, 1200, 1201, 64 * 300 - 1, 64 * 300, 64 * 300 + 1)
        records = [(number, bytes([number]) * size) for number, size in enumerate(sizes, 1)]
        await gatherResults([log.append(number, record) for number, record in records])
        self.assertEqual(self.keys_with(f"darner/{self.name}/piece/".encode()), 4 + 4 + 4 + 5 + 64 + 64 + 65)
        self.assertEqual(await self.member().read(0, EVERYTHING), records)
        reading = Reading(self.member())
        await reading.until(len(records))
        self.assertEqual(reading.got, records)

    async def test_as_large_as_can_be(self) -> None:
        log = self.member(max_record_bytes=5_000_000)
        record = bytes(range(250)) * 20_000
        await log.append(1, record)
        self.assertEqual(await log.read(0, 1), [(1, record)])

    async def test_more_than_may_be_in_flight(self) -> None:
        """They go together, as many as fit."""
        log = self.member(sizes=Sizes(whole=1000, transactions=2, appends=7))
        records = [(number, bytes([number]) * (10 * number)) for number in range(1, 100)]
        await gatherResults([log.append(number, record) for number, record in records])
        self.assertEqual(await log.read(0, EVERYTHING), records)

    async def test_compacted_under_a_follower(self) -> None:
        """Who follows slowly misses nothing, when what it has not seen is forgotten as changes, but is still there."""
        log = self.member()
        reading = Reading(self.member(), slow=True)
        await log.append(1, bytes(100_000))
        await reading.until(1)
        await gatherResults([log.append(number, bytes([number]) * 100_000) for number in range(2, 200)])
        await log.trim(1)
        for number in range(1, 200):
            await reading.until(number)
            reading.go_on()
        self.assertEqual([number for number, _ in reading.got], list(range(1, 200)))
        self.assertEqual(reading.got[1:], [(number, bytes([number]) * 100_000) for number in range(2, 200)])

    async def test_trimmed_under_a_follower(self) -> None:
        """Who follows too slowly is told so; what it got before has no hole."""
        log = self.member()
        reading = Reading(self.member(), slow=True)
        await log.append(1, bytes(100_000))
        await reading.until(1)
        await gatherResults([log.append(number, bytes([number]) * 100_000) for number in range(2, 200)])
        await log.trim(198)
        while not reading.following.ended.called and len(reading.got) < 199:
            got = len(reading.got)
            reading.go_on()
            await until(lambda: reading.following.ended.called or len(reading.got) > got, "more, or the end")  # noqa: B023
        self.assertEqual([number for number, _ in reading.got], list(range(1, len(reading.got) + 1)))
        if len(reading.got) < 199:
            await self.assertFailure(reading.following.ended, LogTrimmed)
        else:
            # All changes were on their way before they were compacted.
            reading.following.stop()

    async def test_wall_clock(self) -> None:
        """The reactor's time is not used, which jumps as the wall clock does: notes would be old at once, say."""

        class Timeless:
            callFromThread = staticmethod(reactor.callFromThread)  # type: ignore[attr-defined]

        log = EtcdLog(Timeless(), self.endpoints, self.name, timings=PATIENT)
        self.addCleanup(log.close)
        reading = Reading(log)
        await gatherResults([log.append(1, b"x"), log.note("n", b"y"), log.append(2, bytes(300_000))])
        await reading.until(2)
        self.assertEqual(await log.notes(), {"n": (b"y", 0.0)})

    async def test_trim_leaves_nothing(self) -> None:
        """Of thousands of records, with those that were cut."""
        log = self.member(sizes=Sizes(whole=100, piece=100))
        await gatherResults([log.append(number, bytes(250 if number % 100 == 0 else 1)) for number in range(1, 2501)])
        await log.trim(2400)
        self.assertEqual(self.keys_with(f"darner/{self.name}/record/".encode()), 100)
        self.assertEqual(self.keys_with(f"darner/{self.name}/piece/".encode()), 3)
        await log.trim(2500)
        self.assertEqual(self.keys_with(f"darner/{self.name}/".encode()), 2)
        self.assertEqual((await log.first(), await log.last()), (2501, 2500))

    async def test_damaged(self) -> None:
        """A record that is not what was appended ends who reads it."""
        log = self.member(sizes=Sizes(whole=100, piece=100))
        keys = Keys(self.name)
        for number in range(1, 5):
            await log.append(number, bytes(250 if number == 2 else 1))
        head = Head(4, b"x" * 16)
        answer = self.ask("/v3/kv/range", key=ascii64(keys.record(2)))
        stored = read_stored(2, b64decode(answer["kvs"][0]["value"]))
        for number, key, value, why in (
            (1, keys.record(1), b"", "damaged, or of a later version"),
            (2, keys.piece(2, stored.upload, 1), bytes([1]) * 100, "do not make"),
            (3, keys.record(3), b"\x07" + bytes(40), "damaged, or of a later version"),
        ):
            self.put(key, value)
            with self.assertRaisesRegex(LogDamaged, f"record {number}.*{why}"):
                await log.read(number - 1, EVERYTHING)
            await self.assertFailure(Reading(log, number - 1).following.ended, LogDamaged)
        self.ask("/v3/kv/deleterange", key=ascii64(keys.piece(2, stored.upload, 0)))
        with self.assertRaisesRegex(LogDamaged, "piece 0 of 3 is not there"):
            await log.read(1, EVERYTHING)
        self.assertEqual(await log.read(3, EVERYTHING), [(4, b"\0")])
        self.ask("/v3/kv/deleterange", key=ascii64(keys.record(4)))
        with self.assertRaisesRegex(LogDamaged, "record 4 is missing"):
            await log.read(3, EVERYTHING)
        self.put(keys.head, b"nonsense")
        for call in (log.last, lambda: self.member().append(5, b"x")):
            with self.assertRaisesRegex(LogDamaged, "head is damaged"):
                await call()
        self.put(keys.head, head.value())
        self.assertEqual(await log.last(), 4)

    async def test_nobody_there(self) -> None:
        self.endpoints = ["127.0.0.1:1"]
        log = self.member(timings=Timings(attempt=2, patience=2))
        for asked in [log.last(), log.notes(), log.append(1, b"x"), log.trim(0)]:
            # The last attempt has little time left, less than a busy machine may take to find out.
            with self.assertRaisesRegex(LogUnavailable, r"127\.0\.0\.1:1: (UNAVAILABLE|DEADLINE_EXCEEDED)"):
                await asked

    def test_names(self) -> None:
        for name in ("", "a/b", "a b", "\xe4", "x" * 251):
            self.assertRaises(ValueError, EtcdLog, reactor, ["127.0.0.1:1"], name)
        self.assertRaises(ValueError, EtcdLog, reactor, [], "name")


class ValueTests(SynchronousTestCase):
    """What is in the values of keys."""

    def test_round_trip(self) -> None:
        head = new_head(17)
        self.assertEqual(read_head(head.value()), head)
        self.assertEqual(read_head(None), Head(0, b""))
        self.assertEqual((read_first(None), read_first(b"12")), (1, 12))
        for stored in (Stored(b"t" * 16, b"record"), Stored(b"t" * 16, b"", b"u" * 16, 3, 1 << 40, 0xFFFFFFFF)):
            self.assertEqual(read_stored(1, stored.value()), stored)

    def test_damaged(self) -> None:
        for value in (b"", b"1", b"x 00", b"1 zz", b"1 00 00", b"1 \xff"):
            self.assertRaises(LogDamaged, read_head, value)
        self.assertRaises(LogDamaged, read_first, b"x")
        whole = Stored(b"t" * 16, b"", b"u" * 16, 3, 250, 0).value()
        for value in (b"", b"\x01", b"\0" * 40, whole[:-1], whole + b"x"):
            self.assertRaises(LogDamaged, read_stored, 1, value)


@needs_etcd
class SecurityTests(TestCase):
    """An etcd with users, and one with TLS."""

    timeout = 300

    async def test_users(self) -> None:
        """The log logs in, again where etcd has forgotten it; what etcd refuses is told at once."""
        servers = EtcdServers(self, size=1)
        (server,) = servers.servers
        for path, body in (
            ("user/add", {"name": "root", "password": "r"}),
            ("role/add", {"name": "root"}),
            ("user/grant", {"user": "root", "role": "root"}),
            ("user/add", {"name": "darner", "password": "secret"}),
            ("role/add", {"name": "log"}),
            ("role/grant", {"name": "log", "perm": {
                "permType": "READWRITE", "key": ascii64(b"darner/secure/"), "range_end": ascii64(b"darner/secure0"),
            }}),
            ("user/grant", {"user": "darner", "role": "log"}),
            ("enable", {}),
        ):  # fmt: skip
            server.change(f"/v3/auth/{path}", body)

        def member(name: str, password: str, user: Optional[str] = "darner") -> EtcdLog:
            credentials = Credentials(user=user, password=password)
            log = EtcdLog(reactor, servers.endpoints, name, credentials, PATIENT)
            self.addCleanup(log.close)
            return log

        log = member("secure", "secret")
        reading = Reading(log)
        await gatherResults([log.append(1, b"first"), log.append(2, bytes(300_000)), log.note("n1", b"x"), log.last()])
        await reading.until(2)
        server.kill()
        server.start()
        await log.append(3, b"third")
        await reading.until(3)
        await log.trim(2)
        for other in (member("secure", "wrong"), member("other", "secret"), member("secure", "", None)):
            for call in (other.last, lambda other=other: other.append(4, b"x")):
                with self.assertRaisesRegex(LogUnavailable, "etcdserver: "):
                    await call()
        self.assertEqual(await log.last(), 3)
        self.assertEqual(repr(Credentials(user="darner", password="secret")).count("secret"), 0)

    async def test_tls(self) -> None:
        """With a certificate that the authority vouches for; without it nothing is said."""
        certificate = make_certificate(make_directory(self), "localhost")
        servers = EtcdServers(self, size=1, certificate=certificate)
        endpoints = [f"localhost:{servers.servers[0].port}"]
        pem = certificate.read_bytes()
        log = EtcdLog(reactor, endpoints, "tls", Credentials(authority=pem), PATIENT)
        self.addCleanup(log.close)
        await log.append(1, b"x" * 300_000)
        reading = Reading(log)
        await reading.until(1)
        self.assertEqual(await log.read(0, EVERYTHING), [(1, b"x" * 300_000)])
        for credentials in (Credentials(tls=True), Credentials()):
            stranger = EtcdLog(reactor, endpoints, "tls", credentials, Timings(attempt=1, patience=0.5))
            self.addCleanup(stranger.close)
            with self.assertRaises(LogUnavailable):
                await stranger.last()
