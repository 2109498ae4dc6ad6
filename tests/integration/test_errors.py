"""How a call that cannot be decided ends: one status, one reason, and a sentence that is the caller's business."""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct, Value
from grpc_health.v1 import health_pb2

from sidecar import errors
from sidecar.audit.reading import LogError
from sidecar.cli.options import CallError
from sidecar.doors.grpc_calls import ERRORS
from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import decision_pb2
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.tenancy import NoDecisionError, NoTenantError, TenantMismatchError, ToolDeniedError
from tests.support import wire
from tests.support.fake_opa import DENY, FakeOpa, Query, after_probes, decided, fake_opa
from tests.support.processes import REPOSITORY, running_sidecar, sidecar_settings, wait_until
from tests.support.wire import ADMIN_REFUND, DEADLINE, ORDER_LOOKUP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID", "tenantgate")
OVERLOADED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "tenantgate")

# ── the table of errors ─────────────────────────────────────────────────────────────────────────────────────────────────

NEVER_ON_THE_WIRE: set[type[errors.TenantgateError]] = {
    errors.TenantgateError,  # the root, raised by nothing
    errors.EngineError,  # a family, of which only the members are raised
    errors.SettingsError,  # before anything is served
    errors.StartError,  # before anything is served
    errors.SealError,  # a bundle is refused, and the one before it serves on
    errors.RegistryError,  # the control plane: no part of it runs in the sidecar
    errors.ExportError,
    errors.BundleError,
    errors.MalformedItemsError,
    errors.TableError,
    errors.PositionLostError,
    errors.ConflictError,
    CallError,  # the command line, as a client
    LogError,  # the command line, where it reads the decision log
    NoTenantError,  # applications, which the sidecar knows nothing of
    TenantMismatchError,
    ToolDeniedError,
    NoDecisionError,
}


def _all_errors(root: type[errors.TenantgateError] = errors.TenantgateError) -> set[type[errors.TenantgateError]]:
    return {root}.union(*(_all_errors(kind) for kind in root.__subclasses__()))


def test_every_error_is_in_the_table_or_never_reaches_a_caller() -> None:
    assert _all_errors() == {*ERRORS} | NEVER_ON_THE_WIRE


def test_no_error_is_in_the_table_in_vain() -> None:
    assert not {*ERRORS} & NEVER_ON_THE_WIRE


def test_every_reason_stands_for_one_error() -> None:
    reasons = [row.reason for row in ERRORS.values()]

    assert len(reasons) == len({*reasons})


def test_every_reason_is_documented_in_the_proto() -> None:
    protos = REPOSITORY / "proto/tenantgate/v1"
    documented = "".join((protos / f"{name}_service.proto").read_text() for name in ("authorization", "credential"))

    assert [f"{row.code.name} {row.reason}" for row in ERRORS.values()] == [
        " ".join(line.split()[1:3]) for line in documented.splitlines() if line.startswith("//     ")
    ]


def test_every_error_of_the_tree_is_in_its_docstring() -> None:
    ours = {kind for kind in _all_errors() if kind.__module__ == errors.__name__}

    assert not [kind.__name__ for kind in ours if kind.__name__ not in (errors.__doc__ or "")]


def test_errors_that_hide_their_cause_are_those_of_the_engine_the_deadline_sts_and_the_decision_log() -> None:
    hiding = {kind for kind, row in ERRORS.items() if row.sentence}

    others = errors.EngineError, errors.DeadlineExceededError, errors.CredentialsNotGivenError, errors.NotRecordedError
    assert hiding == {kind for kind in ERRORS if issubclass(kind, others)}


# ── malformed requests ──────────────────────────────────────────────────────────────────────────────────────────────────


def _with(change: Callable[[pb.AuthorizeRequest], Any]) -> pb.AuthorizeRequest:
    request = wire.question()
    change(request)
    return request


def _nested(levels: int) -> Struct:
    value = Value(null_value=0)  # type: ignore[arg-type]  # the only value of its enum
    for _ in range(levels):
        outer = Value()
        outer.list_value.values.append(value)
        value = outer
    return Struct(fields={"nested": value})


def _number(number: float) -> Struct:
    return Struct(fields={"n": Value(number_value=number)})


_LONG = "x" * 513
_KINDLESS = Struct(fields={"v": Value()})
_HUGE = Struct(fields={"text": Value(string_value="x" * 65536)})

