"""
Real etcd servers, one or several that form a cluster, on free ports of the loopback interface.

They run as they would on machines of their own: each in a process, with its files in a directory, and every write is
synced.  Each can be killed, paused, stopped and started again.  It needs the program C{etcd} (Debian: etcd-server)::

    python -m test.cluster.etcd_servers --size=3 DIRECTORY

runs some until it is interrupted, and prints their addresses.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from bench.cluster_network import HERE, Place
from bench.ports import reserve_port
from test.servers import Owner, until

ETCD = shutil.which("etcd")
"""The program; C{None} where there is none."""

SETTINGS = ("--snapshot-count=1000", "--max-request-bytes=8388608", "--quota-backend-bytes=4294967296")
"""What docs/cluster_etcd.rst asks operators to set."""


class EtcdServer:
    """
    One of them.

    @ivar name: its name among them.
    @ivar port: where clients connect.
    @ivar peer_port: where the others connect.
    @ivar url: the URL for clients.
    @ivar log: the file with what it says.
    """

    def __init__(self, name: str, directory: Path, place: Place = HERE) -> None:
        self.name = name
        self.place = place
        self.port, self.peer_port = reserve_port(), reserve_port()
        self.data = directory / name
        self.log = directory / f"{name}.log"
        self.scheme = "http"
        self.command: list[str] = []
        self.process: Optional[subprocess.Popen[bytes]] = None

    @property
    def endpoint(self) -> str:
        return f"{self.place.address}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.endpoint}"

    @property
    def peer_url(self) -> str:
        """The URL for the others."""
        return f"http://{self.place.address}:{self.peer_port}"

    @property
    def pid(self) -> int:
        if self.process is None:
            raise AssertionError(f"{self.name} does not run")
        return self.process.pid

    def start(self) -> None:
        """Start it, again if it has ended.  It is not waited for."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.place.prefix, *self.command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.log.parent,
            )  # fmt: skip

    def kill(self) -> None:
        """End it as a crash does.  Harmless when it has ended."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """Have it end in order."""
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait()

    def pause(self) -> None:
        """Let it stand still; its connections stay.  When this returns, all its threads do."""
        if self.process is not None:
            self.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on after L{pause}."""
        self.process and self.process.send_signal(signal.SIGCONT)

    def ask(self, path: str, body: Any = None, patience: float = 2.0) -> Any:
        """
        @param body: what to post as JSON; C{None} for a GET.
        @return: what it answers, as JSON.
        @raise OSError: it does not answer, or with an error.
        """
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(self.url + path, data, timeout=patience) as answer:
            return json.loads(answer.read())

    def surely(self, path: str, body: Any) -> Any:
        """
        Ask until it answers, for what may be done more than once.

        @param body: as for L{ask}.
        @return: what it answers, as JSON.
        @raise OSError: it refuses it.
        """
        return self._repeat(path, body)[0]

    def change(self, path: str, body: Any) -> None:
        """
        Have it do what can be done only once.

        @raise OSError: it refuses it, when it is first asked.  Later that says that it was done without an answer.
        """
        self._repeat(path, body, once=True)

    def _repeat(self, path: str, body: Any, once: bool = False) -> list[Any]:
        answers: list[Any] = []
        asked = 0

        def answered() -> bool:
            nonlocal asked
            asked += 1
            try:
                answers.append(self.ask(path, body, patience=30))
            except urllib.error.HTTPError as error:
                error.close()
                # There is none that leads, say, or it was another one when it had the answer.
                if error.code >= 500:
                    return False
                if not once or asked == 1:
                    raise
            except OSError:
                return False
            return True

        until(answered, f"{self.name} answers {path}; {self.log}", 120)
        return answers

    def status(self) -> dict[str, Any]:
        """@return: etcd's status: C{leader}, C{header}, C{dbSize} and more."""
        status: dict[str, Any] = self.ask("/v3/maintenance/status", {})
        return status

    def is_healthy(self) -> bool:
        """@return: whether it can commit, which takes a majority."""
        try:
            return bool(self.ask("/health")["health"] == "true")
        except (OSError, ValueError):
            return False

    def memory(self) -> int:
        """@return: its resident memory in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmRSS"))

    def disk(self) -> int:
        """@return: what its files take on the disk, in bytes."""
        return sum(path.stat().st_blocks * 512 for path in self.data.rglob("*") if path.is_file())


class EtcdServers:
    """
    Servers that form a cluster.

    They start at once, and are killed when the test is over.

    @ivar servers: all of them.
    """

    def __init__(
        self,
        case: Optional[Owner] = None,
        size: int = 3,
        *,
        election: int = 1000,
        heartbeat: int = 100,
        directory: Optional[Path] = None,
        options: Sequence[str] = SETTINGS,
        certificate: Optional[Path] = None,
        start: bool = True,
        places: Sequence[Place] = (),
    ) -> None:
        """
        @param places: where they run; by default on the loopback interface.
        @param case: the test; C{None} for who calls L{end}.
        @param election: after how many ms without the leader another is elected.
        @param heartbeat: in ms.
        @param directory: where their files are; by default a temporary one, that goes in the end.
        @param options: more of etcd's.
        @param certificate: the file with key and certificate with which they speak TLS to clients.
        @param start: whether to start them, and wait until they serve.
        """
        if ETCD is None:
            raise AssertionError("there is no etcd: apt-get install etcd-server")
        self._temporary = directory is None
        self.directory = directory or Path(tempfile.mkdtemp(prefix="darner-etcd-"))
        places = places or [HERE] * size
        self.servers = [EtcdServer(f"etcd{index}", self.directory, places[index]) for index in range(size)]
        members = ",".join(f"{server.name}={server.peer_url}" for server in self.servers)
        for server in self.servers:
            peer = server.peer_url
            if certificate is not None:
                server.scheme = "https"
            server.command = [
                ETCD, f"--name={server.name}", f"--data-dir={server.data}",
                f"--listen-client-urls={server.url}", f"--advertise-client-urls={server.url}",
                f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster={members}",
                f"--heartbeat-interval={heartbeat}", f"--election-timeout={election}", "--logger=zap",
                "--log-level=warn", *options,
            ]  # fmt: skip
            if certificate is not None:
                server.command += [f"--cert-file={certificate}", f"--key-file={certificate}"]
        if case is not None:
            case.addCleanup(self.end)
        if start:
            self.start()

    @property
    def endpoints(self) -> list[str]:
        """C{HOST:PORT} of each."""
        return [server.endpoint for server in self.servers]

    def start(self, wait: bool = True) -> None:
        """Start all that do not run, and wait until a majority of them commits."""
        for server in self.servers:
            if server.process is None or server.process.poll() is not None:
                server.start()
        if wait:
            self.wait()

    def wait(self, *servers: EtcdServer) -> None:
        """Wait until these, by default all, serve."""
        for server in servers or self.servers:
            if server.scheme == "https":
                until(lambda server=server: _listens(server.port), f"{server.name} listens")  # type: ignore[misc]
            else:
                until(server.is_healthy, f"{server.name} is healthy; {server.log}")

    def leader(self) -> EtcdServer:
        """@return: the one that leads, as those that answer agree; waits until there is one."""
        found: list[EtcdServer] = []

        def known() -> bool:
            found.clear()
            for server in self.servers:
                try:
                    status = server.status()
                except (OSError, ValueError):
                    continue
                if status.get("leader", "0") == status["header"]["member_id"]:
                    found.append(server)
            return len(found) == 1

        until(known, "one etcd leads")
        return found[0]

    def followers(self) -> list[EtcdServer]:
        """@return: those that do not lead."""
        leader = self.leader()
        return [server for server in self.servers if server is not leader]

    def kill(self) -> None:
        """Kill all of them."""
        for server in self.servers:
            server.kill()

    def end(self) -> None:
        """Kill all, and remove their files if they were temporary."""
        self.kill()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)


def _listens(port: int) -> bool:
    with socket.socket() as trying:
        return trying.connect_ex(("127.0.0.1", port)) == 0


def main(arguments: Sequence[str]) -> None:
    """Run servers until a signal comes."""
    parser = argparse.ArgumentParser(prog="python -m test.cluster.etcd_servers", description="Run etcd on loopback.")
    parser.add_argument("--size", type=int, default=3, help="how many of them")
    parser.add_argument("--election", type=int, default=1000, help="election time-out in ms")
    parser.add_argument("--heartbeat", type=int, default=100, help="interval of heartbeats in ms")
    parser.add_argument("directory", type=Path, help="where their files are")
    options = parser.parse_args(arguments)
    options.directory.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    servers = EtcdServers(
        size=options.size, election=options.election, heartbeat=options.heartbeat, directory=options.directory.resolve()
    )
    try:
        print(",".join(servers.endpoints), flush=True)
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        pass
    finally:
        servers.end()


if __name__ == "__main__":
    main(sys.argv[1:])
