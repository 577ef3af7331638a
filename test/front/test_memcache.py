"""
Tests of `darner.front.memcache`: every request, every refusal, every reply.
"""

from __future__ import annotations

import dataclasses

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from darner.errors import (
    BadQueueName,
    ClientError,
    ItemTooLarge,
    QueueFull,
    SettingsError,
    Stopped,
    StoreError,
    TooManyOpenReads,
)
from darner.front import memcache
from darner.front.memcache_requests import BINARY, HTTP, OTHER, LineCache, parse
from darner.values import requests
from darner.values.items import PutOptions
from darner.values.requests import (
    Confirm,
    Delete,
    DumpStats,
    Flush,
    FlushAll,
    Get,
    GetFirst,
    GetMany,
    Monitor,
    Quit,
    Refused,
    Requeue,
    Set,
    Stats,
    Touch,
    Version,
)
from darner.values.vocabulary import MAX_DELAY, MAX_WAIT, STATUSES, check_queue_name
from test.harness import value

BAD_NAME = b"CLIENT_ERROR bad queue name\r\n"
BAD_FORMAT = b"CLIENT_ERROR bad command line format\r\n"


class SetTests(SynchronousTestCase):
    """`set`, whose payload follows the line."""

    def test_plain(self) -> None:
        self.assertEqual(parse(b"set q 0 0 5"), Set(b"q", flags=0, expiry=0, size=5))

    def test_flags_and_expiry(self) -> None:
        self.assertEqual(parse(b"set q 4294967295 1700000000 0"), Set(b"q", 2**32 - 1, 1700000000, 0))

    def test_expired_at_once(self) -> None:
        """memcached takes an expiry below 0."""
        self.assertEqual(parse(b"set q 0 -1 5"), Set(b"q", 0, -1, 5))

    def test_noreply(self) -> None:
        self.assertEqual(parse(b"set q 0 0 5 NoReply"), Set(b"q", 0, 0, 5, noreply=True))

    def test_sync(self) -> None:
        self.assertEqual(parse(b"set q/sync 0 0 5"), Set(b"q", 0, 0, 5, sync=True))
        self.assertEqual(parse(b"set q/SYNC 0 0 5"), Set(b"q", 0, 0, 5, sync=True))

    def test_empty_option(self) -> None:
        self.assertEqual(parse(b"set q/ 0 0 5"), Set(b"q", 0, 0, 5))

    def test_delay(self) -> None:
        self.assertEqual(parse(b"set q/delay=250 0 0 5"), Set(b"q", 0, 0, 5, options=PutOptions(250)))
        self.assertEqual(parse(b"set q/DELAY=0/sync 0 0 5"), Set(b"q", 0, 0, 5, sync=True, options=PutOptions(0)))
        longest = parse(b"set q/delay=%b 0 0 5" % (b"9" * 18))
        self.assertEqual(longest, Set(b"q", 0, 0, 5, options=PutOptions(MAX_DELAY)))
        for delay in (b"", b"-1", b"1.5", b"9" * 19):
            refused = Refused(b"CLIENT_ERROR bad delay\r\n", payload=5)
            self.assertEqual(parse(b"set q/delay=%b 0 0 5" % delay), refused)

    def test_unreadable_size(self) -> None:
        """The start of the next request is unknown, so the connection is closed."""
        for line in (
            b"set",
            b"set q",
            b"set q 0 0",
            b"set q 0 0 x",
            b"set q 0 0 -1",
            b"set q 0 0 +5",
            b"set q 0 0 5x noreply",
            b"set q 0 0 1_0",
            b"set q 0 0 " + b"9" * 19,
        ):
            self.assertEqual(parse(line), Refused(BAD_FORMAT, close=True), line)

    def test_binary(self) -> None:
        """memcached's binary protocol, and a TLS hello."""
        for line in (b"\x80\0\0\1", b" \x80x", b"\x16\3\1\2"):
            self.assertEqual(parse(line), Refused(b"", close=True, warning=BINARY), line)

    def test_refused_in_step(self) -> None:
        """If the size is readable, the payload is skipped, and the connection goes on."""
        for line, reply in (
            (b"set %b 0 0 5" % (b"q" * 251), BAD_NAME),
            (b"set /sync 0 0 5", BAD_NAME),
            (b"set q/later 0 0 5", b"CLIENT_ERROR unknown option of set\r\n"),
            (b"set q x 0 5", b"CLIENT_ERROR bad flags\r\n"),
            (b"set q -1 0 5", b"CLIENT_ERROR bad flags\r\n"),
            (b"set q 4294967296 0 5", b"CLIENT_ERROR bad flags\r\n"),
            (b"set q 0 soon 5", b"CLIENT_ERROR bad expiry\r\n"),
            (b"set q 0 0 5 please", BAD_FORMAT),
            (b"set q 0 0 5 please now", BAD_FORMAT),
        ):
            self.assertEqual(parse(line), Refused(reply, payload=5), line)

    def test_refused_without_reply(self) -> None:
        """Who wants no reply gets none to a refusal either."""
        refusal = Refused(b"CLIENT_ERROR bad flags\r\n", payload=5, noreply=True)
        self.assertEqual(parse(b"set q x 0 5 noreply"), refusal)
        self.assertEqual(parse(b"set q 0 0 5 more noreply"), Refused(BAD_FORMAT, payload=5, noreply=True))

    def test_a_size_is_not_noreply(self) -> None:
        self.assertEqual(parse(b"set q 0 0 noreply"), Refused(BAD_FORMAT, close=True))


