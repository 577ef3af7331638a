"""
``python -m bench.torture``: does the server keep its promises while it is killed again and again?

About forty clients use a real server in every possible way, and it is killed meanwhile.  After its next start, its
contents are compared with the replies that the clients got.  The exit status is 1 if it broke a promise.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import ClassVar, Final, Optional

from attrs import asdict, define, field

from bench.audit import audit
from bench.books import COUNT, LEFT, SERVER, Books
from bench.callers import Caller, Stage, WrongReply, play
from bench.ledger import View
from bench.parts import HELD, cast, holding
from bench.remains import disk_usage, look_at
from bench.server_log import entries, unhandled
from bench.servers import PATIENCE, Darner

SMALL_SIZE: Final = 8 * 1024 * 1024
"""The maximum size of the database's files of an empty server."""
ROOM_PATIENCE: Final = 60.0
"""Seconds within which the disk space of emptied queues must be reclaimed; what is left then is a fault."""
LOOK_EVERY: Final = 5
"""Rounds between two checks of the server's disk."""
AT_LEAST: Final = {"stored": 50, "read": 50, "half_sent": 1, "closed": 1, "given_back": 1}
"""Figures of the books that there are before the server is killed for the first time, however slow the machine is."""
SHOWN: Final = 10
"""The maximum number of faults of a kind that are reported one by one."""
ENOUGH: Final = 100
"""The number of faults after which the run ends."""
CONFIG: Final = """
[queues."once*"]
dedupe_window = "1h"
"""
"""The server's settings."""
_ERROR: Final = re.compile(r"\A\S+ \[\S*#error\]")
"""No store errors are expected, as nothing is done to the server's disk."""


class Twistd(Darner):
    """
    This server as ``twistd -n darner`` runs it; its data directory is kept between lives.

    @ivar lives: the number of starts; each life has its own log.
    """

    script: ClassVar[Sequence[str]] = ("-c", "from twisted.scripts.twistd import run; run()")

    def __init__(self, data: Optional[Path] = None) -> None:
        """@param data: the data directory; by default a new one."""
        super().__init__()
        self._data = data
        self.lives = 0

    def launch(self) -> subprocess.Popen[bytes]:
        self.lives += 1
        return super().launch()

    @property
    def log_path(self) -> Path:
        return self.log_of(self.lives)

    def log_of(self, life: int) -> Path:
        """@return: the log file of a life, counted from 1."""
        return self.directory / f"log-{life:05}"

    def remove(self, keep_logs: bool = False) -> None:
        """
        End it, and remove its data.

        @param keep_logs: keep the logs of all lives in the directory.
        """
        if not keep_logs:
            super().remove()
            return
        self.kill()
        shutil.rmtree(self.directory / "data", ignore_errors=True)

    @property
    def data(self) -> Path:
        return self._data or self.directory / "data"

    def options(self) -> Sequence[str]:
        config = self.directory / "darner.toml"
        config.write_text(CONFIG)
        own = ("-p", str(self.port), "-d", str(self.data), "--config", str(config))
        return (*self.script, "--nodaemon", "--pidfile=", "darner", *own)


