"""
A connection as the commands use it (L{Link}), and that of the front ends with an event loop (L{PipelinedLink}).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, Optional, Protocol, Union

from darner.client.addresses import Address
from darner.client.errors import InDoubt, ProtocolError
from darner.client.protocol import Connection, Delivery, Farewell, Item, Piece, Refusal, Reply
from darner.client.requests import Kind, Request
from darner.errors import DarnerError

Heard = Callable[[Any, Optional[DarnerError]], object]
"""Is told the result of a request, or why there is none."""
Deliver = Callable[[Item], object]
"""Is given each item of a monitor as it comes."""

TIME_IS_UP: Final = "there was no reply in time"


class Timer(Protocol):
    """What can be called off."""

    def cancel(self) -> object: ...


class Future(Protocol):
    """A result that is not there yet, for one that waits."""

    def done(self) -> bool: ...

    def cancel(self) -> object: ...

    def cancelled(self) -> bool: ...

    def exception(self) -> Optional[BaseException]: ...

    def result(self) -> Any: ...

    def set_result(self, result: Any) -> None: ...

    def set_exception(self, exception: BaseException) -> None: ...

    def __await__(self) -> Any: ...


class Link(Protocol):
    """
    One connection.

    @ivar closed: whether it has ended.
    @ivar retired: whether it is not to be used for more calls: it has ended, or one had no reply in time.
    @ivar dropped: whether the client ended it, which says nothing against the server.
    @ivar unwanted: is given the items that come for calls which nobody waits for any more; who connects sets it.
    """

    closed: bool
    retired: bool
    dropped: bool
    unwanted: Callable[[Sequence[Item]], object]

    def fresh(self) -> bool:
        """@return: whether it can be used, after a while of not being."""

    def ask(self, request: Request, deadline: float, deliver: Optional[Deliver] = None) -> Awaitable[Any]:
        """
        Send a request.

        @param deadline: when its reply has to be there, by the runtime's clock; else the connection is retired, and
            ended when nobody waits for another reply.
        @return: its result; or it raises what the server answered, or L{InDoubt} where the time is up or the connection
            ends before.
        """

    def ask_all(self, asked: Sequence[Request], deadline: float) -> Awaitable[list[Any]]:
        """
        The same for many, which are sent in one piece.

        @return: the result of each, or the L{DarnerError} that is in its place.
        """

    def tell(
        self, request: Request, heard: Optional[Heard] = None, deliver: Optional[Deliver] = None
    ) -> None:
        """Send a request and do not wait.  Nothing happens where the connection has ended."""

    def disown(self, request: Request, answer: Any) -> None:
        """
        Nobody waits for an answer any more: an item that comes by it, or has come, is given to C{unwanted}.

        @param answer: what L{ask} returned.
        """

    def disown_all(self, asked: Sequence[Request], answer: Any) -> None:
        """@param answer: what L{ask_all} returned."""

    def write(self, data: bytes) -> Awaitable[None]:
        """Send a part of a payload.  It waits while the server does not take it."""

    def abort(self) -> None:
        """End it at once.  What is open goes back."""


class Runtime(Protocol):
    """
    What a front end is made of.

    @ivar pipelining: whether many calls may share a connection.
    """

    pipelining: bool

    def now(self) -> float:
        """@return: seconds, by a clock that does not jump."""

    def sleep(self, seconds: float) -> Awaitable[None]: ...

    def call_later(self, seconds: float, call: Callable[[], object]) -> Timer: ...

    def future(self) -> Future: ...

    def connect(self, address: Address, timeout: float) -> Awaitable[Link]:
        """@raise ConnectionFailed: there is no connection in that time."""

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> Timer:
        """Let something run by itself, which deals with its own errors."""


class _Call:
    """A request that is not answered yet."""

    __slots__ = ("deadline", "deliver", "future", "heard")

    def __init__(
        self, future: Optional[Future], deadline: float, deliver: Optional[Deliver], heard: Optional[Heard]
    ) -> None:
        self.future = future
        self.deadline = deadline
        self.deliver = deliver
        self.heard = heard

    def settle(self, result: Any, error: Optional[DarnerError]) -> bool:
        """@return: whether anybody wanted it."""
        future = self.future
        if future is None:
            if self.heard is not None:
                self.heard(result, error)
            return True
        if future.done():
            return False
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
        return True

    @property
    def waited_for(self) -> bool:
        return self.future is not None and not self.future.done()

    def give_up(self) -> None:
        """Its time is up.  The reply is not wanted any more."""
        self.deadline = float("inf")
        if self.waited_for:
            self.settle(None, InDoubt(TIME_IS_UP))


class _Calls:
    """Many requests that are answered together."""

    __slots__ = ("_count", "deadline", "deliver", "future", "results")

    def __init__(self, future: Future, deadline: float, count: int) -> None:
        self.future: Future = future
        self.deadline = deadline
        self.deliver: Optional[Deliver] = None
        self.results: list[Any] = []
        self._count = count

    def settle(self, result: Any, error: Optional[DarnerError]) -> bool:
        """@return: whether anybody wanted it."""
        if self.future.done():
            return False
        self.results.append(result if error is None else error)
        if len(self.results) == self._count:
            self.future.set_result(self.results)
        return True

    @property
    def waited_for(self) -> bool:
        return not self.future.done()

    def give_up(self) -> None:
        """As for one."""
        self.deadline = float("inf")
        while self.waited_for:
            self.settle(None, InDoubt(TIME_IS_UP))

    def __await__(self) -> Any:
        return self.future.__await__()


def _items(request: Request, result: Any) -> list[Item]:
    """@return: the items that are taken with an answer; those that are open, or only shown, are not."""
    if request.repeatable or request.sink is not None:
        return []
    return result if request.kind == Kind.ITEMS else [result] if request.kind == Kind.ITEM else []


class PipelinedLink:
    """
    A connection of an event loop.  Subclasses send and end it.

    Of a call that is cancelled the reply is waited for and dropped, but for the items in it.  A call whose time is up
    takes nothing from those that wait beside it: they have their own time.
    """

    unwanted: Callable[[Sequence[Item]], object] = staticmethod(lambda items: None)

    def __init__(self, runtime: Runtime) -> None:
        self.closed = self.retired = self.dropped = False
        self._heard = False
        self._runtime = runtime
        self._connection = Connection()
        self._calls: deque[Union[_Call, _Calls]] = deque()
        self._timer: Optional[Timer] = None
        self._timer_at = 0.0

    def _send(self, data: bytes) -> None:
        """Send some time in this turn of the loop."""
        raise NotImplementedError

    def _end(self) -> None:
        """End the connection at once; L{lost} is told by and by, or not."""
        raise NotImplementedError

    async def write(self, data: bytes) -> None:
        self._send(data)

    def fresh(self) -> bool:
        return not self.closed

    def ask(self, request: Request, deadline: float, deliver: Optional[Deliver] = None) -> Future:
        future = self._runtime.future()
        if self.closed:
            future.set_exception(InDoubt("the connection has ended"))
            return future
        self._send(self._connection.send(request))
        if request.kind is None:
            future.set_result(None)
            return future
        self._calls.append(_Call(future, deadline, deliver, None))
        if self._timer is None or deadline < self._timer_at:
            self._watch(deadline)
        return future

    def ask_all(self, asked: Sequence[Request], deadline: float) -> _Calls:
        calls = _Calls(self._runtime.future(), deadline, len(asked))
        if self.closed:
            for _ in asked:
                calls.settle(None, InDoubt("the connection has ended"))
            return calls
        send = self._connection.send
        self._send(b"".join([send(request) for request in asked]))
        self._calls.extend([calls] * len(asked))
        if self._timer is None or deadline < self._timer_at:
            self._watch(deadline)
        return calls

    def tell(self, request: Request, heard: Optional[Heard] = None, deliver: Optional[Deliver] = None) -> None:
        if self.closed:
            return
        self._send(self._connection.send(request))
        if request.kind is not None:
            self._calls.append(_Call(None, float("inf"), deliver, heard))

    @property
    def outstanding(self) -> int:
        """How many requests are not answered yet."""
        return len(self._calls)

    def abort(self) -> None:
        # Of a server that has never said anything here it is not known that it answers.
        self.dropped = self.dropped or (self._heard and not self.closed)
        self._fail("the connection was ended")

    def received(self, data: bytes) -> None:
        """The server has sent something."""
        if self.closed:
            return
        self._heard = True
        try:
            events = self._connection.receive(data)
        except ProtocolError as error:
            self._fail(str(error))
            return
        calls = self._calls
        for event in events:
            if type(event) is Reply:
                result = event.result
                if not calls.popleft().settle(result, None) and result:
                    self.unwanted(_items(event.request, result))
            elif isinstance(event, Refusal):
                calls.popleft().settle(None, event.error)
            elif isinstance(event, Delivery):
                deliver = calls[0].deliver
                if deliver is not None:
                    deliver(event.item)
            elif isinstance(event, Piece):
                sink = event.request.sink
                assert sink is not None
                try:
                    sink(event.data)
                except Exception as error:
                    call = calls.popleft()
                    if call.future is not None and not call.future.done():
                        call.future.set_exception(error)
                    self._fail("a sink has failed")
                    return
            elif isinstance(event, Farewell):
                self._fail(str(event.error))
        if self.retired:
            self._end_retired()

    def lost(self, reason: str) -> None:
        """The connection has ended."""
        if not self.closed:
            for event in self._connection.end():
                assert isinstance(event, Reply)
                self._calls.popleft().settle(None, None)
            self._fail(reason)

    def disown_all(self, asked: Sequence[Request], answer: _Calls) -> None:
        answer.future.cancel()
        items: list[Item] = []
        for request, result in zip(asked, answer.results, strict=False):
            if result and not isinstance(result, DarnerError):
                items += _items(request, result)
        self.unwanted(items)

    def disown(self, request: Request, answer: Future) -> None:
        if not answer.done():
            answer.cancel()
        elif not answer.cancelled() and answer.exception() is None and answer.result():
            self.unwanted(_items(request, answer.result()))

    def _fail(self, reason: str) -> None:
        if self.closed:
            return
        self.closed = self.retired = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        calls, self._calls = self._calls, deque()
        self._end()
        for call in calls:
            call.settle(None, InDoubt(reason))

    def _watch(self, deadline: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self._runtime.call_later(max(0.0, deadline - self._runtime.now()), self._look)

    def _look(self) -> None:
        self._timer = None
        # A call that nobody waits for any more still has its time: the others behind it are waiting for its reply.
        now = self._runtime.now()
        if any(call.deadline <= now for call in self._calls):
            self.retired = True
            for call, request in list(zip(self._calls, self._connection.requests, strict=True)):
                # What can be sent again is, on another connection: the server may be gone.
                if call.deadline <= now or (request.repeatable and isinstance(call, _Call)):
                    call.give_up()
            self._end_retired()
        due = min((call.deadline for call in self._calls), default=float("inf"))
        if due < float("inf"):
            self._watch(due)

    def _end_retired(self) -> None:
        """It has ended, or does when nobody waits for a reply any more."""
        if not any(call.waited_for for call in self._calls):
            self._fail(TIME_IS_UP)
