"""What all gRPC calls have in common: an id, a deadline, one table of errors, a line in the log, a bound on their number."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from msgspec import Struct

from sidecar import errors
from sidecar.engine.decide import new_decision_id

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger("access")

DOMAIN = "tenantgate"
DECISION_ID_KEY = "x-decision-id"
REQUEST_ID_KEY = "x-request-id"


class ErrorRow(NamedTuple):
    """How an error is told to the caller. ``sentence`` stands in for messages that are not the caller's business."""

    code: grpc.StatusCode
    reason: str
    sentence: str = ""


ERRORS: dict[type[errors.TenantgateError], ErrorRow] = {
    errors.InvalidRequestError: ErrorRow(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"),
    errors.UnauthenticatedError: ErrorRow(grpc.StatusCode.UNAUTHENTICATED, "CALLER_UNAUTHENTICATED"),
    errors.OverloadedError: ErrorRow(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
    errors.RevisionTooOldError: ErrorRow(grpc.StatusCode.FAILED_PRECONDITION, "REVISION_TOO_OLD"),
    errors.DeadlineExceededError: ErrorRow(
        grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "the deadline passed before there was a decision"
    ),
    errors.EngineUnavailableError: ErrorRow(
        grpc.StatusCode.UNAVAILABLE,
        "POLICY_ENGINE_UNAVAILABLE",
        "the policy engine does not answer; no decision was made",
    ),
    errors.NotReadyError: ErrorRow(
        grpc.StatusCode.UNAVAILABLE, "POLICY_NOT_READY", "no policy is loaded yet; no decision was made"
    ),
    errors.RevisionRolledBackError: ErrorRow(
        grpc.StatusCode.UNAVAILABLE,
        "REVISION_ROLLED_BACK",
        "the policy engine has an older registry than has been served; no decision was made",
    ),
    errors.EvaluationError: ErrorRow(
        grpc.StatusCode.INTERNAL, "POLICY_EVALUATION_FAILED", "the policy could not be evaluated; no decision was made"
    ),
    errors.MalformedAnswerError: ErrorRow(
        grpc.StatusCode.INTERNAL, "POLICY_RESULT_MALFORMED", "the policy gave no valid decision; no decision was made"
    ),
}
"""From our errors to gRPC status and stable reason (https://google.aip.dev/193). A test holds it complete."""

_UNEXPECTED = ErrorRow(grpc.StatusCode.INTERNAL, "INTERNAL", "something went wrong; no decision was made")


class Call(Struct):
    """One call: who made it and until when it matters. ``deadline`` is a moment of ``time.monotonic()``.

    ``metadata`` has all values of each key, in the order in which they came; ``facts`` are what the access log will say.
    """

    decision_id: str
    metadata: Mapping[str, Sequence[str]]
    deadline: float
    facts: dict[str, Any]


_Servicer = TypeVar("_Servicer")
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


def answering(
    method: Callable[[_Servicer, _Request, Call], _Response],
) -> Callable[[_Servicer, _Request, grpc.ServicerContext], _Response]:
    """Turn a method that takes a ``Call`` into one that gRPC can call.

    The servicer needs the attributes ``default_deadline`` (seconds) and ``access_log``.
    """

    @functools.wraps(method)
    def answer(servicer: Any, request: _Request, context: grpc.ServicerContext) -> _Response:
        began = time.perf_counter()
        call = _call(context, servicer.default_deadline)
        context.set_trailing_metadata(((DECISION_ID_KEY, call.decision_id),))
        status, row = "OK", None
        try:
            _check_readable(request)
            return method(servicer, request, call)
        except errors.TenantgateError as fault:
            row = ERRORS[type(fault)]
            status = row.reason
            if row.sentence:
                log.warning("no_decision", decision_id=call.decision_id, reason=row.reason, cause=str(fault))
            abort(context, fault, row, call.decision_id)
        except Exception as fault:
            row = _UNEXPECTED
            status = row.reason
            log.exception("unexpected", decision_id=call.decision_id)
            abort(context, fault, row, call.decision_id)
        finally:
            if servicer.access_log:
                milliseconds = round((time.perf_counter() - began) * 1000, 3)
                log.info(
                    "call",
                    method=method.__name__,
                    decision_id=call.decision_id,
                    status=status,
                    ms=milliseconds,
                    **call.facts,
                )
        raise AssertionError  # abort raises

    return answer


def error_reason(fault: errors.TenantgateError) -> str:
    """Give the stable reason of an error."""
    return ERRORS[type(fault)].reason


def abort(context: grpc.ServicerContext, fault: Exception, row: ErrorRow, decision_id: str) -> None:
    """End a call with an error: status, ``ErrorInfo``, and ``BadRequest`` where a field is wrong."""
    status = status_pb2.Status(code=code_pb2.Code.Value(row.code.name), message=row.sentence or str(fault))
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=row.reason, domain=DOMAIN))
    if isinstance(fault, errors.InvalidRequestError):
        violation = error_details_pb2.BadRequest.FieldViolation(field=fault.field, description=fault.fault)
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=[violation]))
    rich = rpc_status.to_status(status)
    trailing = (*rich.trailing_metadata, (DECISION_ID_KEY, decision_id))
    context.abort_with_status(_Status(rich.code, rich.details, trailing))  # type: ignore[arg-type]  # by its attributes


