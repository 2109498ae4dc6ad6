"""What clients ask the sidecar, and what they make of its answers: pure functions.

Who asks is said by the context in force: its token goes into the metadata, and the tenant into the request, where it is compared
with the token. A context without a token asserts the identity instead. Only what says ALLOW in every way is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from google.protobuf.json_format import MessageToDict
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from msgspec import UNSET, Struct

from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import credential_service_pb2 as credential_pb
from sidecar.gen.tenantgate.v1 import decision_pb2
from sidecar.model import Action, Item, Json, Resource
from sidecar.tenancy.context import current
from sidecar.tenancy.errors import NoDecisionError
from sidecar.tenancy.headers import AUTHORIZATION

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct as PbStruct
    from google.protobuf.struct_pb2 import Value

    from sidecar.tenancy.context import TenantContext

MOST_DEPTH = 32
"""Levels of nesting that the sidecar reads at the most."""

_REQUEST_INVALID = "REQUEST_INVALID"
_ANSWER_MALFORMED = "ANSWER_MALFORMED"

_Result = TypeVar("_Result")


class Decision(Struct, frozen=True):
    """An answer. It is true when it is an ALLOW.

    ``code`` and ``reason`` say why, ``policy_id`` and ``rule_id`` by which rule, ``revision`` under which registry;
    ``decision_id`` is what the logs know it by. ``obligations`` must be carried out if the caller goes on: each has a ``type``,
    and what the rule gives it besides. ``explanation`` is a ``tenantgate.v1.Explanation`` in protobuf's JSON.
    """

    allowed: bool
    code: str
    reason: str
    decision_id: str
    revision: str
    policy_id: str = ""
    rule_id: str = ""
    obligations: tuple[dict[str, Json], ...] = ()
    explanation: dict[str, Json] | None = None

    def __bool__(self) -> bool:
        """Tell whether it is an ALLOW."""
        return self.allowed


class ListedTool(Struct, frozen=True):
    """Whether a tool of a list may be called at all. CONDITIONAL: it hangs on the arguments, and each call is to be asked about.

    ``code`` and ``reason`` say why, where it does not hang on them.
    """

    id: str
    state: Literal["ALLOWED", "DENIED", "CONDITIONAL"]
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)  # which, unlike a Struct, can keep a field out of what is printed
class Credentials:
    """Temporary AWS credentials that reach one tenant's resource. ``expiration`` is when AWS refuses them, in UTC."""

    tenant_id: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expiration: datetime


class Exchanged(Struct, frozen=True):
    """A decision on the use of a resource, and the credentials for it where it is an ALLOW."""

    decision: Decision
    credentials: Credentials | None


@dataclass(frozen=True, slots=True)
class Call(Generic[_Result]):
    """One call of the sidecar: the name of the method, what is sent, and how the response is read."""

    method: str
    request: Any
    metadata: list[tuple[str, str]] = field(repr=False)
    read: Callable[[Any], _Result]


# ── questions ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def authorize(
    resource_id: str,
    arguments: Mapping[str, Json] | None = None,
    *,
    type: str = "TOOL",  # noqa: A002 - the word that the wire has for it
    action: str = "invoke",
    context: Mapping[str, Json] | None = None,
    accepts: Iterable[str] = (),
    explain: bool = False,
) -> Call[Decision]:
    """Ask whether a resource may be used, with these arguments of the call.

    ``context`` is anything else that conditions look at, and ``accepts`` are the types of obligation that the caller carries out.
    Raises ``NoTenantError`` and ``NoDecisionError``.
    """
    request = pb.AuthorizeRequest(explain=explain)
    with _Asking():
        item = Item(Resource(type, resource_id), Action(action), dict(context or {}), dict(arguments or {}))
        _write_item(request, item, "")
        request.accepted_obligations.extend(accepts)
    return _call("Authorize", request, lambda response: _read_decision(response.decision))


def batch(items: Iterable[Item], *, accepts: Iterable[str] = (), explain: bool = False) -> Call[tuple[Decision, ...]]:
    """Ask about many items at once. The decisions are in their order.

    An item that the sidecar cannot decide about does not keep it from the others: it is not allowed, and has a code such as
    ``REQUEST_INVALID`` and no ``decision_id``. Raises ``NoTenantError`` and ``NoDecisionError``.
    """
    request = pb.BatchAuthorizeRequest(explain=explain)
    with _Asking():
        for number, item in enumerate(items):
            _write_item(request.items.add(), item, f"items[{number}].")
        request.accepted_obligations.extend(accepts)
    return _call("BatchAuthorize", request, lambda response: _read_results(response.results, len(request.items)))


