"""
The fuzzer's checks (`fuzz`) without the fuzzer: its seeds, inputs of Hypothesis's, and that faults would be seen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from darner.front import memcache_requests as darner_wire
from darner.front.client_reads import ClientReads
from darner.front.framing import Framing
from darner.migrate import kestrel
from darner.queues.collection import Queues
from darner.queues.fifo import Fifo
from darner.queues.open_read import OpenRead
from darner.queues.storage import Storage
from darner.values import requests
from fuzz import backup, files, http, migrate, protocol, seeds, stream, wire
from fuzz.__main__ import main
from fuzz.choices import byte_by_byte, pieces
from fuzz.commands import Command
from test.harness import from_source

SCRIPTS = st.lists(st.binary(min_size=1, max_size=9), max_size=25).map(b"".join)
"""Scripts of `fuzz.protocol`, whose commands take a few bytes each."""

WORDS = st.one_of(
    st.sampled_from([
        b"set q 0 0 3\r\n", b"abc\r\n", b"get q", b"/t=5", b"/open", b"/peek", b"/close", b"\r\n", b"\n", b"get q\r\n",
        b"set q 0 0 9", b" noreply", b"flush_all\r\n", b"delete q\r\n", b"stats\r\n", b"quit\r\n", b"get a q\r\n",
        b"dump_stats\r\n", b"set q 0 -1 0\r\n\r\n", b"get q/abort\r\n", b"x" * 2049, b"set q 0 0 70000\r\n",
    ]),
    st.binary(max_size=12),
)  # fmt: skip
LINES = st.lists(WORDS, max_size=20).map(b"".join)
RECORDS = st.tuples(
    st.sampled_from([b"\0", b"\x70", b"\x90", b"\xb0"]),
    st.lists(st.binary(max_size=30) | st.sampled_from([seed[1:] for seed in seeds.migrate()]), max_size=6)
    .map(b"".join),
).map(b"".join)
"""What other servers' files may hold."""
NAMES = st.lists(st.binary(max_size=260) | st.text(max_size=20).map(str.encode), max_size=12).map(b"\n".join)


class SeedsTests(SynchronousTestCase):
    """Every seed in the repository passes the checks of its target."""

    def hold(self, target: str, check: Callable[[bytes], None]) -> None:
        paths = sorted((seeds.CORPUS / target).iterdir())
        self.assertGreater(len(paths), 3)
        for path in paths:
            try:
                check(path.read_bytes())
            except Exception as error:
                raise AssertionError(f"{path}: {error}") from error
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_wire(self) -> None:
        self.hold("wire", wire.check)

    def test_protocol(self) -> None:
        self.hold("protocol", protocol.check_all_ways)

    def test_stream(self) -> None:
        self.hold("stream", stream.check)

    def test_files(self) -> None:
        self.hold("files", files.check)

    def test_backup(self) -> None:
        self.hold("backup", backup.check)

    def test_migrate(self) -> None:
        self.hold("migrate", migrate.check)

    def test_http(self) -> None:
        self.hold("http", http.check)

    def test_seeds_are_those_that_are_made(self) -> None:
        for target, made in seeds.SEEDS.items():
            kept = sorted((seeds.CORPUS / target).glob("seed-*"))
            self.assertEqual([path.read_bytes() for path in kept], list(made()), target)

    def test_everything_that_can_happen_is_among_them(self) -> None:
        events = [event for seed in seeds.protocol() for _, event in protocol.script(seed)[1]]
        self.assertEqual(
            {type(event).__name__ for event in events},
            {"Command", "Passing", "Jump", "Choking", "Leaving", "Shutting"},
        )
        self.assertEqual(
            {type(event.meaning).__name__ for event in events if isinstance(event, Command)},
            {"Put", "Read", "ReadMany", "Drop", "Expire", "Say", "Part", "Figures", "Dump"},
        )
        requests = {type(darner_wire.parse(line)).__name__ for line in seeds.LINES}
        self.assertEqual(requests, {
            "Set", "Get", "GetMany", "GetFirst", "Monitor", "Confirm", "Delete", "Flush", "FlushAll", "Stats",
            "DumpStats", "Version", "Quit", "Refused",
            "DumpConfig", "Reload", "Shutdown", "Status", "SetStatus",
            "Touch", "Requeue",
            "FlushExpired", "FlushAllExpired",
        })  # fmt: skip


class AnyInputTests(SynchronousTestCase):
    """Random inputs."""

    @given(LINES | st.binary(max_size=300))
    @settings(deadline=None, max_examples=400)
    def test_wire(self, data: bytes) -> None:
        wire.check(data)

    @given(SCRIPTS)
    @settings(deadline=None, max_examples=250)
    def test_protocol(self, data: bytes) -> None:
        protocol.check_all_ways(data)

    @given(LINES)
    @settings(deadline=None, max_examples=250)
    def test_stream(self, data: bytes) -> None:
        stream.check(data)

    @given(st.sampled_from(list(seeds.http())), st.binary(max_size=20), st.integers(0, 400), st.integers(0, 40))
    @settings(deadline=None, max_examples=60)
    def test_http(self, seed: bytes, put: bytes, at: int, left_out: int) -> None:
        """A seed with something else somewhere in it."""
        http.check(seed[:at] + put + seed[at + left_out :])

    @given(NAMES)
    @settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
    def test_files(self, data: bytes) -> None:
        files.check(data)

    @given(RECORDS)
    @settings(deadline=None, max_examples=250)
    def test_migrate(self, data: bytes) -> None:
        migrate.check(data)

    @given(st.binary(max_size=3000), st.binary(max_size=3))
    @settings(deadline=None, max_examples=50)
    def test_cuts(self, data: bytes, seed: bytes) -> None:
        """Nothing is lost by cutting, and nothing is sent that is empty."""
        for cut in (list(pieces(data, seed)), list(byte_by_byte(data))):
            self.assertEqual(b"".join(cut), data)
            self.assertNotIn(b"", cut)


