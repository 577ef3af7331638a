"""
``darner get --exec``: a worker whose handler is a command, and ``darner touch``, which that command may run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from typing import Final, Optional

import click

from darner.client.addresses import Backoff
from darner.client.reads import OpenRead
from darner.commands.client_settings import ClientSettings
from darner.commands.exits import DONE, FAILED, INTERRUPTED, NOTHING, TERMINATED, Failure, explain
from darner.commands.output import Output, Progress, count
from darner.commands.program import Command
from darner.commands.running import run
from darner.commands.servers import Reached, Servers
from darner.commands.taking import FOR_EVER, next_item
from darner.errors import DarnerError

TOUCH_SOCKET: Final = "DARNER_TOUCH_SOCKET"
"""In the environment of a command: where C{darner touch} asks for more time."""


class _Stopped(Exception):
    """The worker is to begin nothing more."""


class Executor:
    """Runs a command for each item, so many at a time."""

    def __init__(
        self, settings: ClientSettings, queues: tuple[str, ...], command: str, concurrency: int,
        heartbeat: Optional[float], grace: float,
    ) -> None:  # fmt: skip
        """@param grace: for how many seconds commands may go on when this is told to stop."""
        self._settings = settings
        self._queues = queues
        self._command = command
        self._concurrency = concurrency
        self._heartbeat = heartbeat
        self._grace = grace
        self._output = Output(settings)
        self._left = 0.0
        self._well = 0
        self._badly = 0
        self._stopped_by: Optional[int] = None
        self._waiting: set[asyncio.Task[Optional[OpenRead]]] = set()
        self._running: set[asyncio.subprocess.Process] = set()

    def run(self, most: float, wait: float) -> int:
        """
        @param most: how many items.
        @param wait: for how many seconds to wait for each.
        @return: the exit status.
        """
        self._left = most
        run(self._run(wait))
        facts = {"done": self._well, "given_back": self._badly}
        failed = f", {count(self._badly)} given back" if self._badly else ""
        if self._well or self._badly:
            self._output.done(f"{count(self._well)} done{failed}", **facts)
        if self._stopped_by is not None:
            return INTERRUPTED if self._stopped_by == signal.SIGINT else TERMINATED
        return FAILED if self._badly else DONE if self._well else NOTHING

    async def _run(self, wait: float) -> None:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        async with Servers(self._settings, self._output) as servers:
            reached = await servers.reach()
            before = [(number, signal.getsignal(number)) for number in numbers]
            for number in numbers:
                loop.add_signal_handler(number, self._stop, number)
            total = self._left if self._left != FOR_EVER else None
            shown = not self._output.on_terminal
            try:
                with Progress(self._output, "items", total, shown=shown) as progress:
                    slots = [loop.create_task(self._work(reached, wait, progress)) for _ in range(self._concurrency)]
                    try:
                        await asyncio.gather(*slots)
                    finally:
                        for slot in slots:
                            slot.cancel()
                        await asyncio.gather(*slots, return_exceptions=True)
            finally:
                for number, handler in before:
                    loop.remove_signal_handler(number)
                    signal.signal(number, handler)

    def _stop(self, number: int) -> None:
        """Begin no more; what runs has the time of grace, and none where one says so twice."""
        loop = asyncio.get_running_loop()
        if self._stopped_by is not None:
            self._kill()
            return
        self._stopped_by = number
        for task in self._waiting:
            task.cancel()
        if self._running:
            self._output.warn(f"stopping, when what runs has ended or after {self._grace:g} s")
            loop.call_later(self._grace, self._kill)

    def _kill(self) -> None:
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def _work(self, reached: Reached, wait: float, progress: Progress) -> None:
        backoff = Backoff(0.1, 5.0)
        while self._left > 0 and self._stopped_by is None:
            self._left -= 1
            try:
                read = await self._next(reached, wait)
            except _Stopped:
                return
            if read is None:
                return
            if await self._handle(read):
                self._well += 1
                backoff.reset()
            else:
                # It is at the head of its queue again, unless the queue has a retry_delay.
                self._badly += 1
                if self._left > 0 and self._stopped_by is None:
                    await asyncio.sleep(backoff.next())
            progress.advance()

    async def _next(self, reached: Reached, wait: float) -> Optional[OpenRead]:
        """@raise _Stopped: there is to be none."""
        task = asyncio.ensure_future(next_item(self._output, reached, self._queues, wait, self._heartbeat))
        self._waiting.add(task)
        try:
            return await task
        except asyncio.CancelledError:
            if self._stopped_by is None:
                task.cancel()
                raise
            raise _Stopped from None
        finally:
            self._waiting.discard(task)

    async def _handle(self, read: OpenRead) -> bool:
        """@return: whether the command ended well, and the item is gone."""
        try:
            async with read:
                status = await self._execute(read)
                if status:
                    raise Failure(f"{_ended(status)}; an item of {read.queue} is given back")
        except (Failure, DarnerError) as error:
            self._output.warn(f"{self._command}: {explain(error)}")
            return False
        return True

    async def _execute(self, read: OpenRead) -> int:
        """@return: the exit status."""
        with _touching(read) as path, tempfile.TemporaryFile() as payload:
            payload.write(read.payload)
            payload.seek(0)
            environment = {
                **os.environ, "DARNER_QUEUE": read.queue, "DARNER_FLAGS": str(read.flags),
                "DARNER_SERVER": read.server, TOUCH_SOCKET: path,
            }  # fmt: skip
            process = await asyncio.create_subprocess_shell(self._command, stdin=payload, env=environment)
            self._running.add(process)
            try:
                return await process.wait()
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                raise
            finally:
                self._running.discard(process)


def _ended(status: int) -> str:
    if status > 0:
        return f"exit status {status}"
    try:
        return f"ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"ended by signal {-status}"


@contextlib.contextmanager
def _touching(read: OpenRead) -> Iterator[str]:
    """Answer C{darner touch} at a socket of its own, whose path is given."""
    with tempfile.TemporaryDirectory(prefix="darner-") as directory:
        path = os.path.join(directory, "touch")
        server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        server.setblocking(False)
        with server:
            server.bind(path)
            loop = asyncio.get_running_loop()
            tasks: set[asyncio.Task[None]] = set()

            async def answer(sender: str) -> None:
                try:
                    word = b"touched" if await read.touch() else b"gone"
                except DarnerError as error:
                    word = str(error).encode()
                with contextlib.suppress(OSError):
                    server.sendto(word, sender)

            def heard() -> None:
                with contextlib.suppress(BlockingIOError):
                    _, sender = server.recvfrom(100)
                    task = loop.create_task(answer(sender))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)

            loop.add_reader(server, heard)
            try:
                yield path
            finally:
                loop.remove_reader(server)
                for task in list(tasks):
                    task.cancel()


@click.command("touch", cls=Command)
@click.pass_obj
def touch_command(settings: ClientSettings) -> int:
    """
    Restart the time-out of the item that this runs for.

    It is for commands of get --exec: a queue's open_timeout has an item given back that is not done with in time. The
    exit status is 3 where it was given back already.
    """
    path = os.environ.get(TOUCH_SOCKET)
    if not path:
        raise Failure("there is no item: touch is for commands that darner get --exec runs")
    word = _ask(path, settings.timeout)
    if word == "gone":
        Output(settings).warn("the item was given back already")
        return NOTHING
    if word != "touched":
        raise Failure(word)
    Output(settings).done("touched", touched=True)
    return DONE


def _ask(path: str, timeout: float) -> str:
    with tempfile.TemporaryDirectory(prefix="darner-") as directory:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with client:
            client.bind(os.path.join(directory, "reply"))
            client.settimeout(timeout)
            try:
                client.sendto(b"touch", path)
                return client.recv(1000).decode("utf-8", "replace")
            except OSError as error:
                raise Failure(f"the worker does not answer: {error}") from None