def filter_tools(
    tool_ids: Iterable[str],
    *,
    type: str = "TOOL",  # noqa: A002
    action: str = "invoke",
    context: Mapping[str, Json] | None = None,
    accepts: Iterable[str] = (),
) -> Call[tuple[ListedTool, ...]]:
    """Ask which tools of a list may be called at all, to list them. The answer is in the order of the list.

    Raises ``NoTenantError`` and ``NoDecisionError``.
    """
    listed = [*tool_ids]
    request = pb.FilterToolsRequest()
    with _Asking():
        request.tools.extend(decision_pb2.Resource(type=type, id=tool_id) for tool_id in listed)
        request.action.name = action
        _fill(request.context, context or {}, "context")
        request.accepted_obligations.extend(accepts)
    return _call("FilterTools", request, lambda response: _read_tools(response, listed))


def exchange(
    resource_id: str,
    *,
    type: str,  # noqa: A002
    action: str,
    context: Mapping[str, Json] | None = None,
    accepts: Iterable[str] = (),
    explain: bool = False,
    duration_seconds: int | None = None,
) -> Call[Exchanged]:
    """Ask for AWS credentials that are good for an action on a resource, for at most ``duration_seconds``.

    Raises ``NoTenantError`` and ``NoDecisionError``.
    """
    request = credential_pb.ExchangeTokenRequest(explain=explain)
    with _Asking():
        request.resource.type, request.resource.id, request.action.name = type, resource_id, action
        _fill(request.context, context or {}, "context")
        request.accepted_obligations.extend(accepts)
        if duration_seconds is not None:
            request.duration.FromSeconds(duration_seconds)
    return _call("ExchangeToken", request, _read_exchange)


def _call(method: str, request: Any, read: Callable[[Any], _Result]) -> Call[_Result]:
    context = current()
    with _Asking():
        _write_identity(request.identity, context)
    metadata = [(AUTHORIZATION, f"Bearer {context.token}")] if context.token else []
    return Call(method, request, metadata, read)


