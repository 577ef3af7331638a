"""
``python -m bench.backup``: how long requests take while backups of a running server are made.

A client of its own puts and takes small items all the time, a pause of 1 ms between two requests.  Meanwhile nothing is
done; backups are made by links, one after the other; a stream is taken; and each for the same time.  On a machine that
does other work compare with what requests take while nothing is done.

At the end the store is opened by this process, to measure how long the lock is held that writes wait for, in wall-clock
time and in processor time of the thread.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from darner.store.backup.capture import Capture
from darner.store.leveldb import LevelStore

PAYLOAD: Final = 32 * 1024
PAUSE: Final = 0.001


class Client:
    """A memcache client."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._file = self._socket.makefile("rb")

    def ask(self, request: bytes, lines: int = 1) -> bytes:
        self._socket.sendall(request)
        return b"".join(self._file.readline() for _ in range(lines))

    def fill(self, mebibytes: int) -> None:
        data = os.urandom(PAYLOAD)
        for number in range(mebibytes * 1024 * 1024 // PAYLOAD):
            item = b"%016d" % number + data[16:]
            assert self.ask(b"set filled 0 0 %d\r\n%b\r\n" % (len(item), item)) == b"STORED\r\n"


def requests(port: int, until: threading.Event) -> list[float]:
    """@return: how many seconds each request took."""
    client, times = Client(port), []
    while not until.is_set():
        for request, lines in ((b"set small 0 0 5\r\nhello\r\n", 1), (b"get small\r\n", 3)):
            begun = time.perf_counter()
            client.ask(request, lines)
            times.append(time.perf_counter() - begun)
            time.sleep(PAUSE)
    return times


def measured(port: int, work: Callable[[], object]) -> list[float]:
    """@return: how many seconds each request took while some work was done."""
    until, times = threading.Event(), []
    thread = threading.Thread(target=lambda: times.extend(requests(port, until)))
    thread.start()
    work()
    until.set()
    thread.join()
    return sorted(times)


def row(name: str, times: list[float], cpu: float) -> str:
    at = [times[int(len(times) * part)] * 1000 for part in (0.5, 0.99, 0.999)]
    slow = sum(seconds > 0.05 for seconds in times)
    return (
        f"{name:28} {len(times):8,} {at[0]:8.2f} {at[1]:8.2f} {at[2]:8.2f} {times[-1] * 1000:8.2f} {slow:8} {cpu:8.2f}"
    )


class Held:
    """A lock that notes how long it is held."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.wall = self.cpu = 0.0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._since = time.perf_counter(), time.thread_time()

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self._since[0]
        self.cpu = time.thread_time() - self._since[1]
        self._lock.release()


def hold(data: Path) -> None:
    """Print how long writes are held up by a capture."""
    store = LevelStore(data)
    held: Any = Held()
    store._database.writer.lock = held
    for _ in range(5):
        begun, cpu = time.perf_counter(), time.thread_time()
        capture = Capture(store._database)
        capture.take()
        seconds, cpu = time.perf_counter() - begun, time.thread_time() - cpu
        print(f"capture of {len(capture.files):,} files: lock held {held.wall * 1000:.2f} ms "
              f"(CPU {held.cpu * 1000:.2f} ms), all {seconds * 1000:.0f} ms (CPU {cpu * 1000:.0f} ms)")  # fmt: skip
        capture.release()
    store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=1000, help="size of the store")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each is measured")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="darner-backup-"))
    backups = place / "backups"
    settings = place / "darner.toml"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings.write_text(f'data_dir = "{place}/data"\nport = {port}\nhttp_port = 0\nbackup_dir = "{backups}"\n')
    log = place / "log"
    darner = str(Path(sys.executable).with_name("darner"))
    command = [sys.executable, "-m", "darner", f"--config={settings}"]
    server = subprocess.Popen(command, cwd=place, stdout=log.open("wb"), stderr=subprocess.STDOUT)
    try:
        while "] starting up" not in log.read_text():
            if server.poll() is not None:
                sys.exit(log.read_text())
            time.sleep(0.05)
        (url,) = re.findall(r"http://127\.0\.0\.1:\d+", log.read_text())
        program = [darner, "--http", url, "backup"]
        Client(port).fill(options.mebibytes)

        def cpu() -> float:
            fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        def again(*arguments: str) -> None:
            end = time.monotonic() + options.seconds
            while time.monotonic() < end:
                out = subprocess.run([*program, *arguments, "--json"], check=True, stdout=subprocess.PIPE).stdout
                if arguments[0] != "-":
                    made.append(json.loads(out))

        made: list[dict[str, Any]] = []
        heads = ("requests", "p50, ms", "p99", "p99.9", "longest", "> 50 ms", "CPU, s")
        print(f"{'':28} " + " ".join(f"{head:>8}" for head in heads), flush=True)
        for name, work in (
            ("nothing", lambda: time.sleep(options.seconds)),
            ("the first backup, by links", lambda: made.append(
                json.loads(subprocess.run([*program, str(backups), "--json"], check=True, stdout=-1).stdout)
            )),
            ("further backups", lambda: again(str(backups), "--keep", "3")),
            ("first, to a directory", lambda: subprocess.run([*program, str(place / "other")], check=True, stdout=-3)),
            ("further ones", lambda: again(str(place / "other"), "--keep", "3")),
            ("nothing, again", lambda: time.sleep(options.seconds)),
        ):  # fmt: skip
            before = cpu()
            times = measured(port, work)
            print(row(name, times, cpu() - before), flush=True)
        first = made[0]
        print(f"{first['files']:,} files with {first['bytes'] / 2**20:,.0f} MiB, {first['linked']:,} of them linked")
    finally:
        server.terminate()
        server.wait()
    hold(place / "data")
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
