"""What is counted: calls as they end, and the state of the sidecar as it is when somebody looks.

Names and units are Prometheus's (https://prometheus.io/docs/practices/naming/): seconds, and moments in seconds since 1970.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from sidecar.engine.intake import REASONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import CollectorRegistry, Metric

    from sidecar.engine.cache import DecisionCache
    from sidecar.gen.tenantgate.v1.status_service_pb2 import BundleStatus, Status
    from sidecar.model import Decision

_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class CallMetrics(Collector):
    """Counts calls. It is done here, under one lock for all that a call adds, as it is done for every call."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lock = threading.Lock()
        self._decisions: dict[tuple[str, str, str], int] = {}
        self._failures: dict[tuple[str, str], int] = {}
        self._counts: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}
        registry.register(self)

    def ended(self, method: str, seconds: float, decisions: Iterable[Decision], failures: Iterable[str]) -> None:
        """Count a call that has ended, its decisions, and by their stable reasons the errors in place of decisions."""
        with self._lock:
            counts = self._counts.get(method)
            if counts is None:
                counts = self._counts[method] = [0] * (len(_BUCKETS) + 1)
            counts[bisect_left(_BUCKETS, seconds)] += 1
            self._seconds[method] = self._seconds.get(method, 0.0) + seconds
            for decision in decisions:
                labels = (decision.effect, decision.code, method)
                self._decisions[labels] = self._decisions.get(labels, 0) + 1
            for reason in failures:
                self._fail(method, reason)

    def failed(self, method: str, reason: str) -> None:
        """Count an error by its stable reason."""
        with self._lock:
            self._fail(method, reason)

    def _fail(self, method: str, reason: str) -> None:
        self._failures[reason, method] = self._failures.get((reason, method), 0) + 1

    def collect(self) -> Iterator[Metric]:
        """Give all counts, of one moment."""
        decisions = CounterMetricFamily(
            "tenantgate_decisions", "Decisions, those of a batch one by one.", labels=["effect", "code", "method"]
        )
        failures = CounterMetricFamily(
            "tenantgate_errors",
            "Calls, and items of a batch or a list, that ended without a decision.",
            labels=["reason", "method"],
        )
        times = HistogramMetricFamily(
            "tenantgate_call_seconds", "Time from the arrival of a call to its end.", labels=["method"]
        )
        with self._lock:
            for labels, count in self._decisions.items():
                decisions.add_metric(labels, count)
            for reason, count in self._failures.items():
                failures.add_metric(reason, count)
            for method, counts in self._counts.items():
                below = zip((*_BUCKETS, math.inf), accumulate(counts), strict=True)
                buckets = [("+Inf" if bound == math.inf else str(bound), float(count)) for bound, count in below]
                times.add_metric([method], buckets, self._seconds[method])
        yield from (decisions, failures, times)


class CacheCollector(Collector):
    """Tells what is made of remembered decisions."""

    def __init__(self, cache: DecisionCache) -> None:
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        """Give all metrics."""
        cache = self._cache
        yield CounterMetricFamily("tenantgate_cache_hits", "Decisions given without OPA.", value=cache.hits)
        yield CounterMetricFamily("tenantgate_cache_misses", "Decisions that OPA was asked for.", value=cache.misses)
        yield CounterMetricFamily(
            "tenantgate_cache_evictions", "Entries that had to make room for others.", value=cache.evictions
        )
        yield GaugeMetricFamily("tenantgate_cache_bytes", "Memory for what is remembered.", value=cache.bytes)


class StatusCollector(Collector):
    """Tells the state of the sidecar. ``status`` gives it; ``None`` until there is one."""

    def __init__(self, status: Callable[[], Status | None]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Give all metrics, of one moment."""
        status = self._status()
        serving = status is not None and status.serving
        yield GaugeMetricFamily("tenantgate_serving", "Whether decisions can be made.", value=serving)
        if status is None:
            return
        build = GaugeMetricFamily(
            "tenantgate_build_info", "Versions, as labels; always 1.", labels=["version", "opa_version"]
        )
        build.add_metric([status.version, status.opa.version], 1)
        yield build
        yield CounterMetricFamily("tenantgate_opa_restarts", "Restarts of the embedded OPA.", value=status.opa.restarts)
        if status.revision:
            yield from _revision(status)
        yield from _bundles(status.bundles)


def _revision(status: Status) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "tenantgate_revision_info", "The revision in force, as a label; always 1.", labels=["revision"]
    )
    info.add_metric([status.revision], 1)
    yield info
    as_of = status.as_of.ToMicroseconds() / 1e6
    yield GaugeMetricFamily("tenantgate_revision_as_of_seconds", "The moment of the registry in force.", value=as_of)
    age = status.age.ToMicroseconds() / 1e6
    yield GaugeMetricFamily("tenantgate_revision_age_seconds", "The age of the registry in force.", value=age)


def _bundles(bundles: Iterable[BundleStatus]) -> Iterator[Metric]:
    refusals = CounterMetricFamily(
        "tenantgate_bundle_refusals", "Bundles that were refused.", labels=["bundle", "reason"]
    )
    as_of = GaugeMetricFamily(
        "tenantgate_bundle_as_of_seconds", "The moment of the registry in the bundle taken in last.", labels=["bundle"]
    )
    active = GaugeMetricFamily(
        "tenantgate_bundle_active", "Whether OPA has activated the bundle taken in last.", labels=["bundle"]
    )
    persisted = GaugeMetricFamily(
        "tenantgate_bundle_persisted",
        "Whether it was kept from before, and not confirmed by the source yet.",
        labels=["bundle"],
    )
    for bundle in bundles:
        for reason in REASONS:
            refusals.add_metric([bundle.name, reason], bundle.refusals.get(reason, 0))
        if bundle.revision:
            as_of.add_metric([bundle.name], bundle.as_of.ToMicroseconds() / 1e6)
            active.add_metric([bundle.name], bundle.active)
            persisted.add_metric([bundle.name], bundle.persisted)
    yield from (refusals, as_of, active, persisted)
