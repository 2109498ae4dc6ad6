"""The door for operators: what state the sidecar is in."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from sidecar.audit.decision_log import OFF
from sidecar.doors.grpc_calls import Call, answering
from sidecar.engine.decide import MICROSECONDS, now_microseconds
from sidecar.gen.tenantgate.v1 import status_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import status_service_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import ThreadPoolExecutor

    import grpc

    from sidecar.audit.decision_log import DecisionLog
    from sidecar.audit.writer import SinkState
    from sidecar.doors.metrics import CallMetrics
    from sidecar.engine.intake import Intake, Intaken
    from sidecar.engine.monitor import Monitor
    from sidecar.engine.process import EmbeddedOpa
    from sidecar.settings import Settings
    from sidecar.tls import TlsFiles

_CHECK_SECONDS = 1.0  # how soon a watcher whose caller went away is noticed


class StatusServicer(pb_grpc.StatusServiceServicer):
    """Answers ``tenantgate.v1.StatusService``. ``watchers`` are the threads that WatchStatus calls hold."""

    audit = OFF

    def __init__(
        self,
        monitor: Monitor,
        opa: EmbeddedOpa | None,
        intake: Intake | None,
        settings: Settings,
        *,
        version: str,
        opa_version: str,
        watchers: ThreadPoolExecutor,
        metrics: CallMetrics,
        tls: TlsFiles | None,
        audit: DecisionLog,
    ) -> None:
        self._monitor = monitor
        self._opa = opa
        self._intake = intake
        self._settings = settings
        self._version = version
        self._opa_version = opa_version
        self._started_at = now_microseconds()
        self.default_deadline = settings.limits.default_deadline_seconds
        self.access_log = settings.log.access
        self.metrics = metrics
        self._tls = tls
        self._sinks = audit
        # A watcher holds a thread for as long as it watches, which must not be one that decisions need.
        watch = functools.partial(self._watch)
        watch.experimental_thread_pool = watchers  # type: ignore[attr-defined]
        self.WatchStatus = watch  # type: ignore[method-assign]

    @answering
    def GetStatus(self, request: pb.GetStatusRequest, call: Call) -> pb.GetStatusResponse:  # noqa: ARG002, N802 - gRPC's shape
        """Give the state now."""
        return pb.GetStatusResponse(status=self.status())

    def _watch(
        self, _request: pb.WatchStatusRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchStatusResponse]:
        """Give the state now and whenever it changes, until the caller or the sidecar goes away."""
        version, more = self._monitor.wait_for_change(-1, 0)
        while more and context.is_active():
            yield pb.WatchStatusResponse(status=self.status())
            seen = version
            while more and version == seen and context.is_active():
                version, more = self._monitor.wait_for_change(seen, _CHECK_SECONDS)

    def status(self) -> pb.Status:
        """Put the state together."""
        status = self._about()
        readiness = self._monitor.readiness
        status.serving, status.problem, status.revision = readiness.serving, readiness.problem, readiness.revision
        if readiness.revision:
            status.as_of.FromMicroseconds(readiness.as_of)
            status.age.FromMicroseconds(max(0, now_microseconds() - readiness.as_of))
        if status.bundles and not readiness.serving and not status.bundles[0].revision:
            status.problem = f"there is no base bundle: {status.bundles[0].error or 'none has come yet'}"
        status.audit.extend(map(_sink_status, self._sinks.states()))
        if self._tls is not None:
            status.tls.until.FromDatetime(self._tls.material().until)
            status.tls.error = self._tls.fault
            status.tls.reloads = self._tls.reloads
            status.tls.refused = self._tls.refusals
        return status

    def _about(self) -> pb.Status:
        """Say what does not depend on the process that answers."""
        status = pb.Status(
            version=self._version,
            identity_mode=self._settings.identity.mode,
            opa=pb.OpaStatus(
                embedded=self._opa is not None,
                address=self._settings.opa.address or (self._opa.address if self._opa else ""),
                version=self._opa_version,
                pid=self._opa.pid if self._opa else 0,
                restarts=self._opa.restarts if self._opa else 0,
            ),
        )
        status.started_at.FromMicroseconds(self._started_at)
        if self._settings.freshness.max_staleness_seconds is not None:
            status.max_staleness.FromMicroseconds(int(self._settings.freshness.max_staleness_seconds * MICROSECONDS))
        if self._intake is not None:
            status.bundles.extend(map(_bundle_status, self._intake.states))
        return status


class WorkerStatus(StatusServicer):
    """Does so in a worker: what does not depend on the process that answers, its parent has ``told``."""

    told: pb.Status

    def _about(self) -> pb.Status:
        status = pb.Status()
        status.CopyFrom(self.told)
        for name in ("as_of", "age", "audit"):
            status.ClearField(name)
        return status


def _sink_status(state: SinkState) -> pb.SinkStatus:
    status = pb.SinkStatus(
        name=state.name,
        written=state.written,
        dropped=state.dropped,
        failures=state.failures,
        waiting=state.waiting,
        error=state.error,
    )
    status.delay.FromMicroseconds(int(state.delay * MICROSECONDS))
    return status


def _bundle_status(state: Intaken) -> pb.BundleStatus:
    bundle = pb.BundleStatus(
        name=state.kind,
        persisted=state.persisted,
        held_revision=state.held,
        error=state.error,
        refused=sum(state.refused.values()),
        refusals=state.refused,
    )
    if state.sealed is not None:
        bundle.revision = state.sealed.revision
        bundle.as_of.FromMicroseconds(state.sealed.as_of)
        bundle.key_id = state.sealed.key_id
        bundle.active = state.active == state.sealed.revision
    refusal = state.refusal
    if refusal is not None:
        bundle.last_refusal.file = refusal.file
        bundle.last_refusal.reason = refusal.reason
        bundle.last_refusal.message = refusal.fault
        bundle.last_refusal.time.FromMicroseconds(refusal.at)
    return bundle
