"""Who may call over TLS: every call of every service is looked at, health and reflection included."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import grpc

from sidecar.doors.grpc_calls import ERRORS, abort
from sidecar.engine.decide import new_decision_id
from sidecar.errors import ClientUnknownError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sidecar.doors.metrics import CallMetrics
    from sidecar.tls import KnownClients

ROW = ERRORS[ClientUnknownError]

_MAKERS: dict[tuple[bool, bool], tuple[str, Callable[..., grpc.RpcMethodHandler[Any, Any]]]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}
"""By whether requests and responses are streams: the attribute of a handler that answers, and what makes such a handler."""


class Introduction(grpc.ServerInterceptor):
    """Refuses calls of clients that are not known. Who may open the Unix socket is a matter of its permissions."""

    def __init__(self, known: KnownClients, metrics: CallMetrics) -> None:
        self._known = known
        self._metrics = metrics

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Have the client looked at before a method answers."""
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        name, make = _MAKERS[handler.request_streaming, handler.response_streaming]
        answer = self._introduced(getattr(handler, name), handler_call_details.method.rpartition("/")[2])
        return make(answer, handler.request_deserializer, handler.response_serializer)

    def _introduced(self, answer: Any, method: str) -> Any:
        @functools.wraps(answer)  # with the attributes by which gRPC chooses threads
        def introduced(request: Any, context: grpc.ServicerContext, *more: Any) -> Any:
            fault = self._fault(context)
            if fault:
                self._metrics.failed(method, ROW.reason)
                abort(context, ClientUnknownError(fault), ROW, new_decision_id())
            return answer(request, context, *more)

        return introduced

    def _fault(self, context: grpc.ServicerContext) -> str:
        if context.peer().startswith("unix:"):
            return ""
        certificates: Any = context.auth_context().get("x509_pem_cert")
        return self._known.fault(certificates[0]) if certificates else "the client has no certificate"
