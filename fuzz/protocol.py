"""
Clients that send known commands.

An input is a script: the actions of one or two clients, with payloads that look like commands and replies, while time
passes and the wall clock jumps.  However their bytes are cut, each gets the replies of `fuzz.reference`, and after they
have disconnected, the server keeps nothing of them but their items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Union

from attrs import frozen

from fuzz.choices import Choices, byte_by_byte, pieces
from fuzz.commands import Command, command, put
from fuzz.reference import Reference
from fuzz.server import Server

STEPS: Final = 40
"""The maximum number of events of a script; the rest is ignored."""
_PASSING: Final = (0.25, 1.0, 5.0, 3600.0)
_APART: Final = 2.0**-20
"""The time between two events, in seconds: it makes the waits of two clients end at different times."""
_JUMPS: Final = (1.0, -1.0, 3600.0, -3600.0, 1e9, -1e9, -3e9)


@frozen
class Passing:
    """Time passes, in seconds."""

    seconds: float


@frozen
class Jump:
    """The wall clock jumps by so many seconds."""

    seconds: float


@frozen
class Leaving:
    """A client disconnects, possibly in the middle of a command."""

    sent: bytes


@frozen
class Shutting:
    """A client closes its side for writing, possibly after the beginning of a command."""

    sent: bytes


@frozen
class Choking:
    """A client stops reading, or starts again."""

    choked: bool


Event = Union[Command, Passing, Jump, Leaving, Shutting, Choking]
Cut = Callable[[bytes], Iterable[bytes]]


def whole(data: bytes) -> Iterable[bytes]:
    """@return: the bytes, uncut."""
    return [data] if data else []


def script(data: bytes) -> tuple[int, list[tuple[int, Event]]]:
    """@return: the number of clients, and the events as pairs of client and action."""
    choices = Choices(data)
    clients = 1 + choices.byte() % 2
    events: list[tuple[int, Event]] = []
    while choices.left and len(events) < STEPS:
        kind = choices.byte()
        who = (kind >> 7) % clients
        kind &= 127
        if kind < 112:
            events.append((who, command(choices)))
        elif kind < 116:
            events.append((who, Passing(choices.of(_PASSING))))
        elif kind < 119:
            events.append((who, Jump(choices.of(_JUMPS))))
        elif kind < 122:
            events.append((who, Choking(kind < 121)))
        else:
            text = put(choices).text
            at = choices.byte()
            # The beginning of a set, never all of it, so that it must have no effect.
            sent = text[:at] if at < 128 else text[: 128 - at - 1]
            events.append((who, (Leaving if kind < 125 else Shutting)(sent[: len(text) - 1])))
    return clients, events


def check(data: bytes) -> None:
    """
    @param data: a script, as L{script} reads it; its first byte also decides how it is cut.
    @raise AssertionError: a client gets a wrong reply, or the server keeps something of it.
    """
    _check(data, data[0] // 2 % 4 if data else 0)


def check_all_ways(data: bytes) -> None:
    """As L{check}, cut in all ways."""
    for way in range(4):
        _check(data, way)


def _check(data: bytes, way: int) -> None:
    clients, events = script(data)
    commands = [event for _, event in events if isinstance(event, Command)]
    if way < 3:
        cut = (whole, byte_by_byte, lambda text: pieces(text, data))[way]
        _Run(clients).run(events, cut)
    elif clients == 1 and len(commands) == len(events):
        # All at once: no other client sets the items it waits for, so that time makes no difference.
        _Run(1).run_together(commands)
    else:
        _Run(clients).run(events, whole)


class _Run:
    """A server and the reference, side by side."""

    def __init__(self, clients: int) -> None:
        self._server = Server()
        self._reference = Reference(clients)
        self._clients = [self._server.client() for _ in range(clients)]
        self._sent = 0

    def run(self, events: list[tuple[int, Event]], cut: Cut) -> None:
        with self._server:
            for who, event in events:
                self._happen(who, event, cut)
                self._pass(_APART)
            self._finish(len(events))

    def run_together(self, commands: list[Command]) -> None:
        with self._server:
            for command in commands:
                self._reference.ask(self._reference.clients[0], command.meaning)
            self._send(0, b"".join(command.text for command in commands), whole)
            self._finish(len(commands))

    def _happen(self, who: int, event: Event, cut: Cut) -> None:
        server, reference = self._server, self._reference
        client, counterpart = self._clients[who], reference.clients[who]
        if isinstance(event, Command):
            self._send(who, event.text, cut)
            reference.ask(counterpart, event.meaning)
        elif isinstance(event, Passing):
            self._pass(event.seconds)
        elif isinstance(event, Jump):
            server.wall_offset += event.seconds
            reference.wall_offset += event.seconds
        elif isinstance(event, Choking):
            self._choke(who, event.choked)
        else:
            self._send(who, event.sent, cut)
            if isinstance(event, Leaving):
                client.hang_up()
                reference.leave(counterpart)
            else:
                client.shut()
                reference.shut(counterpart)

    def _send(self, who: int, data: bytes, cut: Cut) -> None:
        self._sent += len(data)
        self._clients[who].send(cut(data))

    def _choke(self, who: int, choked: bool) -> None:
        (self._clients[who].choke if choked else self._clients[who].unchoke)()
        self._reference.choke(self._reference.clients[who], choked)

    def _pass(self, seconds: float) -> None:
        """
        Let time pass, and let the waits that are due meanwhile end one after the other: if two ended in one turn, the
        order of what their clients sent behind them would be open.
        """
        until = self._reference.now + seconds
        while (due := self._reference.next_due) is not None and due <= until:
            self._advance(due - self._reference.now)
        self._advance(until - self._reference.now)

    def _advance(self, seconds: float) -> None:
        self._server.advance(seconds)
        self._reference.advance(seconds)

    def _finish(self, events: int) -> None:
        """Let every client read its replies and every wait end, and compare."""
        for who in range(len(self._clients)):
            self._choke(who, False)
        for _ in range(2 * events + 1):
            due = self._reference.next_due
            if due is None:
                break
            self._pass(due - self._reference.now)
        assert self._reference.next_due is None
        if not self._reference.open:
            for client, counterpart in zip(self._clients, self._reference.clients, strict=True):
                counterpart.check(client.heard)
                assert client.gone == counterpart.gone
        # If no client has a pending request, the server does nothing.
        assert self._server.turns <= 20 + 2 * self._sent + 20 * events, self._server.turns
        self._server.check_idle()
        if not self._reference.open:
            self._compare_what_is_left()

    def _compare_what_is_left(self) -> None:
        for counterpart in self._reference.clients:
            self._reference.leave(counterpart)
        # Items given back may have expired, as time has passed only for the server.
        self._server.advance(0)
        self._reference.advance(self._server.clock.seconds() - self._reference.now)
        queues = self._server.queues
        assert queues.names() == self._reference.names
        for name in queues.names():
            fifo, queue = queues.find(name), self._reference.queues[name]
            assert fifo is not None
            assert (fifo.count, fifo.storage.contents.bytes) == (len(queue.items), queue.bytes), name