class _Status(NamedTuple):  # what grpc.Status stands for
    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, str | bytes], ...]


def _call(context: grpc.ServicerContext, default_deadline: float) -> Call:
    metadata: dict[str, list[str]] = {}
    for key, value in context.invocation_metadata():
        if isinstance(value, str):
            metadata.setdefault(key, []).append(value)
    left: float | None = context.time_remaining()
    # gRPC tells a call without a deadline by one in the far future
    if left is None or left > _LONGEST_DEADLINE:
        left = default_deadline
    deadline = time.monotonic() + left
    facts = {"request_id": metadata[REQUEST_ID_KEY][0]} if REQUEST_ID_KEY in metadata else {}
    return Call(new_decision_id(), metadata, deadline, facts)


_LONGEST_DEADLINE = 365 * 86400.0

_UNREADABLE = object()
"""Stands in for a request whose bytes are no message: gRPC itself would answer INTERNAL, without a reason."""


def _check_readable(request: object) -> None:
    if request is _UNREADABLE:
        field = "request"
        raise errors.InvalidRequestError(field, "is not a message of the documented type")


class Reading(grpc.ServerInterceptor):
    """Hands bytes that are no message of the documented type on to ``answering``, so that they are the caller's error."""

    def __init__(self) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Replace the deserializer of our own methods."""
        method = handler_call_details.method
        if method in self._handlers:
            return self._handlers[method]
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None or not method.startswith("/tenantgate."):
            return handler
        reading = grpc.unary_unary_rpc_method_handler(
            handler.unary_unary,
            functools.partial(_read_or_mark, handler.request_deserializer),
            handler.response_serializer,
        )
        self._handlers[method] = reading
        return reading


def _read_or_mark(read: Any, body: bytes) -> Any:
    try:
        return read(body)
    except DecodeError:
        return _UNREADABLE


class CountingPool(ThreadPoolExecutor):
    """Threads that know how much they have been given and have not finished yet."""

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self.unfinished = 0

    def submit(self, work: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        """Give work to the threads."""
        self._count(1)
        future = super().submit(work, *arguments, **named)
        future.add_done_callback(lambda _: self._count(-1))
        return future

    def _count(self, change: int) -> None:
        with self._lock:
            self.unfinished += change


class Admission(grpc.ServerInterceptor):
    """Refuses calls at their arrival when a pool has as many as it may: at once, and with the reason, instead of in a queue."""

    def __init__(self, pools: Mapping[str, tuple[CountingPool, int]]) -> None:
        self._pools = pools
        self._refusals = ThreadPoolExecutor(1, thread_name_prefix="refusals")

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Let a call through or refuse it."""
        handler = continuation(handler_call_details)
        method = handler_call_details.method
        pool, most = self._pools.get(method, self._pools[""])
        # A sidecar with much to do is well: a health check that it refused would have it restarted.
        if handler is None or pool.unfinished < most or method.startswith("/grpc.health."):
            return handler
        return grpc.unary_unary_rpc_method_handler(self._refusal(most))

    def _refusal(self, most: int) -> Any:
        def refuse(_request: bytes, context: grpc.ServicerContext) -> None:
            fault = errors.OverloadedError(f"{most} calls are in flight, as many as are taken on; try again")
            abort(context, fault, ERRORS[errors.OverloadedError], new_decision_id())

        refuse.experimental_thread_pool = self._refusals  # type: ignore[attr-defined]
        return refuse