class GetTests(SynchronousTestCase):
    """`get` and its options."""

    def test_plain(self) -> None:
        self.assertEqual(parse(b"get q"), Get(b"q", b"q"))
        self.assertEqual(parse(b"gets q"), Get(b"q", b"q", numbered=True))

    def test_options(self) -> None:
        for line, options in (
            (b"get q/open", {"open": True}),
            (b"get q/close", {"close": True}),
            (b"get q/abort", {"abort": True}),
            (b"get q/peek", {"peek": True}),
            (b"get q/t=250", {"wait": 250}),
            (b"get q/close/open", {"open": True, "close": True}),
            (b"get q/open/close/t=5", {"open": True, "close": True, "wait": 5}),
            (b"get q/peek/t=5", {"peek": True, "wait": 5}),
            (b"get q/t=5/close", {"close": True, "wait": 5}),
            (b"get q//OPEN/", {"open": True}),
            (b"get q/T=5", {"wait": 5}),
        ):
            self.assertEqual(parse(line), Get(b"q", line[4:], **options), line)

    def test_key_is_as_it_was_sent(self) -> None:
        request = parse(b"GET q/Open/T=5")
        assert isinstance(request, Get)
        self.assertEqual(request.key, b"q/Open/T=5")

    def test_long_wait(self) -> None:
        """Waits are limited to the longest time that timers support."""
        request = parse(b"get q/t=999999999999")
        assert isinstance(request, Get)
        self.assertEqual(request.wait, MAX_WAIT)

    def test_fetches(self) -> None:
        for line, fetches in (
            (b"get q", True),
            (b"get q/open", True),
            (b"get q/peek", True),
            (b"get q/close", False),
            (b"get q/abort", False),
            (b"get q/close/open", True),
            (b"get q/close/t=5", False),
        ):
            request = parse(line)
            assert isinstance(request, Get)
            self.assertEqual(request.fetches, fetches, line)

    def test_refused(self) -> None:
        for line, reason in (
            (b"get", b"get needs a queue name"),
            (b"get /open", b"bad queue name"),
            (b"get q/t=", b"bad wait"),
            (b"get q/t=x", b"bad wait"),
            (b"get q/t=-1", b"bad wait"),
            (b"get q/wait", b"unknown option of get"),
            (b"get q/abort/open", b"abort must be by itself"),
            (b"get q/abort/close", b"abort must be by itself"),
            (b"get q/abort/peek", b"abort must be by itself"),
            (b"get q/abort/t=5", b"abort must be by itself"),
            (b"get q/peek/open", b"cannot open and peek"),
            (b"get q/peek/close", b"cannot close and peek"),
            (b"get q/peek/close/open", b"cannot open and peek"),
        ):
            self.assertEqual(parse(line), Refused(b"CLIENT_ERROR %b\r\n" % reason), line)

    def test_several_queues(self) -> None:
        self.assertEqual(parse(b"get a b a"), GetMany((b"a", b"b", b"a")))
        self.assertEqual(parse(b"gets a b a"), GetMany((b"a", b"b", b"a"), numbered=True))

    def test_several_queues_take_no_options(self) -> None:
        self.assertEqual(parse(b"get a b/open"), Refused(BAD_NAME))
        self.assertEqual(parse(b"get a b/"), Refused(BAD_NAME))

    def test_several_queues_and_a_wait(self) -> None:
        """With a wait behind the last name one of them is read, and all options are for all of them."""
        for line, options in (
            (b"get a b a/t=5", {"wait": 5}),
            (b"get a b/T=0", {}),
            (b"get a b/t=5/open/", {"wait": 5, "open": True}),
            (b"get a b/close/OPEN/t=0", {"close": True, "open": True}),
            (b"get a b/close/t=0", {"close": True}),
            (b"get a b/peek/t=5", {"wait": 5, "peek": True}),
        ):
            last = line.split()[-1]
            a, b = (b"a", last) if last.startswith(b"b") else (last, b"b")
            self.assertEqual(parse(line), GetFirst((Get(b"a", a, **options), Get(b"b", b, **options))), line)
            choices = Get(b"a", a, **options, numbered=True), Get(b"b", b, **options, numbered=True)
            self.assertEqual(parse(line.replace(b"get", b"gets")), GetFirst(choices), line)
        for line, reason in (
            (b"get a/t=5 b", b"bad queue name"),
            (b"get a/t=5 b/t=5", b"bad queue name"),
            (b"get a /t=5", b"bad queue name"),
            (b"get a b/t=", b"bad wait"),
            (b"get a b/t=0/abort", b"abort must be by itself"),
            (b"get a b/t=5/abort", b"abort must be by itself"),
            (b"get a b/t=5/peek/open", b"cannot open and peek"),
            (b"get a b/t=5/soon", b"unknown option of get"),
        ):
            self.assertEqual(parse(line), Refused(b"CLIENT_ERROR %b\r\n" % reason), line)


