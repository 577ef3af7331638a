"""
Tests of `darner.net.clock`.
"""

from __future__ import annotations

import errno
import os
import queue
import sys
import threading
import time
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from darner.net.clock import MonotonicClock
from darner.net.log_limits import PERIOD
from test import allow_critical
from test.descriptors import descriptors
from test.servers import PATIENCE


class ClockTestCase(SynchronousTestCase):
    """A clock with its thread, whose time and reactor are the test's."""

    def setUp(self) -> None:
        self.now = 1000.0
        self.wakes: queue.Queue[Callable[[], None]] = queue.Queue()
        self.clock = MonotonicClock(self.wakes.put, lambda: self.now)
        self.addCleanup(self.clock.stop)
        self.called: list[object] = []

    def advance(self, seconds: float) -> None:
        """
        Let time pass, and do what the clock asks the reactor to do then.

        The thread sleeps by the real clock, so it is nudged to look again.
        """
        nudged: list[None] = []
        self.clock.callLater(0, nudged.append, None)
        self.now += seconds
        while not nudged:
            self.wakes.get(timeout=PATIENCE)()


class MonotonicClockTests(ClockTestCase):
    """The reactor's C{callLater}, on a clock of one's own."""

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IReactorTime, self.clock))

    def test_no_thread_for_a_while(self) -> None:
        """The clock continues when a thread can be started again."""

        def fails(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        restore = self.patch(threading.Thread, "start", fails)
        self.assertRaises(RuntimeError, self.clock.callLater, 1, self.called.append, "early")
        restore.restore()
        self.clock.callLater(2, self.called.append, "late")
        self.advance(3)
        self.assertEqual(self.called, ["early", "late"])

    def test_seconds(self) -> None:
        self.assertEqual(self.clock.seconds(), 1000.0)

    def test_monotonic_by_default(self) -> None:
        clock = MonotonicClock(self.wakes.put)
        self.addCleanup(clock.stop)
        self.assertTrue(time.monotonic() - 5 < clock.seconds() <= time.monotonic())

    def test_call(self) -> None:
        """It is made with its arguments, once, and when it is due."""
        self.clock.callLater(5, lambda *args, **kwargs: self.called.append((args, kwargs)), 1, two=2)
        self.advance(4.9)
        self.assertEqual(self.called, [])
        self.advance(0.1)
        self.assertEqual(self.called, [((1,), {"two": 2})])
        self.advance(10)
        self.assertEqual(len(self.called), 1)

    def test_order(self) -> None:
        """Calls run in the order of their times; those due together, in the order they were made."""
        for delay, name in ((3, "c"), (1, "a"), (2, "b"), (1, "also a"), (3, "also c")):
            self.clock.callLater(delay, self.called.append, name)
        self.advance(2)
        self.assertEqual(self.called, ["a", "also a", "b"])
        self.advance(1)
        self.assertEqual(self.called[3:], ["c", "also c"])

    def test_earlier_call_comes_first(self) -> None:
        """The thread that sleeps until a later call wakes for an earlier one."""
        self.clock.callLater(1000, self.called.append, "late")
        self.advance(1)
        self.clock.callLater(1, self.called.append, "early")
        self.advance(1)
        self.assertEqual(self.called, ["early"])

    def test_active(self) -> None:
        call = self.clock.callLater(1, self.called.append, "x")
        self.assertTrue(call.active())
        self.assertEqual(call.getTime(), 1001.0)
        self.advance(1)
        self.assertFalse(call.active())

    def test_cancel(self) -> None:
        call = self.clock.callLater(1, self.called.append, "x")
        call.cancel()
        self.advance(2)
        self.assertEqual(self.called, [])
        self.assertFalse(call.active())

    def test_cancel_out_of_a_call(self) -> None:
        """What is due in the same moment can still be cancelled."""
        self.clock.callLater(1, lambda: second.cancel())
        second = self.clock.callLater(1, self.called.append, "second")
        self.advance(2)
        self.assertEqual(self.called, [])

    def test_call_out_of_a_call(self) -> None:
        self.clock.callLater(1, self.clock.callLater, 1, self.called.append, "x")
        self.advance(1)
        self.assertEqual(self.called, [])
        self.advance(1)
        self.assertEqual(self.called, ["x"])

    def test_reset_to_later(self) -> None:
        call = self.clock.callLater(1, self.called.append, "x")
        call.reset(5)
        self.advance(4)
        self.assertEqual(self.called, [])
        self.advance(1)
        self.assertEqual(self.called, ["x"])

    def test_reset_to_earlier(self) -> None:
        call = self.clock.callLater(5, self.called.append, "x")
        call.reset(1)
        self.advance(1)
        self.assertEqual(self.called, ["x"])
        self.advance(10)
        self.assertEqual(self.called, ["x"])

    def test_reset_there_and_back(self) -> None:
        call = self.clock.callLater(5, self.called.append, "x")
        call.reset(1)
        call.reset(5)
        self.advance(4)
        self.assertEqual(self.called, [])
        self.advance(1)
        self.assertEqual(self.called, ["x"])

    def test_delay(self) -> None:
        call = self.clock.callLater(1, self.called.append, "x")
        call.delay(2)
        self.advance(2)
        self.assertEqual(self.called, [])
        call.delay(-0.5)
        self.advance(0.5)
        self.assertEqual(self.called, ["x"])

    def test_failing_call(self) -> None:
        """It is logged, and the next one is made."""
        self.clock.callLater(1, lambda: 1 // 0)
        self.clock.callLater(1, self.called.append, "next")
        self.advance(1)
        self.assertEqual(self.called, ["next"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_call_that_fails_again_and_again(self) -> None:
        """It is logged once, and then counted."""
        allow_critical(self, "9 more in the last 60 s")
        for _ in range(10):
            self.clock.callLater(1, lambda: 1 // 0)
        self.advance(1)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        with capturedLogs() as logs:
            self.advance(PERIOD)
        lines = [formatEvent(event) for event in logs]
        self.assertEqual(lines.count("internal error in a timer: integer division or modulo by zero "
                                     "(9 more in the last 60 s)"), 1)  # fmt: skip

    def test_delayed_calls(self) -> None:
        """Those that will be made, each once."""
        calls = [self.clock.callLater(delay, self.called.append, delay) for delay in (1, 2, 3)]
        calls[0].cancel()
        calls[2].reset(0.5)
        self.assertEqual(set(self.clock.getDelayedCalls()), {calls[1], calls[2]})
        self.assertEqual(len(self.clock.getDelayedCalls()), 2)

    def test_cancelled_calls_are_forgotten(self) -> None:
        """
        Most waits end before their time: they do not gather until it comes, nor take those that go on with them.
        """
        kept = [self.clock.callLater(50, self.called.append, number) for number in range(3)]
        for _ in range(1000):
            self.clock.callLater(100, self.called.append, "cancelled").cancel()
        self.assertLess(len(self.clock._calls), 200)
        self.assertEqual(set(self.clock.getDelayedCalls()), set(kept))
        self.advance(200)
        self.assertEqual(self.called, [0, 1, 2])


class StopTests(ClockTestCase):
    """The clock's thread ends with the service."""

    def threads(self) -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "darner-clock"]

    def test_thread_ends(self) -> None:
        self.assertEqual(self.threads(), [])
        self.clock.callLater(1000, self.called.append, "x")
        self.assertEqual(len(self.threads()), 1)
        self.clock.stop()
        self.assertEqual(self.threads(), [])

    def test_descriptors_are_closed(self) -> None:
        self.clock.stop()
        before = descriptors()
        MonotonicClock(self.wakes.put).stop()
        for _ in range(3):
            self.clock.callLater(1000, self.called.append, "x")
            self.clock.stop()
        self.assertEqual(descriptors() - before, set())

    def test_no_descriptor_is_needed_later(self) -> None:
        """The first call may be made while there are no descriptors."""

        def pipe() -> tuple[int, int]:
            raise OSError(errno.EMFILE, "too many open files")

        self.patch(os, "pipe", pipe)
        self.clock.callLater(1, self.called.append, "x")
        self.advance(1)
        self.assertEqual(self.called, ["x"])

    def test_stop_twice(self) -> None:
        self.clock.stop()
        self.clock.callLater(1000, self.called.append, "x")
        self.clock.stop()
        self.clock.stop()
        self.assertEqual(self.threads(), [])

    def test_wake_that_was_on_its_way(self) -> None:
        """A wake-up on its way at the stop runs no call and does not start the thread again."""
        self.clock.callLater(0, self.called.append, "due")
        self.clock.callLater(1000, self.called.append, "later")
        wake = self.wakes.get(timeout=PATIENCE)
        self.clock.stop()
        wake()
        self.assertEqual(self.called, [])
        self.assertEqual(self.threads(), [])

    def test_stop_out_of_a_call(self) -> None:
        self.clock.callLater(1, self.clock.stop)
        self.clock.callLater(2, self.called.append, "later")
        self.clock.callLater(0, self.called.append, "nudge")
        self.now += 1
        self.wakes.get(timeout=PATIENCE)()
        self.assertEqual(self.called, ["nudge"])
        self.assertEqual(self.threads(), [])

    def test_begin_anew(self) -> None:
        self.clock.callLater(5, self.called.append, "before")
        self.clock.stop()
        self.clock.callLater(6, self.called.append, "after")
        self.advance(6)
        self.assertEqual(self.called, ["before", "after"])


class RealTimeTests(SynchronousTestCase):
    """With the real clocks of the machine."""

    def test_no_lock_is_waited_for(self) -> None:
        """
        A lock's time-out follows the wall clock where the C library that Python was built with had no sem_clockwait.
        """
        clock = MonotonicClock(lambda call: None)
        self.addCleanup(clock.stop)
        clock.callLater(1000, lambda: None)
        clock.callLater(500, lambda: None)
        (thread,) = (thread for thread in threading.enumerate() if thread.name == "darner-clock")
        assert thread.ident is not None
        for _ in range(20):
            self.assertNotEqual(sys._current_frames()[thread.ident].f_code.co_name, "wait")
            time.sleep(0.005)

    def test_more_wakes_than_a_pipe_holds(self) -> None:
        """More wake-ups than the pipe can hold do not block, and the thread runs after that."""
        wakes: queue.Queue[Callable[[], None]] = queue.Queue()
        clock = MonotonicClock(wakes.put)
        self.addCleanup(clock.stop)
        called: list[str] = []
        clock.callLater(1000, called.append, "late")
        with clock._lock:
            for _ in range(100_000):
                clock._wake()
        clock.callLater(0, called.append, "x")
        wakes.get(timeout=PATIENCE)()
        self.assertEqual(called, ["x"])

    def test_wall_clock_does_not_matter(self) -> None:
        """A call comes after the time it asked for, however the wall clock is set meanwhile."""
        wakes: queue.Queue[Callable[[], None]] = queue.Queue()
        clock = MonotonicClock(wakes.put)
        self.addCleanup(clock.stop)
        for wall in (0.0, 2e9):
            self.patch(time, "time", lambda wall=wall: wall)
            called: list[str] = []
            begin = time.monotonic()
            clock.callLater(0.05, called.append, "x")
            wakes.get(timeout=PATIENCE)()
            self.assertEqual(called, ["x"])
            self.assertGreaterEqual(time.monotonic() - begin, 0.05)
