"""What OPA has answered before, and for how long it may be given again.

Rule 1. An answer is kept under all that it depended on: who asks and on which terms, what is asked about and, of the rest of the
        request, the values of the parts that the policy names in ``depends_on``. It is given to requests that are equal in those.

Rule 2. All that is kept was answered under one revision. Whatever answer of OPA's, to whatever question, names another: from then
        on nothing of it is given.

Rule 3. What is kept is given to questions that come less than ``seconds`` after OPA was asked something and had that revision:
        the moment that counts is the one before it was asked. So no OPA that hangs, no thread that does not get to run and no
        process that is suspended makes an answer last for longer.

Rule 4. An answer is kept only if it was asked for, has come, and is kept under the same revision.

Rule 5. An answer is given from the time that it was made for until its ``valid_until``, or until its registry is too old.

Rule 6. What is kept takes no more than so many bytes. What has not been asked for the longest goes first.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from msgspec import Struct
from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

_Answer = TypeVar("_Answer")

ALWAYS = 1 << 62
"""The end of what no time limits, in microseconds since 1970."""

_ENTRY_BYTES = 400
"""What an entry takes besides its content: its place, its key and what holds it together."""

_AT_ONCE = 16
"""How many entries of a revision that is over are taken out when one is put in."""

_SEEN = 1 << 14
"""How many keys that were asked about are remembered, each in the place of another."""


boot_clock: Callable[[], float] = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
"""Tells the time in seconds since the machine started, what it slept through included where that can be told."""


class Lease(Struct, frozen=True):
    """For how long an answer may be given again: under one ``epoch`` of the cache, from ``since`` until before ``until``.

    ``as_of`` is the moment of its registry. Moments are in microseconds since 1970.
    """

    epoch: int
    as_of: int
    since: int
    until: int = ALWAYS


class Held(Struct, Generic[_Answer]):
    """An answer, with the lease on which it may be given again, if it may.

    ``wire`` is a place for the door that gives it: what the answer is as bytes, without what is new every time.
    """

    answer: _Answer
    lease: Lease | None = None
    wire: bytes = b""


class Flight:
    """A question that OPA is being asked, and that others who ask the same may wait for.

    ``began`` is a moment of the cache's clock; ``held`` is the answer, once there is one.
    """

    def __init__(self, began: float) -> None:
        self.began = began
        self.held: Held[Any] | None = None
        self._under_way = threading.Lock()
        self._under_way.acquire()

    def end(self) -> None:
        """Let go who waits."""
        self._under_way.release()

    def wait(self, seconds: float) -> Held[Any] | None:
        """Wait for the answer, for so long at the most; none if there is none by then, or came to be."""
        if not self._under_way.acquire(timeout=max(0.0, seconds)):
            return None
        self._under_way.release()
        return self.held


class Epoch:
    """What was answered under one revision, which is empty while it is not known."""

    def __init__(self, number: int, revision: str = "") -> None:
        self.number = number
        self.revision = revision
        self.good_until = -math.inf
        self.entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self.bytes = 0
        self.flights: dict[Hashable, Flight] = {}

    def take_one(self) -> bool:
        """Take out what has not been asked for the longest; tell whether there was anything."""
        if not self.entries:
            return False
        _, (_, freed) = self.entries.popitem(last=False)
        self.bytes -= freed
        return True


class DecisionCache:
    """Keeps answers by the rules above: at most ``most`` bytes of them. ``clock`` counts seconds, and never goes back."""

    def __init__(self, most: int, seconds: float, clock: Callable[[], float] = boot_clock) -> None:
        self.seconds = seconds
        self.clock = clock
        self.epoch = Epoch(0)
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self._most = most
        self._over: list[Epoch] = []  # is taken apart little by little, as all threads wait for that
        self._lock = threading.Lock()
        self._asked = False
        self._seen = [0] * _SEEN

    @property
    def bytes(self) -> int:
        """How much memory is taken."""
        return self.epoch.bytes + sum([epoch.bytes for epoch in self._over])

    def must_ask(self, came: float) -> bool:
        """Tell whether anything is kept that OPA must be asked for its revision before it is given to a question.

        ``came`` is the moment of the clock at which the question came.
        """
        epoch = self.epoch
        return came >= epoch.good_until and bool(epoch.entries)

    def get(self, key: Hashable, came: float) -> Any | None:
        """Give what is kept under a key, to a question that came at a moment of the clock; none if nothing may be given."""
        epoch = self.epoch
        self._asked = True
        if came >= epoch.good_until:
            return None
        with self._lock:
            entry = epoch.entries.get(key)
            if entry is None:
                return None
            epoch.entries.move_to_end(key)
        return entry[0]

    def put(self, epoch: int, key: Hashable, value: Any, size: int) -> None:
        """Keep a value of so many bytes, unless that epoch is over."""
        size += _ENTRY_BYTES
        with self._lock:
            current = self.epoch
            if epoch != current.number or size > self._most:
                return
            before = current.entries.pop(key, None)
            current.entries[key] = (value, size)
            current.bytes += size - (before[1] if before else 0)
            self._make_room()

    def comes_again(self, key: Hashable) -> bool:
        """Tell whether a key may have been asked about before: worth keeping something for, as most never come again."""
        mark = hash(key)
        again, self._seen[mark % _SEEN] = self._seen[mark % _SEEN] == mark, mark
        return again

    def count(self, hits: int, misses: int) -> None:
        """Count answers that were given without OPA, and those that it was asked for."""
        with self._lock:
            self.hits += hits
            self.misses += misses

    def heard(self, asked: Epoch, began: float, revision: str) -> None:
        """Hear under which revision OPA answered what it was asked at a moment of the clock, in an epoch."""
        with self._lock:
            if asked is not self.epoch:
                return  # that it is another has been heard already, and this may be from before
            if revision != asked.revision:
                asked = self._turn(revision)
            asked.good_until = max(asked.good_until, began + self.seconds)

    def forget(self) -> None:
        """Give nothing any more of what was kept: OPA is said to have another revision."""
        with self._lock:
            self._turn("")

    def _turn(self, revision: str) -> Epoch:
        if self.epoch.entries:
            self._over.append(self.epoch)
        self.epoch = Epoch(self.epoch.number + 1, revision)
        return self.epoch

    def _make_room(self) -> None:
        least = _AT_ONCE
        while self._over and (least > 0 or self.bytes > self._most):
            least -= 1
            if not self._over[0].take_one():
                del self._over[0]
        while self.epoch.bytes > self._most:
            self.epoch.take_one()
            self.evictions += 1

    def was_asked(self) -> bool:
        """Tell whether it has been asked for anything since the last time."""
        asked, self._asked = self._asked, False
        return asked

    def board(self, epoch: Epoch, key: Hashable) -> tuple[Flight, bool]:
        """Give the flight of a question, and whether it is the caller's own, who then must ``land`` it."""
        began = self.clock()
        with self._lock:
            flight = epoch.flights.get(key)
            # what OPA was asked too long ago it may have answered by what has changed since
            if flight is not None and began - flight.began < self.seconds:
                return flight, False
            flight = epoch.flights[key] = Flight(began)
            return flight, True

    def land(self, epoch: Epoch, key: Hashable, flight: Flight) -> None:
        """End one's own flight, whatever came of it."""
        with self._lock:
            if epoch.flights.get(key) is flight:
                del epoch.flights[key]
        flight.end()


def may_be_given(lease: Lease | None, now: int, oldest: int) -> bool:
    """Tell whether an answer may be given now by its lease, if it is from no older registry than one of the moment ``oldest``."""
    return lease is not None and lease.since <= now < lease.until and lease.as_of >= oldest


def together(leases: Iterable[Lease | None]) -> Lease | None:
    """Give the lease of several answers together, which are of one tenant; none if one has none, or if they are of two epochs."""
    found = [*leases]
    first = found[0] if found else None
    if first is None or not all(lease is not None and lease.epoch == first.epoch for lease in found):
        return None
    since = max(lease.since for lease in found if lease)
    until = min(lease.until for lease in found if lease)
    return replace(first, since=since, until=until)
