"""Credentials that are given out again: a bounded number of them, each asked for by one call however many wait for it.

The cache decides nothing. Who asks has been allowed what it asks for, a moment before, under the registry in force.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Hashable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from msgspec import Struct

from sidecar.credentials.sts import Credentials
from sidecar.errors import CredentialsNotGivenError, DeadlineExceededError

if TYPE_CHECKING:
    from collections.abc import Callable


class Terms(Struct, frozen=True):
    """On which terms credentials are wanted.

    They last ``seconds`` and no longer than ``end`` (seconds since 1970). ``under`` is the decision that allows them: those that
    were made under another are not these.
    """

    under: Hashable
    end: float
    seconds: float


class _Flight(Struct):
    """Credentials on their way: the terms of who asked first, with the end that follows from them."""

    under: Hashable
    end: float
    arrival: Future[Credentials]


class _Entry(Struct, frozen=True):
    under: Hashable
    credentials: Credentials


class CredentialCache:
    """Remembers at most ``entries`` credentials, the ones that were used last.

    Those with less than ``renew_before`` seconds left, or less than half of what new ones would have, are not given out again.
    At most ``most`` are on their way at a time, and none is waited for longer than ``timeout`` seconds. It counts what it gives
    out again, ``hits``, what it has made, ``calls``, and by the class of the error what was not, ``failures``.
    """

    def __init__(
        self, *, entries: int, renew_before: float, most: int, timeout: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._most_entries = entries
        self._renew_before = renew_before
        self._places = threading.Semaphore(most)
        self._timeout = timeout
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._flights: dict[Hashable, _Flight] = {}
        self.hits = 0
        self.calls = 0
        self.failures: Counter[type[BaseException]] = Counter()

    def get(self, key: Hashable, terms: Terms, make: Callable[[float], Credentials], deadline: float) -> Credentials:
        """Give credentials for what ``key`` names: remembered ones, those on their way, or new ones.

        ``make`` makes them, with the moment of their end, on a thread of its own, so that every caller waits no longer than its
        deadline, a moment of ``time.monotonic()``, and what comes later serves the next. Raises what ``make`` raises,
        ``CredentialsNotGivenError`` or ``DeadlineExceededError``.
        """
        with self._lock:
            now = self._clock()
            end = float(math.floor(min(terms.end, now + terms.seconds)))
            enough = now + min(self._renew_before, (end - now) / 2)
            entry = self._entries.get(key)
            if entry is not None and entry.under == terms.under and enough <= entry.credentials.expiration <= end:
                self._entries.move_to_end(key)
                self.hits += 1
                return entry.credentials
            flight = self._flights.get(key)
            if flight is None or flight.under != terms.under or not enough <= flight.end <= end:
                flight = self._take_off(key, _Flight(terms.under, end, Future()), make)
        return self._arrival(flight, deadline)

    def drop(self, key: Hashable) -> None:
        """Forget the credentials for what ``key`` names, those on their way too: they may not be given out any more."""
        with self._lock:
            self._entries.pop(key, None)
            self._flights.pop(key, None)

    def _take_off(self, key: Hashable, flight: _Flight, make: Callable[[float], Credentials]) -> _Flight:
        if not self._places.acquire(blocking=False):
            msg = "as many calls to STS are under way as are taken on"
            raise CredentialsNotGivenError(msg)
        # A thread that ends with the process: the call that it waits for may outlast all who want its answer.
        thread = threading.Thread(target=self._fly, args=(key, flight, make), name="sts", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # there is no room for a thread
            self._places.release()
            raise
        self._flights[key] = flight
        self.calls += 1
        return flight

    def _fly(self, key: Hashable, flight: _Flight, make: Callable[[float], Credentials]) -> None:
        try:
            credentials = make(flight.end)
        except BaseException as fault:  # noqa: BLE001 - whatever it is, it is told to those who wait
            with self._lock:
                self.failures[type(fault)] += 1
            self._land(key, flight)
            flight.arrival.set_exception(fault)
        else:
            self._land(key, flight, credentials)
            flight.arrival.set_result(credentials)
        finally:
            self._places.release()

    def _land(self, key: Hashable, flight: _Flight, credentials: Credentials | None = None) -> None:
        """End a flight, and remember what it brought unless it was overtaken or may not be given out any more."""
        with self._lock:
            if self._flights.get(key) is not flight:
                return
            del self._flights[key]
            if credentials is not None and self._most_entries:
                self._entries[key] = _Entry(flight.under, credentials)
                self._entries.move_to_end(key)
                if len(self._entries) > self._most_entries:
                    self._entries.popitem(last=False)

    def _arrival(self, flight: _Flight, deadline: float) -> Credentials:
        left = deadline - time.monotonic()
        try:
            fault = flight.arrival.exception(max(0.0, min(left, self._timeout)))
        except TimeoutError:
            if left <= self._timeout:
                msg = "the deadline passed before STS gave credentials"
                raise DeadlineExceededError(msg) from None
            msg = f"STS did not answer within {self._timeout:g} s"
            raise CredentialsNotGivenError(msg) from None
        if fault is not None:
            raise fault
        return flight.arrival.result()