class MonitorTests(SynchronousTestCase):
    """`monitor` and `confirm`."""

    def test_monitor(self) -> None:
        self.assertEqual(parse(b"monitor q 5"), Monitor(b"q", 5))
        self.assertEqual(parse(b"MONITOR q+a 0 10"), Monitor(b"q+a", 0, 10))
        self.assertEqual(parse(b"monitor q %d" % 10**17), Monitor(b"q", MAX_WAIT // 1000))

    def test_confirm(self) -> None:
        self.assertEqual(parse(b"confirm q 10"), Confirm(b"q", 10))

    def test_refused(self) -> None:
        for line, reason in (
            (b"monitor", b"monitor needs a queue name and seconds"),
            (b"monitor q", b"monitor needs a queue name and seconds"),
            (b"monitor q 1 2 3", b"monitor needs a queue name and seconds"),
            (b"monitor q x", b"bad seconds"),
            (b"monitor q -1", b"bad seconds"),
            (b"monitor q 1 x", b"bad maximum"),
            (b"monitor q/open 1", b"bad queue name"),
            (b"confirm q", b"confirm needs a queue name and a count"),
            (b"confirm q 1 2", b"confirm needs a queue name and a count"),
            (b"confirm q -1", b"bad count"),
            (b"confirm / 1", b"bad queue name"),
        ):
            self.assertEqual(parse(line), Refused(b"CLIENT_ERROR %b\r\n" % reason), line)


class OtherRequestTests(SynchronousTestCase):
    """The requests that read and write no item."""

    def test_delete(self) -> None:
        self.assertEqual(parse(b"delete q"), Delete(b"q"))
        self.assertEqual(parse(b"delete q 0"), Delete(b"q"))
        self.assertEqual(parse(b"delete q noreply"), Delete(b"q", noreply=True))
        self.assertEqual(parse(b"delete q 0 NOREPLY"), Delete(b"q", noreply=True))
        self.assertEqual(parse(b"delete noreply"), Delete(b"noreply"))

    def test_flush(self) -> None:
        self.assertEqual(parse(b"flush q"), Flush(b"q"))

    def test_flush_all(self) -> None:
        self.assertEqual(parse(b"flush_all"), FlushAll())
        self.assertEqual(parse(b"flush_all noreply"), FlushAll(noreply=True))

    def test_flush_all_with_a_delay(self) -> None:
        """Stock memcache clients send the delay, 0."""
        self.assertEqual(parse(b"flush_all 0"), FlushAll(delayed=True))
        self.assertEqual(parse(b"flush_all -1"), FlushAll(delayed=True))
        self.assertEqual(parse(b"flush_all 0 noreply"), FlushAll(noreply=True, delayed=True))

    def test_without_arguments(self) -> None:
        self.assertEqual(parse(b"stats"), Stats())
        self.assertEqual(parse(b"version"), Version())
        self.assertEqual(parse(b"quit"), Quit())

    def test_touch(self) -> None:
        """memcached's clients send the expiry, 0 where nothing is said."""
        self.assertEqual(parse(b"touch q"), Touch(b"q"))
        self.assertEqual(parse(b"touch q 0"), Touch(b"q"))
        self.assertEqual(parse(b"touch q 0 noreply"), Touch(b"q", noreply=True))
        self.assertEqual(parse(b"touch q NOREPLY"), Touch(b"q", noreply=True))
        self.assertEqual(parse(b"touch noreply"), Touch(b"noreply"))

    def test_requeue(self) -> None:
        self.assertEqual(parse(b"requeue a b"), Requeue(b"a", b"b"))
        self.assertEqual(parse(b"requeue a b 10"), Requeue(b"a", b"b", 10))

    def test_dump_stats(self) -> None:
        self.assertEqual(parse(b"dump_stats"), DumpStats())
        self.assertEqual(parse(b"dump_stats a b"), DumpStats((b"a", b"b")))

    def test_dump_config(self) -> None:
        self.assertEqual(parse(b"dump_config"), requests.DumpConfig())
        self.assertEqual(parse(b"DUMP_CONFIG a b"), requests.DumpConfig((b"a", b"b")))
        self.assertEqual(parse(b"dump_config a/b"), Refused(BAD_NAME))

    def test_status(self) -> None:
        self.assertEqual(parse(b"status"), requests.Status())
        for status in STATUSES:
            self.assertEqual(parse(b"Status " + status.upper().encode()), requests.SetStatus(status))
        for line in (b"status down", b"status up up", b"status \xff"):
            self.assertEqual(parse(line), Refused(b"CLIENT_ERROR unknown status\r\n"))

    def test_of_the_process(self) -> None:
        self.assertEqual((parse(b"reload"), parse(b"SHUTDOWN ")), (requests.Reload(), requests.Shutdown()))

    def test_refused(self) -> None:
        for line, reason in (
            (b"delete", b"delete needs a queue name"),
            (b"delete a/b", b"bad queue name"),
            (b"flush", b"flush needs one queue name"),
            (b"flush a b", b"flush needs one queue name"),
            (b"flush a/b", b"bad queue name"),
            (b"flush_all soon", b"bad delay"),
            (b"flush_all 10", b"flush_all cannot be delayed"),
            (b"flush_all 0 0", b"bad command line format"),
            (b"reload now", b"reload takes no arguments"),
            (b"shutdown now", b"shutdown takes no arguments"),
            (b"dump_stats a/b", b"bad queue name"),
            (b"touch", b"touch needs one queue name"),
            (b"touch q 0 0", b"touch needs one queue name"),
            (b"touch q/open", b"bad queue name"),
            (b"touch q 10", b"touch sets no expiry"),
            (b"touch q soon", b"bad expiry"),
            (b"requeue a", b"requeue needs two queue names"),
            (b"requeue a b 1 2", b"requeue needs two queue names"),
            (b"requeue a a", b"requeue needs two queues"),
            (b"requeue a b/c", b"bad queue name"),
            (b"requeue a b -1", b"bad count"),
        ):
            self.assertEqual(parse(line), Refused(b"CLIENT_ERROR %b\r\n" % reason), line)

    def test_words_behind_what_changes_nothing(self) -> None:
        """As in Kestrel."""
        for line, request in ((b"stats items", Stats()), (b"version 2", Version()), (b"quit now", Quit())):
            self.assertEqual(parse(line), request)

    def test_payloads_of_what_is_not_served(self) -> None:
        """memcached's other commands have a payload, which is skipped.  Without a size the client is cut."""
        for line, size in (
            (b"add q 0 0 9", 9), (b"REPLACE q 0 0 0", 0), (b"append q 0 0 12", 12), (b"prepend q 0 0 3", 3),
            (b"cas q 0 0 9 17", 9), (b"ms q 5 T0", 5),
        ):  # fmt: skip
            self.assertEqual(parse(line), Refused(b"ERROR\r\n", payload=size), line)
        self.assertEqual(parse(b"add q 0 0 9 noreply"), Refused(b"ERROR\r\n", payload=9, noreply=True))
        self.assertEqual(parse(b"cas q 0 0 9 17 NOREPLY"), Refused(b"ERROR\r\n", payload=9, noreply=True))
        for line in (b"add", b"add q 0 0", b"add q 0 0 x", b"append q 0 0 -1", b"ms q", b"ms q S5"):
            self.assertEqual(parse(line), Refused(b"ERROR\r\n", close=True), line)

    def test_refused_and_quiet(self) -> None:
        """A client that sent C{noreply} would take a reply for that of its next request."""
        for line in (
            b"touch q 60 noreply", b"delete a/b noreply", b"flush_all 10 noreply", b"incr q 1 noreply",
            b"DECR q 1 NOREPLY", b"verbosity 1 noreply", b"touch a b c noreply",
        ):  # fmt: skip
            request = parse(line)
            assert isinstance(request, Refused)
            self.assertTrue(request.noreply, line)
        for line in (b"noreply", b"bogus noreply", b"touch q 60"):
            request = parse(line)
            assert isinstance(request, Refused)
            self.assertFalse(request.noreply, line)

    def test_http(self) -> None:
        """A form on any page can have a browser send commands; the first line of HTTP ends that."""
        for line in (b"GET / HTTP/1.1", b"POST /x HTTP/1.0", b"PRI * HTTP/2.0", b"Host: localhost:22133", b"post"):
            self.assertEqual(parse(line), Refused(b"", close=True, warning=HTTP), line)

    def test_payloads_of_other_protocols(self) -> None:
        """Kestrel's text protocol, beanstalkd's, NATS' and Redis': what follows such a line is no command."""
        for line in (b"put q:", b"put 0 0 60 9", b"PUB subject 9", b"HPUB subject 5 9", b"*3"):
            self.assertEqual(parse(line), Refused(b"ERROR\r\n", close=True, warning=OTHER), line)

    def test_unknown(self) -> None:
        """Clients compare the reply: there is nothing behind the word."""
        for line in (b"", b"   ", b"incr q 1", b"getx q", b"set\x00 q 0 0 1", b"\xff\xfe"):
            self.assertEqual(parse(line), Refused(b"ERROR\r\n"), line)


class ToleranceTests(SynchronousTestCase):
    """Spellings that clients in use send, though the protocol does not have them."""

    LINES = (
        b"set q/sync 7 0 5 noreply",
        b"get q/open/t=5",
        b"get a b",
        b"delete q noreply",
        b"flush q",
        b"flush_all 0",
        b"touch q 0 noreply",
        b"requeue q r 5",
        b"stats",
        b"dump_stats q",
        b"version",
        b"quit",
        b"unheard of",
    )

    def test_capitals(self) -> None:
        for line in self.LINES:
            command, _, rest = line.partition(b" ")
            self.assertEqual(parse(command.upper() + b" " + rest), parse(line), line)
            self.assertEqual(parse(command.title() + b" " + rest), parse(line), line)

    def test_spaces(self) -> None:
        for line in self.LINES:
            self.assertEqual(parse(b"  " + line.replace(b" ", b"   ") + b" "), parse(line), line)
            self.assertEqual(parse(line + b"\r"), parse(line), line)


class QueueNameTests(SynchronousTestCase):
    """What may be the name of a queue."""

    def test_good(self) -> None:
        for name in (b"q", b".", b"..", b"a:b", b"q+child", b"~!\"#$%&'()*", b"x" * 250):
            self.assertEqual(check_queue_name(name), name)

    def test_bad(self) -> None:
        for name in (b"", b"a/b", b"a b", b"a\n", b"\x00", b"a\x7f", b"\xc3\xa9", b"x" * 251):
            self.assertRaises(BadQueueName, check_queue_name, name)

    @given(st.binary(max_size=260))
    @settings(deadline=None)
    def test_any(self, name: bytes) -> None:
        """Exactly 1 to 250 printable bytes other than the slash."""
        good = 1 <= len(name) <= 250 and all(33 <= byte <= 126 and byte != 47 for byte in name)
        try:
            self.assertEqual(check_queue_name(name), name)
        except BadQueueName:
            self.assertFalse(good)
        else:
            self.assertTrue(good)


COMMANDS = st.sampled_from(
    b"set get gets delete flush flush_all touch requeue stats dump_stats version quit GET".split()
)
WORDS = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([b"q", b"q/open", b"q/t=", b"0", b"-1", b"5", b"noreply", b"//", b"=", b"q/sync", b"q/abort"]),
    st.integers().map(lambda number: b"%d" % number),
)
LINES = st.one_of(
    st.binary(max_size=200), st.builds(lambda command, words: b" ".join([command, *words]), COMMANDS, st.lists(WORDS))
)


class AnyLineTests(SynchronousTestCase):
    """Any line is parsed or refused."""

    @given(LINES)
    @example(b"set q 0 0 \xb2")
    @settings(deadline=None, max_examples=300)
    def test_nothing_is_raised(self, line: bytes) -> None:
        request = parse(line)
        self.assertTrue(dataclasses.is_dataclass(request))
        if isinstance(request, Refused):
            if request.reply:
                self.assertTrue(request.reply.endswith(b"\r\n"))
                self.assertEqual(request.reply.count(b"\n"), 1)
            else:
                self.assertTrue(request.close and request.warning)

    @given(LINES)
    @settings(deadline=None, max_examples=100)
    def test_same_out_of_the_table(self, line: bytes) -> None:
        cache = LineCache()
        for _ in range(2):
            parsed = cache.parse(line)
            self.assertEqual((parsed.text, parsed.request), (line, parse(line)))


class LineCacheTests(SynchronousTestCase):
    """The table of lines seen before is bounded."""

    def test_remembers(self) -> None:
        cache = LineCache()
        self.assertIs(cache.parse(b"get q/open"), cache.parse(b"get q/open"))
        self.assertEqual(len(cache), 1)

    def test_bounded_in_lines(self) -> None:
        cache = LineCache()
        for number in range(LineCache.MAX_LINES + 10):
            self.assertEqual(cache.parse(b"get q%d" % number).request, Get(b"q%d" % number, b"q%d" % number))
            self.assertLessEqual(len(cache), LineCache.MAX_LINES)
        self.assertEqual(len(cache), 10)

    def test_bounded_in_bytes(self) -> None:
        """A long line is understood, but not kept."""
        cache = LineCache()
        name = b"q" * LineCache.MAX_LENGTH
        self.assertEqual(cache.parse(b"get " + name).request, Get(name, name))
        self.assertEqual(len(cache), 0)


class ReplyTests(SynchronousTestCase):
    """How replies are spelled."""

    def test_constants(self) -> None:
        self.assertEqual(memcache.STORED, b"STORED\r\n")
        self.assertEqual(memcache.NOT_STORED, b"NOT_STORED\r\n")
        self.assertEqual(memcache.DELETED, b"DELETED\r\n")
        self.assertEqual(memcache.END, b"END\r\n")
        self.assertEqual(memcache.OK, b"OK\r\n")
        self.assertEqual(memcache.FLUSHED_ALL, b"Flushed all queues.\r\n")
        self.assertEqual(memcache.LINE_TOO_LONG, b"CLIENT_ERROR line too long\r\n")
        self.assertEqual(memcache.BAD_DATA_CHUNK, b"CLIENT_ERROR bad data chunk\r\n")

    def test_value(self) -> None:
        self.assertEqual(value(b"q", b"a\r\n\0b", 7), b"VALUE q 7 5\r\na\r\n\0b\r\nEND\r\n")
        self.assertEqual(memcache.KESTREL.item(b"q", 0, b"", False), b"VALUE q 0 0\r\n\r\n")

    def test_any_value(self) -> None:
        for _ in range(2):  # what is between key and payload is kept
            for flags in (0, 1, 2**32 - 1):
                for size in (0, 1, 300, 4095, 4096, 65536):
                    for whole in (False, True):
                        reply = b"VALUE k %d %d\r\n%b\r\n" % (flags, size, bytes(size)) + (b"END\r\n" if whole else b"")
                        self.assertEqual(memcache.KESTREL.item(b"k", flags, bytes(size), whole), reply)

    def test_value_in_pieces(self) -> None:
        """The header of a large item and what comes after it make up the same reply."""
        pieces = memcache.value_header(b"q", 7, 3) + b"abc" + memcache.AFTER_PAYLOAD + memcache.END
        self.assertEqual(pieces, value(b"q", b"abc", 7))

    def test_stat(self) -> None:
        self.assertEqual(
            memcache.KESTREL.stats({"curr_items": 3, "version": "1.0"}, [(b"q", {"items": 3})]),
            b"STAT curr_items 3\r\nSTAT version 1.0\r\nSTAT queue_q_items 3\r\n",
        )

    def test_queue_dump(self) -> None:
        self.assertEqual(
            memcache.KESTREL.dump([(b"q", {"items": 1, "bytes": 2})]),
            b"queue 'q' {\r\n  items=1\r\n  bytes=2\r\n}\r\n",
        )

    def test_version(self) -> None:
        self.assertEqual(memcache.KESTREL.version("1.2.3"), b"VERSION 1.2.3\r\n")

    def test_errors(self) -> None:
        for error, reply in (
            (BadQueueName(), BAD_NAME),
            (TooManyOpenReads(), b"CLIENT_ERROR close current item first\r\n"),
            (ClientError("so not"), b"CLIENT_ERROR so not\r\n"),
            (QueueFull(), b"NOT_STORED\r\n"),
            (ItemTooLarge(), b"SERVER_ERROR object too large\r\n"),
            (Stopped(), b"SERVER_ERROR server is stopping\r\n"),
            (StoreError("cannot write: disk full"), b"SERVER_ERROR cannot write: disk full\r\n"),
            (SettingsError("darner.toml: port: wrong"), b"SERVER_ERROR darner.toml: port: wrong\r\n"),
        ):
            self.assertEqual(memcache.error_reply(error), reply)

    def test_error_is_one_line(self) -> None:
        self.assertEqual(memcache.error_reply(StoreError("no\r\nroom\n")), b"SERVER_ERROR no room\r\n")

    def test_error_in_any_script(self) -> None:
        self.assertEqual(memcache.error_reply(StoreError("caf\xe9 \udcff")), b"SERVER_ERROR caf\xc3\xa9 ?\r\n")

    def test_unexpected_error_tells_nothing(self) -> None:
        self.assertEqual(memcache.error_reply(ZeroDivisionError("secret")), b"SERVER_ERROR internal error\r\n")
