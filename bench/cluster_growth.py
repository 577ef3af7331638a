"""
How a service grows with shards: a model of etcds, machines, leaders and clients, event by event.

It measures nothing.  What it is told of etcd is measured by `bench.cluster_log`: appends a second with one in flight,
and with several::

    python -m bench.cluster_log --bytes=1024 --in-flight=1
    python -m bench.cluster_log --bytes=1024 --in-flight=8
    python -m bench.cluster_growth --one=1000 --several=4000 --in-flight=8

It prints for 3 to 300 machines how many requests a second all clients together get, how long they wait, and what is
used most.  The same arguments give the same figures.

The model.  Each client sends a request, waits for its answer, and sends the next one.  All that has arrived at a leader
when it begins a turn is in that turn, up to a bound.  A turn costs time of the leader's process, then is appended to
the log.  etcd works in rounds: a round has all appends that wait, and takes a sync and some time for each append and
byte.  The two followers of the shard take time of their machines to apply the turn.  A process uses one core at a time.
Queues are in shards by their names, as in a real service (`darner.values.shards`), so they are not spread quite evenly.
"""

from __future__ import annotations

import argparse
import heapq
import random
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count

from darner.values.shards import shard_of

TABLE = (3, 6, 9, 15, 30, 60, 100, 150, 300)
WARM_UP = 0.25
"""The part of the time that is not counted."""
BUSY = 0.9
"""The part of the time that something is used from which on it is the limit."""


@dataclass(frozen=True)
class Costs:
    """
    What things take, in seconds.

    @ivar append: of the time of an etcd, for each append.
    @ivar byte: the same, for each byte.
    @ivar sync: of an etcd's round, however much is in it.
    @ivar round_trip: between a leader and its etcd, with what a majority of the etcds needs.
    @ivar request: of the time of a leader's process, for each request.
    @ivar turn: the same, for each turn.
    @ivar apply: of the time of a follower's machine, for each request.
    @ivar client: between a client and its leader, and back.
    """

    append: float = 0.00013
    byte: float = 1 / 60e6
    sync: float = 0.0005
    round_trip: float = 0.0005
    request: float = 0.000012
    turn: float = 0.0003
    apply: float = 0.000006
    client: float = 0.0003


def calibrated(costs: Costs, one: float, several: float, in_flight: int) -> Costs:
    """
    @param one: appends a second with one in flight.
    @param several: the same with C{in_flight}.
    @return: with what etcd takes for each append, and how long a round trip is, so that the model has these figures.
    """
    latency = 1 / one
    append = max(1e-6, (in_flight / several - latency) / (in_flight - 1))
    return replace(costs, append=append, round_trip=max(0.0, latency - append - costs.sync))


@dataclass(frozen=True)
class Service:
    """
    What is to be modelled.

    @ivar machines: how many, each with C{cores}.
    @ivar shards: how many, each with a leader and two followers on three machines.
    @ivar etcds: how many clusters of etcd; each is on machines of its own, and has as many shards as the others.
    @ivar clients: how many in all.
    @ivar queues: over how many queues they are spread.
    @ivar bytes: of an item.
    @ivar most: requests that a turn takes at most.
    @ivar turns_in_flight: how many turns of a shard are under way at once.
    """

    machines: int = 3
    cores: int = 2
    shards: int = 1
    etcds: int = 1
    clients: int = 150
    queues: int = 1000
    bytes: int = 100
    most: int = 2560
    turns_in_flight: int = 1


@dataclass(frozen=True)
class Outcome:
    """
    What came of it.

    @ivar throughput: requests a second.
    @ivar median, late: how long requests took, in seconds: half of them, and 99 of 100.
    @ivar appends: a second, of the shard that had most.
    @ivar etcd, process, machine: how much of the time the most used one of them was in use, from 0 to 1.
    @ivar sent, answered, open: requests of all the time: every one is answered or still open.
    """

    throughput: float
    median: float
    late: float
    appends: float
    etcd: float
    process: float
    machine: float
    sent: int
    answered: int
    open: int

    @property
    def limit(self) -> str:
        """What there is too little of."""
        used = {"etcd": self.etcd, "leaders' processes": self.process, "processors": self.machine}
        most = max(used, key=lambda name: used[name])
        return most if used[most] >= BUSY else "round trips"


