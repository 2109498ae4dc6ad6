"""The metrics of several processes, added up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sidecar.doors.sums import Family, Sums, read

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Process:
    """The metrics of one process: calls by method, their times, and how many are under way."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter("calls", "Calls.", ["method"], registry=self.registry)
        self.times = Histogram("times", "Times.", buckets=(1, 2), registry=self.registry)
        self.under_way = Gauge("under_way", "Calls under way.", registry=self.registry)

    def told(self) -> tuple[Family, ...]:
        """Give them as they come over a pipe."""
        return msgspec.msgpack.decode(msgspec.msgpack.encode(read(self.registry)), type=tuple[Family, ...])


def _lines(sums: Sums) -> Iterator[str]:
    registry = CollectorRegistry()
    registry.register(sums)
    return (line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#"))


def test_what_is_counted_is_added_up_and_what_is_so_now_is_said_of_each() -> None:
    own, one, other = _Process(), _Process(), _Process()
    sums = Sums(own.registry)
    own.calls.labels("Authorize").inc()
    one.calls.labels("Authorize").inc(2)
    other.calls.labels("FilterTools").inc(3)
    own.times.observe(0.5)
    other.times.observe(1.5)
    other.under_way.set(4)
    sums.heard(1, one.told())
    sums.heard(2, other.told())

    assert [*_lines(sums)] == [
        'calls_total{method="Authorize"} 3.0',
        'calls_total{method="FilterTools"} 3.0',
        'times_bucket{le="1.0"} 1.0',
        'times_bucket{le="2.0"} 2.0',
        'times_bucket{le="+Inf"} 2.0',
        "times_count 2.0",
        "times_sum 2.0",
        "under_way 0.0",
        'under_way{worker="1"} 0.0',
        'under_way{worker="2"} 4.0',
    ]


def test_a_value_that_is_no_float_is_told_as_one() -> None:
    registry = CollectorRegistry()
    Gauge("serving", "Whether it serves.", registry=registry).set_function(lambda: True)

    assert read(registry)[0].samples == (("serving", (), 1.0),)
    assert isinstance(read(registry)[0].samples[0][2], float)


def test_what_a_worker_counted_stays_when_it_is_gone_and_its_successor_begins_at_nothing() -> None:
    own, first, second = _Process(), _Process(), _Process()
    sums = Sums(own.registry)
    first.calls.labels("Authorize").inc(2)
    first.under_way.set(1)
    for _ in range(2):
        sums.heard(1, first.told())
    sums.ended(1)
    sums.ended(1)
    second.calls.labels("Authorize").inc()
    sums.heard(1, second.told())

    lines = [*_lines(sums)]
    assert 'calls_total{method="Authorize"} 3.0' in lines
    assert 'under_way{worker="1"} 0.0' in lines