_BAD_REQUESTS: dict[str, tuple[str, pb.AuthorizeRequest]] = {
    "nothing": ("identity.tenant_id", pb.AuthorizeRequest()),
    "no identity": ("identity.tenant_id", _with(lambda r: r.ClearField("identity"))),
    "no tenant": ("identity.tenant_id", _with(lambda r: r.identity.ClearField("tenant_id"))),
    "a tenant with a line break": ("identity.tenant_id", _with(lambda r: setattr(r.identity, "tenant_id", "a\n"))),
    "a tenant with a zero byte": ("identity.tenant_id", _with(lambda r: setattr(r.identity, "tenant_id", "a\0"))),
    "a tenant with an invisible space": (
        "identity.tenant_id",
        _with(lambda r: setattr(r.identity, "tenant_id", "Tenant\u200b-A")),
    ),
    "a tenant that is too long": ("identity.tenant_id", _with(lambda r: setattr(r.identity, "tenant_id", _LONG))),
    "a principal with a tab": ("identity.principal.id", _with(lambda r: setattr(r.identity.principal, "id", "\t"))),
    "a subject that is too long": ("identity.subject.id", _with(lambda r: setattr(r.identity.subject, "id", _LONG))),
    "a subject written backwards": (
        "identity.subject.id",
        _with(lambda r: setattr(r.identity.subject, "id", "\u202eecila")),
    ),
    "an empty role": ("identity.subject.roles[1]", _with(lambda r: r.identity.subject.roles.extend(["a", ""]))),
    "too many roles": ("identity.subject.roles", _with(lambda r: r.identity.subject.roles.extend(["r"] * 257))),
    "too many scopes": ("identity.scopes", _with(lambda r: r.identity.scopes.extend(["s"] * 257))),
    "an actor without an id": (
        "identity.delegation[0].id",
        _with(lambda r: r.identity.delegation.append(decision_pb2.Actor())),
    ),
    "too many actors": (
        "identity.delegation",
        _with(lambda r: r.identity.delegation.extend([decision_pb2.Actor(id="a")] * 257)),
    ),
    "an actor with an empty scope": (
        "identity.delegation[0].scopes[0]",
        _with(lambda r: r.identity.delegation.add(id="a").scopes.values.append("")),
    ),
    "no resource": ("resource.type", _with(lambda r: r.ClearField("resource"))),
    "no type": ("resource.type", _with(lambda r: r.resource.ClearField("type"))),
    "no resource id": ("resource.id", _with(lambda r: r.resource.ClearField("id"))),
    "a resource id that is too long": ("resource.id", _with(lambda r: setattr(r.resource, "id", _LONG))),
    "an unprintable action": ("action.name", _with(lambda r: setattr(r.action, "name", "in\x7fvoke"))),
    "too many obligation types": (
        "accepted_obligations",
        _with(lambda r: r.accepted_obligations.extend(["o"] * 257)),
    ),
    "arguments nested too deeply": ("arguments", wire.question(arguments=_nested(32))),
    "arguments that are too large": ("arguments", wire.question(arguments=_HUGE)),
    "an argument that is not a number": ("arguments", wire.question(arguments=_number(float("nan")))),
    "an infinite argument": ("arguments", wire.question(arguments=_number(float("-inf")))),
    "an argument without a value": ("arguments", wire.question(arguments=_KINDLESS)),
    "a context nested too deeply": ("context", wire.question(context=_nested(32))),
    "a context without a value": ("context", wire.question(context=_KINDLESS)),
    "infinite properties of the subject": (
        "identity.subject.properties",
        _with(lambda r: r.identity.subject.properties.CopyFrom(_number(float("inf")))),
    ),
    "properties of the resource that are too large": (
        "resource.properties",
        _with(lambda r: r.resource.properties.CopyFrom(_HUGE)),
    ),
    "properties of the action without a value": (
        "action.properties",
        _with(lambda r: r.action.properties.CopyFrom(_KINDLESS)),
    ),
}


@pytest.mark.parametrize(("field", "request_"), _BAD_REQUESTS.values(), ids=_BAD_REQUESTS)
def test_a_malformed_request_is_refused_and_its_field_named(
    sample: grpc.Channel, field: str, request_: pb.AuthorizeRequest
) -> None:
    error = wire.failure(lambda: wire.authorize(sample, request_))

    assert (wire.outcome(error), wire.wrong_fields(error)) == (INVALID, [field])


_GOOD_REQUESTS = {
    "arguments nested as deeply as may be": wire.question(arguments=_nested(31)),
    "an id as long as may be": wire.question("x" * 512),
    "an id in other letters": wire.question("werkzeug:größe:注文"),
    "an id with spaces": wire.question("a tool with spaces"),
    "as many roles as may be": wire.question(identity=wire.identity(roles=["r"] * 256)),
    "a number beyond 64 bits": wire.question(arguments=_number(1e300)),
}