@define
class Torture:
    """
    One run.

    @ivar books: the requests of the clients and the replies they got.
    @ivar kills: how often the server was killed while clients used it.
    @ivar early_kills: how often it was killed while it was starting.
    @ivar recovery: the seconds of the longest start.
    @ivar emptied: the number of queues that were emptied to check their contents.
    """

    server: Twistd
    seed: int
    seconds: float
    books: Books = field(factory=Books)
    kills: int = 0
    early_kills: int = 0
    recovery: float = 0.0
    emptied: int = 0
    _views: dict[str, View] = field(factory=dict)
    _holding: View = field(factory=View)
    _read: int = 0

    def run(self, rounds: int, tell: Callable[[str], None]) -> None:
        """
        Kill the server so many times, and check everything in the end; end early if it breaks many promises.

        @param tell: called with a line for each round.
        @raise OSError: the server does not start.
        """
        for number in range(rounds):
            self.books.round = number
            random = Random(f"{self.seed} {number}")
            faults, stored = len(self.books.faults), self.books.figures.stored
            seconds = self._start(random)
            asyncio.run(self._live(random))
            self.read_logs()
            if number % LOOK_EVERY == LOOK_EVERY - 1:
                self._look_at_copy()
            tell(
                f"round {number}: started in {seconds:.2f} s, {self.books.figures.stored - stored} items stored, "
                f"{disk_usage(self.server.data) / 2**20:.1f} MiB on disk, {len(self.books.faults) - faults} faults"
            )
            if len(self.books.faults) > ENOUGH:
                return
        self.books.round = rounds
        self._start(Random(f"{self.seed} end"))
        asyncio.run(self._end())
        if not self.books.faults:
            self._wait_for_room()
        self.read_logs()

    # The server

    def _start(self, random: Random) -> float:
        while random.random() < 0.2:
            self.server.launch()
            time.sleep(random.random() * (self.recovery or 0.5) * 1.2)
            self.server.kill()
            self.early_kills += 1
        seconds = self.server.start()
        self.recovery = max(self.recovery, seconds)
        return seconds

    def read_logs(self) -> None:
        """Look for errors in the logs of the lives that have ended since the last check."""
        while self._read < self.server.lives:
            self._read += 1
            path = self.server.log_of(self._read)
            log = path.read_text("utf-8", "replace")
            wrong = unhandled(log) + [entry.rstrip() for entry in entries(log) if _ERROR.match(entry)]
            for entry in wrong[:SHOWN]:
                self.books.fault(SERVER, f"{path.name}: {entry}")

    def _stop(self) -> None:
        process = self.server.process
        assert process is not None
        self.server.stop()
        if process.returncode != 0:
            self.books.fault(SERVER, f"it ended with {process.returncode} when it was told to stop")

    # A life

    def _lives(self) -> bool:
        return self.server.process is not None and self.server.process.poll() is None

    async def _live(self, random: Random) -> None:
        stage = Stage(self.server.port, self.books, f"{self.seed} {self.books.round}")
        self.emptied += await audit(stage, lambda name: name != HELD and random.random() < 0.3)
        holder = Caller(stage, "holder")
        parts = cast(self._views)
        asked = asyncio.Event()
        players = [asyncio.ensure_future(play(holder, holding(self._holding, asked), self._lives))]
        await asyncio.wait([*players, asyncio.ensure_future(asked.wait())], return_when=asyncio.FIRST_COMPLETED)
        players += [
            asyncio.ensure_future(play(Caller(stage, name), part, self._lives)) for name, part in parts.items()
        ]
        calmly = random.random() < 0.3
        await asyncio.wait(players, timeout=random.uniform(0.05, self.seconds))
        while self._lives() and self._has_seen_little() and not any(player.done() for player in players):
            await asyncio.wait(players, timeout=0.01)
        process = self.server.process
        assert process is not None
        if process.poll() is not None:
            self.books.fault(SERVER, f"it ended by itself, with {process.returncode}")
        elif calmly:
            await self._part(players)
            self.emptied += await audit(stage, lambda name: name != HELD and random.random() < 0.3)
        self.server.kill()
        self.books.end_asking()
        self.kills += 1
        done, late = await asyncio.wait(players, timeout=PATIENCE)
        assert not late, "a client does not notice that the server has gone"
        for player in done:
            if not player.cancelled():
                player.result()
        self.books.all_gone()

    def _has_seen_little(self) -> bool:
        figures = self.books.figures
        least = all(getattr(figures, name) >= count for name, count in AT_LEAST.items())
        return not least or not (figures.left_open or self.books.any_open(HELD))

    async def _part(self, players: Sequence[asyncio.Future[None]]) -> None:
        """Disconnect all clients while the server runs; clients that wait get no answer."""
        self.books.end_asking()
        await asyncio.wait(players, timeout=0.1)
        for player in players:
            player.cancel()
        await asyncio.wait(players)
        self.books.all_gone()

    # The end

    async def _end(self) -> None:
        stage = Stage(self.server.port, self.books, f"{self.seed} end")
        self.emptied += await audit(stage, lambda name: True)
        caller = Caller(stage, "last auditor")
        await caller.connect()
        figures = await caller.stats()
        if figures[b"curr_items"] or figures[b"bytes"]:
            self.books.fault(COUNT, f"{figures[b'curr_items']} items of {figures[b'bytes']} bytes in empty queues")
        caller.leave()

    def _look_at_copy(self) -> None:
        """Check that a kill leaves no more behind than the next start finds and deletes."""
        with tempfile.TemporaryDirectory(dir=self.server.directory) as copy:
            shutil.copytree(self.server.data / "leveldb", Path(copy) / "leveldb")
            if (self.server.data / "segments").exists():
                shutil.copytree(self.server.data / "segments", Path(copy) / "segments", copy_function=os.link)
            for what in look_at(Path(copy)).astray():
                self.books.fault(LEFT, what)

    def _wait_for_room(self) -> None:
        """
        Check that the disk space of the queues, which are all empty, is reclaimed, with all their records.

        The server is not restarted meanwhile, as a start may clear away what was forgotten.
        """
        until = time.monotonic() + ROOM_PATIENCE
        while self._left_in_this_life() and time.monotonic() < until:
            time.sleep(1)
        self._stop()
        for what in _left(self.server.data):
            self.books.fault(LEFT, f"{ROOM_PATIENCE:.0f} s after all was drained: {what}")

    def _left_in_this_life(self) -> list[str]:
        """@return: what is still to be cleared away, as a copy shows that is made while the process is halted."""
        process = self.server.process
        assert process is not None
        with tempfile.TemporaryDirectory(dir=self.server.directory) as copy:
            process.send_signal(signal.SIGSTOP)
            try:
                os.waitpid(process.pid, os.WUNTRACED)
                shutil.copytree(self.server.data / "leveldb", Path(copy) / "leveldb")
            finally:
                process.send_signal(signal.SIGCONT)
            return _left(Path(copy))

    def summary(self) -> dict[str, float]:
        """@return: the figures of the run."""
        return {
            "seed": self.seed,
            "kills": self.kills,
            "kills_while_starting": self.early_kills,
            "longest_start": round(self.recovery, 3),
            "queues_emptied": self.emptied,
            **asdict(self.books.figures),
            "faults": len(self.books.faults),
        }


