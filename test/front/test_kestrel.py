"""
Tests of `darner.front.kestrel`: every request of the text protocol, every refusal, every reply.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from darner.errors import ItemTooLarge, QueueFull, StoreError, TooManyOpenReads
from darner.front import kestrel, memcache_requests
from darner.front.kestrel import TEXT, parse
from darner.values import requests
from darner.values.requests import Get, PutItems, Refused, Request
from darner.values.vocabulary import MAX_WAIT, check_queue_name


class ParseTests(SynchronousTestCase):
    """Lines and what they mean."""

    def test_put(self) -> None:
        self.assertEqual(parse(b"put q:"), PutItems(b"q"))
        self.assertEqual(parse(b"PUT q 1500:"), PutItems(b"q", 1500))
        self.assertEqual(parse(b"put q -1 :"), PutItems(b"q", -1))
        self.assertEqual(parse(b"put q:x::"), PutItems(b"q:x:"))

    def test_put_refused(self) -> None:
        """After a line with a colon items follow, even if the line is refused; without one that is unknown."""
        for line, said in (
            (b"put:", b"-Queue name required.\n"),
            (b"put q soon:", b"-Error parsing expiration time.\n"),
            (b"put q 1 2:", b"-Too many words.\n"),
            (b"put a/b:", b"-bad queue name\n"),
        ):
            self.assertEqual(parse(line), PutItems(b"", refusal=said))
        self.assertEqual(
            parse(b"put q"), Refused(b"-A colon is to end the line, and items are to follow.\n", close=True)
        )

    def test_unknown_with_items(self) -> None:
        """As in Kestrel a colon says that items follow, whatever the command."""
        for line in (b"putt q:", b"set q:", b":", b"q 5 :", b"Content-Length: 9:"):
            self.assertEqual(parse(line), PutItems(b"", refusal=b"-Unknown command.\n"), line)

    def test_other_protocols(self) -> None:
        """What follows the lines of others are no commands."""
        for line in (b"POST / HTTP/1.1\r", b"Host: localhost:22134", b"host:", b"post"):
            self.assertEqual(parse(line), Refused(b"", close=True, warning=memcache_requests.HTTP), line)
        for line in (b"set q 0 0 7", b"ADD q 0 0 7", b"cas q 0 0 7 1 noreply", b"ms q 7"):
            expected = Refused(b"-Unknown command.\n", close=True, warning=memcache_requests.OTHER)
            self.assertEqual(parse(line), expected, line)

    def test_get_and_peek(self) -> None:
        self.assertEqual(parse(b"get q"), Get(b"q", b"q", open=True, close_all=True))
        self.assertEqual(parse(b"Get q 250"), Get(b"q", b"q", 250, open=True, close_all=True))
        self.assertEqual(parse(b"peek q -5"), Get(b"q", b"q", peek=True, close_all=True))
        self.assertEqual(parse(b"peek q 9999999999999"), Get(b"q", b"q", MAX_WAIT, peek=True, close_all=True))
        self.assertEqual(parse(b"get q:"), Get(b"q:", b"q:", open=True, close_all=True), "a colon is of the name here")
        for line, said in (
            (b"get", b"-Queue name required.\n"),
            (b"peek", b"-Queue name required.\n"),
            (b"get q soon", b"-Error parsing timeout.\n"),
            (b"get q/open", b"-bad queue name\n"),
            (b"get q 1 2", b"-Too many words.\n"),
        ):
            self.assertEqual(parse(line), Refused(said))

    def test_the_rest(self) -> None:
        expected: list[tuple[bytes, Request]] = [
            (b"flush q", requests.Flush(b"q")),
            (b"delete q", requests.Delete(b"q")),
            (b"flush", Refused(b"-Queue name required.\n")),
            (b"delete a b", Refused(b"-Too many words.\n")),
            (b"status", requests.Status()),
            (b"status ReadOnly", requests.SetStatus("readonly")),
            (b"status down", Refused(b"-Unknown status.\n")),
            (b"version", requests.Version()),
            (b"QUIT", requests.Quit()),
            (b"shutdown", requests.Shutdown()),
            (b"", Refused(b"-Unknown command.\n")),
            (b"monitor q 1500", requests.Monitor(b"q", 1.5, close_all=True)),
            (b"monitor q -1", requests.Monitor(b"q", 0, close_all=True)),
            (b"monitor q", Refused(b"-Queue name & timeout required.\n")),
            (b"monitor q soon", Refused(b"-Error parsing timeout.\n")),
            (b"monitor q 1 2", Refused(b"-Too many words.\n")),
            (b"confirm q 1", requests.Confirm(b"q", 1)),
            (b"confirm", Refused(b"-Queue name & count required.\n")),
            (b"confirm q all", Refused(b"-Error parsing count.\n")),
            (b"incr q 1", Refused(b"-Unknown command.\n")),
        ]
        for line, request in expected:
            self.assertEqual(parse(line), request)

    def test_spaces_and_line_ends(self) -> None:
        for line in (b"  get   q   250 ", b"get q 250\r", b"get\tq 250"):
            self.assertEqual(parse(line), Get(b"q", b"q", 250, open=True, close_all=True))

    @given(st.binary(max_size=60) | st.sampled_from([b"put ", b"get "]).flatmap(
        lambda command: st.binary(max_size=20).map(lambda rest: command + rest)
    ))  # fmt: skip
    def test_anything(self, line: bytes) -> None:
        """Nothing is raised, names are names, and a refusal is one line."""
        request = parse(line.replace(b"\n", b""))
        for reply in (getattr(request, "refusal", b""), getattr(request, "reply", b"")):
            if reply:
                self.assertRegex(reply, rb"\A-[ -~]+\n\Z")
        if isinstance(request, PutItems) and not request.refusal:
            check_queue_name(request.queue)


class ReplyTests(SynchronousTestCase):
    def test_replies(self) -> None:
        self.assertEqual(TEXT.item(b"q", 0, b"a b", True), b":a b\n")
        self.assertEqual((kestrel.count(3), kestrel.DONE, kestrel.NOTHING), (b"+3\n", b"+0\n", b"*\n"))
        self.assertEqual(kestrel.line("UP"), b":UP\n")

    def test_errors(self) -> None:
        for error, said in (
            (TooManyOpenReads(), b"-close current item first\n"),
            (ItemTooLarge(), b"-object too large\n"),
            (StoreError("cannot write:\nno room"), b"-cannot write: no room\n"),
            (QueueFull(), b"-NOT_STORED\n"),
            (ValueError("secret"), b"-internal error\n"),
        ):
            self.assertEqual(kestrel.error_reply(error), said)
