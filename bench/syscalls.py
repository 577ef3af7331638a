"""
The file operations of a process, as strace sees them.

strace is a package of the distribution.  It reports the beginning and end of each call, in one order for all threads,
as a model of the disk needs it (`bench.disk`).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Optional

from attrs import frozen

CALLS: Final = (
    "open,openat,creat,close,write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,"
    "ftruncate,mkdir,mkdirat,rmdir,link,linkat,dup,dup2,dup3,sync_file_range"
)
"""All calls by which LevelDB and Python change files, and those that the model does not support."""

_LINE = re.compile(r"(\d+) +(.*)")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?)(?: .*)?$")
_BEGUN = re.compile(r"(\w+)\((.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"<\.\.\. (\w+) resumed>(.*)$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')


def missing() -> Optional[str]:
    """@return: why processes cannot be traced here; C{None} if they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True)
    return f"strace may not be used here: {probe.stderr.strip()}" if probe.returncode else None


@frozen
class Call:
    """A system call that succeeded, or its beginning."""

    name: str
    arguments: tuple[str, ...]
    """As strace prints them, except for texts."""
    texts: tuple[bytes, ...]
    """The arguments that are texts: paths, and written bytes."""
    result: Optional[int]
    """C{None} for the beginning of a call, whose end follows."""

    @property
    def file(self) -> int:
        """The descriptor of the call."""
        return int(self.arguments[0])


def watched(command: Sequence[str], trace: Path) -> list[str]:
    """
    @param trace: the file for strace's output, for L{read_trace}.
    @return: the command that runs another one under strace.
    """
    return [
        "strace", "-f", "-qq", "--seccomp-bpf", "-xx", "-s", str(1 << 24), "-o", str(trace),
        "-e", f"trace={CALLS}", "-e", "signal=none", *command,
    ]  # fmt: skip


def attach(process: int, trace: Path, calls: str, more: Sequence[str]) -> subprocess.Popen[bytes]:
    """
    Trace a running process with all its threads, until it ends.

    @param trace: the file for strace's output, without texts.
    @param calls: the calls to trace.
    @param more: further options for strace.
    """
    strace = subprocess.Popen(
        ["strace", "-f", "-qq", "-s", "0", "-o", str(trace), "-e", f"trace={calls}", "-e", "signal=none",
         *more, "-p", str(process)],
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    while any(_is_free(task) for task in Path(f"/proc/{process}/task").iterdir()):
        if strace.poll() is not None:
            assert strace.stderr is not None
            raise OSError(f"strace cannot attach: {strace.stderr.read().decode()}")
        time.sleep(0.002)
    return strace


def _is_free(task: Path) -> bool:
    """@return: whether a thread is not traced; one that has ended meanwhile is not free."""
    try:
        return "\nTracerPid:\t0\n" in (task / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def read_trace(path: Path) -> Iterator[Call]:
    """
    @return: the successful calls of a trace, in the order in which they ended.  If other threads did something during
        a call, its beginning is included too, in its place.
    """
    begun: dict[str, str] = {}
    with path.open(errors="strict") as lines:
        for line in lines:
            match = _LINE.match(line.rstrip("\n"))
            if match is None:
                raise ValueError(f"not a line of strace's: {line[:200]!r}")
            thread, text = match.groups()
            if beginning := _BEGUN.match(text):
                begun[thread] = f"{beginning[1]}({beginning[2]}"
                yield _call(beginning[1], beginning[2], None)
                continue
            if resumed := _RESUMED.match(text):
                text = begun.pop(thread) + resumed[2]
            whole = _CALL.match(text)
            if whole is not None and whole[3] not in ("-1", "?"):
                yield _call(whole[1], whole[2], int(whole[3]))


def _call(name: str, text: str, result: Optional[int]) -> Call:
    texts = []
    for found in _TEXT.finditer(text):
        if found[2]:
            raise ValueError(f"strace cut a text of {name} short")
        texts.append(bytes.fromhex(found[1].replace("\\x", "")))
    return Call(name, tuple(word.strip() for word in _TEXT.sub("*", text).split(",")), tuple(texts), result)
