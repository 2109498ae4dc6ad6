"""Traces by OpenTelemetry: one span for each call at its door, one inside it for each time that OPA is asked.

Context comes in and goes out as W3C Trace Context (https://www.w3.org/TR/trace-context/). Spans say what the conventions of
OpenTelemetry for RPC and HTTP want, and of a decision its effect, code, revision and id: no arguments, no tokens, nobody's name.

Where spans are sent, which and in whose name is for OpenTelemetry's own variables to say
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/): they are read by its SDK.
"""

from __future__ import annotations

import functools
import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sidecar.engine.traces import traced_calls, working_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from sidecar.model import Decision

log = structlog.get_logger(__name__)

_w3c = TraceContextTextMapPropagator()

_OURS = ("/tenantgate.", "/envoy.service.auth.")
_SERVERS_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""Status of gRPC that are errors of the server (https://opentelemetry.io/docs/specs/semconv/rpc/grpc/)."""

_LEAST_SERVER_ERROR = 500


class Opa(Protocol):
    """A client of OPA that sends headers along."""

    address: str

    def query(self, entrypoint: str, body: bytes, deadline: float, headers: str = "") -> tuple[int, bytes]:
        """Answer a query with an HTTP status and body."""


class Tracing:
    """Makes spans, and sends them from a thread of its own. What cannot be sent is dropped, and the log says so.

    ``version`` is that of the sidecar.
    """

    def __init__(self, version: str) -> None:
        _log_as_we_do()
        about = Resource.create({"service.version": version}).merge(Resource({"service.name": "tenantgate"}))
        self._provider = TracerProvider(resource=about.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        self._exporter = OTLPSpanExporter()
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("tenantgate", version)

    def close(self, timeout: float) -> None:
        """Send what is left, for so many seconds at the most."""
        # the library's own bound is half a minute
        ending = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        ending.start()
        ending.join(timeout)
        if ending.is_alive():
            # ends the pause before the next attempt, and there is none
            self._exporter.shutdown()  # type: ignore[no-untyped-call]  # it has no types
            ending.join(timeout)

    @contextmanager
    def call(self, name: str, carrier: Mapping[str, str], attributes: Mapping[str, str]) -> Iterator[_Call]:
        """Trace a call, inside the trace that its headers name if they do."""
        parent = _w3c.extract(carrier, Context())
        span = self._tracer.start_span(name, parent, SpanKind.SERVER, attributes)
        call = _Call(span)
        try:
            with working_for([call]):
                yield call
        finally:
            span.end()

    @contextmanager
    def query(self, opa: Opa, entrypoint: str, calls: Sequence[_Call]) -> Iterator[Span]:
        """Trace a query: inside the trace of the first call, and with links to those that travel along."""
        path = f"/v1/data/{entrypoint}"
        attributes = {"http.request.method": "POST", "url.template": path, "server.address": opa.address}
        links = [Link(call.span.get_span_context()) for call in calls[1:]]
        parent = set_span_in_context(calls[0].span, Context())
        span = self._tracer.start_span(f"POST {path}", parent, SpanKind.CLIENT, attributes, links)
        for call in calls:
            call.asked = True
        try:
            yield span
        except BaseException as fault:
            span.set_attribute("error.type", type(fault).__name__)
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            span.end()


class _Call:
    """A call that is traced. ``asked`` tells whether OPA was asked for it."""

    def __init__(self, span: Span) -> None:
        self.span = span
        self.asked = False
        self.status = "OK"

    @property
    def trace_id(self) -> str:
        """The id of its trace, in 32 hexadecimal digits."""
        return format_trace_id(self.span.get_span_context().trace_id)

    def decided(self, decision_id: str, decisions: Sequence[Decision]) -> None:
        """Tell it what was decided. Of several decisions it keeps what they have in common."""
        span = self.span
        if not span.is_recording():
            return
        span.set_attribute("tenantgate.decision_id", decision_id)
        if not decisions:
            return
        span.set_attribute("tenantgate.cached", not self.asked)
        for name in ("effect", "code", "revision"):
            values = {getattr(decision, name) for decision in decisions}
            if len(values) == 1:
                span.set_attribute(f"tenantgate.{name}", values.pop())
        if len(decisions) > 1:
            span.set_attribute("tenantgate.decisions", len(decisions))

    def failed(self, decision_id: str, status: str, reason: str) -> None:
        """Tell it that there is no decision: with the name of a gRPC status, and the stable reason."""
        self.status = status
        self.span.set_attribute("tenantgate.decision_id", decision_id)
        self.span.set_attribute("error.type", reason)


class TracedOpa:
    """Asks OPA. For calls that are traced there is a span of it, and OPA is told which."""

    def __init__(self, opa: Opa, tracing: Tracing) -> None:
        self._opa = opa
        self._tracing = tracing

    def query(self, entrypoint: str, body: bytes, deadline: float) -> tuple[int, bytes]:
        """Answer a query with an HTTP status and body."""
        calls = [call for call in traced_calls() if isinstance(call, _Call)]
        if not calls:
            return self._opa.query(entrypoint, body, deadline)
        with self._tracing.query(self._opa, entrypoint, calls) as span:
            context: dict[str, str] = {}
            _w3c.inject(context, set_span_in_context(span, Context()))
            headers = "".join([f"{name}: {value}\r\n" for name, value in context.items()])
            status, answer = self._opa.query(entrypoint, body, deadline, headers)
            span.set_attribute("http.response.status_code", status)
            return status, answer


class TracedCalls(grpc.ServerInterceptor):
    """Traces the calls of gRPC that ask for a decision, a state or credentials; of an open end, as WatchStatus has, none."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Replace the handler of a method by one that is traced."""
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or handler.unary_unary is None or not method.startswith(_OURS):
            return handler
        return grpc.unary_unary_rpc_method_handler(
            functools.partial(self._answer, handler.unary_unary, method.removeprefix("/")),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _answer(self, answer: Any, method: str, request: Any, context: grpc.ServicerContext) -> Any:
        carrier = _carrier(context.invocation_metadata())
        with self._tracing.call(method, carrier, {"rpc.system.name": "grpc", "rpc.method": method}) as call:
            try:
                return answer(request, context)
            finally:
                call.span.set_attribute("rpc.response.status_code", call.status)
                if call.status in _SERVERS_FAULTS:
                    call.span.set_status(StatusCode.ERROR)


class TracedRequests:
    """Traces the requests that an application answers over HTTP."""

    def __init__(self, application: ASGIApp, tracing: Tracing) -> None:
        self._application = application
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        method = scope["method"]
        carrier = _carrier((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"])
        about = {"http.request.method": method, "url.path": scope["path"], "url.scheme": scope["scheme"]}
        with self._tracing.call(method, carrier, about) as call:
            try:
                await self._application(scope, receive, watched)
            finally:
                span, route = call.span, getattr(scope.get("route"), "path", "")
                if route:
                    span.update_name(f"{method} {route}")
                    span.set_attribute("http.route", route)
                span.set_attribute("http.response.status_code", status)
                if status == 0 or status >= _LEAST_SERVER_ERROR:
                    span.set_status(StatusCode.ERROR)


def _carrier(headers: Iterable[tuple[str, str | bytes]]) -> dict[str, str]:
    return {name: value for name, value in headers if name in _w3c.fields and isinstance(value, str)}


class _Ours(logging.Handler):
    """Puts what OpenTelemetry logs into our log: that a collector cannot be reached, say."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record."""
        log.warning("tracing", message=record.getMessage())


def _log_as_we_do() -> None:
    theirs = logging.getLogger("opentelemetry")
    if not any(isinstance(handler, _Ours) for handler in theirs.handlers):
        theirs.addHandler(_Ours(logging.WARNING))
        theirs.propagate = False