class MainTests(SynchronousTestCase):
    """``python -m fuzz``, as far as it needs no fuzzer."""

    def test_inputs(self) -> None:
        """Those that are named are tried, and nothing else is."""
        tried: list[bytes] = []
        self.patch(stream, "check", tried.append)
        paths = [str(seeds.CORPUS / "stream" / name) for name in ("seed-00", "seed-01")]
        main(["stream", *paths])
        self.assertEqual(tried, list(islice(seeds.stream(), 2)))

    @from_source
    def test_input_that_breaks_a_promise(self) -> None:
        self.patch(darner_wire, "check_queue_name", lambda name: name)
        path = Path(self.mktemp())
        path.write_bytes(b"get \x00")
        self.assertRaises(AssertionError, main, ["wire", str(path)])


@from_source
class FaultsAreSeenTests(SynchronousTestCase):
    """Each check detects the fault it is for."""

    def seen(
        self, check: Callable[[bytes], None], data: bytes, owner: Any, name: str, fault: Any,
        error: type[Exception] = AssertionError,
    ) -> None:  # fmt: skip
        """Put a fault into the code, and check that an input that passed now fails."""
        check(data)
        self.patch(owner, name, fault)
        self.assertRaises(error, check, data)
        self.flushLoggedErrors()

    def test_line_understood_wrongly(self) -> None:
        self.seen(wire.check, b"get \x00", darner_wire, "check_queue_name", lambda name: name)

    def test_payload_taken_for_a_command(self) -> None:
        """A set whose payload length is ignored."""
        expect = Framing._expect

        def expect_nothing(connection: Framing, request: requests.Set) -> None:
            expect(connection, dataclasses.replace(request, size=0))

        for check, data in (
            (stream.check, b"\0set q 0 0 10\r\n\r\nget q\r\n\r\n"),
            (protocol.check, bytes([0, 0, 0, 0, 64 + 13, 0, 0, 0])),
        ):
            self.seen(check, data, Framing, "_expect", expect_nothing)
            self.patch(Framing, "_expect", expect)

    def test_journal_read_wrongly(self) -> None:
        """An item that is open is taken for one that is done."""
        seed = next(iter(seeds.migrate()))
        self.seen(migrate.check, seed, kestrel._State, "first", lambda state: list(state.front))

    def test_item_that_is_handed_out_twice(self) -> None:
        script = bytes([0]) + bytes([0, 0, 0, 65, 0, 0, 0, 0, 0]) + 2 * bytes([0, 4, 0, 0, 0, 0])
        self.seen(protocol.check, script, Fifo, "take", Fifo.peek)

    def test_item_that_is_put_twice(self) -> None:
        script = bytes([0]) + 2 * bytes([0, 0, 0, 65, 0, 0, 0, 4, 0])
        self.seen(protocol.check, script, Storage, "find_id", lambda storage, id: None)

    def test_reply_that_depends_on_the_cut(self) -> None:
        take = Framing._take_line

        def take_at_the_end(connection: Framing) -> bool:
            if not connection._data.endswith(b"\n"):
                connection._data = b""
            return take(connection)

        self.seen(stream.check, b"\0version\r\n", Framing, "_take_line", take_at_the_end)

    def test_exception(self) -> None:
        def fail(*_: object) -> None:
            raise ZeroDivisionError

        self.seen(stream.check, b"\0get q\r\n", Queues, "find", fail, ZeroDivisionError)

    def test_failure_in_the_log(self) -> None:
        take = Fifo.take

        def take_and_tell(fifo: Fifo) -> Any:
            Logger().failure("oh", Failure(ZeroDivisionError()))
            return take(fifo)

        self.seen(stream.check, b"\0set q 0 0 1\r\nx\r\nget q\r\n", Fifo, "take", take_and_tell)

    def test_waiter_left_behind(self) -> None:
        self.seen(stream.check, b"\0get q/t=1000\r\n", ClientReads, "stop_waiting", lambda reads: None)

    def test_open_read_left_behind(self) -> None:
        data = b"\0set q 0 0 1\r\nx\r\nget q/open\r\n"
        self.seen(stream.check, data, OpenRead, "abort", lambda read: True)

    def test_queue_left_behind(self) -> None:
        self.seen(stream.check, b"\0get q/t=1000\r\n", Queues, "release", lambda queues, fifo: None)

    def test_name_that_is_a_file(self) -> None:
        put = Fifo.put

        def put_and_touch(fifo: Fifo, *arguments: Any, **more: Any) -> Any:
            (fifo.storage.medium.store.path / fifo.name.decode()).touch()  # type: ignore[attr-defined]
            return put(fifo, *arguments, **more)

        self.seen(files.check, b"passwd", Fifo, "put", put_and_touch)
