"""The metrics of several processes as those of one.

Counters, histograms and summaries are added up, those of processes that are gone too, so that they never go back. A gauge says
what is so now: that of a worker has the label ``worker``, and goes with it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct
from prometheus_client import Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client import CollectorRegistry

_ADDED = {"counter", "histogram", "summary"}

Sample: TypeAlias = tuple[str, tuple[tuple[str, str], ...], float]
"""A name, labels with their values, and a value."""


class Family(Struct, frozen=True):
    """The samples that share a name, what it means, and what kind of metric they are."""

    name: str
    about: str
    kind: str
    samples: tuple[Sample, ...]


def read(registry: CollectorRegistry) -> tuple[Family, ...]:
    """Give all metrics of this process, of now. When a metric began is left out: sums of that would mean nothing."""
    return tuple(
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            tuple(
                (sample.name, tuple(sample.labels.items()), float(sample.value))
                for sample in metric.samples
                if metric.type not in _ADDED or not sample.name.endswith("_created")
            ),
        )
        for metric in registry.collect()
    )


def added(families: Iterable[Family]) -> tuple[Family, ...]:
    """Add up the samples that are the same but for their value."""
    about: dict[str, Family] = {}
    sums: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for family in families:
        about.setdefault(family.name, family)
        of_name = sums.setdefault(family.name, {})
        for name, labels, value in family.samples:
            of_name[name, labels] = of_name.get((name, labels), 0.0) + value
    return tuple(
        Family(name, family.about, family.kind, tuple((*key, value) for key, value in sums[name].items()))
        for name, family in about.items()
    )


class Sums(Collector):
    """The metrics of this process, which are in ``own``, together with those that its workers have told of theirs."""

    def __init__(self, own: CollectorRegistry) -> None:
        self._own = own
        self._lock = threading.Lock()
        self._now: dict[int, tuple[Family, ...]] = {}
        self._past: tuple[Family, ...] = ()

    def heard(self, worker: int, families: Iterable[Family]) -> None:
        """Take what a worker tells of its metrics, in place of what it told before."""
        labelled = tuple(family if family.kind in _ADDED else _of_worker(worker, family) for family in families)
        with self._lock:
            self._now[worker] = labelled

    def ended(self, worker: int) -> None:
        """Keep what a worker has counted that is gone."""
        with self._lock:
            last = [family for family in self._now.pop(worker, ()) if family.kind in _ADDED]
            self._past = added([*self._past, *last])

    def collect(self) -> Iterator[Metric]:
        """Give all metrics."""
        own = read(self._own)
        with self._lock:
            told = [self._past, *self._now.values()]
        for family in added([*own, *(family for families in told for family in families)]):
            metric = Metric(family.name, family.about, family.kind)
            for name, labels, value in family.samples:
                metric.add_sample(name, dict(labels), value)
            yield metric


def _of_worker(worker: int, family: Family) -> Family:
    label = ("worker", str(worker))
    samples = tuple((name, (*labels, label), value) for name, labels, value in family.samples)
    return Family(family.name, family.about, family.kind, samples)
