"""What all gRPC calls have in common: an id, a deadline, one table of errors, a line in the log, a bound on their number."""

from __future__ import annotations

import functools
import re
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from msgspec import Struct

from sidecar import errors
from sidecar.audit.records import Told
from sidecar.doors.replies import Counts, Key, counted, written
from sidecar.engine.decide import new_decision_id, now_microseconds
from sidecar.engine.traces import traced_calls
from sidecar.model import Decision, Identity, Item

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sidecar.audit.decision_log import DecisionLog
    from sidecar.doors.metrics import CallMetrics
    from sidecar.doors.replies import Replies, Reply
    from sidecar.engine.cache import Held
    from sidecar.model import Question

log = structlog.get_logger("access")

DOMAIN = "tenantgate"
DECISION_ID_KEY = "x-decision-id"
REQUEST_ID_KEY = "x-request-id"
TRACE_KEY = "traceparent"


class ErrorRow(NamedTuple):
    """How an error is told to the caller. ``sentence`` stands in for messages that are not the caller's business."""

    code: grpc.StatusCode
    reason: str
    sentence: str = ""


ERRORS: dict[type[errors.TenantgateError], ErrorRow] = {
    errors.InvalidRequestError: ErrorRow(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID"),
    errors.UnauthenticatedError: ErrorRow(grpc.StatusCode.UNAUTHENTICATED, "CALLER_UNAUTHENTICATED"),
    errors.ClientUnknownError: ErrorRow(grpc.StatusCode.PERMISSION_DENIED, "CLIENT_UNKNOWN"),
    errors.OverloadedError: ErrorRow(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
    errors.RevisionTooOldError: ErrorRow(grpc.StatusCode.FAILED_PRECONDITION, "REVISION_TOO_OLD"),
    errors.DeadlineExceededError: ErrorRow(
        grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "the deadline passed before there was a decision"
    ),
    errors.NotRecordedError: ErrorRow(
        grpc.StatusCode.UNAVAILABLE,
        "DECISION_NOT_RECORDED",
        "the decision log takes no more records, and no decision is given without one",
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
    errors.CredentialsUnavailableError: ErrorRow(grpc.StatusCode.FAILED_PRECONDITION, "CREDENTIALS_UNAVAILABLE"),
    errors.CredentialsNotGivenError: ErrorRow(
        grpc.StatusCode.UNAVAILABLE,
        "CREDENTIALS_NOT_GIVEN",
        "STS cannot be reached, or refuses; no credentials were given",
    ),
}
"""From our errors to gRPC status and stable reason (https://google.aip.dev/193). A test holds it complete."""

_UNEXPECTED = ErrorRow(grpc.StatusCode.INTERNAL, "INTERNAL", "something went wrong; no decision was made")


class Call(Struct):
    """One call: who made it and until when it matters. ``deadline`` is a moment of ``time.monotonic()``.

    ``metadata`` has all values of each key, in the order in which they came; ``facts`` are what the access log will say, and
    ``decisions`` and ``failures``, the stable reasons of items without one, what is counted; ``counts`` are how many decisions
    there are of each kind, if that is known already. ``key`` is under what its reply is remembered. ``identity``, ``item`` and
    ``fault`` are what is known for the record of an error; ``records`` are those of the decision log, and ``cached`` says of each
    whether it was remembered. ``began`` is a moment before OPA is asked anything for it, in microseconds since 1970.
    """

    decision_id: str
    metadata: Mapping[str, Sequence[str]] = {}
    deadline: float = 0.0
    facts: dict[str, Any] = {}
    decisions: Sequence[Decision] = ()
    counts: Counts | None = None
    failures: Sequence[str] = ()
    key: Key = ()
    identity: Identity | None = None
    item: Item | None = None
    fault: Exception | None = None
    records: Sequence[Told] = ()
    cached: Sequence[bool] = ()
    began: int = 0


_Servicer = TypeVar("_Servicer")
_Request = TypeVar("_Request")
_Response = TypeVar("_Response")


Refuse: TypeAlias = "Callable[[Any, Any, Call, Exception, ErrorRow], Any]"
"""What answers, for its servicer, a request that came to an error. It must not raise."""


def answering(
    method: Callable[[_Servicer, _Request, Call], _Response],
) -> Callable[[_Servicer, _Request, grpc.ServicerContext], _Response]:
    """Turn a method that takes a ``Call`` into one that gRPC can call, by way of ``Reading``.

    The servicer needs the attributes ``default_deadline`` (seconds), ``access_log``, ``audit`` and ``metrics``.
    """
    answer: Callable[[_Servicer, _Request, grpc.ServicerContext], _Response] = _answering(method)
    return answer


def answering_again(method: Callable[[Any, Any, Call], Reply]) -> Callable[[Any, Any, grpc.ServicerContext], Any]:
    """Do as ``answering`` does, and give a reply again to who asks in the same bytes, for as long as it may be given.

    The servicer needs the attribute ``replies`` besides.
    """
    answer: Callable[[Any, Any, grpc.ServicerContext], Any] = _answering(method, again=True)
    return answer


def answering_in_kind(refuse: Refuse) -> Callable[[Any], Callable[[Any, Any, grpc.ServicerContext], Any]]:
    """Do as ``answering`` does, for a protocol in which errors are answers too: ``refuse`` writes those."""
    return functools.partial(_answering, refuse=refuse)


def _answering(method: Any, refuse: Refuse | None = None, *, again: bool = False) -> Any:
    name = method.__name__

    @functools.wraps(method)
    def answer(servicer: Any, request: bytes, context: grpc.ServicerContext, *, read: Any, write: Any) -> Any:
        began = time.perf_counter()
        call = Call(new_decision_id())
        context.set_trailing_metadata(((DECISION_ID_KEY, call.decision_id),))
        row, message = None, _UNREADABLE
        try:
            metadata = context.invocation_metadata()
            if servicer.access_log or servicer.audit.on:
                call.facts = _ids(metadata)
            if not again:
                _fill(call, metadata, context, servicer.default_deadline)
                message = _read(read, request)
                response = method(servicer, message, call)
                record(servicer.audit, name, began, call, call.deadline)
                return write(response)
            replies: Replies = servicer.replies
            key = replies.key(name, request, metadata)
            found = replies.find(key)
            if found is None:
                _fill(call, metadata, context, servicer.default_deadline)
                call.key = key
                found = replies.keep(key, method(servicer, _read(read, request), call))
            elif servicer.audit.on:
                call.cached = (True,) * len(found[0].records)
                if servicer.audit.blocks:
                    call.deadline = _deadline(context, servicer.default_deadline)
            reply, now = found
            call.decisions, call.counts = reply.decisions, reply.counts
            call.failures, call.records = reply.failures, reply.records
            if servicer.access_log:
                call.facts |= reply.facts
            record(servicer.audit, name, began, call, call.deadline)
            return written(reply, now, call.decision_id)
        except Exception as fault:  # noqa: BLE001 - each has its row, and the log says what it was
            row, call.fault = error_row(fault, call.decision_id), fault
            if refuse is not None:
                return write(refuse(servicer, message, call, fault, row))
            abort(context, fault, row, call.decision_id)
        finally:
            finish(name, began, call, row, metrics=servicer.metrics, log_it=servicer.access_log, audit=servicer.audit)
        raise AssertionError  # abort raises

    return answer


def record(audit: DecisionLog, method: str, began: float, call: Call, until: float | None) -> None:
    """Have the decision log take what it says of a call; without ``until``, nothing waits for that, as with an error.

    ``began`` is a moment of ``time.perf_counter()``, ``until`` one of ``time.monotonic()``. Raises ``NotRecordedError`` if the
    decision must not leave.
    """
    if call.records:
        for traced in traced_calls():
            call.facts["trace_id"] = traced.trace_id
        seconds = time.perf_counter() - began
        audit.take(method, call.decision_id, seconds, call.records, call.facts, cached=call.cached, until=until)


def remembered(held: Held[Any], call: Call) -> bool:
    """Tell whether an answer is one that OPA gave to an earlier call."""
    return held.lease is not None and held.lease.since < call.began


def finish(
    method: str,
    began: float,
    call: Call,
    row: ErrorRow | None,
    *,
    metrics: CallMetrics,
    log_it: bool,
    audit: DecisionLog,
) -> None:
    """Count a call that has ended, with an error if there is a row, and tell it to its trace and to both logs."""
    seconds = time.perf_counter() - began
    if row is None:
        counts = counted(call.decisions) if call.counts is None else call.counts
        metrics.ended(method, seconds, counts, call.failures)
    else:
        call.records, call.cached = audit.failed(row.reason, call.fault, call.identity, call.item), ()
        record(audit, method, began, call, None)
        metrics.ended(method, seconds, {}, (row.reason,))
    for traced in traced_calls():
        call.facts["trace_id"] = traced.trace_id
        if row is None:
            traced.decided(call.decision_id, call.decisions)
        else:
            traced.failed(call.decision_id, row.code.name, row.reason)
    if log_it:
        log.info(
            "call",
            method=method,
            decision_id=call.decision_id,
            status=row.reason if row else "OK",
            ms=round(seconds * 1000, 3),
            **call.facts,
        )


def row_of(kind: type[BaseException]) -> ErrorRow:
    """Say how errors of a class are told."""
    return ERRORS.get(kind, _UNEXPECTED)  # type: ignore[arg-type]  # any class may be looked for


def error_row(fault: Exception, decision_id: str) -> ErrorRow:
    """Say how an error is told, and put into the log what is not told."""
    row = row_of(type(fault))
    if row is _UNEXPECTED:
        log.error("unexpected", decision_id=decision_id, exc_info=fault)
        return row
    if row.sentence:
        log.warning("no_decision", decision_id=decision_id, reason=row.reason, cause=str(fault))
    return row


def identity_facts(identity: Identity) -> dict[str, str]:
    """Give what the access log says of who asks."""
    return {
        "tenant_id": identity.tenant.id,
        "principal_id": identity.principal.id,
        "subject_id": identity.subject.id,
    }


def question_facts(question: Question) -> dict[str, str]:
    """Give what the access log says of a question about one item."""
    (item,) = question.items
    return {"resource_type": item.resource.type, "resource_id": item.resource.id, "action": item.action.name}


def decision_facts(decision: Decision) -> dict[str, str]:
    """Give what the access log says of a decision."""
    return {
        "effect": decision.effect,
        "code": decision.code,
        "policy_id": decision.policy_id,
        "rule_id": decision.rule_id,
        "revision": decision.revision,
    }


def error_reason(fault: errors.TenantgateError) -> str:
    """Give the stable reason of an error."""
    return ERRORS[type(fault)].reason


def abort(context: grpc.ServicerContext, fault: Exception, row: ErrorRow, decision_id: str) -> None:
    """End a call with an error: status, ``ErrorInfo``, and ``BadRequest`` where a field is wrong."""
    status = status_pb2.Status(code=code_pb2.Code.Value(row.code.name), message=row.sentence or str(fault))
    about = {"token": fault.reason} if isinstance(fault, errors.UnauthenticatedError) else {}
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=row.reason, domain=DOMAIN, metadata=about))
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


def _ids(metadata: Iterable[tuple[str, str | bytes]]) -> dict[str, Any]:
    ids = {}
    for key, value in metadata:
        if key == REQUEST_ID_KEY:
            ids["request_id"] = value
        elif key == TRACE_KEY and isinstance(value, str):
            ids |= trace_id(value)
    return ids


def trace_id(traceparent: str) -> dict[str, str]:
    """Give the trace that a caller says a call belongs to, if it says one (https://www.w3.org/TR/trace-context/)."""
    found = _TRACEPARENT.fullmatch(traceparent)
    return {} if found is None else {"trace_id": found[1]}


_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def _fill(
    call: Call, received: Iterable[tuple[str, str | bytes]], context: grpc.ServicerContext, default_deadline: float
) -> None:
    """Fill in what is only needed when an answer must be found."""
    metadata: dict[str, list[str]] = {}
    for key, value in received:
        if isinstance(value, str):
            metadata.setdefault(key, []).append(value)
    call.metadata, call.deadline, call.began = metadata, _deadline(context, default_deadline), now_microseconds()


def _deadline(context: grpc.ServicerContext, default_deadline: float) -> float:
    """Tell until when a call matters."""
    left: float | None = context.time_remaining()
    # gRPC tells a call without a deadline by one in the far future
    if left is None or left > _LONGEST_DEADLINE:
        left = default_deadline
    return time.monotonic() + left


_LONGEST_DEADLINE = 365 * 86400.0

_UNREADABLE = object()
"""Stands in for a request whose bytes are no message, or have not been read."""


def _read(read: Any, request: bytes) -> Any:
    """Read a request. Raises ``InvalidRequestError``: gRPC itself would answer INTERNAL, without a reason."""
    try:
        return read(request)
    except DecodeError as fault:
        field = "request"
        raise errors.InvalidRequestError(field, "is not a message of the documented type") from fault


class Reading(grpc.ServerInterceptor):
    """Hands requests on to ``answering`` as bytes, and with them how they are read and how responses are written."""

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Replace the handlers of the methods that ``answering`` answers."""
        handler = continuation(handler_call_details)
        if handler is None or handler.unary_unary is None or not handler_call_details.method.startswith(_READ):
            return handler
        answer: Callable[..., Any] = handler.unary_unary
        return grpc.unary_unary_rpc_method_handler(
            functools.partial(answer, read=handler.request_deserializer, write=handler.response_serializer)
        )


_READ = ("/tenantgate.", "/envoy.service.auth.")


class CallThreads:
    """Threads that work on calls, and know how many they have been given and have not finished: what gRPC needs of a pool.

    Those of the standard library keep, for each piece of work, what comes of it and who waits for that, which costs more than to
    hand it over. Nobody waits: gRPC would only count how many are under way, for a limit of its own that is not set.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._unfinished: deque[None] = deque()  # to add one and to take one away are indivisible
        self._queue: SimpleQueue[tuple[Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}_{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def unfinished(self) -> int:
        """How much they have been given and have not finished."""
        return len(self._unfinished)

    def submit(self, work: Callable[..., Any], /, *arguments: Any) -> CallThreads:
        """Give work to the threads. Give back what takes no notice of who waits for it."""
        self._unfinished.append(None)
        self._queue.put((work, arguments))
        return self

    def add_done_callback(self, call: Callable[..., Any]) -> None:
        """Take no notice."""

    def close(self) -> None:
        """Let the threads end when they have done all that they were given."""
        for _ in self._threads:
            self._queue.put(None)

    def _run(self) -> None:
        while (given := self._queue.get()) is not None:
            work, arguments = given
            try:
                work(*arguments)
            except BaseException:
                log.exception("work")
            self._unfinished.pop()
            # a thread that waits keeps nothing of the last call
            del given, work, arguments


class CountingPool(ThreadPoolExecutor):
    """A pool of the standard library that knows the same: gRPC takes no other for single methods."""

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

    def __init__(self, pools: Mapping[str, tuple[CallThreads | CountingPool, int]], metrics: CallMetrics) -> None:
        self._pools = pools
        self._metrics = metrics
        self._refusals = ThreadPoolExecutor(1, thread_name_prefix="refusals")
        self._handlers: dict[str, tuple[grpc.RpcMethodHandler[Any, Any], CallThreads | CountingPool, int]] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Let a call through or refuse it."""
        method = handler_call_details.method
        known = self._handlers.get(method)
        if known is None:
            handler = continuation(handler_call_details)
            if handler is None:
                return None
            known = self._handlers[method] = (handler, *self._pools.get(method, self._pools[""]))
        handler, pool, most = known
        # A sidecar with much to do is well: a health check that it refused would have it restarted.
        if pool.unfinished < most or method.startswith("/grpc.health."):
            return handler
        return grpc.unary_unary_rpc_method_handler(self._refusal(method.rpartition("/")[2], most))

    def _refusal(self, method: str, most: int) -> Any:
        def refuse(_request: bytes, context: grpc.ServicerContext) -> None:
            self._metrics.failed(method, ERRORS[errors.OverloadedError].reason)
            fault = errors.OverloadedError(f"{most} calls are in flight, as many as are taken on; try again")
            abort(context, fault, ERRORS[errors.OverloadedError], new_decision_id())

        refuse.experimental_thread_pool = self._refusals  # type: ignore[attr-defined]
        return refuse