@pytest.mark.parametrize("request_", _GOOD_REQUESTS.values(), ids=_GOOD_REQUESTS)
def test_a_request_at_the_limit_is_answered(sample: grpc.Channel, request_: pb.AuthorizeRequest) -> None:
    assert wire.authorize(sample, request_).effect != decision_pb2.EFFECT_UNSPECIFIED


_BAD_LISTS: dict[str, tuple[str, str, Any]] = {
    "an empty batch": ("items", "BatchAuthorize", wire.batch()),
    "too large a batch": ("items", "BatchAuthorize", wire.batch(*["r"] * 1001)),
    "a batch without a tenant": ("identity.tenant_id", "BatchAuthorize", wire.batch("r", identity=wire.identity(""))),
    "an empty list of tools": ("tools", "FilterTools", wire.tools()),
    "too long a list of tools": ("tools", "FilterTools", wire.tools(*["t"] * 1001)),
    "tools with an unreadable context": ("context", "FilterTools", wire.tools("t", context=_KINDLESS)),
    "tools with an unprintable action": (
        "action.name",
        "FilterTools",
        wire.tools("t", action=decision_pb2.Action(name="\n")),
    ),
}


@pytest.mark.parametrize(("field", "method", "request_"), _BAD_LISTS.values(), ids=_BAD_LISTS)
def test_a_malformed_list_is_refused_as_a_whole(sample: grpc.Channel, field: str, method: str, request_: Any) -> None:
    call = getattr(AuthorizationServiceStub(sample), method)
    error = wire.failure(lambda: call(request_, timeout=DEADLINE))

    assert (wire.outcome(error), wire.wrong_fields(error)) == (INVALID, [field])


def test_a_batch_as_large_as_may_be_is_answered(sample: grpc.Channel) -> None:
    answer = AuthorizationServiceStub(sample).BatchAuthorize(wire.batch(*[ORDER_LOOKUP] * 1000), timeout=DEADLINE)

    assert {result.decision.effect for result in answer.results} == {decision_pb2.EFFECT_ALLOW}
    assert len(answer.results) == 1000


@pytest.mark.parametrize("tenant", ["", "x" * 513], ids=["empty", "too long"])
def test_a_malformed_tenant_in_the_metadata_is_refused(sample: grpc.Channel, tenant: str) -> None:
    error = wire.failure(lambda: wire.authorize(sample, metadata=[("x-tenant-id", tenant)]))

    assert (wire.outcome(error), wire.wrong_fields(error)) == (INVALID, ["metadata x-tenant-id"])


def _too_deep() -> bytes:
    def field(number: int, body: bytes) -> bytes:
        size, length = len(body), bytearray()
        while size > 127:
            length.append(size & 127 | 128)
            size >>= 7
        return bytes([number << 3 | 2, *length, size]) + body

    value = Value(bool_value=True).SerializeToString()
    for _ in range(200):
        value = field(6, field(1, value))  # Value.list_value, ListValue.values
    return field(4, field(1, field(1, b"x") + field(2, value)))  # AuthorizeRequest.arguments, Struct.fields


_UNREADABLE = {
    "text": b"may alice use the tool?",
    "a message that ends too soon": wire.question().SerializeToString()[:-3],
    "a text that is not UTF-8": b"\x0a\x03\x0a\x01\xff",
    "lists nested beyond what protobuf reads": _too_deep(),
}


@pytest.mark.parametrize("method", ["Authorize", "BatchAuthorize", "FilterTools"])
@pytest.mark.parametrize("body", _UNREADABLE.values(), ids=_UNREADABLE)
def test_bytes_that_are_no_message_are_the_callers_error(sample: grpc.Channel, method: str, body: bytes) -> None:
    call: Any = sample.unary_unary(f"/tenantgate.v1.AuthorizationService/{method}")
    error = wire.failure(lambda: call(body, timeout=DEADLINE))

    assert wire.outcome(error) == INVALID


def test_unknown_fields_of_a_request_change_nothing(sample: grpc.Channel) -> None:
    unknown = b"\xfa\x3e" + struct.pack("<B", 5) + b"ALLOW"  # field 1007
    request = pb.AuthorizeRequest.FromString(wire.question(wire.ADMIN_REFUND).SerializeToString() + unknown)

    assert wire.authorize(sample, request).effect == decision_pb2.EFFECT_DENY


