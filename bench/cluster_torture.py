"""
Three etcds and three nodes on the loopback interface, whose processes are killed and paused while clients work.

Each client has a queue of its own and a model of it (`test.cluster.checker`): what the server answers must be possible.
Items are put, also by id until they are stored, small and large; they are taken, opened, closed and given back::

    python -m bench.cluster_torture --rounds=20
    python -m bench.cluster_torture --rounds=10 --faults=pause,quorum,all

Faults: C{kill} the leader or a follower (kill -9), C{pause} the leader (SIGSTOP), C{quorum}: two etcds are paused,
C{all}: all six processes are killed.  It prints how long each outage was, for the clients.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Optional

from test.cluster.checker import QueueModel
from test.cluster.etcd_servers import EtcdServers, free_port
from test.servers import FOREGROUND, environment

TIMEOUT = 40.0
"""Seconds that a client waits for an answer, more than any outage has."""


class Node:
    """The process of a node, and who starts it again."""

    def __init__(self, directory: Path, name: str, url: str, options: Sequence[str]) -> None:
        self.name = name
        self.port, self.http = free_port(), free_port()
        self.output = directory / f"{name}.log"
        self._command = [
            *FOREGROUND, f"--port={self.port}", f"--data-dir={directory / name}", f"--cluster={url}",
            f"--cluster-node={name}", f"--cluster-http-port={self.http}", *options,
        ]  # fmt: skip
        self.process: Optional[subprocess.Popen[bytes]] = None
        self.exits: list[int] = []
        self.start()

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.process is not None:
            if self.process.poll() is None:
                return
            self.exits.append(self.process.returncode)
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(self._command, stdout=output, stderr=output, env=environment())

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def leads(self) -> bool:
        """@return: whether it listens for clients."""
        with socket.socket() as trying:
            trying.settimeout(1)
            return trying.connect_ex(("127.0.0.1", self.port)) == 0


class Client:
    """One client, in a thread."""

    def __init__(self, torture: Torture, number: int) -> None:
        self._torture = torture
        self._chance = random.Random(f"{torture.seed} {number}")
        self.model = QueueModel(f"jobs{number}")
        self._socket: Optional[socket.socket] = None
        self._file: Any = None
        self._number = 0
        self._failed_at = 0.0
        self.outages: list[float] = []
        self.answers = 0
        self.error: Optional[BaseException] = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _connect(self) -> None:
        while True:
            for node in self._torture.nodes:
                try:
                    self._socket = socket.create_connection(("127.0.0.1", node.port), 1)
                except OSError:
                    continue
                self._socket.settimeout(TIMEOUT)
                self._file = self._socket.makefile("rb")
                return
            time.sleep(0.02)

    def ask(self, request: bytes) -> Optional[bytes]:
        """@return: the first line of the answer, or the item; C{None} if there was none, and so the outcome is open."""
        try:
            if self._socket is None:
                self._connect()
            assert self._socket is not None
            self._socket.sendall(request)
            line: bytes = self._file.readline()
            if not line.endswith(b"\r\n"):
                raise OSError("closed")
            if line.startswith(b"VALUE"):
                size = int(line.split()[3])
                payload: bytes = self._file.read(size + 7)
                if len(payload) != size + 7:
                    raise OSError("closed")
                line = b"=" + payload[:size]
        except OSError:
            self._failed_at = self._failed_at or time.monotonic()
            if self._socket is not None:
                self._socket.close()
                self._socket = None
            return None
        self.answers += 1
        if self._failed_at:
            self.outages.append(time.monotonic() - self._failed_at)
            self._failed_at = 0.0
        return line

    def _run(self) -> None:
        try:
            while not self._torture.stopping:
                self._step()
            while self._take() is not False:
                pass
        except BaseException as error:
            self.error = error

    def _step(self) -> None:
        kind = self._chance.random()
        if kind < 0.5:
            self._put(kind)
        elif kind < 0.75:
            self._take()
        else:
            self._open(kind < 0.95)

    def _put(self, kind: float) -> None:
        self._number += 1
        item = b"%d " % self._number
        if kind < 0.03:
            item = item * (200_000 // len(item))
        options = b"/id=%d" % self._number if kind > 0.35 else b""
        request = b"set %b%b 0 0 %d\r\n%b\r\n" % (self.model.name.encode(), options, len(item), item)
        answer = self.ask(request)
        while answer is None and options:
            answer = self.ask(request)
        if answer not in (None, b"STORED\r\n"):
            raise AssertionError(f"{answer!r} to a set")
        self.model.put(item, answer is not None)

    def _read(self, options: bytes = b"") -> Any:
        """@return: the item, C{False} if there is none, C{None} if there is no answer."""
        answer = self.ask(b"get %b%b\r\n" % (self.model.name.encode(), options))
        if answer is None:
            return None
        if answer == b"END\r\n":
            return False
        if not answer.startswith(b"="):
            raise AssertionError(f"{answer!r} to a get")
        return answer[1:]

    def _take(self) -> Any:
        item = self._read()
        if item is None:
            self.model.in_doubt()
        else:
            self.model.taken(item or None)
        return item

    def _open(self, close: bool) -> None:
        item = self._read(b"/open")
        if item is None:
            return
        self.model.opened(item or None)
        if item:
            answer = self.ask(b"get %b/%b\r\n" % (self.model.name.encode(), b"close" if close else b"abort"))
            if close:
                self.model.closed(answer is not None)


class Torture:
    """All of it."""

    def __init__(self, clients: int, seed: int, say: Callable[[str], object] = lambda _: None) -> None:
        """@param say: is told of each round."""
        self._say = say
        self.seed = seed
        self.chance = random.Random(seed)
        self.directory = Path(tempfile.mkdtemp(prefix="darner-cluster-"))
        (self.directory / "settings.toml").write_text("[defaults]\ndedupe_window = 3600\n")
        (self.directory / "etcd").mkdir()
        self.etcd = EtcdServers(None, 3, directory=self.directory / "etcd")
        url = f"etcd://{','.join(self.etcd.endpoints)}/torture"
        options = [f"--config={self.directory / 'settings.toml'}", "--log-level=info"]
        self.nodes = [Node(self.directory, f"node{number}", url, options) for number in range(3)]
        self.stopping = False
        self.clients = [Client(self, number) for number in range(clients)]

    def leader(self, patience: float = 60.0) -> Node:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            self.tend()
            for node in self.nodes:
                if node.leads():
                    return node
            time.sleep(0.05)
        raise AssertionError("nobody leads")

    def tend(self) -> None:
        """Start again what has ended."""
        for node in self.nodes:
            node.start()

    def fault(self, kind: str) -> None:
        leader = self.leader()
        if kind == "kill":
            node = leader if self.chance.random() < 0.7 else self.chance.choice(self.nodes)
            node.kill()
            time.sleep(self.chance.random())
        elif kind == "pause":
            leader.signal(signal.SIGSTOP)
            time.sleep(5 + 3 * self.chance.random())
            leader.signal(signal.SIGCONT)
        elif kind == "quorum":
            stopped = self.chance.sample(self.etcd.servers, 2)
            for server in stopped:
                server.pause()
            time.sleep(4)
            for server in stopped:
                server.resume()
        elif kind == "all":
            for node in self.nodes:
                node.kill()
            self.etcd.kill()
            self.etcd.start()
        self.tend()

    def run(self, rounds: int, faults: Sequence[str], between: float) -> None:
        """@raise AssertionError: a client was told what cannot be."""
        self.leader()
        for client in self.clients:
            client.thread.start()
        for number in range(rounds):
            time.sleep(between * (0.5 + self.chance.random()))
            kind = faults[number % len(faults)]
            self.fault(kind)
            self.leader()
            self.check()
            self._say(f"{number + 1}: {kind}; {sum(client.answers for client in self.clients)} answers")
        time.sleep(between)
        self.stopping = True
        deadline = time.monotonic() + 60
        for client in self.clients:
            while client.thread.is_alive() and time.monotonic() < deadline:
                self.tend()
                client.thread.join(0.2)
            if client.thread.is_alive():
                raise AssertionError(f"{client.model.name} is still waiting")
        self.check()

    def check(self) -> None:
        for client in self.clients:
            if client.error is not None:
                raise client.error

    @property
    def outages(self) -> list[float]:
        return sorted(outage for client in self.clients for outage in client.outages)

    def end(self) -> None:
        for node in self.nodes:
            node.signal(signal.SIGCONT)
            node.kill()
        self.etcd.end()

    def remove(self) -> None:
        """Remove logs and data."""
        shutil.rmtree(self.directory)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster_torture")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--faults", default="kill", help="comma-separated, taken in turn: kill, pause, quorum, all")
    parser.add_argument("--between", type=float, default=2.0, help="seconds between two faults, on average")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    torture = Torture(options.clients, options.seed, lambda text: print(text, flush=True))
    try:
        torture.run(options.rounds, options.faults.split(","), options.between)
    except BaseException:
        torture.end()
        print(f"logs and data are in {torture.directory}", file=sys.stderr)
        raise
    torture.end()
    outages = torture.outages
    if outages:
        print(f"outages as clients saw them: median {statistics.median(outages):.1f} s, longest {outages[-1]:.1f} s")
    print(f"statuses of nodes that ended: {[node.exits for node in torture.nodes]}")
    print("nothing lost, nothing twice, order kept")
    torture.remove()


if __name__ == "__main__":
    main(sys.argv[1:])