class _Asking:
    """Turns what protobuf refuses, such as half a surrogate pair in a text, into the error that has a reason."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, fault: BaseException | None, __: object) -> None:
        if isinstance(fault, TypeError | ValueError):
            raise NoDecisionError(str(fault), _REQUEST_INVALID) from fault


def _write_identity(into: decision_pb2.Identity, context: TenantContext) -> None:
    into.tenant_id = context.tenant_id
    if context.token:
        return
    into.principal.id = context.principal_id
    into.subject.id = context.subject_id
    into.subject.roles.extend(context.roles)
    into.scopes.extend(context.scopes)
    for actor in context.delegation:
        hop = into.delegation.add(id=actor.id)
        if actor.scopes is not UNSET:
            hop.scopes.values.extend(actor.scopes)
            hop.scopes.SetInParent()


def _write_item(into: pb.AuthorizeRequest | pb.BatchAuthorizeItem, item: Item, at: str) -> None:
    into.resource.type, into.resource.id, into.action.name = item.resource.type, item.resource.id, item.action.name
    _fill(into.resource.properties, item.resource.properties, f"{at}resource.properties")
    _fill(into.action.properties, item.action.properties, f"{at}action.properties")
    _fill(into.context, item.context, f"{at}context")
    _fill(into.arguments, {} if item.arguments is UNSET else item.arguments, f"{at}arguments")


def _fill(into: PbStruct, values: Mapping[str, Json], at: str, depth: int = MOST_DEPTH) -> None:
    for name, value in values.items():
        if not isinstance(name, str):
            raise _unreadable(at, "has a name that is not a text")
        _write(into.fields[name], value, f"{at}.{name}", depth)


def _write(into: Value, value: Json, at: str, depth: int) -> None:
    if value is None:
        into.null_value = 0  # type: ignore[assignment]  # the only one of its enum
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, str):
        into.string_value = value
    elif isinstance(value, int | float):
        into.number_value = _number(value, at)
    elif depth <= 1:
        raise _unreadable(at, "is nested too deeply")
    elif isinstance(value, Mapping):
        into.struct_value.SetInParent()
        _fill(into.struct_value, value, at, depth - 1)
    elif isinstance(value, list | tuple):
        into.list_value.SetInParent()
        for number, entry in enumerate(value):
            _write(into.list_value.values.add(), entry, f"{at}[{number}]", depth - 1)
    else:
        raise _unreadable(at, f"is of the type {type(value).__qualname__}, which JSON does not have; convert it")


def _number(value: float, at: str) -> float:
    # A rule must see the number that the tool will use, and not one close to it.
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if number != value or not math.isfinite(number):
        raise _unreadable(at, "is a number that a double does not hold exactly; send it as a text")
    return number


def _unreadable(at: str, fault: str) -> ValueError:
    return ValueError(f"{at}: {fault}")


# ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_decision(message: decision_pb2.Decision) -> Decision:
    try:
        code = decision_pb2.DecisionCode.Name(message.code).removeprefix("DECISION_CODE_")
    except ValueError:  # of a newer sidecar; a DENY is one all the same
        code = f"CODE_{message.code}"
    allowed = message.effect == decision_pb2.EFFECT_ALLOW
    if message.effect not in {decision_pb2.EFFECT_ALLOW, decision_pb2.EFFECT_DENY} or allowed != (code == "ALLOWED"):
        msg = f"the answer has the effect {message.effect} with the code {code}, which is no decision"
        raise NoDecisionError(msg, _ANSWER_MALFORMED, message.decision_id)
    return Decision(
        allowed,
        code,
        message.reason,
        message.decision_id,
        message.revision,
        message.policy_id,
        message.rule_id,
        tuple({**_plain(MessageToDict(entry.parameters)), "type": entry.type} for entry in message.obligations),
        MessageToDict(message.explanation) if message.HasField("explanation") else None,
    )


def _plain(value: Json) -> Json:
    """Write whole numbers without a fraction, as whoever wrote the rule did."""
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _read_results(results: Sequence[pb.BatchAuthorizeResult], count: int) -> tuple[Decision, ...]:
    if len(results) != count:
        msg = f"{len(results)} answers came to {count} items"
        raise NoDecisionError(msg, _ANSWER_MALFORMED)
    return tuple(map(_read_result, results))


def _read_result(result: pb.BatchAuthorizeResult) -> Decision:
    if result.WhichOneof("result") == "error":
        return Decision(
            allowed=False, code=result.error.reason, reason=result.error.message, decision_id="", revision=""
        )
    return _read_decision(result.decision)


def _read_tools(response: pb.FilterToolsResponse, listed: Sequence[str]) -> tuple[ListedTool, ...]:
    if [tool.id for tool in response.tools] != listed:
        msg = "the answer is about other tools than the question"
        raise NoDecisionError(msg, _ANSWER_MALFORMED, response.decision_id)
    return tuple(map(_read_tool, response.tools))


def _read_tool(tool: pb.FilteredTool) -> ListedTool:
    if tool.HasField("error"):
        return ListedTool(tool.id, "DENIED", tool.error.reason, tool.error.message)
    if tool.state == pb.TOOL_STATE_ALLOWED:
        return ListedTool(tool.id, "ALLOWED", "ALLOWED", tool.reason)
    if tool.state == pb.TOOL_STATE_CONDITIONAL:
        return ListedTool(tool.id, "CONDITIONAL")
    name = decision_pb2.DecisionCode.Name(tool.code) if tool.code in decision_pb2.DecisionCode.values() else ""
    return ListedTool(tool.id, "DENIED", name.removeprefix("DECISION_CODE_"), tool.reason)


def _read_exchange(response: credential_pb.ExchangeTokenResponse) -> Exchanged:
    decision = _read_decision(response.decision)
    if decision.allowed != response.HasField("credentials"):
        msg = f"the answer {decision.code} comes {'without' if decision.allowed else 'with'} credentials"
        raise NoDecisionError(msg, _ANSWER_MALFORMED, decision.decision_id)
    if not decision.allowed:
        return Exchanged(decision, None)
    given = response.credentials
    credentials = Credentials(
        response.decision.tenant_id,
        given.access_key_id,
        given.secret_access_key,
        given.session_token,
        given.expiration.ToDatetime(UTC),
    )
    return Exchanged(decision, credentials)


def no_decision(fault: Any, address: str) -> NoDecisionError:
    """Say why there is no decision, from the error of a call."""
    reason = ""
    try:
        status = rpc_status.from_call(fault)
    except ValueError:  # the details contradict the error that they come with
        status = None
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            reason = info.reason
    trailing: Sequence[tuple[str, Any]] = fault.trailing_metadata() or ()
    decision_id = next((value for key, value in trailing if key == "x-decision-id"), "")
    message = f"{address}: {fault.details()}"
    if not reason and fault.code().name == "UNAVAILABLE":
        message += "; is the sidecar running there?"
    return NoDecisionError(message, reason or fault.code().name, decision_id)