def _left(data: Path) -> list[str]:
    """@return: what takes space in a data directory whose queues are all empty."""
    size = disk_usage(data)
    remains = look_at(data)
    left = remains.astray() + remains.room()
    if size > SMALL_SIZE:
        left.append(f"{size} bytes in the files of empty queues")
    return left


def account(torture: Torture) -> str:
    """@return: the figures and the broken promises."""
    lines = [f"{name.replace('_', ' '):24} {figure:>14,}" for name, figure in torture.summary().items()]
    told: Counter[str] = Counter()
    for fault in torture.books.faults:
        told[fault.kind] += 1
        if told[fault.kind] <= SHOWN:
            lines.append(f"FAULT in round {fault.round}: {fault.kind}: {fault.text}")
    lines += [f"FAULT {kind}: {count - SHOWN} more" for kind, count in told.items() if count > SHOWN]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m bench.torture", description="Kill a server again and again.")
    add = parser.add_argument
    add("--rounds", type=int, default=100, help="how often to kill the server [default: %(default)s]")
    add("--seed", type=int, help="seed of the random choices [default: a new one each time]")
    add("--seconds-per-round", type=float, default=2.0, help="the longest life of the server [default: %(default)s]")
    add("--data-dir", type=Path, help="a new data directory, which is kept [default: one that is removed]")
    add("--output", type=Path, help="where to write figures and faults as JSON")
    return parser


def _progress(total: int) -> Callable[[str], None]:
    """@return: prints the line of a round; on a terminal over the previous one."""
    if not sys.stdout.isatty():
        return lambda line: print(line, flush=True)
    return lambda line: print(f"\r\x1b[K{line} (of {total})", end="", flush=True)


def main(arguments: Optional[Sequence[str]] = None, kind: type[Twistd] = Twistd) -> int:
    """
    @param kind: the class of the server.
    @return: the exit status: 1 if a promise was broken.
    """
    options = _parser().parse_args(arguments)
    seed = Random().randrange(10**6) if options.seed is None else options.seed
    if options.data_dir is not None and options.data_dir.exists():
        print(f"{options.data_dir} is there already", file=sys.stderr)
        return 2
    server = kind(options.data_dir and options.data_dir.absolute())
    torture = Torture(server, seed, options.seconds_per_round)
    interrupted = False
    try:
        torture.run(options.rounds, _progress(options.rounds))
    except (OSError, EOFError, WrongReply, asyncio.TimeoutError) as error:
        torture.books.fault(SERVER, str(error) or type(error).__name__)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        server.kill()
        torture.read_logs()
        server.remove(keep_logs=bool(torture.books.faults))
    print(f"\n{account(torture)}", flush=True)
    faults = [asdict(fault) for fault in torture.books.faults]
    if options.output is not None:
        options.output.write_text(json.dumps({**torture.summary(), "faults": faults}, indent=2) + "\n")
    if faults:
        print(f"the logs of the server's {server.lives} lives: {server.log_of(1)} to {server.log_path.name}")
        print(f"repeat it by --seed={seed} --rounds={options.rounds} --seconds-per-round={options.seconds_per_round:g}")
    return 1 if faults or interrupted else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that neither server nor data are left behind
    sys.exit(main())
