"""Between the wire, the model and OPA: pure functions, no I/O.

Three steps, each total: a request message becomes a ``Question`` or an ``InvalidRequestError``; a question becomes OPA's input;
the bytes that OPA answers become decisions or a named error. Only the exact documented shape is a decision.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from sidecar.errors import EvaluationError, InvalidRequestError, MalformedAnswerError, NotReadyError
from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as service_pb
from sidecar.gen.tenantgate.v1 import credential_service_pb2 as credential_pb
from sidecar.gen.tenantgate.v1 import decision_pb2 as pb
from sidecar.model import (
    Action,
    Actor,
    Decision,
    Explanation,
    Finding,
    Found,
    Identity,
    Item,
    Json,
    Listing,
    Principal,
    Question,
    Resource,
    RuleOutcome,
    Search,
    Subject,
    Tenant,
    ToolAnswer,
    id_fault,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from google.protobuf.struct_pb2 import ListValue, Value
    from google.protobuf.struct_pb2 import Struct as PbStruct
    from google.protobuf.timestamp_pb2 import Timestamp

MICROSECONDS = 1_000_000


class Limits(Struct, frozen=True):
    """What a request may hold at the most. The settings of the same names give the values."""

    batch_items: int = 1000
    json_depth: int = 32
    json_bytes: int = 65536
    list_entries: int = 256


# ── request message to question ─────────────────────────────────────────────────────────────────────────────────────────


def identity_from(message: pb.Identity, named_tenants: Sequence[str], limits: Limits) -> Identity:
    """Read who the request says is asking. ``named_tenants`` are those that the metadata names besides."""
    tenant_id = _check_id("identity.tenant_id", message.tenant_id)
    for tenant in named_tenants:
        _check_id("metadata x-tenant-id", tenant)
    subject = message.subject
    return Identity(
        Tenant(tenant_id, tuple(named_tenants)),
        Principal(_optional_id("identity.principal.id", message.principal.id)),
        Subject(
            _optional_id("identity.subject.id", subject.id),
            _names("identity.subject.roles", subject.roles, limits),
            _object("identity.subject.properties", subject, "properties", limits),
        ),
        _delegation(message.delegation, limits),
        _names("identity.scopes", message.scopes, limits),
    )


def _delegation(actors: Sequence[pb.Actor], limits: Limits) -> tuple[Actor, ...]:
    chain: list[Actor] = []
    for i, actor in enumerate(_bounded("identity.delegation", actors, limits)):
        at = f"identity.delegation[{i}]"
        declared = _names(f"{at}.scopes", actor.scopes.values, limits) if actor.HasField("scopes") else UNSET
        chain.append(Actor(_check_id(f"{at}.id", actor.id), declared))
    return tuple(chain)


Varying: TypeAlias = tuple[dict[str, Json], dict[str, Json]]
"""The context and the arguments of a request."""


def read_varying(message: service_pb.AuthorizeRequest, limits: Limits) -> Varying:
    """Read the context and the arguments of an AuthorizeRequest."""
    return _object("context", message, "context", limits), _object("arguments", message, "arguments", limits)


def authorize_question(
    message: service_pb.AuthorizeRequest, identity: Identity, limits: Limits, varying: Varying | None = None
) -> Question:
    """Read an AuthorizeRequest, of which ``varying`` may have been read and taken out before."""
    item = item_from("", message, limits)
    if varying is not None:
        item = Item(item.resource, item.action, *varying)
    return Question(
        identity=identity,
        items=(item,),
        accepts=_names("accepted_obligations", message.accepted_obligations, limits),
        explain=message.explain,
        min_as_of=_moment(message, "min_as_of"),
    )


def batch_question(
    message: service_pb.BatchAuthorizeRequest, identity: Identity, limits: Limits
) -> tuple[Question, list[InvalidRequestError | None]]:
    """Read a BatchAuthorizeRequest: the question about its good items, and for each item what is wrong with it, if anything."""
    _check_count("items", message.items, limits)
    items, faults = _partition(message.items, lambda i, item: item_from(f"items[{i}].", item, limits))
    question = Question(
        identity=identity,
        items=items,
        accepts=_names("accepted_obligations", message.accepted_obligations, limits),
        explain=message.explain,
        min_as_of=_moment(message, "min_as_of"),
    )
    return question, faults


def tools_question(
    message: service_pb.FilterToolsRequest, identity: Identity, limits: Limits
) -> tuple[Question, list[InvalidRequestError | None]]:
    """Read a FilterToolsRequest, like a batch whose arguments are not known."""
    _check_count("tools", message.tools, limits)
    action = _action("", message, limits)
    context = _object("context", message, "context", limits)
    items, faults = _partition(
        message.tools,
        lambda i, tool: Item(_resource(f"tools[{i}].", tool, limits, tool.type or "TOOL"), action, context, UNSET),
    )
    question = Question(
        identity=identity,
        items=items,
        accepts=_names("accepted_obligations", message.accepted_obligations, limits),
        min_as_of=_moment(message, "min_as_of"),
    )
    return question, faults


def exchange_question(message: credential_pb.ExchangeTokenRequest, identity: Identity, limits: Limits) -> Question:
    """Read an ExchangeTokenRequest: like an AuthorizeRequest that has no arguments and must name its action."""
    if not message.action.name:
        field = "action.name"
        raise InvalidRequestError(field, "must not be empty: it says what the credentials are for, such as read")
    item = Item(
        resource=_resource("resource.", message.resource, limits, message.resource.type),
        action=_action("", message, limits),
        context=_object("context", message, "context", limits),
    )
    return Question(
        identity=identity,
        items=(item,),
        accepts=_names("accepted_obligations", message.accepted_obligations, limits),
        explain=message.explain,
        min_as_of=_moment(message, "min_as_of"),
    )


def item_from(at: str, message: service_pb.AuthorizeRequest | service_pb.BatchAuthorizeItem, limits: Limits) -> Item:
    """Read what is asked about; ``at`` is the path of the message within the request, for errors."""
    return Item(
        resource=_resource(f"{at}resource.", message.resource, limits, message.resource.type),
        action=_action(at, message, limits),
        context=_object(f"{at}context", message, "context", limits),
        arguments=_object(f"{at}arguments", message, "arguments", limits),
    )


_T = TypeVar("_T")


def _partition(messages: Iterable[Any], read: Any) -> tuple[tuple[Item, ...], list[InvalidRequestError | None]]:
    items: list[Item] = []
    faults: list[InvalidRequestError | None] = []
    for i, message in enumerate(messages):
        try:
            items.append(read(i, message))
            faults.append(None)
        except InvalidRequestError as fault:
            faults.append(fault)
    return tuple(items), faults


def _resource(at: str, message: pb.Resource, limits: Limits, resource_type: str) -> Resource:
    return Resource(
        type=_check_id(f"{at}type", resource_type),
        id=_check_id(f"{at}id", message.id),
        properties=_object(f"{at}properties", message, "properties", limits),
    )


def _action(at: str, message: Any, limits: Limits) -> Action:
    action = message.action
    return Action(
        name=_optional_id(f"{at}action.name", action.name) or "invoke",
        properties=_object(f"{at}action.properties", action, "properties", limits),
    )


def _check_id(field: str, text: str) -> str:
    if fault := id_fault(text):
        raise InvalidRequestError(field, fault)
    return text


def _optional_id(field: str, text: str) -> str:
    return _check_id(field, text) if text else ""


def _names(field: str, values: Sequence[str], limits: Limits) -> tuple[str, ...]:
    names = tuple(values)
    _bounded(field, names, limits)
    for i, name in enumerate(names):
        if fault := id_fault(name):
            at = f"{field}[{i}]"
            raise InvalidRequestError(at, fault)
    return names


def _bounded(field: str, values: Sequence[_T], limits: Limits) -> Sequence[_T]:
    if len(values) > limits.list_entries:
        raise InvalidRequestError(field, f"must have at most {limits.list_entries} entries, has {len(values)}")
    return values


def _check_count(field: str, values: Sequence[Any], limits: Limits) -> None:
    if not values:
        raise InvalidRequestError(field, "must not be empty")
    if len(values) > limits.batch_items:
        raise InvalidRequestError(field, f"must have at most {limits.batch_items} entries, has {len(values)}")


def _moment(message: Any, field: str) -> int:
    if not message.HasField(field):
        return 0
    moment: Timestamp = getattr(message, field)
    return moment.seconds * MICROSECONDS + moment.nanos // 1000


def _object(field: str, message: Any, name: str, limits: Limits) -> dict[str, Json]:
    if not message.HasField(name):
        return {}
    struct: PbStruct = getattr(message, name)
    size = struct.ByteSize()
    if size > limits.json_bytes:
        raise InvalidRequestError(field, f"must have at most {limits.json_bytes} bytes, has {size}")
    return _read_struct(field, struct, limits.json_depth)


def _read_struct(field: str, struct: PbStruct, depth: int) -> dict[str, Json]:
    fields = struct.fields
    return {name: _read_value(field, fields[name], depth) for name in fields}


def _read_value(field: str, value: Value, depth: int) -> Json:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        return _read_number(field, value.number_value)
    if kind == "bool_value":
        return value.bool_value
    if kind == "null_value":
        return None
    if depth <= 1:
        raise InvalidRequestError(field, "is nested too deeply")
    if kind == "struct_value":
        return _read_struct(field, value.struct_value, depth - 1)
    if kind == "list_value":
        values: ListValue = value.list_value
        return [_read_value(field, entry, depth - 1) for entry in values.values]
    raise InvalidRequestError(field, "holds a value without a kind; use null")


def plain_object(field: str, value: Json, limits: Limits) -> dict[str, Json]:
    """Read an object that came as JSON, so that every door decides alike: with the limits and the numbers of a Struct's."""
    if not isinstance(value, dict):
        raise InvalidRequestError(field, "must be an object")
    read = {name: _read_plain(field, entry, limits.json_depth) for name, entry in value.items()}
    size = len(_encoder.encode(read))
    if size > limits.json_bytes:
        raise InvalidRequestError(field, f"must have at most {limits.json_bytes} bytes, has {size}")
    return read