class _Events:
    """What happens when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + seconds, next(self._numbers), call))

    def run(self, until: float) -> None:
        while self._heap and self._heap[0][0] <= until:
            self.now, _, call = heapq.heappop(self._heap)
            call()
        self.now = until


class _Etcd:
    """A cluster of etcd: rounds, one after the other."""

    def __init__(self, events: _Events, costs: Costs, chance: random.Random) -> None:
        self._events = events
        self._costs = costs
        self._chance = chance
        self._waiting: list[tuple[int, Callable[[], None]]] = []
        self._busy = False
        self.used = 0.0

    def append(self, size: int, done: Callable[[], None]) -> None:
        self._waiting.append((size, done))
        if not self._busy:
            self._round()

    def _round(self) -> None:
        appends, self._waiting = self._waiting, []
        self._busy = bool(appends)
        if not appends:
            return
        costs = self._costs
        sync = costs.sync * self._chance.expovariate(1) if costs.sync else 0.0
        seconds = sync + len(appends) * costs.append + sum(size for size, _ in appends) * costs.byte
        self.used += seconds
        self._events.after(seconds, lambda: self._end(appends))

    def _end(self, appends: list[tuple[int, Callable[[], None]]]) -> None:
        for _, done in appends:
            self._events.after(self._costs.round_trip, done)
        self._round()


class _Machine:
    """Some cores, and the work that waits for one."""

    def __init__(self, events: _Events, cores: int) -> None:
        self._events, self._free = events, cores
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self.used = 0.0

    def work(self, seconds: float, done: Callable[[], None] = lambda: None) -> None:
        self._waiting.append((seconds, done))
        self._begin()

    def _begin(self) -> None:
        while self._free and self._waiting:
            seconds, done = self._waiting.popleft()
            self._free -= 1
            self.used += seconds
            self._events.after(seconds, lambda done=done: self._end(done))  # type: ignore[misc]

    def _end(self, done: Callable[[], None]) -> None:
        self._free += 1
        done()
        self._begin()


class _Shard:
    """A leader and its clients; requests that were sent at the same time are together."""

    def __init__(self, model: _Model, machine: _Machine, followers: Sequence[_Machine], etcd: _Etcd) -> None:
        self._model = model
        self._machine = machine
        self._followers = followers
        self._etcd = etcd
        self._waiting: deque[tuple[float, int]] = deque()
        self._under_way = 0
        self._working = False
        self.used = 0.0
        self.appends = 0

    def send(self, requests: int) -> None:
        """Some clients send a request each."""
        model = self._model
        model.sent += requests
        sent = model.events.now
        travels = model.costs.client / 2 * model.chance.uniform(0.8, 1.2)
        model.events.after(travels, lambda: self._arrive(sent, requests))

    def _arrive(self, sent: float, requests: int) -> None:
        self._waiting.append((sent, requests))
        self._begin()

    def _begin(self) -> None:
        service, costs = self._model.service, self._model.costs
        if self._working or not self._waiting or self._under_way >= service.turns_in_flight:
            return
        turn: list[tuple[float, int]] = []
        room = service.most
        while self._waiting and room:
            sent, requests = self._waiting.popleft()
            if requests > room:
                self._waiting.appendleft((sent, requests - room))
                requests = room
            turn.append((sent, requests))
            room -= requests
        total = service.most - room
        self._working = True
        self._under_way += 1
        seconds = costs.turn + total * costs.request
        self.used += seconds
        self._machine.work(seconds, lambda: self._append(turn, total))

    def _append(self, turn: list[tuple[float, int]], total: int) -> None:
        self._working = False
        self._etcd.append(total * self._model.service.bytes, lambda: self._answer(turn, total))
        self._begin()

    def _answer(self, turn: list[tuple[float, int]], total: int) -> None:
        model = self._model
        self._under_way -= 1
        self.appends += 1
        for follower in self._followers:
            follower.work(total * model.costs.apply)
        travels = model.costs.client / 2
        for sent, requests in turn:
            model.answered_at(model.events.now + travels - sent, requests)
        model.events.after(travels, lambda: self.send(total))
        self._begin()


class _Model:
    """All of it."""

    def __init__(self, service: Service, costs: Costs, seed: int) -> None:
        self.service = service
        self.costs = costs
        self.chance = random.Random(seed)
        self.events = _Events()
        self.sent = self.answered = 0
        self._delays: list[tuple[float, int]] = []
        self._machines = machines = [_Machine(self.events, service.cores) for _ in range(service.machines)]
        self._etcds = etcds = [_Etcd(self.events, costs, self.chance) for _ in range(service.etcds)]
        self._shards = [
            _Shard(
                self, machines[number % len(machines)],
                [machines[(number + place) % len(machines)] for place in (1, 2)], etcds[number % len(etcds)],
            )
            for number in range(service.shards)
        ]  # fmt: skip
        clients = [0] * service.shards
        for client in range(service.clients):
            clients[shard_of(b"queue%d" % (client % service.queues), service.shards) - 1] += 1
        for shard, number in zip(self._shards, clients, strict=True):
            self._begin(shard, number)

    def _begin(self, shard: _Shard, clients: int) -> None:
        """Have clients begin, not all at the same time."""
        while clients:
            some = min(clients, 10)
            clients -= some
            self.events.after(self.chance.uniform(0, 0.01), lambda some=some: shard.send(some))  # type: ignore[misc]

    def answered_at(self, seconds: float, requests: int) -> None:
        self.answered += requests
        self._delays.append((seconds, requests))

    def run(self, seconds: float) -> Outcome:
        self.events.run(seconds * WARM_UP)
        before, self._delays = self.answered, []
        used = [[thing.used for thing in things] for things in self._things]
        appends = [shard.appends for shard in self._shards]
        self.events.run(seconds)
        counted = seconds * (1 - WARM_UP)
        etcd, process, machine = (
            max(thing.used - then for thing, then in zip(things, old, strict=True)) / counted
            for things, old in zip(self._things, used, strict=True)
        )
        return Outcome(
            (self.answered - before) / counted, self._percentile(0.5), self._percentile(0.99),
            max(shard.appends - then for shard, then in zip(self._shards, appends, strict=True)) / counted,
            min(1.0, etcd), min(1.0, process), min(1.0, machine / self.service.cores), self.sent, self.answered,
            self.sent - self.answered,
        )  # fmt: skip

    @property
    def _things(self) -> tuple[Sequence[_Etcd], Sequence[_Shard], Sequence[_Machine]]:
        return self._etcds, self._shards, self._machines

    def _percentile(self, part: float) -> float:
        delays = sorted(self._delays)
        left = sum(requests for _, requests in delays) * part
        for seconds, requests in delays:
            left -= requests
            if left <= 0:
                return seconds
        return 0.0


def simulate(service: Service, costs: Costs = Costs(), seed: int = 1, seconds: float = 1.0) -> Outcome:
    """@param seconds: how long the service runs, by the clock of the model."""
    return _Model(service, costs, seed).run(seconds)


def table(
    costs: Costs, shards_per_machine: float, shards_per_etcd: int, clients_per_machine: int, service: Service,
    seed: int = 1, seconds: float = 1.0, sizes: Sequence[int] = TABLE,
) -> list[str]:  # fmt: skip
    """@return: the lines for services of several sizes; C{service} has what is the same for all."""
    lines = ["machines  shards  etcds   clients  requests/s    median      99 %  of etcd  leader  machine  the limit"]
    for machines in sizes:
        shards = max(1, round(machines * shards_per_machine))
        etcds = -(-shards // shards_per_etcd)
        clients = clients_per_machine * machines
        made = replace(service, machines=machines, shards=shards, etcds=etcds, clients=clients)
        got = simulate(made, costs, seed, seconds)
        lines.append(
            f"{machines:8} {shards:7} {etcds:6} {clients:9} {got.throughput:11,.0f} {got.median * 1e3:6.1f} ms"
            f" {got.late * 1e3:6.1f} ms {got.etcd:7.0%} {got.process:7.0%} {got.machine:8.0%}  {got.limit}"
        )
    return lines


def main(arguments: Sequence[str]) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster_growth", description="Model how a service grows.")
    parser.add_argument("--one", type=float, default=1000, help="appends a second with one in flight, as measured")
    parser.add_argument("--several", type=float, default=4000, help="appends a second with --in-flight, as measured")
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--sync-ms", type=float, default=0.5, help="of a round of etcd")
    parser.add_argument("--mb-a-second", type=float, default=60, help="that an etcd takes")
    parser.add_argument("--request-us", type=float, default=12, help="of a leader's process, for each request")
    parser.add_argument("--shards-per-machine", type=float, default=1)
    parser.add_argument("--shards-per-etcd", type=int, default=8, help="one more cluster of etcd beyond that")
    parser.add_argument("--clients-per-machine", type=int, default=50)
    parser.add_argument("--cores", type=int, default=2, help="of a machine")
    parser.add_argument("--queues", type=int, default=10_000)
    parser.add_argument("--bytes", type=int, default=100, help="of an item")
    parser.add_argument("--turns-in-flight", type=int, default=1, help="of a shard")
    parser.add_argument("--machines", help="how many, with commas; by default 3 to 300")
    parser.add_argument("--seconds", type=float, default=1.0, help="that the service runs, by the clock of the model")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    costs = Costs(byte=1e-6 / options.mb_a_second, sync=options.sync_ms / 1e3, request=options.request_us / 1e6)
    costs = calibrated(costs, options.one, options.several, options.in_flight)
    service = Service(
        cores=options.cores, queues=options.queues, bytes=options.bytes, turns_in_flight=options.turns_in_flight
    )
    sizes = TABLE if options.machines is None else [int(size) for size in options.machines.split(",")]
    print("\n".join(table(
        costs, options.shards_per_machine, options.shards_per_etcd, options.clients_per_machine, service, options.seed,
        options.seconds, sizes,
    )))  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
