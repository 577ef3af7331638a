"""Tests of `darner.front.login_queue`."""

from __future__ import annotations

from itertools import pairwise

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from darner.errors import TooManyLogins
from darner.front.login_queue import (
    FIRST_PAUSE,
    FORGET,
    FREE_FAILURES,
    MAX_LOGINS,
    MAX_OF_PLACE,
    MAX_PAUSE,
    MAX_PLACES,
    LoginQueue,
)

CHECK = 0.05
"""Seconds that a check takes here."""


class LoginQueueTests(SynchronousTestCase):
    """The order of checks.  The correct password is C{right}, and the users are C{ann} and C{bob}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.queue = LoginQueue(self.check, self.clock)
        self.running: list[tuple[bytes, bytes, Deferred[bool]]] = []
        self.checked: list[bytes] = []

    def check(self, user: bytes, password: bytes) -> Deferred[bool]:
        self.assertEqual(self.running, [], "one at a time")
        done: Deferred[bool] = Deferred()
        self.running.append((user, password, done))
        return done

    def add(self, user: bytes, password: bytes = b"wrong", address: str = "there") -> Deferred[bool]:
        return self.queue.add(user, password, address, user in (b"ann", b"bob"))

    def flood(self, user: bytes, address: str = "there") -> None:
        """Add attempts with so many different passwords of a user."""
        for number in range(200):
            self.add(user, b"%d" % number, address).addErrback(lambda _: None)

    def finish(self) -> None:
        """Finish the running check."""
        user, password, done = self.running.pop()
        self.clock.advance(CHECK)
        self.checked.append(user)
        done.callback(password == b"right" and user in (b"ann", b"bob"))

    def finish_all(self) -> None:
        while self.running or self.clock.getDelayedCalls():
            if self.running:
                self.finish()
            else:
                self.clock.advance(MAX_PAUSE)

    def wait_for(self, login: Deferred[bool]) -> int:
        """@return: the number of checks before its result."""
        told: list[bool] = []
        login.addCallback(told.append)
        count = 0
        while not told:
            self.finish()
            count += 1
        self.assertEqual(told, [True])
        return count

    def test_right_and_wrong(self) -> None:
        right, wrong = self.add(b"ann", b"right"), self.add(b"bob")
        self.assertNoResult(right)
        self.finish()
        self.assertTrue(self.successResultOf(right))
        self.assertNoResult(wrong)
        self.finish()
        self.assertFalse(self.successResultOf(wrong))
        self.assertEqual(self.running, [])

    def test_in_order(self) -> None:
        """Attempts of different places are checked in the order they came."""
        for number in range(10):
            self.add(b"u%d" % number, address=f"a{number}")
        self.finish_all()
        self.assertEqual(self.checked, [b"u%d" % number for number in range(10)])

    def test_addresses_take_turns(self) -> None:
        """Many attempts from one address do not delay those from another."""
        self.flood(b"ann")
        self.finish()
        self.assertEqual(self.wait_for(self.add(b"bob", b"right", "elsewhere")), 2)

    def test_users_of_one_address_take_turns(self) -> None:
        """Many attempts, for one user or for unknown ones, do not delay another user of the same address."""
        for user in (b"bob", b"nobody"):
            self.flood(user)
        for number in range(100):
            self.add(b"nobody%d" % number).addErrback(lambda _: None)
        self.finish()
        self.assertLessEqual(self.wait_for(self.add(b"ann", b"right")), 3)

    def test_trusted_first(self) -> None:
        """A user who has logged in from an address before goes first there, before many other addresses."""
        self.wait_for(self.add(b"ann", b"right", "home"))
        for number in range(200):
            self.add(b"ann", address=f"a{number}")
        self.assertEqual(self.wait_for(self.add(b"ann", b"right", "home")), 2)
        self.assertGreater(self.wait_for(self.add(b"ann", b"right", "hotel")), 190)

    def test_same_password(self) -> None:
        """Any number of clients with the same old password cost one check, and all get its result."""
        first = self.add(b"ann")
        logins = [self.add(b"ann") for _ in range(1000)]
        self.finish()
        self.assertFalse(self.successResultOf(first))
        self.assertNoResult(logins[0])
        self.finish()
        self.assertEqual([self.successResultOf(login) for login in logins], [False] * 1000)
        self.assertEqual(self.running, [])

    def test_pause(self) -> None:
        """A client that guesses has to wait longer each time, even if no other client waits."""
        starts = []
        for number in range(FREE_FAILURES + 8):
            self.add(b"ann", b"%d" % number)
        while self.running or self.clock.getDelayedCalls():
            if self.running:
                starts.append(self.clock.seconds())
                self.finish()
            else:
                self.clock.advance(self.clock.getDelayedCalls()[0].getTime() - self.clock.seconds())
        pauses = [round(later - start - CHECK, 3) for start, later in pairwise(starts)]
        self.assertEqual(pauses[:FREE_FAILURES], [0.0] * FREE_FAILURES)
        self.assertEqual(pauses[FREE_FAILURES:], [0.1, 0.2, 0.4, 0.5, 0.5, 0.5, 0.5])

    def guess(self, count: int, address: str = "there") -> None:
        for number in range(count):
            self.add(b"ann", b"guess %d" % number, address)
            self.finish_all()

    def test_pause_is_of_the_place(self) -> None:
        """Others at the same address, and the same user at others, are checked at once."""
        self.guess(FREE_FAILURES + 5)
        paused = self.add(b"ann", b"right")
        self.assertEqual(self.running, [])
        self.assertEqual(self.wait_for(self.add(b"bob", b"right")), 1)
        self.assertEqual(self.wait_for(self.add(b"ann", b"right", "home")), 1)
        self.assertNoResult(paused)
        self.clock.advance(MAX_PAUSE)
        self.assertEqual(self.wait_for(paused), 1)

    def test_right_ends_the_pause(self) -> None:
        self.guess(FREE_FAILURES)
        self.wait_for(self.add(b"ann", b"right"))
        self.guess(FREE_FAILURES)
        self.add(b"ann")
        self.assertEqual(len(self.running), 1)

    def test_forgotten(self) -> None:
        self.guess(FREE_FAILURES + 3)
        self.clock.advance(FORGET + 1)
        self.guess(1)
        self.add(b"ann")
        self.assertEqual(len(self.running), 1)

    def test_new_attempt_during_a_pause(self) -> None:
        """There is one timer, for the one whose pause ends first."""
        self.guess(FREE_FAILURES + 1)
        self.guess(FREE_FAILURES + 5, "elsewhere")
        for number in range(5):
            self.add(b"ann", b"%d" % number, "elsewhere")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.finish_all()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_many(self) -> None:
        """The latest attempt of the address with the most attempts is refused, not the newest of all."""
        logins = [self.queue.add(b"u%d" % number, b"wrong", "bad", True) for number in range(MAX_LOGINS + 1)]
        ann = self.add(b"ann", b"right")
        bob = self.add(b"bob", b"right")
        for login in (ann, bob, *logins[:-2]):
            self.assertNoResult(login)
        for login in logins[-2:]:
            self.failureResultOf(login, TooManyLogins)
        self.failureResultOf(self.queue.add(b"eve", b"wrong", "bad", True), TooManyLogins)
        self.wait_for(ann)
        self.wait_for(bob)

    def test_too_many_of_a_place(self) -> None:
        """A client that shares address and user with one that guesses is refused at once, and may try again."""
        logins = [self.add(b"ann", b"%d" % number) for number in range(MAX_OF_PLACE + 1)]
        self.failureResultOf(self.add(b"ann", b"right"), TooManyLogins)
        same = self.add(b"ann", b"5")
        for login in (*logins, same):
            self.assertNoResult(login)
        self.finish()
        self.assertEqual(self.wait_for_all_of(self.add(b"ann", b"right")), MAX_OF_PLACE + 1)

    def wait_for_all_of(self, login: Deferred[bool]) -> int:
        """As L{wait_for}, with the pauses."""
        before = len(self.checked)
        self.finish_all()
        self.assertTrue(self.successResultOf(login))
        return len(self.checked) - before

    def test_given_up(self) -> None:
        """A cancelled attempt is not checked, unless another client waits for the same."""
        self.add(b"bob")
        gone, stays, other = self.add(b"ann"), self.add(b"ann"), self.add(b"eve")
        for login in (gone, other):
            login.addErrback(lambda _: None)
            login.cancel()
        self.finish_all()
        self.assertFalse(self.successResultOf(stays))
        self.assertEqual(self.checked, [b"bob", b"ann"])

    def test_given_up_while_it_is_checked(self) -> None:
        gone = self.add(b"ann", b"right")
        gone.addErrback(lambda _: None)
        gone.cancel()
        again = self.add(b"ann", b"right")
        self.finish()
        self.assertNoResult(again)
        self.finish()
        self.assertTrue(self.successResultOf(again))

    def test_fault(self) -> None:
        """After an internal error the waiting client gets it, and the next attempt is checked."""
        broken, fine = self.add(b"ann"), self.add(b"bob", b"right")
        self.running.pop()[2].errback(MemoryError("none"))
        self.failureResultOf(broken, MemoryError)
        self.wait_for(fine)

    def test_bounded(self) -> None:
        """Attempts with new addresses and users each time do not fill the memory."""
        for number in range(MAX_PLACES + 10):
            self.add(b"ann", address=str(number))
            self.finish()
        self.assertEqual((len(self.queue._histories), len(self.queue._turns)), (MAX_PLACES, MAX_PLACES))
        for number in range(FREE_FAILURES + 1):
            self.add(b"eve%d" % number, address="there")
            self.finish()
        self.add(b"eve", address="there")
        self.assertAlmostEqual(self.clock.getDelayedCalls()[0].getTime() - self.clock.seconds(), FIRST_PAUSE)
