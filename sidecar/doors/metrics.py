"""What is counted: calls as they end, and the state of the sidecar as it is when somebody looks.

Names and units are Prometheus's (https://prometheus.io/docs/practices/naming/): seconds, and moments in seconds since 1970.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from sidecar.doors.grpc_calls import ERRORS, error_reason, row_of
from sidecar.engine.intake import REASONS
from sidecar.errors import EvaluationError, TenantgateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prometheus_client import CollectorRegistry, Metric

    from sidecar.audit.decision_log import DecisionLog
    from sidecar.credentials.cache import CredentialCache
    from sidecar.doors.replies import Counts
    from sidecar.engine.cache import DecisionCache
    from sidecar.engine.coalesce import PolicyEngine
    from sidecar.gen.tenantgate.v1.status_service_pb2 import BundleStatus, Status, TlsStatus
    from sidecar.identity.verified import Verified

_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_TOGETHER = (1, 2, 4, 8, 16, 32, 64)
_OK = 200


class _Times:
    """How often what took how long, in seconds. Whoever adds to it or reads it holds a lock."""

    def __init__(self) -> None:
        self._counts: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def add(self, what: str, seconds: float) -> None:
        """Count one more."""
        counts = self._counts.get(what)
        if counts is None:
            counts = self._counts[what] = [0] * (len(_BUCKETS) + 1)
        counts[bisect_left(_BUCKETS, seconds)] += 1
        self._seconds[what] = self._seconds.get(what, 0.0) + seconds

    def write(self, family: HistogramMetricFamily) -> None:
        """Add all to a metric, whose one label says what it was."""
        for what, counts in self._counts.items():
            family.add_metric([what], _buckets(_BUCKETS, counts), self._seconds[what])


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Give how many were up to each bound and, at last, how many there were."""
    below = zip((*bounds, math.inf), accumulate(counts), strict=True)
    return [("+Inf" if bound == math.inf else str(bound), float(count)) for bound, count in below]