def test_a_message_that_is_too_large_is_refused_unread(sample: grpc.Channel) -> None:
    error: Any = wire.failure(lambda: wire.authorize(sample, wire.question("x" * (5 * 1024 * 1024))))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_an_error_carries_a_decision_id_too(sample: grpc.Channel) -> None:
    error: Any = wire.failure(lambda: wire.authorize(sample, wire.question("")))

    assert dict(error.trailing_metadata())["x-decision-id"]


def test_the_limits_are_settings(sample_bundle: Path, short_path: Path) -> None:
    limits = {"limits__batch_items": 2, "limits__json_bytes": 10, "limits__json_depth": 1, "limits__list_entries": 3}
    requests: dict[str, tuple[str, Any]] = {
        "items": ("BatchAuthorize", wire.batch("a", "b", "c")),
        "arguments": ("Authorize", wire.question(arguments={"text": "longer than that"})),
        "context": ("Authorize", wire.question(context=_nested(1))),
        "identity.subject.roles": ("Authorize", wire.question(identity=wire.identity(roles=["r"] * 4))),
    }
    with running_sidecar(sidecar_settings(short_path, sample_bundle, **limits)) as (_, channel):
        stub = AuthorizationServiceStub(channel)
        calls = [getattr(stub, method).future(request, timeout=DEADLINE) for method, request in requests.values()]
        named = [wire.wrong_fields(wire.failure(call.result)) for call in calls]

    assert named == [[field] for field in requests]


# ── too much at a time ──────────────────────────────────────────────────────────────────────────────────────────────────


class _Busy:
    """A sidecar that may have two calls in flight, and has them: OPA holds back its answers until ``release`` is set."""

    def __init__(self, channel: grpc.Channel, opa: FakeOpa, release: threading.Event) -> None:
        self.channel = channel
        self.release = release
        stub = AuthorizationServiceStub(channel)
        # of two that ask the same, OPA would see one
        asked = [wire.question(ORDER_LOOKUP), wire.question(ADMIN_REFUND)]
        self.held = [stub.Authorize.future(question, timeout=DEADLINE) for question in asked]
        wait_until(lambda: len(opa.queries) == 2)


@pytest.fixture
def busy(short_path: Path) -> Iterator[_Busy]:
    release = threading.Event()

    def when_released(query: Query) -> Iterator[bytes]:
        wait_until(lambda: release.is_set() or query.stopped.is_set(), 60)
        yield decided(DENY)

    with fake_opa(short_path / "fake.sock", after_probes(when_released)) as opa:
        settings = sidecar_settings(
            short_path, None, opa__address=opa.address, opa__timeout_seconds=60, limits__in_flight=2
        )
        with running_sidecar(settings) as (_, channel):
            try:
                yield _Busy(channel, opa, release)
            finally:
                release.set()


@pytest.mark.parametrize(
    ("method", "request_"),
    [("Authorize", wire.question()), ("BatchAuthorize", wire.batch("a")), ("FilterTools", wire.tools("a"))],
    ids=["Authorize", "BatchAuthorize", "FilterTools"],
)
def test_a_call_beyond_the_limit_is_refused_while_the_others_are_in_flight(
    busy: _Busy, method: str, request_: Any
) -> None:
    call = getattr(AuthorizationServiceStub(busy.channel), method)
    error = wire.failure(lambda: call(request_, timeout=DEADLINE))

    assert wire.outcome(error) == OVERLOADED
    assert not any(held.done() for held in busy.held)


def test_calls_in_flight_are_answered_although_others_were_refused(busy: _Busy) -> None:
    wire.failure(lambda: wire.authorize(busy.channel))
    busy.release.set()

    assert [held.result().decision.effect for held in busy.held] == [decision_pb2.EFFECT_DENY] * 2


def test_after_an_overload_calls_are_taken_on_again(busy: _Busy) -> None:
    wire.failure(lambda: wire.authorize(busy.channel))
    busy.release.set()
    for held in busy.held:
        held.result()

    def taken_on() -> bool:
        try:
            return wire.authorize(busy.channel).effect == decision_pb2.EFFECT_DENY
        except grpc.RpcError:
            return False

    wait_until(taken_on)


def test_a_refusal_carries_a_decision_id_too(busy: _Busy) -> None:
    error: Any = wire.failure(lambda: wire.authorize(busy.channel))

    assert dict(error.trailing_metadata())["x-decision-id"]


def test_an_overloaded_sidecar_is_still_healthy(busy: _Busy) -> None:
    answer = wire.health(busy.channel).Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE)

    assert answer.status == health_pb2.HealthCheckResponse.SERVING
