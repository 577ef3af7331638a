"""
The order in which passwords are checked.

A check is slow on purpose, and one runs at a time.  So clients that send wrong passwords must not delay the others.  An
attempt belongs to a *place*: a user at an address; all users who are not in the password file share one place at each
address.

  - Addresses take turns, and so do the places of one address, so that many waiting attempts delay only the address or
    place that they come from.
  - A place with an earlier successful log-in goes first.
  - After some wrong passwords in a row, the next attempt of a place waits for a pause, which doubles each time.
  - The number of waiting attempts of a place is limited; more are refused.  If too many wait in all, one of the address
    with the most of them is refused.

If several clients of one address send the same user and password, one check serves them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final, Optional, Union

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from darner.errors import TooManyLogins

MAX_LOGINS: Final = 256
"""The maximum number of different passwords that wait to be checked."""
MAX_OF_PLACE: Final = 16
"""The maximum number of these from one place; more are refused at once, rather than after a long wait."""
FREE_FAILURES: Final = 3
"""Wrong passwords in a row that cause no pause."""
FIRST_PAUSE: Final = 0.1
"""Seconds of the pause after one more wrong password."""
MAX_PAUSE: Final = 0.5
"""The longest pause, in seconds: short enough for a client with the right password that shares the place."""
FORGET: Final = 600.0
"""Seconds after which a place's wrong passwords are forgotten."""
MAX_PLACES: Final = 4096
"""The maximum number of places, and of addresses, that are remembered."""

Place = tuple[str, Optional[bytes]]
"""An address, and a user; C{None} stands for all users who are not in the password file."""


class _History:
    """The earlier attempts of a place."""

    def __init__(self) -> None:
        self.failures = 0
        self.failed_at = 0.0
        self.ready_at = 0.0
        self.trusted = False


_UNKNOWN: Final = _History()
"""The history of a place without earlier attempts."""


class _Attempt:
    """A password that waits to be checked, and the Deferreds of the clients that sent it."""

    def __init__(self, place: Place, user: bytes, password: bytes, number: int, arrived: float) -> None:
        self.place = place
        self.user = user
        self.password = password
        self.number = number
        self.arrived = arrived
        self.waiting: list[Deferred[bool]] = []


class LoginQueue:
    """Attempts to log in, of which one is checked at a time."""

    def __init__(self, check: Callable[[bytes, bytes], Deferred[bool]], clock: IReactorTime) -> None:
        """@param check: checks a user's password; fires with whether it is correct."""
        self._check = check
        self._clock = clock
        self._attempts: dict[tuple[Place, bytes, bytes], _Attempt] = {}
        self._number = 0
        self._checking = False
        self._pause: Optional[IDelayedCall] = None
        self._histories: dict[Place, _History] = {}
        self._turns: dict[str, float] = {}  # when the last attempt of an address was checked

    def add(self, user: bytes, password: bytes, address: str, listed: bool) -> Deferred[bool]:
        """
        Check a password when its turn comes.

        @param address: the client's address; attempts of one address share its turns.
        @param listed: whether the user is in the password file.
        @return: fires with whether the password is correct; fails with L{TooManyLogins}.  The caller must cancel it if
            the client disconnects.
        """
        place: Place = (address, user if listed else None)
        key = (place, user, password)
        attempt = self._attempts.get(key)
        if attempt is None:
            self._number += 1
            attempt = self._attempts[key] = _Attempt(place, user, password, self._number, self._clock.seconds())
        added = attempt
        result: Deferred[bool] = Deferred(lambda given_up: self._give_up(added, given_up))
        attempt.waiting.append(result)
        if sum(other.place == place for other in self._attempts.values()) > MAX_OF_PLACE:
            self._refuse(attempt)
        elif len(self._attempts) > MAX_LOGINS:
            self._refuse_one()
        self._go()
        return result

    def _give_up(self, attempt: _Attempt, given_up: Deferred[bool]) -> None:
        attempt.waiting = [result for result in attempt.waiting if result is not given_up]
        if not attempt.waiting:
            self._attempts.pop((attempt.place, attempt.user, attempt.password), None)

    def _refuse_one(self) -> None:
        """Refuse an attempt of the address that has the most."""
        addresses = Counter(attempt.place[0] for attempt in self._attempts.values())
        places = Counter(attempt.place for attempt in self._attempts.values())

        def weight(attempt: _Attempt) -> tuple[bool, int, int, bool, int]:
            address, user = attempt.place
            trusted = self._history(attempt.place).trusted
            return not trusted, addresses[address], places[attempt.place], user is None, attempt.number

        self._refuse(max(self._attempts.values(), key=weight))

    def _refuse(self, attempt: _Attempt) -> None:
        self._take(attempt)
        self._tell(attempt, Failure(TooManyLogins()))

    def _history(self, place: Place) -> _History:
        return self._histories.get(place, _UNKNOWN)

    def _take(self, attempt: _Attempt) -> None:
        del self._attempts[(attempt.place, attempt.user, attempt.password)]

    def _tell(self, attempt: _Attempt, result: Union[bool, Failure]) -> None:
        waiting, attempt.waiting = attempt.waiting, []
        for deferred in waiting:
            if isinstance(result, Failure):
                deferred.errback(result)
            else:
                deferred.callback(result)

    def _go(self) -> None:
        """Check the next attempt, if none is being checked."""
        if self._checking or not self._attempts:
            return
        now = self._clock.seconds()
        ready = [attempt for attempt in self._attempts.values() if self._history(attempt.place).ready_at <= now]
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if not ready:
            soonest = min(self._history(attempt.place).ready_at for attempt in self._attempts.values())
            self._pause = self._clock.callLater(soonest - now, self._go_on)
            return
        attempt = min(ready, key=self._turn)
        self._take(attempt)
        self._checking = True
        self._check(attempt.user, attempt.password).addBoth(self._checked, attempt)

    def _go_on(self) -> None:
        self._pause = None
        self._go()

    def _turn(self, attempt: _Attempt) -> tuple[bool, float, float, float, int]:
        """@return: a sort key: places with a successful log-in first, then the address with the oldest last turn."""
        history = self._history(attempt.place)
        last = self._turns.get(attempt.place[0], 0.0)
        return not history.trusted, max(attempt.arrived, last), last, history.ready_at, attempt.number

    def _checked(self, result: Union[bool, Failure], attempt: _Attempt) -> None:
        self._checking = False
        if not isinstance(result, Failure):
            self._remember(attempt.place, result)
        self._tell(attempt, result)
        self._go()

    def _remember(self, place: Place, right: bool) -> None:
        now = self._clock.seconds()
        # Ordered by their last turn, so that the oldest ones are dropped first.
        history = self._histories.pop(place, None) or _History()
        self._histories[place] = history
        self._turns.pop(place[0], None)
        self._turns[place[0]] = now
        if len(self._histories) > MAX_PLACES:
            del self._histories[next(iter(self._histories))]
        if len(self._turns) > MAX_PLACES:
            del self._turns[next(iter(self._turns))]
        history.ready_at = now
        if right:
            history.trusted = True
            history.failures = 0
            return
        history.failures = 1 if now - history.failed_at > FORGET else history.failures + 1
        history.failed_at = now
        over = history.failures - FREE_FAILURES
        if over > 0:
            history.ready_at += min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** min(over - 1, 10))
