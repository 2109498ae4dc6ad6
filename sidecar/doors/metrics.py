"""What is counted: calls as they end, and the state of the sidecar as it is when somebody looks.

Names and units are Prometheus's (https://prometheus.io/docs/practices/naming/): seconds, and moments in seconds since 1970.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from sidecar.engine.intake import REASONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client import CollectorRegistry, Metric

    from sidecar.gen.tenantgate.v1.status_service_pb2 import BundleStatus, Status
    from sidecar.model import Decision

_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

# One more series for each counter, and nothing that anyone asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types


class CallMetrics:
    """Counts calls. The children of each metric are looked up once: to find them costs more than to count."""

    def __init__(self, registry: CollectorRegistry) -> None:
        decisions = Counter(
            "tenantgate_decisions_total",
            "Decisions, those of a batch one by one.",
            ["effect", "code", "method"],
            registry=registry,
        )
        failures = Counter(
            "tenantgate_errors_total",
            "Calls, and items of a batch or a list, that ended without a decision.",
            ["reason", "method"],
            registry=registry,
        )
        seconds = Histogram(
            "tenantgate_call_seconds",
            "Time from the arrival of a call to its end.",
            ["method"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._decisions = functools.cache(decisions.labels)
        self._failures = functools.cache(failures.labels)
        self._seconds = functools.cache(seconds.labels)

    def took(self, method: str, seconds: float) -> None:
        """Count a call that has ended."""
        self._seconds(method).observe(seconds)

    def decided(self, method: str, decisions: Iterable[Decision]) -> None:
        """Count decisions."""
        for decision in decisions:
            self._decisions(decision.effect, decision.code, method).inc()

    def failed(self, method: str, reason: str) -> None:
        """Count an error by its stable reason."""
        self._failures(reason, method).inc()


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