class CallMetrics(Collector):
    """Counts calls. It is done here, under one lock for all that a call adds, as it is done for every call."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lock = threading.Lock()
        self._decisions: dict[tuple[str, str, str], int] = {}
        self._failures: dict[tuple[str, str], int] = {}
        self._times = _Times()
        registry.register(self)

    def ended(self, method: str, seconds: float, decisions: Counts, failures: Iterable[str]) -> None:
        """Count a call that has ended, its decisions, and by their stable reasons the errors in place of decisions."""
        with self._lock:
            self._times.add(method, seconds)
            for (effect, code), count in decisions.items():
                labels = (effect, code, method)
                self._decisions[labels] = self._decisions.get(labels, 0) + count
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
            self._times.write(times)
        yield from (decisions, failures, times)


class OpaMetrics(Collector):
    """Asks an engine, and counts and measures that. A query that fails is counted by the stable reason of its error.

    ``sizes`` tells how many queries for decisions took how many questions along.
    """

    def __init__(self, engine: PolicyEngine, registry: CollectorRegistry) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._times = _Times()
        self._failures: dict[str, int] = {}
        self.sizes: Mapping[int, int] = {}
        registry.register(self)

    def query(self, entrypoint: str, body: bytes, deadline: float) -> tuple[int, bytes]:
        """Ask the engine."""
        began = time.perf_counter()
        reason = ""
        try:
            status, answer = self._engine.query(entrypoint, body, deadline)
        except TenantgateError as fault:
            reason = error_reason(fault)
            raise
        else:
            if status != _OK:
                reason = ERRORS[EvaluationError].reason
            return status, answer
        finally:
            seconds = time.perf_counter() - began
            with self._lock:
                self._times.add(entrypoint, seconds)
                if reason:
                    self._failures[reason] = self._failures.get(reason, 0) + 1

    def collect(self) -> Iterator[Metric]:
        """Give all metrics."""
        times = HistogramMetricFamily(
            "tenantgate_opa_query_seconds", "Time from a query to OPA to its answer.", labels=["entrypoint"]
        )
        failures = CounterMetricFamily(
            "tenantgate_opa_failures", "Queries that OPA did not answer, or not well.", labels=["reason"]
        )
        with self._lock:
            self._times.write(times)
            for reason, count in self._failures.items():
                failures.add_metric([reason], count)
        sizes = dict(self.sizes)
        counts = [0] * (len(_TOGETHER) + 1)
        for size, count in sizes.items():
            counts[bisect_left(_TOGETHER, size)] += count
        together = HistogramMetricFamily(
            "tenantgate_opa_questions",
            "Questions of different calls that a query for decisions took to OPA.",
            buckets=_buckets(_TOGETHER, counts),
            sum_value=sum(size * count for size, count in sizes.items()),
        )
        yield from (times, failures, together)


class RoomCollector(Collector):
    """Tells how much is being worked on. ``rooms`` gives for each kind of it how much that is now, and the most of it."""

    def __init__(self) -> None:
        self.rooms: dict[str, tuple[Callable[[], int], int]] = {}

    def collect(self) -> Iterator[Metric]:
        """Give all metrics."""
        now = GaugeMetricFamily("tenantgate_in_flight", "What is being worked on.", labels=["kind"])
        most = GaugeMetricFamily("tenantgate_in_flight_limit", "The most of it.", labels=["kind"])
        for kind, (count, limit) in self.rooms.items():
            now.add_metric([kind], count())
            most.add_metric([kind], limit)
        yield from (now, most)


class IdentityCollector(Collector):
    """Tells which tokens were refused, and where the keys of issuers stand."""

    def __init__(self, identities: Verified) -> None:
        self._identities = identities

    def collect(self) -> Iterator[Metric]:
        """Give all metrics."""
        refused = CounterMetricFamily("tenantgate_tokens_refused", "Tokens that were not believed.", labels=["reason"])
        for reason, count in dict(self._identities.refused).items():
            refused.add_metric([reason], count)
        looks = CounterMetricFamily("tenantgate_key_looks", "Looks at an issuer's keys.", labels=["issuer"])
        failures = CounterMetricFamily(
            "tenantgate_key_failures", "Looks at an issuer's keys that found none.", labels=["issuer"]
        )
        held = GaugeMetricFamily("tenantgate_keys", "Keys of an issuer that are believed now.", labels=["issuer"])
        for issuer, keys in self._identities.keys.items():
            looks.add_metric([issuer], keys.looks)
            failures.add_metric([issuer], keys.failures)
            held.add_metric([issuer], len(keys.in_force.keys) if keys.in_force else 0)
        yield from (refused, looks, failures, held)


class CredentialCollector(Collector):
    """Tells what is made of credentials."""

    def __init__(self, cache: CredentialCache) -> None:
        self._cache = cache

    def collect(self) -> Iterator[Metric]:
        """Give all metrics."""
        cache = self._cache
        yield CounterMetricFamily("tenantgate_credentials_hits", "Credentials given without STS.", value=cache.hits)
        yield CounterMetricFamily("tenantgate_sts_calls", "Credentials that STS was asked for.", value=cache.calls)
        failures = CounterMetricFamily(
            "tenantgate_sts_failures", "Credentials that STS was asked for and did not give.", labels=["reason"]
        )
        for kind, count in dict(cache.failures).items():
            failures.add_metric([row_of(kind).reason], count)
        yield failures


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


class AuditCollector(Collector):
    """Tells how it goes with the sinks of the decision log."""

    def __init__(self, audit: DecisionLog) -> None:
        self._audit = audit

    def collect(self) -> Iterator[Metric]:
        """Give all metrics."""
        labels = ["sink"]
        written = CounterMetricFamily("tenantgate_audit_records", "Records that a sink has taken.", labels=labels)
        dropped = CounterMetricFamily("tenantgate_audit_dropped", "Records that a sink has not got.", labels=labels)
        failures = CounterMetricFamily("tenantgate_audit_failures", "Attempts that a sink failed.", labels=labels)
        waiting = GaugeMetricFamily("tenantgate_audit_waiting", "Records that wait for a sink.", labels=labels)
        size = GaugeMetricFamily("tenantgate_audit_waiting_bytes", "The bytes of those.", labels=labels)
        delay = GaugeMetricFamily(
            "tenantgate_audit_delay_seconds", "How long the one has waited that waits longest.", labels=labels
        )
        for state in self._audit.states():
            for family, value in (
                (written, state.written),
                (dropped, state.dropped),
                (failures, state.failures),
                (waiting, state.waiting),
                (size, state.waiting_bytes),
                (delay, state.delay),
            ):
                family.add_metric([state.name], value)
        yield from (written, dropped, failures, waiting, size, delay)


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
        if status.HasField("tls"):
            yield from _tls(status.tls)


def _revision(status: Status) -> Iterator[Metric]:
    # Each heartbeat of an overlay makes a revision: as a label it would be another series each time. Its moment is a number.
    if status.opa.embedded:
        info = GaugeMetricFamily(
            "tenantgate_base_info", "The base in force, as a label; always 1.", labels=["revision"]
        )
        info.add_metric([next((bundle.revision for bundle in status.bundles), status.revision)], 1)
        yield info
    as_of = status.as_of.ToMicroseconds() / 1e6
    yield GaugeMetricFamily("tenantgate_revision_as_of_seconds", "The moment of the registry in force.", value=as_of)
    age = status.age.ToMicroseconds() / 1e6
    yield GaugeMetricFamily("tenantgate_revision_age_seconds", "The age of the registry in force.", value=age)


def _tls(tls: TlsStatus) -> Iterator[Metric]:
    until = tls.until.ToMicroseconds() / 1e6
    yield GaugeMetricFamily("tenantgate_tls_until_seconds", "The end of the certificate in force.", value=until)
    yield CounterMetricFamily("tenantgate_tls_reloads", "Changed certificates that came into force.", value=tls.reloads)
    yield CounterMetricFamily("tenantgate_tls_refusals", "Changed certificates that were refused.", value=tls.refused)
    yield GaugeMetricFamily(
        "tenantgate_tls_fault", "Whether the files hold what cannot be used, now.", value=bool(tls.error)
    )


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
