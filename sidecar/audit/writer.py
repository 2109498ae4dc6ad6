"""From calls to one sink: a queue with a bound, and the thread that empties it.

What is handed on leaves the queue when the sink has taken it, so that the bound holds for what is under way as well. A sink that
fails is tried again, each time after a longer pause, with the same records: it may get one twice, and none too few.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

import structlog
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = structlog.get_logger("audit")

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 30.0  # seconds
_LAST_PAUSE = 0.1  # between attempts while the sidecar stops
_TOLD_EVERY = 10.0  # seconds between lines of the log about the same trouble
_STUCK = 5.0  # seconds without an end after which a sink is said to be stuck


class TooMuchError(Exception):
    """Raised by a sink that takes no more than a part of what it was given at once."""


class Sink(Protocol):
    """Where records go: one at a time calls it, and at most about ``most`` bytes come at once.

    ``pause`` is how long records are gathered, in seconds.
    """

    name: str
    pause: float
    most: int

    def write(self, lines: Sequence[bytes]) -> None:
        """Take lines, all or none. Any exception says that they were not taken, and its message why."""

    def close(self) -> None:
        """Let go of what is open."""


class SinkState(Struct, frozen=True):
    """How it goes with a sink: records ``written`` and ``dropped``, attempts that failed, and what waits.

    ``delay`` is how long the record that waits longest has done so, in seconds; ``error`` is empty while all is well.
    """

    name: str
    written: int
    dropped: int
    failures: int
    waiting: int
    waiting_bytes: int
    delay: float
    error: str


class _Entry(NamedTuple):
    """The records of one call. ``since`` is a moment of the clock."""

    lines: Sequence[bytes]
    size: int
    since: float


class Writer:
    """Hands records on to a sink, in their order. At most so many records and bytes wait; ``clock`` counts seconds."""

    def __init__(
        self, sink: Sink, *, records: int, most_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = sink.name
        self._sink = sink
        self._most, self._most_bytes = records, most_bytes
        # What is gathered is handed on early when it is as much as the sink takes, or half of what may wait.
        self._enough, self._enough_bytes = max(1, records // 2), min(sink.most, most_bytes // 2)
        self._clock = clock
        self._entries: deque[_Entry] = deque()
        self._waiting = self._bytes = 0
        self._written = self._dropped = self._untold = self._failures = 0
        self._told = self._told_full = -_TOLD_EVERY
        self._trying_since: float | None = None
        self._error = ""
        self._closed = False
        self._freed = threading.Condition()
        self._some, self._hurry = threading.Event(), threading.Event()
        self._closing, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"audit_{sink.name}", daemon=True)

    def start(self) -> None:
        """Begin to hand on."""
        self._thread.start()

    def put(self, lines: Sequence[bytes], size: int, until: float | None = None) -> bool:
        """Take the records of a call: all of them, or none if there is no room, which is told.

        With ``until``, a moment of the clock, it waits so long for room, and who calls says what becomes of the records.
        """
        entry = _Entry(lines, size, self._clock())
        taken = self._take(entry)
        if not taken and until is not None:
            self._tell_full()
            taken = self._take(entry, until)
        if not taken:
            self._drop(len(lines))
            return False
        if not self._some.is_set():
            self._some.set()
        if self._waiting >= self._enough or self._bytes >= self._enough_bytes:
            self._hurry.set()
        return True

    def hasten(self) -> None:
        """Gather no more: hand on what waits, and end."""
        self._closing.set()
        self._some.set()
        self._hurry.set()

    def close(self, seconds: float) -> None:
        """Hand on what waits, for so many seconds at the most, and take no more. What is left then is dropped, and told."""
        self.hasten()
        if self._thread.is_alive():
            self._thread.join(seconds)
        self._over.set()
        with self._freed:
            self._closed = True
            left = self._waiting
            self._freed.notify_all()
        if left:
            self._drop(left)
        self._tell_drops(at_once=True)

    def state(self) -> SinkState:
        """Tell how it goes."""
        with self._freed:
            now = self._clock()
            delay = now - self._entries[0].since if self._entries else 0.0
            error, since = self._error, self._trying_since
            if not error and since is not None and now - since > _STUCK:
                error = f"has not taken what it was given {now - since:.0f} s ago"
            return SinkState(
                self.name, self._written, self._dropped, self._failures, self._waiting, self._bytes, delay, error
            )

    def _take(self, entry: _Entry, until: float | None = None) -> bool:
        """Take records if there is room, or when there is until a moment of the clock."""
        with self._freed:
            if not self._has_room(entry) and not (until is not None and self._wait_for_room(entry, until)):
                return False
            self._entries.append(entry)
            self._waiting += len(entry.lines)
            self._bytes += entry.size
            return True

    def _has_room(self, entry: _Entry) -> bool:
        return (
            not self._closed
            and self._waiting + len(entry.lines) <= self._most
            and self._bytes + entry.size <= self._most_bytes
        )

    def _wait_for_room(self, entry: _Entry, until: float) -> bool:
        if len(entry.lines) > self._most or entry.size > self._most_bytes:
            return False  # however long it waited
        while not self._closed and (left := until - self._clock()) > 0:
            self._freed.wait(left)
            if self._has_room(entry):
                return True
        return False

    def _tell_full(self) -> None:
        with self._freed:
            now = self._clock()
            if now - self._told_full < _TOLD_EVERY:
                return
            self._told_full = now
        log.warning("calls_wait_for_room", sink=self.name, cause=self.state().error or "the queue is full")

    def _drop(self, records: int) -> None:
        with self._freed:
            self._dropped += records
            self._untold += records
        self._tell_drops()

    def _tell_drops(self, *, at_once: bool = False) -> None:
        with self._freed:
            untold, now = self._untold, self._clock()
            if not untold or (now - self._told < _TOLD_EVERY and not at_once):
                return
            self._untold, self._told = 0, now
        log.error("records_dropped", sink=self.name, records=untold, cause=self.state().error or "the queue is full")

    def _run(self) -> None:
        while not self._over.is_set():
            self._some.wait()
            self._hurry.wait(self._sink.pause)
            self._some.clear()
            self._hurry.clear()
            while self._entries and not self._over.is_set():
                self._hand_on()
            if self._closing.is_set():
                break
        self._sink.close()

    def _hand_on(self) -> None:
        """Hand on what the sink takes at once, and try until it has taken it or the sidecar has stopped."""
        batch: list[_Entry] = []
        size = 0
        with self._freed:
            for entry in self._entries:
                size += entry.size
                if batch and size > self._sink.most:
                    break
                batch.append(entry)
        pause = _FIRST_PAUSE
        self._trying_since = self._clock()
        while not self._over.is_set():
            try:
                self._sink.write([line for entry in batch for line in entry.lines])
            except TooMuchError as fault:
                self._note(fault)
                if len(batch) == 1:
                    self._let_go(batch, taken=False)
                    break
                batch = batch[: len(batch) // 2]
            except Exception as fault:  # noqa: BLE001 - whatever it is, the thread goes on
                self._note(fault)
                (self._over if self._closing.is_set() else self._closing).wait(
                    _LAST_PAUSE if self._closing.is_set() else pause
                )
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._let_go(batch, taken=True)
                break
        self._trying_since = None
        self._tell_drops()

    def _note(self, fault: Exception) -> None:
        """Remember what is wrong, and tell it when it is new."""
        error = str(fault) or type(fault).__name__
        with self._freed:
            self._failures += 1
            new, self._error = error != self._error, error
        if new:
            log.warning("sink_failed", sink=self.name, cause=error, waiting=self._waiting)

    def _let_go(self, batch: Sequence[_Entry], *, taken: bool) -> None:
        records = sum(len(entry.lines) for entry in batch)
        with self._freed:
            for entry in batch:
                self._entries.popleft()
                self._bytes -= entry.size
            self._waiting -= records
            if taken:
                self._written += records
                recovered, self._error = bool(self._error), ""
            self._freed.notify_all()
        if not taken:
            self._drop(records)
        elif recovered:
            log.info("sink_recovered", sink=self.name)
