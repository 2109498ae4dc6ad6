"""Between calls and a sink: a bound, an order, patience, and nothing that gets lost without being told."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from structlog.testing import capture_logs

from sidecar.audit.decision_log import DecisionLog
from sidecar.audit.writer import TooMuchError, Writer
from tests.support.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Tap:
    """A sink that can be shut, told to fail, and told to take no more than so many lines at once."""

    name = "tap"
    pause = 0.0
    most = 1000

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.open = threading.Event()
        self.open.set()
        self.asked = threading.Event()
        self.faults: list[Exception] = []
        self.at_once = 1000
        self.closed = False

    def write(self, lines: Sequence[bytes]) -> None:
        """Take lines."""
        self.asked.set()
        self.open.wait(20)
        if self.faults:
            raise self.faults.pop(0)
        if len(lines) > self.at_once:
            message = "too much"
            raise TooMuchError(message)
        self.lines += lines

    def close(self) -> None:
        """Remember it."""
        self.closed = True


@contextmanager
def writing(tap: Tap, records: int = 10, most_bytes: int = 10_000) -> Iterator[Writer]:
    writer = Writer(tap, records=records, most_bytes=most_bytes)
    writer.start()
    try:
        yield writer
    finally:
        tap.open.set()
        writer.close(10)


def put(writer: Writer, *lines: bytes, until: float | None = None) -> bool:
    return writer.put(lines, sum(map(len, lines)), until)


def fill(writer: Writer, tap: Tap, records: int) -> None:
    """Shut the tap, and let so many records wait behind it."""
    tap.open.clear()
    for number in range(records):
        assert put(writer, b"%d" % number)
    assert tap.asked.wait(10)


def test_what_is_put_is_written_in_its_order_and_at_the_latest_at_the_end() -> None:
    tap = Tap()
    with writing(tap, records=100) as writer:
        assert all(put(writer, b"%d" % number, b"%d.1" % number) for number in range(20))

    assert tap.lines == [line for n in range(20) for line in (b"%d" % n, b"%d.1" % n)]
    assert tap.closed
    assert (writer.state().written, writer.state().waiting, writer.state().waiting_bytes) == (40, 0, 0)


def test_when_as_many_records_wait_as_may_the_next_is_dropped_and_told() -> None:
    tap = Tap()
    with capture_logs() as logs, writing(tap, records=3) as writer:
        fill(writer, tap, 3)
        assert not put(writer, b"x")
        state = writer.state()

    assert (state.dropped, state.waiting) == (1, 3)
    assert tap.lines == [b"0", b"1", b"2"]
    assert [(entry["event"], entry["sink"], entry["records"]) for entry in logs] == [("records_dropped", "tap", 1)]


def test_when_as_many_bytes_wait_as_may_the_next_is_dropped() -> None:
    tap = Tap()
    with writing(tap, most_bytes=100) as writer:
        fill(writer, tap, 1)
        assert put(writer, b"x" * 90)
        assert not put(writer, b"x" * 10)


def test_drops_are_told_once_in_a_while_and_all_in_the_end() -> None:
    tap = Tap()
    with capture_logs() as logs, writing(tap, records=2) as writer:
        fill(writer, tap, 2)
        for _ in range(50):
            put(writer, b"x")

    assert [entry["records"] for entry in logs] == [1, 49]


def test_the_records_of_a_call_are_taken_together_or_not_at_all() -> None:
    tap = Tap()
    with writing(tap, records=3) as writer:
        fill(writer, tap, 2)
        assert not put(writer, b"a", b"b")
        assert put(writer, b"c")

    assert tap.lines == [b"0", b"1", b"c"]


def test_who_waits_for_room_gets_it_when_there_is_some() -> None:
    tap, taken = Tap(), list[bool]()
    with writing(tap, records=2) as writer:
        fill(writer, tap, 2)
        waiting = threading.Thread(target=lambda: taken.append(put(writer, b"x", until=time.monotonic() + 20)))
        waiting.start()
        tap.open.set()
        waiting.join(20)

    assert taken == [True]
    assert tap.lines == [b"0", b"1", b"x"]


def test_who_waits_for_room_goes_without_when_time_is_up() -> None:
    tap = Tap()
    with capture_logs() as logs, writing(tap, records=2) as writer:
        fill(writer, tap, 2)
        assert not put(writer, b"x", until=time.monotonic() + 0.02)
        assert not put(writer, b"a", b"b", b"c", until=time.monotonic() + 3600)

    assert [entry["event"] for entry in logs] == ["calls_wait_for_room", "records_dropped", "records_dropped"]


def test_a_sink_that_fails_gets_the_same_again_and_its_fault_is_told_once() -> None:
    tap = Tap()
    tap.faults = [OSError("full"), OSError("full"), ValueError("odd")]
    with capture_logs() as logs, writing(tap) as writer:
        assert put(writer, b"a")
        wait_until(lambda: tap.lines)
        wait_until(lambda: not writer.state().error)
        assert (writer.state().failures, writer.state().written) == (3, 1)

    assert [(entry["event"], entry.get("cause")) for entry in logs] == [
        ("sink_failed", "full"),
        ("sink_failed", "odd"),
        ("sink_recovered", None),
    ]


def test_a_sink_that_takes_only_some_at_once_gets_all_of_it() -> None:
    tap = Tap()
    tap.at_once = 2
    with writing(tap) as writer:
        fill(writer, tap, 7)

    assert tap.lines == [b"%d" % number for number in range(7)]


def test_what_a_sink_takes_on_no_terms_is_dropped_and_the_rest_goes_on() -> None:
    tap = Tap()
    tap.at_once = 1
    with writing(tap) as writer:
        assert put(writer, b"a", b"b")
        assert put(writer, b"c")

    assert tap.lines == [b"c"]
    assert writer.state().dropped == 2


def test_at_the_end_a_sink_that_does_not_take_what_waits_is_left_and_that_is_told() -> None:
    tap = Tap()
    writer = Writer(tap, records=5, most_bytes=1000)
    writer.start()
    fill(writer, tap, 3)
    with capture_logs() as logs:
        writer.close(0.02)
    tap.open.set()

    assert [(entry["event"], entry["records"]) for entry in logs] == [("records_dropped", 3)]
    assert not put(writer, b"late")
    assert writer.state().dropped == 4


def test_a_sink_that_fails_until_the_end_does_not_keep_the_sidecar_from_stopping() -> None:
    tap = Tap()
    tap.faults = [OSError("gone")] * 10_000
    writer = Writer(tap, records=5, most_bytes=1000)
    writer.start()
    assert put(writer, b"a")
    writer.close(0.3)

    assert (writer.state().dropped, writer.state().error) == (1, "gone")


def test_at_the_end_a_sink_that_is_stuck_takes_no_time_from_the_others() -> None:
    stuck, slow = Tap(), Tap()
    slow.pause = 600.0
    writers = [Writer(tap, records=5, most_bytes=1000) for tap in (stuck, slow)]
    log = DecisionLog(writers)
    log.start()
    fill(writers[0], stuck, 1)
    assert put(writers[1], b"a")
    log.close(0)
    stuck.open.set()

    assert slow.lines == [b"a"]
    assert writers[0].state().dropped == 1


def test_a_sink_that_is_stuck_is_said_to_be() -> None:
    tap, now = Tap(), [0.0]
    writer = Writer(tap, records=5, most_bytes=1000, clock=lambda: now[0])
    writer.start()
    fill(writer, tap, 1)
    now[0] = 60.0
    state = writer.state()
    tap.open.set()
    writer.close(10)

    assert (state.delay, state.error) == (60.0, "has not taken what it was given 60 s ago")