def _read_plain(field: str, value: Json, depth: int) -> Json:
    if isinstance(value, dict | list) and depth <= 1:
        raise InvalidRequestError(field, "is nested too deeply")
    if isinstance(value, dict):
        return {name: _read_plain(field, entry, depth - 1) for name, entry in value.items()}
    if isinstance(value, list):
        return [_read_plain(field, entry, depth - 1) for entry in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        return _read_number(field, number)
    return value


def _read_number(field: str, number: float) -> int | float:
    # A whole number is written without a fraction, as whoever wrote the arguments meant it.
    if number.is_integer():
        return int(number)
    if not math.isfinite(number):
        raise InvalidRequestError(field, "holds a number that is not finite, which JSON cannot carry")
    return number


# ── question to OPA's input ─────────────────────────────────────────────────────────────────────────────────────────────


class DelegationSettings(Struct, frozen=True):
    """How the delegation chain is checked; the setting ``delegation`` gives the values."""

    check: str = "chain"
    max_depth: int = 8


class PolicySettings(Struct, frozen=True):
    """The settings that the Rego reads as ``input.settings``; ``scopes`` maps an access to the scopes that grant it."""

    delegation: DelegationSettings
    scopes: dict[str, tuple[str, ...]]


class _Input(Struct, frozen=True):
    """OPA's ``input``; its schema is ``policies/schemas/input.json``."""

    tenant: Tenant
    principal: Principal
    subject: Subject
    delegation: tuple[Actor, ...]
    scopes: tuple[str, ...]
    accepts: tuple[str, ...]
    explain: bool
    time: int
    settings: msgspec.Raw
    may_act: tuple[str, ...] | UnsetType = UNSET
    resource: Resource | UnsetType = UNSET
    action: Action | UnsetType = UNSET
    context: dict[str, Json] | UnsetType = UNSET
    arguments: dict[str, Json] | UnsetType = UNSET
    items: tuple[Item, ...] | UnsetType = UNSET
    search: Search | UnsetType = UNSET


_encoder = msgspec.json.Encoder()


def encode_settings(settings: PolicySettings) -> msgspec.Raw:
    """Write the settings once, for all inputs."""
    return msgspec.Raw(_encoder.encode(settings))


def single_query(question: Question, decision_id: str, now: int, settings: msgspec.Raw) -> bytes:
    """Write the query for the entrypoint ``authorize``. ``now`` is in microseconds since 1970."""
    return query_of(single_input(question, now, settings), decision_id)


def single_input(question: Question, now: int, settings: msgspec.Raw) -> bytes:
    """Write the input for the entrypoint ``authorize``, of which queries are then made."""
    (item,) = question.items
    return _input(question, now, settings, item)


def search_query(question: Question, search: Search, decision_id: str, now: int, settings: msgspec.Raw) -> bytes:
    """Write the query for an entrypoint of ``search``. Of the item, what is searched for does not count."""
    (item,) = question.items
    return query_of(_input(question, now, settings, item, search=search), decision_id)


def items_query(question: Question, decision_id: str, now: int, settings: msgspec.Raw) -> bytes:
    """Write the query for the entrypoints ``batch`` and ``tools``."""
    return query_of(_input(question, now, settings, items=question.items), decision_id)


def query_of(question: bytes, decision_id: str) -> bytes:
    """Write the query for one input. What stands beside ``input`` goes into OPA's decision log as request metadata."""
    return b'{"input":%b,"decision_id":%b}' % (question, _encoder.encode(decision_id))


def query_of_many(questions: Sequence[tuple[bytes, str]]) -> bytes:
    """Write the query for the entrypoint ``coalesced``: inputs of the entrypoint ``authorize``, each with its decision id."""
    inputs = b",".join([question for question, _ in questions])
    decision_ids = _encoder.encode([decision_id for _, decision_id in questions])
    return b'{"input":{"questions":[%b]},"decision_ids":%b}' % (inputs, decision_ids)


def _input(
    question: Question,
    now: int,
    settings: msgspec.Raw,
    item: Item | None = None,
    *,
    items: tuple[Item, ...] | UnsetType = UNSET,
    search: Search | UnsetType = UNSET,
) -> bytes:
    identity = question.identity
    return _encoder.encode(
        _Input(
            identity.tenant,
            identity.principal,
            identity.subject,
            identity.delegation,
            identity.scopes,
            question.accepts,
            question.explain,
            now,
            settings,
            identity.may_act,
            UNSET if item is None else item.resource,
            UNSET if item is None else item.action,
            UNSET if item is None else item.context,
            UNSET if item is None else item.arguments,
            items,
            search,
        )
    )


# ── OPA's answer to decisions ───────────────────────────────────────────────────────────────────────────────────────────


class _DecisionAnswer(Struct, frozen=True, forbid_unknown_fields=True):
    result: Decision | UnsetType = UNSET
    decision_id: str = ""


class _BatchAnswer(Struct, frozen=True, forbid_unknown_fields=True):
    result: tuple[Decision, ...] | UnsetType = UNSET
    decision_id: str = ""


class _ManyAnswers(Struct, frozen=True, forbid_unknown_fields=True):
    result: tuple[msgspec.Raw, ...] | UnsetType = UNSET
    decision_id: str = ""


class _ToolsAnswer(Struct, frozen=True, forbid_unknown_fields=True):
    result: Listing | UnsetType = UNSET
    decision_id: str = ""


class _SearchAnswer(Struct, frozen=True, forbid_unknown_fields=True):
    result: Found | UnsetType = UNSET
    decision_id: str = ""


_decision_decoder: msgspec.json.Decoder[_DecisionAnswer] = msgspec.json.Decoder(_DecisionAnswer)
_batch_decoder = msgspec.json.Decoder(_BatchAnswer)
_many_decoder = msgspec.json.Decoder(_ManyAnswers)
_one_decoder = msgspec.json.Decoder(Decision)
_tools_decoder = msgspec.json.Decoder(_ToolsAnswer)
_search_decoder = msgspec.json.Decoder(_SearchAnswer)


def decision_answer(status: int, body: bytes) -> Decision:
    """Read the answer of the entrypoint ``authorize``.

    Raises ``NotReadyError``, ``EvaluationError`` or ``MalformedAnswerError`` for anything but a decision.
    """
    decision: Decision = _read_answer(_decision_decoder, status, body)
    return decision


def batch_answer(status: int, body: bytes, count: int) -> tuple[Decision, ...]:
    """Read the answer of the entrypoint ``batch``, which must hold ``count`` decisions."""
    decisions: tuple[Decision, ...] = _read_answer(_batch_decoder, status, body)
    if len(decisions) != count:
        msg = f"OPA answered {len(decisions)} decisions to {count} items"
        raise MalformedAnswerError(msg)
    return decisions


def many_answers(status: int, body: bytes, count: int) -> tuple[bytes, ...]:
    """Read the answer of the entrypoint ``coalesced``, which must hold ``count`` answers, each to be read by itself."""
    answers: tuple[msgspec.Raw, ...] = _read_answer(_many_decoder, status, body)
    if len(answers) != count:
        msg = f"OPA gave {len(answers)} answers to {count} questions"
        raise MalformedAnswerError(msg)
    return tuple(map(bytes, answers))


def one_of_many(answer: bytes) -> Decision:
    """Read one answer of the entrypoint ``coalesced``. Raises as ``decision_answer``; null stands for undefined."""
    if answer == b"null":
        raise NotReadyError(_UNDEFINED)
    decision: Decision = _decode(_one_decoder, answer)
    return decision


def tools_answer(status: int, body: bytes, count: int) -> Listing:
    """Read the answer of the entrypoint ``tools``, which must hold ``count`` tools."""
    listing: Listing = _read_answer(_tools_decoder, status, body)
    if len(listing.tools) != count:
        msg = f"OPA answered about {len(listing.tools)} tools when asked about {count}"
        raise MalformedAnswerError(msg)
    return listing


def search_answer(status: int, body: bytes) -> Found:
    """Read the answer of an entrypoint of ``search``."""
    found: Found = _read_answer(_search_decoder, status, body)
    return found


def _read_answer(decoder: Any, status: int, body: bytes) -> Any:
    if status != 200:  # noqa: PLR2004 - HTTP OK
        msg = f"OPA answered HTTP {status}: {body[:500].decode(errors='replace')}"
        raise EvaluationError(msg)
    result = _decode(decoder, body).result
    if result is UNSET:
        raise NotReadyError(_UNDEFINED)
    return result


def _decode(decoder: Any, body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as fault:
        msg = f"OPA's answer is not of the documented shape: {fault}"
        raise MalformedAnswerError(msg) from fault


_UNDEFINED = "OPA's answer is undefined: it has no policy, or no registry, loaded"


# ── decisions to response messages ──────────────────────────────────────────────────────────────────────────────────────


def _words(enum: Any, prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in enum.items()}


_EFFECTS = _words(pb.Effect, "EFFECT_")
_CODES = _words(pb.DecisionCode, "DECISION_CODE_")
_VERDICTS = _words(pb.RuleVerdict, "RULE_VERDICT_")
_CONDITION_RESULTS = _words(pb.ConditionResult, "CONDITION_RESULT_")
_TOOL_STATES = _words(service_pb.ToolState, "TOOL_STATE_")


def decision_message(decision: Decision, tenant_id: str = "") -> pb.Decision:
    """Write a decision as a message, but for what is new every time: its id, and the age of the registry."""
    seconds, rest = divmod(decision.as_of, MICROSECONDS)
    message = pb.Decision(
        effect=_EFFECTS[decision.effect],
        code=_CODES[decision.code],
        reason=decision.reason,
        policy_id=decision.policy_id,
        rule_id=decision.rule_id,
        revision=decision.revision,
        as_of={"seconds": seconds, "nanos": rest * 1000},
        tenant_id=tenant_id,
    )
    _write_obligations(message.obligations, decision.obligations)
    if decision.explanation is not None:
        _write_explanation(message.explanation, decision.explanation, decision)
    return message


def write_decision(into: pb.Decision, decision: Decision, decision_id: str, now: int) -> None:
    """Write a decision into a message; ``now`` is in microseconds since 1970."""
    into.MergeFrom(decision_message(decision))
    into.decision_id = decision_id
    into.age.FromMicroseconds(max(0, now - decision.as_of))


def write_tool(into: service_pb.FilteredTool, tool_id: str, answer: ToolAnswer) -> None:
    """Write the answer about a tool into a message."""
    into.id = tool_id
    into.state = _TOOL_STATES[answer.state]
    if answer.code is not None:
        into.code = _CODES[answer.code]
    into.reason = answer.reason
    into.policy_id = answer.policy_id
    into.rule_id = answer.rule_id
    _write_obligations(into.obligations, answer.obligations)
    for residual in answer.residual:
        rule = into.residual.add(
            policy_id=residual.policy_id, rule_id=residual.rule_id, effect=_EFFECTS[residual.effect]
        )
        _write_conditions(rule.conditions, residual.conditions)
    into.extensions.extend(answer.extensions)


def _write_obligations(into: Any, obligations: Iterable[dict[str, Json]]) -> None:
    for obligation in obligations:
        entry = into.add(type=obligation["type"])
        parameters = {name: value for name, value in obligation.items() if name != "type"}
        if parameters:
            entry.parameters.update(parameters)


def _write_explanation(into: pb.Explanation, explanation: Explanation, decision: Decision) -> None:
    for finding in explanation.codes:
        _write_finding(into.findings.add(), finding)
    for rule in explanation.rules:
        _write_rule(into.rules.add(), rule)
    into.principal_id = explanation.principal
    into.subject_id = explanation.subject
    into.roles.extend(explanation.roles)
    into.effective_scopes.extend(explanation.effective_scopes)
    weakest = explanation.weakest_hop
    if weakest is not None:
        into.weakest_hop.actor_id = weakest.id
        into.weakest_hop.hop = weakest.hop
        into.weakest_hop.lacks.extend(weakest.lacks)
    into.depends_on.extend(decision.depends_on)
    if decision.valid_until is not None:
        into.valid_until.FromMicroseconds(decision.valid_until)


def _write_finding(into: pb.Finding, finding: Finding) -> None:
    into.code = _CODES[finding.code]
    into.reason = finding.reason
    into.policy_id = finding.policy_id
    into.rule_id = finding.rule_id


def _write_rule(into: pb.RuleOutcome, rule: RuleOutcome) -> None:
    into.policy_id = rule.policy_id
    into.rule_id = rule.rule_id
    into.effect = _EFFECTS[rule.effect]
    into.verdict = _VERDICTS[rule.verdict]
    into.narrowed_by.extend(rule.narrowed_by)
    _write_conditions(into.conditions, rule.conditions)


def _write_conditions(into: Any, conditions: Iterable[Any]) -> None:
    for condition in conditions:
        entry = into.add(
            path=condition.path,
            op=condition.op,
            expected_from=condition.expected_from,
            result=_CONDITION_RESULTS[condition.outcome],
        )
        if condition.expected is not UNSET:
            _write_value(entry.expected, condition.expected)
        if condition.actual is not UNSET:
            _write_value(entry.actual, condition.actual)


def _write_value(into: Value, value: Json) -> None:
    if value is None:
        into.null_value = 0  # type: ignore[assignment]
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int | float):
        into.number_value = value
    elif isinstance(value, str):
        into.string_value = value
    elif isinstance(value, list):
        into.list_value.extend(value)
        into.list_value.SetInParent()
    else:
        into.struct_value.update(value)
        into.struct_value.SetInParent()
