"""
Tests of appending, with an etcd that a test makes late, deaf and dumb.

Requests wait until the test has them done, in any order, once or never; answers come, or are lost.
"""

from __future__ import annotations

from typing import Any, Optional

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from darner.cluster.etcd import messages
from darner.cluster.etcd.appending import Appender
from darner.cluster.etcd.client import DELETE, PUT, EtcdError, Method
from darner.cluster.etcd.keys import Keys, read_head, read_stored
from darner.cluster.etcd.pieces import Pieces
from darner.cluster.etcd.settings import Sizes, Timings
from darner.errors import LogConflict, LogInDoubt, LogUnavailable

KEYS = Keys("log")

SIZES = Sizes(whole=50, piece=20, pieces=2, transactions=2, appends=2)


class Request:
    """
    A request on its way.

    @ivar answer: fires with what is answered; C{None} once it is answered or given up.
    """

    def __init__(self, method: Method, message: Any, answer: Deferred[Any]) -> None:
        self.method = method
        self.message = message
        self.answer: Optional[Deferred[Any]] = answer


class LateEtcd:
    """
    What several clients share.

    @ivar clock: by which time-outs come.
    @ivar values: its keys.
    @ivar requests: what is not done yet, answered or not.
    @ivar at_once: have each request done and answered as it comes.
    @ivar appended: each record that was ever put under a number, in order.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.values: dict[bytes, bytes] = {}
        self.requests: list[Request] = []
        self.at_once = True
        self.appended: dict[int, list[bytes]] = {}

    def appender(self, patience: float = 10) -> Appender:
        """@return: the appends of one more node."""
        client: Any = LateClient(self, patience)
        return Appender(client, KEYS, Pieces(client, KEYS, SIZES), SIZES)

    def do(self, request: Request, answered: bool = True) -> None:
        """Do a request, and answer it if somebody still waits and it is not to be lost."""
        self.requests.remove(request)
        result = self._perform(request.method, request.message)
        if request.answer is not None and answered:
            answer, request.answer = request.answer, None
            answer.callback(result)

    def drop(self, request: Request) -> None:
        """It never comes to etcd; its connection ends."""
        self.requests.remove(request)
        if request.answer is not None:
            answer, request.answer = request.answer, None
            answer.errback(EtcdError("etcd", "UNAVAILABLE", "connection reset"))

    def refuse(self, request: Request, text: str) -> None:
        """It is refused."""
        self.requests.remove(request)
        if request.answer is not None:
            answer, request.answer = request.answer, None
            answer.errback(EtcdError("etcd", "RESOURCE_EXHAUSTED", text))

    def _perform(self, method: Method, message: Any) -> Any:
        if method is PUT:
            self.values[message.key] = message.value
            return messages.PutResponse()
        if method is DELETE:
            for key in [key for key in self.values if message.key <= key < message.range_end]:
                del self.values[key]
            return messages.DeleteRangeResponse()
        done = all(self._holds(compare) for compare in message.compare)
        answer = messages.TxnResponse(succeeded=done)
        for part in message.success if done else message.failure:
            response = answer.responses.add()
            if part.HasField("request_put"):
                put = part.request_put
                self.values[put.key] = put.value
                if put.key.startswith(b"darner/log/record/"):
                    self.appended.setdefault(KEYS.number(put.key), []).append(put.value)
            else:
                response.response_range.SetInParent()
                key = part.request_range.key
                if key in self.values:
                    response.response_range.kvs.add(key=key, value=self.values[key])
        return answer

    def _holds(self, compare: Any) -> bool:
        if compare.target == messages.CREATE:
            return compare.key not in self.values
        return self.values.get(compare.key) == compare.value

    @property
    def head(self) -> int:
        """The number of the last record."""
        return read_head(self.values.get(KEYS.head)).number

    def record(self, number: int) -> bytes:
        """@return: a record of one that was not cut."""
        return read_stored(number, self.values[KEYS.record(number)]).record

    def settle(self) -> None:
        """Have all done and answered, and whatever is asked then, until nothing is under way."""
        self.at_once = True
        for _ in range(60):
            while self.requests:
                self.do(self.requests[0])
            self.clock.advance(1)


class LateClient:
    """A client of it, as far as appending needs one."""

    is_closed = False

    def __init__(self, etcd: LateEtcd, patience: float) -> None:
        self._etcd = etcd
        self.reactor = etcd.clock
        self.timings = Timings(attempt=1, patience=patience)

    def call(self, method: Method, message: Any, timeout: Optional[float] = None) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        request = Request(method, message, answer)
        self._etcd.requests.append(request)

        def late() -> None:
            if request.answer is not None:
                request.answer = None
                answer.errback(EtcdError("etcd", "DEADLINE_EXCEEDED", "no answer"))

        call = self.reactor.callLater(timeout or self.timings.attempt, late)
        answer.addBoth(lambda result: (call.active() and call.cancel(), result)[1])
        if self._etcd.at_once:
            self._etcd.do(request)
        return answer

    async def ask(self, method: Method, message: Any, attempt: Optional[float] = None) -> Any:
        try:
            return await self.call(method, message, attempt)
        except EtcdError as error:
            raise LogUnavailable(str(error)) from error

    def pause(self, seconds: float) -> Deferred[None]:
        paused: Deferred[None] = Deferred()
        self.reactor.callLater(seconds, paused.callback, None)
        return paused

    async def prefer_leader(self) -> None:
        await succeed(None)


class AppendingTests(SynchronousTestCase):
    """What becomes of requests in doubt."""

    def setUp(self) -> None:
        self.etcd = LateEtcd()
        self.one = self.etcd.appender()
        self.successResultOf(self.one.append(1, b"first"))
        self.etcd.at_once = False

    def take(self) -> list[Request]:
        """@return: the requests that are not done."""
        return list(self.etcd.requests)

    def test_overtaken(self) -> None:
        """A transaction that comes before the one that it follows is sent again behind it."""
        appended = [self.one.append(number, b"%d" % number) for number in (2, 3)]
        first, second = self.take()
        self.etcd.do(second)
        self.assertEqual(self.take(), [first])
        self.etcd.do(first)
        self.successResultOf(appended[0])
        (again,) = self.take()
        self.etcd.do(again)
        self.successResultOf(appended[1])
        self.assertEqual((self.etcd.record(2), self.etcd.record(3)), (b"2", b"3"))

    def test_together(self) -> None:
        """What waits behind those in flight goes in one transaction."""
        appended = [self.one.append(number, b"%d" % number) for number in range(2, 7)]
        self.assertEqual(len(self.take()), 2)
        self.etcd.do(self.take()[0])
        self.assertEqual([len(request.message.success) for request in self.take()], [2, 3])
        self.etcd.settle()
        for deferred in appended:
            self.successResultOf(deferred)

    def test_answer_lost(self) -> None:
        """It is done: that is found out, and nothing is done twice."""
        appended = self.one.append(2, b"second")
        self.etcd.do(self.take()[0], answered=False)
        self.etcd.at_once = True
        self.etcd.clock.advance(1)
        self.successResultOf(appended)
        self.assertEqual(len(self.etcd.appended[2]), 1)

    def test_answer_of_the_later_one(self) -> None:
        """If the second is done, so is the first, whatever becomes of its answer."""
        appended = [self.one.append(number, b"%d" % number) for number in (2, 3)]
        first, second = self.take()
        self.etcd.do(first, answered=False)
        self.etcd.do(second)
        for deferred in appended:
            self.successResultOf(deferred)

    def test_comes_late(self) -> None:
        """What was given up and sent again is not done when it comes at last."""
        appended = [self.one.append(number, b"%d" % number) for number in (2, 3)]
        late = self.take()
        self.etcd.at_once = True
        self.etcd.clock.advance(1)
        for deferred in appended:
            self.successResultOf(deferred)
        for request in late:
            self.etcd.do(request)
        self.assertEqual([len(self.etcd.appended[number]) for number in (2, 3)], [1, 1])
        self.assertEqual(self.etcd.head, 3)

    def test_comes_late_after_unavailable(self) -> None:
        """What was said to be never appended is not when it comes at last."""
        appended = self.one.append(2, b"second")
        (late,) = self.take()
        self.etcd.clock.advance(1)
        for _ in range(2):
            # It is found out that it is not there, and the head gets a new token; then etcd is full.
            self.etcd.do(self.take()[-1])
        self.etcd.refuse(self.take()[-1], "etcdserver: mvcc: database space exceeded")
        self.etcd.clock.advance(0.5)
        self.etcd.do(self.take()[-1])
        self.failureResultOf(appended, LogUnavailable)
        self.etcd.settle()
        self.assertNotIn(late, self.take())
        self.assertEqual(self.etcd.head, 1)

    def test_comes_late_behind_one_that_was_sent_again(self) -> None:
        """It followed an attempt that was given up, and follows no other one of the same record."""
        appended = [self.one.append(number, b"%d" % number * 30) for number in (2, 3)]
        _, late = self.take()
        self.etcd.clock.advance(1)
        for _ in range(2):
            self.etcd.do(self.take()[-1])
        second, third = self.take()[-2:]
        self.etcd.do(second)
        self.successResultOf(appended[0])
        self.etcd.refuse(third, "etcdserver: mvcc: database space exceeded")
        self.etcd.do(self.take()[-1])
        self.failureResultOf(appended[1], LogUnavailable)
        self.etcd.do(late)
        self.assertEqual(self.etcd.head, 2)

    def test_another_one_appends_meanwhile(self) -> None:
        """What is in doubt is not there, but another record under its number."""
        appended = self.one.append(2, b"second")
        self.etcd.drop(self.take()[0])
        self.etcd.requests.clear()
        self.etcd.at_once = True
        other = self.etcd.appender()
        for number in (2, 3):
            self.successResultOf(other.append(number, b"other"))
        self.etcd.settle()
        self.failureResultOf(appended, LogConflict)
        self.assertEqual(self.etcd.record(2), b"other")

    def test_in_doubt(self) -> None:
        """Nobody answers any more.  What was not sent is not in doubt."""
        appended = [self.one.append(number, b"%d" % number) for number in range(2, 7)]
        self.etcd.clock.pump([0.5] * 60)
        self.failureResultOf(appended[0], LogInDoubt)
        self.failureResultOf(appended[1], LogInDoubt)
        for deferred in appended[2:]:
            self.failureResultOf(deferred, LogConflict)
        self.etcd.settle()
        self.assertEqual(self.etcd.head, 3)

    def test_unavailable(self) -> None:
        """Nobody answers, and nothing was sent."""
        new = self.etcd.appender()
        appended = [new.append(number, b"x") for number in (2, 3)]
        self.etcd.clock.pump([0.5] * 60)
        self.failureResultOf(appended[0], LogUnavailable)
        self.failureResultOf(appended[1], LogConflict)

    def test_new_token_of_another(self) -> None:
        """Another node only made sure that nothing of its own comes late: that hinders nobody."""
        new = self.etcd.appender()
        self.etcd.at_once = True
        conflict = new.append(1, b"x")
        self.failureResultOf(conflict, LogConflict)
        self.etcd.at_once = False
        others = new.append(2, b"other")
        self.etcd.do(self.take()[0])
        (late,) = self.take()
        self.etcd.clock.advance(1)
        self.etcd.do(self.take()[-1])
        self.etcd.do(self.take()[-1])
        appended = self.one.append(2, b"one")
        self.etcd.do(self.take()[-1])
        self.etcd.do(self.take()[-1])
        self.successResultOf(appended)
        self.etcd.do(late)
        self.etcd.settle()
        self.failureResultOf(others, LogConflict)
        self.assertEqual(self.etcd.record(2), b"one")

    def test_closed(self) -> None:
        appended = [self.one.append(number, b"%d" % number) for number in range(2, 6)]
        self.one.close()
        kinds = (LogInDoubt, LogInDoubt, LogConflict, LogConflict)
        for deferred, kind in zip(appended, kinds, strict=True):
            self.failureResultOf(deferred, kind)
        self.failureResultOf(self.one.append(6, b"x"), LogUnavailable)
        self.etcd.settle()
        self.assertEqual(self.etcd.head, 3)

    def test_append_as_one_hears_of_it(self) -> None:
        """Who hears of an append may give the next one at once, a wrong one, too."""
        self.etcd.at_once = True
        results: list[object] = []

        def again(_: object) -> None:
            self.one.append(2, b"wrong").addBoth(results.append)

        self.one.append(2, b"right").addCallback(again)
        self.assertEqual([getattr(result, "type", None) for result in results], [LogConflict])
        self.assertEqual(self.etcd.record(2), b"right")


STEPS = st.lists(
    st.tuples(
        st.sampled_from(("append", "append", "do", "do", "do", "lose", "drop", "refuse", "time", "time")),
        st.integers(0, 9),
    ),
    max_size=80,
)


class AppendingModelTests(SynchronousTestCase):
    """Whatever becomes of requests, of two nodes that both believe they lead."""

    @settings(max_examples=500, deadline=None, derandomize=True, database=None)
    @given(STEPS)
    def test_what_holds(self, steps: list[tuple[str, int]]) -> None:
        """
        A record is put under each number at most once.  What was acknowledged is there, as it was given; what failed
        otherwise than in doubt is never there; behind the one that failed nothing is acknowledged.
        """
        etcd = LateEtcd()
        etcd.at_once = False
        appenders = [etcd.appender(patience=3), etcd.appender(patience=3)]
        numbers = [1, 1]
        results: dict[bytes, str] = {}
        places: dict[bytes, int] = {}

        def append(who: int, size: int) -> None:
            record = b"%d:%d:" % (who, len(places)) + b"x" * size
            number = numbers[who]
            numbers[who] += 1
            places[record] = number

            def not_done(failure: Any) -> None:
                failure.trap(LogConflict, LogUnavailable, LogInDoubt)
                results[record] = failure.type.__name__
                numbers[who] = etcd.head + 1

            appenders[who].append(number, record).addCallbacks(
                lambda _: results.__setitem__(record, "appended"), not_done
            )

        for step, value in steps:
            if step == "append":
                append(value % 2, 10 * value)
            elif step == "time":
                etcd.clock.advance(value / 5)
            elif etcd.requests:
                request = etcd.requests[value % len(etcd.requests)]
                if step == "drop":
                    etcd.drop(request)
                elif step == "refuse":
                    etcd.refuse(request, "etcdserver: too many requests" if value % 2 else "etcdserver: no space")
                else:
                    etcd.do(request, answered=step == "do")
        etcd.settle()
        self.assertEqual(set(results), set(places))
        self.assertEqual(sorted(etcd.appended), list(range(1, etcd.head + 1)))
        there: dict[int, bytes] = {}
        for number, values in etcd.appended.items():
            self.assertEqual(len(values), 1)
            there[number] = self.whole(etcd, number)
        for record, result in results.items():
            if result == "appended":
                self.assertEqual(there[places[record]], record)
            elif result != "LogInDoubt":
                self.assertNotEqual(there.get(places[record]), record, result)

    def whole(self, etcd: LateEtcd, number: int) -> bytes:
        """@return: a record, made of its pieces where it was cut."""
        stored = read_stored(number, etcd.values[KEYS.record(number)])
        if not stored.upload:
            return stored.record
        pieces = [etcd.values[KEYS.piece(number, stored.upload, index)] for index in range(stored.pieces)]
        return stored.check(number, b"".join(pieces))
