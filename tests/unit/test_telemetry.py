"""Lines of the log: each whole, in order, and there when it matters."""

from __future__ import annotations

import io
import json
import threading
from typing import IO, TYPE_CHECKING, Any, cast

import pytest

from sidecar.telemetry import _Lines
from tests.support.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable


class Stream(io.BytesIO):
    """What lines are written to, and how often."""

    writes = 0

    def write(self, data: Any) -> int:
        self.writes += 1
        return super().write(data)

    @property
    def events(self) -> list[Any]:
        """The lines, read."""
        return [json.loads(line) for line in self.getvalue().splitlines()]


@pytest.fixture
def stream() -> Stream:
    """A stream."""
    return Stream()


def test_lines_that_inform_are_written_soon_in_their_order(stream: Stream) -> None:
    lines = _Lines(stream)
    for number in range(100):
        lines.info(number=number)
    wait_until(lambda: len(stream.events) == 100)

    assert [event["number"] for event in stream.events] == [*range(100)]
    assert stream.writes < 100


@pytest.mark.parametrize("level", ["warning", "error", "critical"])
def test_a_line_that_warns_is_written_at_once_behind_those_before_it(level: str, stream: Stream) -> None:
    lines = _Lines(stream)
    lines.info(event="before")
    getattr(lines, level)(event=level)

    assert [event["event"] for event in stream.events] == ["before", level]


def test_lines_do_not_pile_up_without_end(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Lines, "_PAUSE", 60.0)
    monkeypatch.setattr(_Lines, "_MOST", 10)
    lines = _Lines(stream)
    for number in range(25):
        lines.info(number=number)

    assert [event["number"] for event in stream.events] == [*range(22)]


def test_what_many_threads_write_is_whole_and_in_the_order_of_each(stream: Stream) -> None:
    lines = _Lines(stream)

    def write(writer: int) -> None:
        for number in range(200):
            (lines.warning if number % 50 == 0 else lines.info)(writer=writer, number=number)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines.flush()

    for writer in range(5):
        assert [event["number"] for event in stream.events if event["writer"] == writer] == [*range(200)]


_ODD: dict[str, Any] = {
    "half a surrogate pair": "\ud800",
    "an object": object(),
    "a key that is no text": {1: 2},
    "a number beyond all": 10**400,
}


@pytest.mark.parametrize("value", _ODD.values(), ids=_ODD)
def test_a_value_that_json_does_not_know_is_a_line_all_the_same(value: Any, stream: Stream) -> None:
    lines = _Lines(stream)
    lines.warning(event="odd", value=value)
    lines.warning(event="next")

    assert [event["event"] for event in stream.events] == ["odd", "next"]


def _broken(_data: bytes) -> int:
    raise BrokenPipeError


@pytest.mark.parametrize("broken", [lambda stream: stream.close(), lambda stream: setattr(stream, "write", _broken)])
def test_a_log_that_nobody_reads_any_more_stops_nothing(broken: Callable[[Any], Any], stream: Stream) -> None:
    lines = _Lines(cast("IO[bytes]", stream))
    broken(stream)

    lines.warning(event="unheard")
