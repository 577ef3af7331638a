"""
Loss of power at the nodes of a cluster: what is found on each one's disk is what the model of a disk says is possible
(L{bench.disk}).

A node runs under strace, which records what it writes and syncs.  When the power is lost, the recording is replayed,
and one of the possible states takes the place of the node's data directory.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Optional

from bench.disk import Content, Directory, Disk, File, State
from bench.syscalls import read_trace, watched

_FOLLOWS: Final = re.compile(r"cluster: node \S+ follows from record (\d+) on")


class PowerlessDisk:
    """The data directory of one node."""

    def __init__(self, path: Path, traces: Path) -> None:
        """
        @param path: the directory, which is made.
        @param traces: an existing directory for recordings.
        """
        self._path = path
        self._trace = traces / f"{path.name}.trace"
        self._marks = traces / "marks"
        path.mkdir()
        self._disk = self._as_it_is()

    def command(self, command: Sequence[str]) -> list[str]:
        """@return: the command that runs this one, and records what it does."""
        self._replay()
        return watched(command, self._trace)

    def _replay(self) -> None:
        if self._trace.exists():
            for _ in self._disk.follow(read_trace(self._trace)):
                pass
            self._disk.forget_descriptors()
            self._trace.unlink()

    def lose_power(self, chance: random.Random) -> None:
        """The process has ended: have on the disk what may be there."""
        self._replay()
        state = chance.choice((
            self._disk.least, self._disk.most, lambda: self._disk.entries(zeros=False),
            lambda: self._disk.entries(zeros=True), lambda: self._disk.newest(".log"),
            lambda: self._disk.some(chance), lambda: self._disk.some(chance),
        ))()  # fmt: skip
        for there in self._path.iterdir():
            shutil.rmtree(there) if there.is_dir() else there.unlink()
        self._make(state)
        self._disk = self._as_it_is()

    def _make(self, state: State) -> None:
        for name, content in state.items():
            if isinstance(content, Content):
                (self._path / name).write_bytes(content.bytes())
            else:
                (self._path / name).mkdir()

    def _as_it_is(self) -> Disk:
        """@return: a disk where all that is there is certain."""
        disk = Disk(self._path, self._marks)
        disk.root = _read(self._path)
        return disk


def _read(path: Path) -> Directory:
    directory = Directory()
    for there in path.iterdir():
        if there.is_dir():
            directory.entries[there.name] = _read(there)
        else:
            data = bytearray(there.read_bytes())
            directory.entries[there.name] = File(data, len(data))
    directory.certain = dict(directory.entries)
    return directory


def kill_traced(strace: subprocess.Popen[bytes]) -> None:
    """Kill what strace runs, so that it writes its recording to the end."""
    children = Path(f"/proc/{strace.pid}/task/{strace.pid}/children")
    while strace.poll() is None:
        with suppress(OSError):
            for child in children.read_text().split():
                os.kill(int(child), signal.SIGKILL)
        time.sleep(0.01)


def follows_from(log: str) -> Optional[int]:
    """@return: the record from which a node follows that was started once, by its log; C{None}: it does not yet."""
    found = _FOLLOWS.search(log)
    return None if found is None else int(found[1])
