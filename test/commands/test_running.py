"""
L{darner.commands.running}: a signal ends a command wherever it comes.
"""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from test.commands.harness import environment
from test.servers import PATIENCE, ROOT

TALK = """
import asyncio, asyncio.events, signal, socket, sys, time
from darner.commands.exits import Terminated
from darner.commands.running import run

async def echo(reader, writer):
    while data := await reader.read(100):
        writer.write(data)

async def talk(turns=30):
    here, there = socket.socketpair()
    server = asyncio.ensure_future(echo(*await asyncio.open_connection(sock=there)))
    reader, writer = await asyncio.open_connection(sock=here)
    try:
        for _ in range(turns):
            writer.write(b"x")
            await reader.readexactly(1)
    finally:
        closed.append(True)
        writer.close()
        await writer.wait_closed()
        server.cancel()

class Handle(asyncio.events.Handle):
    '''A call of the event loop, before which a signal comes once.'''

    __slots__ = ()

    def _run(self):
        global left
        left -= 1
        if left == 0:
            signal.raise_signal(number)
        super()._run()

closed = []
asyncio.events.Handle = Handle
"""

EACH_CALL = (
    TALK
    + """
ended = 0
for number, expected in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)):
    for before in range(1, 80):
        left = before
        closed.clear()
        try:
            run(talk())
        except KeyboardInterrupt as error:
            assert type(error) is expected, error
            ended += 1
        assert left <= 0, (before, left)
        assert closed or before < 10, before
print(ended)
"""
)

BLOCKED = (
    TALK
    + """
async def block():
    await asyncio.sleep(0)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.01)
    try:
        while True:
            time.process_time()
    finally:
        print("left")

left = 0
signal.signal(signal.SIGVTALRM, lambda *_: signal.raise_signal(signal.SIGINT))
try:
    run(block())
except KeyboardInterrupt:
    print("interrupted")
assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
"""
)

TWICE = (
    TALK
    + """
async def stay():
    try:
        await asyncio.sleep(600)
    finally:
        asyncio.get_running_loop().call_later(0.01, signal.raise_signal, signal.SIGINT)
        await asyncio.sleep(600)

async def begin():
    asyncio.get_running_loop().call_later(0.01, signal.raise_signal, signal.SIGINT)
    await stay()

left = 0
try:
    run(begin())
except KeyboardInterrupt:
    print("interrupted")
"""
)

LATE_INPUT = """
import asyncio, os, sys
from darner.commands.running import read_input, run

async def count():
    while True:
        await asyncio.sleep(0.001)
        turns.append(None)

async def read():
    beside = asyncio.ensure_future(count())
    async for data in read_input():
        print(data, flush=True)
        before = len(turns)
        while len(turns) < before + 3:
            await asyncio.sleep(0.001)
        asyncio.get_running_loop().call_later(0.02, os.write, write, b"more") if data == b"first" else os.close(write)
        await asyncio.sleep(0)

turns = []
read_end, write = os.pipe()
os.dup2(read_end, 0)
os.write(write, b"first")
run(read())
"""


class ProgramsTestCase(SynchronousTestCase):
    def program(self, text: str) -> str:
        """@return: what a Python program writes."""
        process = subprocess.run(
            [sys.executable, "-c", text], cwd=ROOT, env=environment(), capture_output=True, timeout=PATIENCE, text=True
        )
        self.assertEqual((process.returncode, process.stderr), (0, ""))
        return process.stdout


class SignalTests(ProgramsTestCase):
    def test_each_call(self) -> None:
        """A signal that comes before any call of the event loop ends the command and loses no call."""
        self.assertEqual(self.program(EACH_CALL), "158\n")

    def test_blocked(self) -> None:
        """A signal ends what keeps the event loop from coming round."""
        self.assertEqual(self.program(BLOCKED), "left\ninterrupted\n")

    def test_twice(self) -> None:
        """The second signal ends what is in no hurry."""
        self.assertEqual(self.program(TWICE), "interrupted\n")


class InputTests(ProgramsTestCase):
    def test_late(self) -> None:
        """What runs beside the reading goes on where there is nothing to read yet."""
        self.assertEqual(self.program(LATE_INPUT), "b'first'\nb'more'\n")
