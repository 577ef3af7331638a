"""
Clients whose commands are known.

An input is a script: what one or two clients do, payloads that look like commands and replies included, while time
passes and the wall clock jumps.  However what they send is cut, each hears what `fuzz.reference` says, and when they
have gone nothing is left of them but what they put.
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
"""What is more in a script is not looked at."""
_PASSING: Final = (0.25, 1.0, 5.0, 3600.0)
_JUMPS: Final = (1.0, -1.0, 3600.0, -3600.0, 1e9, -1e9, -3e9)


@frozen
class Passing:
    """Time passes, in seconds."""

    seconds: float


@frozen
class Jump:
    """Somebody sets the wall clock, by so many seconds."""

    seconds: float


@frozen
class Leaving:
    """A client goes away, in the middle of a command perhaps."""

    sent: bytes


@frozen
class Shutting:
    """A client sends the beginning of a command, perhaps, and will send nothing more."""

    sent: bytes


@frozen
class Choking:
    """A client stops reading, or does again."""

    choked: bool


Event = Union[Command, Passing, Jump, Leaving, Shutting, Choking]
Cut = Callable[[bytes], Iterable[bytes]]


def whole(data: bytes) -> Iterable[bytes]:
    """@return: the bytes, uncut."""
    return [data] if data else []


def script(data: bytes) -> tuple[int, list[tuple[int, Event]]]:
    """@return: how many clients there are, and what they do: who, and what."""
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
            # The beginning of a set, never all of it: nothing is done for that.
            sent = text[:at] if at < 128 else text[: 128 - at - 1]
            events.append((who, (Leaving if kind < 125 else Shutting)(sent[: len(text) - 1])))
    return clients, events


def check(data: bytes) -> None:
    """
    @param data: a script, in the bytes of L{script}, and by its first byte how it is cut as well.
    @raise AssertionError: a client hears something else than it has to, or something is left behind.
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
        # All that it sends at once: what it waits for comes from nobody else, so that time makes no difference.
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
        self._server.advance(seconds)
        self._reference.advance(seconds)

    def _finish(self, events: int) -> None:
        """Let every client hear all that it has coming and every wait come to its end, and compare."""
        for who in range(len(self._clients)):
            self._choke(who, False)
        for _ in range(2 * events + 1):
            due = self._reference.next_due
            if due is None:
                break
            self._pass(due - self._reference.now)
        assert self._reference.next_due is None
        for client, counterpart in zip(self._clients, self._reference.clients, strict=True):
            counterpart.check(client.heard)
            assert client.gone == counterpart.gone
        # Where a client asks for nothing, nothing is done.
        assert self._server.turns <= 20 + 2 * self._sent + 20 * events, self._server.turns
        self._server.check_idle()
        for counterpart in self._reference.clients:
            self._reference.leave(counterpart)
        # What was given back may have expired, and time has passed for the server alone.
        self._server.advance(0)
        self._reference.advance(self._server.clock.seconds() - self._reference.now)
        queues = self._server.queues
        assert queues.names() == self._reference.names
        for name in queues.names():
            fifo, queue = queues.find(name), self._reference.queues[name]
            assert fifo is not None
            assert (fifo.count, fifo.storage.contents.bytes) == (len(queue.items), queue.bytes), name
