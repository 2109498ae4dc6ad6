"""Between the wire, the model and OPA: every step gives the exact thing or a named error."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import ListValue, NullValue, Struct, Value
from msgspec import UNSET

from sidecar import translate
from sidecar.errors import EngineError, EvaluationError, InvalidRequestError, MalformedAnswerError, NotReadyError
from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as service_pb
from sidecar.gen.tenantgate.v1 import credential_service_pb2 as credential_pb
from sidecar.gen.tenantgate.v1 import decision_pb2 as pb
from sidecar.model import (
    CODES,
    Action,
    Decision,
    Identity,
    Item,
    Principal,
    Question,
    Resource,
    Subject,
    Tenant,
    ToolAnswer,
)
from sidecar.settings import Settings

LIMITS = translate.Limits()
IDENTITY = Identity(Tenant("T"), Principal("agent:bot"), Subject("alice"))
POLICY = translate.encode_settings(Settings().policy)

ALLOW: dict[str, Any] = {
    "effect": "ALLOW",
    "code": "ALLOWED",
    "reason": "allowed",
    "policy_id": "P",
    "rule_id": "r",
    "obligations": [],
    "revision": "20261124T000000.000000Z-000000000000",
    "as_of": 1_795_478_400_000_000,
    "depends_on": [],
}
DENY = ALLOW | {"effect": "DENY", "code": "NO_MATCHING_RULE", "policy_id": "", "rule_id": ""}
TOOL: dict[str, Any] = {"state": "ALLOWED", "code": "ALLOWED", "reason": "allowed", "policy_id": "P", "rule_id": "r"}
LISTING: dict[str, Any] = {"revision": ALLOW["revision"], "as_of": ALLOW["as_of"], "tools": [TOOL]}


def _request(**fields: Any) -> service_pb.AuthorizeRequest:
    given: dict[str, Any] = {"resource": pb.Resource(type="TOOL", id="t")} | fields
    return service_pb.AuthorizeRequest(**given)


def _read(value: Value) -> Any:
    """Read a value that stands in the arguments of a request."""
    request = _request(arguments=Struct(fields={"v": value}))
    question = translate.authorize_question(request, IDENTITY, LIMITS)
    arguments = question.items[0].arguments
    assert isinstance(arguments, dict)
    return arguments["v"]


# ── request to question ─────────────────────────────────────────────────────────────────────────────────────────────────

_VALUES: dict[str, tuple[Value, str]] = {
    "a whole number has no fraction": (Value(number_value=500.0), "500"),
    "a fraction stays": (Value(number_value=500.5), "500.5"),
    "a small fraction stays": (Value(number_value=0.1), "0.1"),
    "zero": (Value(number_value=0.0), "0"),
    "minus zero is zero": (Value(number_value=-0.0), "0"),
    "a negative number": (Value(number_value=-3.0), "-3"),
    "the largest exact integer": (Value(number_value=2.0**53), "9007199254740992"),
    "a number beyond 64 bits": (Value(number_value=1e20), "100000000000000000000"),
    "the smallest number": (Value(number_value=5e-324), "5e-324"),
    "true": (Value(bool_value=True), "true"),
    "false": (Value(bool_value=False), "false"),
    "null": (Value(null_value=NullValue.NULL_VALUE), "null"),
    "an empty text": (Value(string_value=""), '""'),
    "a text that looks like a number": (Value(string_value="500"), '"500"'),
    "Unicode": (Value(string_value="Grüße 注文 🛒"), '"Grüße 注文 🛒"'),
    "characters that JSON escapes": (Value(string_value='"\\\n\0\u2028'), '"\\"\\\\\\n\\u0000\u2028"'),
    "an empty list": (Value(list_value=ListValue()), "[]"),
    "an empty object": (Value(struct_value=Struct()), "{}"),
    "an empty name": (Value(struct_value=Struct(fields={"": Value(bool_value=True)})), '{"":true}'),
    "a nested list": (
        Value(list_value=ListValue(values=[Value(number_value=1.0), Value(list_value=ListValue())])),
        "[1,[]]",
    ),
}


@pytest.mark.parametrize(("value", "text"), _VALUES.values(), ids=_VALUES)
def test_a_value_becomes_the_json_that_the_caller_meant(value: Value, text: str) -> None:
    assert msgspec.json.encode(_read(value)).decode() == text


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_does_not_have_is_refused(number: float) -> None:
    with pytest.raises(InvalidRequestError, match="not finite"):
        _read(Value(number_value=number))


def test_a_request_without_arguments_has_empty_ones() -> None:
    question = translate.authorize_question(_request(), IDENTITY, LIMITS)

    assert question.items == (Item(Resource("TOOL", "t"), Action("invoke"), {}, {}),)


def test_the_arguments_of_a_list_of_tools_are_not_known() -> None:
    request = service_pb.FilterToolsRequest(tools=[pb.Resource(id="t")])
    question, faults = translate.tools_question(request, IDENTITY, LIMITS)

    assert (question.items[0].arguments, faults) == (UNSET, [None])


def test_a_tool_of_a_list_is_a_tool_unless_it_says_otherwise() -> None:
    request = service_pb.FilterToolsRequest(tools=[pb.Resource(id="t"), pb.Resource(id="m", type="MEMORY")])
    question, _ = translate.tools_question(request, IDENTITY, LIMITS)

    assert [item.resource.type for item in question.items] == ["TOOL", "MEMORY"]


def test_the_moment_of_min_as_of_keeps_its_microseconds() -> None:
    request = _request()
    request.min_as_of.FromNanoseconds(1_795_478_400_123_456_789)

    assert translate.authorize_question(request, IDENTITY, LIMITS).min_as_of == 1_795_478_400_123_456


def test_the_good_items_of_a_batch_keep_their_order_and_the_bad_ones_their_place() -> None:
    ids = ["a", "", "b", "\n", "c"]
    items = [service_pb.BatchAuthorizeItem(resource=pb.Resource(type="TOOL", id=name)) for name in ids]
    question, faults = translate.batch_question(service_pb.BatchAuthorizeRequest(items=items), IDENTITY, LIMITS)

    assert [item.resource.id for item in question.items] == ["a", "b", "c"]
    assert [fault and fault.field for fault in faults] == [
        None,
        "items[1].resource.id",
        None,
        "items[3].resource.id",
        None,
    ]


def test_an_exchange_is_a_question_like_others() -> None:
    message = credential_pb.ExchangeTokenRequest(
        resource=pb.Resource(type="MEMORY", id="m"),
        action=pb.Action(name="read"),
        accepted_obligations=["LOG"],
        explain=True,
    )
    message.context.update({"channel": "chat"})
    message.min_as_of.FromMicroseconds(1_000_001)

    assert translate.exchange_question(message, IDENTITY, LIMITS) == Question(
        identity=IDENTITY,
        items=(Item(Resource("MEMORY", "m"), Action("read"), {"channel": "chat"}, {}),),
        accepts=("LOG",),
        explain=True,
        min_as_of=1_000_001,
    )


def test_an_exchange_names_its_action() -> None:
    message = credential_pb.ExchangeTokenRequest(resource=pb.Resource(type="MEMORY", id="m"))
    with pytest.raises(InvalidRequestError, match=r"action\.name: must not be empty"):
        translate.exchange_question(message, IDENTITY, LIMITS)


def test_scopes_of_an_actor_that_are_empty_are_not_the_same_as_none_declared() -> None:
    message = pb.Identity(tenant_id="T", delegation=[pb.Actor(id="a"), pb.Actor(id="b", scopes=pb.Scopes())])
    identity = translate.identity_from(message, [], LIMITS)

    assert [actor.scopes for actor in identity.delegation] == [UNSET, ()]


def test_tenants_that_the_metadata_names_are_kept_beside_the_one_of_the_request() -> None:
    identity = translate.identity_from(pb.Identity(tenant_id="T"), ["T", "U"], LIMITS)

    assert identity.tenant == Tenant("T", ("T", "U"))


# ── question to OPA's input ─────────────────────────────────────────────────────────────────────────────────────────────


def _sent(question: Question) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(translate.single_query(question, "id-1", 7, POLICY))
    return read


def test_the_input_holds_all_that_the_policy_reads() -> None:
    question = Question(
        IDENTITY, (Item(Resource("TOOL", "t"), Action("read"), {"c": 1}, {"a": 2}),), ("LOG",), explain=True
    )

    assert _sent(question) == {
        "decision_id": "id-1",
        "input": {
            "tenant": {"id": "T"},
            "principal": {"id": "agent:bot"},
            "subject": {"id": "alice", "roles": [], "properties": {}},
            "delegation": [],
            "scopes": [],
            "accepts": ["LOG"],
            "explain": True,
            "time": 7,
            "settings": {
                "delegation": {"check": "chain", "max_depth": 8},
                "scopes": {"READ": ["tools:read", "tools:write"], "WRITE": ["tools:write"]},
            },
            "resource": {"type": "TOOL", "id": "t", "properties": {}},
            "action": {"name": "read", "properties": {}},
            "context": {"c": 1},
            "arguments": {"a": 2},
        },
    }


def test_the_tenants_that_are_named_go_to_the_policy() -> None:
    identity = Identity(Tenant("T", ("U",)), Principal("p"))

    assert _sent(Question(identity, (Item(Resource("TOOL", "t")),)))["input"]["tenant"] == {"id": "T", "named": ["U"]}


@pytest.mark.parametrize("may_act", [(), ("agent:a",), ("agent:a", "agent:b")], ids=len)
def test_the_agents_that_may_act_go_to_the_policy(may_act: tuple[str, ...]) -> None:
    identity = msgspec.structs.replace(IDENTITY, may_act=may_act)
    question = Question(identity, (Item(Resource("TOOL", "t")),))

    assert _sent(question)["input"]["may_act"] == [*may_act]
    assert json.loads(translate.items_query(question, "i", 7, POLICY))["input"]["may_act"] == [*may_act]


def test_arguments_that_are_not_known_are_left_out() -> None:
    items = (Item(Resource("TOOL", "t"), arguments=UNSET), Item(Resource("TOOL", "u")))
    sent = json.loads(translate.items_query(Question(IDENTITY, items), "id-1", 7, POLICY))

    assert ["arguments" in item for item in sent["input"]["items"]] == [False, True]


def test_equal_questions_are_equal_bytes() -> None:
    item = Item(Resource("TOOL", "t"), arguments={"a": 1, "b": [2]})

    assert translate.single_query(Question(IDENTITY, (item,)), "i", 7, POLICY) == translate.single_query(
        Question(IDENTITY, (item,)), "i", 7, POLICY
    )


# ── OPA's answer to decisions ───────────────────────────────────────────────────────────────────────────────────────────


def _without(answer: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in names}


_EXPLANATION: dict[str, Any] = {
    "codes": [],
    "rules": [],
    "principal": "agent:bot",
    "subject": "alice",
    "roles": [],
    "effective_scopes": [],
}
_WEAKEST: dict[str, Any] = {"id": "agent:bot", "hop": 0, "lacks": ["tools:write"]}
_CONDITION = {"path": "/arguments/a", "op": "eq", "outcome": "HOLDS"}
_RULE: dict[str, Any] = {
    "policy_id": "P",
    "rule_id": "r",
    "effect": "ALLOW",
    "verdict": "APPLIES",
    "narrowed_by": [],
    "conditions": [_CONDITION],
}

_NO_DECISIONS: dict[str, Any] = {
    "null": None,
    "true": True,
    "a word": "ALLOW",
    "a number": 1,
    "a list": [ALLOW],
    "an empty object": {},
    "the effect alone": {"effect": "ALLOW"},
    "the shape of other policies": {"allow": True},
    "no effect": _without(ALLOW, "effect"),
    "no code": _without(ALLOW, "code"),
    "no reason": _without(ALLOW, "reason"),
    "no revision": _without(ALLOW, "revision"),
    "no as_of": _without(ALLOW, "as_of"),
    "no depends_on": _without(ALLOW, "depends_on"),
    "an extra field": ALLOW | {"allow": True},
    "an extra field in a finding": ALLOW
    | {"explanation": _EXPLANATION | {"codes": [{"code": "ALLOWED", "reason": "", "x": 1}]}},
    "a misspelt field": _without(ALLOW, "reason") | {"Reason": "allowed"},
    "an effect in small letters": ALLOW | {"effect": "allow"},
    "an unknown effect": ALLOW | {"effect": "MAYBE"},
    "an effect that is true": ALLOW | {"effect": True},
    "an effect that is null": ALLOW | {"effect": None},
    "an unknown code": ALLOW | {"code": "PROBABLY_ALLOWED"},
    "ALLOW with a code that denies": ALLOW | {"code": "DENIED_BY_RULE"},
    "ALLOW with the code of the sidecar": ALLOW | {"code": "POLICY_STALE"},
    "DENY with the code that allows": DENY | {"code": "ALLOWED"},
    "a reason that is null": ALLOW | {"reason": None},
    "a reason that is a list": ALLOW | {"reason": ["allowed"]},
    "a revision that is a number": ALLOW | {"revision": 7},
    "an as_of that is a text": ALLOW | {"as_of": "2026-11-24T00:00:00Z"},
    "an as_of before 1970": ALLOW | {"as_of": -1},
    "an as_of after the year 9999": ALLOW | {"as_of": 10**18},
    "an as_of with a fraction": ALLOW | {"as_of": 1.5},
    "an as_of that is true": ALLOW | {"as_of": True},
    "obligations that are null": ALLOW | {"obligations": None},
    "obligations that are an object": ALLOW | {"obligations": {"type": "LOG"}},
    "an obligation without a type": ALLOW | {"obligations": [{"by": "lead"}]},
    "an obligation whose type is no text": ALLOW | {"obligations": [{"type": 1}]},
    "an obligation that is a text": ALLOW | {"obligations": ["REQUIRE_APPROVAL"]},
    "an unknown part": ALLOW | {"depends_on": ["tenant"]},
    "depends_on that is a text": ALLOW | {"depends_on": "arguments"},
    "a valid_until that is a text": ALLOW | {"valid_until": "tomorrow"},
    "a bound of no seconds": ALLOW | {"max_staleness_seconds": 0},
    "a bound that is a text": ALLOW | {"max_staleness_seconds": "60"},
    "an explanation that is a text": ALLOW | {"explanation": "because"},
    "an explanation without rules": ALLOW | {"explanation": _without(_EXPLANATION, "rules")},
    "an explanation without a principal": ALLOW | {"explanation": _without(_EXPLANATION, "principal")},
    "an explanation whose subject is null": ALLOW | {"explanation": _EXPLANATION | {"subject": None}},
    "a weakest hop without a place": ALLOW | {"explanation": _EXPLANATION | {"weakest_hop": _without(_WEAKEST, "hop")}},
    "a weakest hop before the principal": ALLOW
    | {"explanation": _EXPLANATION | {"weakest_hop": _WEAKEST | {"hop": -1}}},
    "a weakest hop that lacks a text": ALLOW
    | {"explanation": _EXPLANATION | {"weakest_hop": _WEAKEST | {"lacks": "tools:write"}}},
    "a rule with an unknown verdict": ALLOW
    | {"explanation": _EXPLANATION | {"rules": [_RULE | {"verdict": "ALLOWS"}]}},
    "a condition with an unknown outcome": ALLOW
    | {"explanation": _EXPLANATION | {"rules": [_RULE | {"conditions": [_CONDITION | {"outcome": "TRUE"}]}]}},
}


@pytest.mark.parametrize("result", _NO_DECISIONS.values(), ids=_NO_DECISIONS)
def test_a_result_is_no_decision_that_is_or_has(result: Any) -> None:
    with pytest.raises(MalformedAnswerError, match="not of the documented shape"):
        translate.decision_answer(200, json.dumps({"result": result}).encode())


@pytest.mark.parametrize("result", _NO_DECISIONS.values(), ids=_NO_DECISIONS)
def test_a_batch_holds_no_decision_that_is_or_has(result: Any) -> None:
    with pytest.raises(MalformedAnswerError, match="not of the documented shape"):
        translate.batch_answer(200, json.dumps({"result": [DENY, result]}).encode(), 2)


_NO_ANSWERS: dict[str, bytes] = {
    "nothing": b"",
    "white space": b" \n",
    "no JSON": b"<html></html>",
    "half of it": json.dumps({"result": ALLOW}).encode()[:-2],
    "two of them": json.dumps({"result": ALLOW}).encode() * 2,
    "null": b"null",
    "a list": json.dumps([{"result": ALLOW}]).encode(),
    "the decision without the envelope": json.dumps(ALLOW).encode(),
    "a field beside the result": json.dumps({"result": ALLOW, "provenance": {}}).encode(),
    "a warning beside the result": json.dumps({"result": ALLOW, "warning": {"code": "x"}}).encode(),
    "an error with status 200": json.dumps({"code": "internal_error", "message": "x"}).encode(),
    "not a number": json.dumps({"result": ALLOW}).replace("1795478400000000", "NaN").encode(),
    "bytes that are not UTF-8": b'{"result": "\xff\xfe"}',
    "half of a surrogate pair": b'{"result": "\\ud800"}',
    "nested without end": b"[" * 100_000,
    "UTF-16": json.dumps({"result": ALLOW}).encode("utf-16"),
}


@pytest.mark.parametrize("body", _NO_ANSWERS.values(), ids=_NO_ANSWERS)
def test_a_body_is_no_answer_that_is_or_has(body: bytes) -> None:
    with pytest.raises(MalformedAnswerError):
        translate.decision_answer(200, body)


@pytest.mark.parametrize("body", [b"{}", b'{"decision_id": "x"}'])
@pytest.mark.parametrize("reader", ["decision", "batch", "tools"])
def test_an_undefined_result_is_not_ready(body: bytes, reader: str) -> None:
    readers: dict[str, Any] = {
        "decision": translate.decision_answer,
        "batch": lambda status, text: translate.batch_answer(status, text, 1),
        "tools": lambda status, text: translate.tools_answer(status, text, 1),
    }
    with pytest.raises(NotReadyError, match="undefined"):
        readers[reader](200, body)


@pytest.mark.parametrize("status", [0, 100, 199, 201, 204, 301, 304, 400, 401, 404, 500, 503])
def test_any_other_status_than_200_is_an_error_even_beside_an_allow(status: int) -> None:
    with pytest.raises(EvaluationError, match=f"HTTP {status}"):
        translate.decision_answer(status, json.dumps({"result": ALLOW}).encode())


def test_the_error_of_opa_is_kept_for_the_log_and_cut_to_size() -> None:
    with pytest.raises(EvaluationError) as failed:
        translate.decision_answer(500, b"x" * 10_000)

    assert len(str(failed.value)) < 600


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"obligations": [{"type": "LOG", "where": ["here"]}]},
        {"valid_until": 1_795_478_400_000_001},
        {"max_staleness_seconds": 0.5},
        {"depends_on": ["arguments", "context", "time", "subject.properties"]},
        {"explanation": _EXPLANATION | {"rules": [_RULE]}},
    ],
    ids=lambda change: next(iter(change), "nothing more"),
)
def test_an_answer_of_the_documented_shape_is_a_decision(change: dict[str, Any]) -> None:
    decision = translate.decision_answer(200, json.dumps({"result": ALLOW | change, "decision_id": "x"}).encode())

    assert (decision.effect, decision.code) == ("ALLOW", "ALLOWED")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_batch_of_another_length_is_none(count: int) -> None:
    with pytest.raises(MalformedAnswerError, match=f"2 decisions to {count} items"):
        translate.batch_answer(200, json.dumps({"result": [ALLOW, DENY]}).encode(), count)


def test_a_batch_keeps_its_order() -> None:
    decisions = translate.batch_answer(200, json.dumps({"result": [ALLOW, DENY, ALLOW]}).encode(), 3)

    assert [decision.effect for decision in decisions] == ["ALLOW", "DENY", "ALLOW"]


_NO_LISTINGS: dict[str, Any] = {
    "a list of tools alone": [TOOL],
    "a decision": ALLOW,
    "no revision": _without(LISTING, "revision"),
    "no tools": _without(LISTING, "tools"),
    "an extra field": LISTING | {"all": True},
    "a tool without a state": LISTING | {"tools": [_without(TOOL, "state")]},
    "an unknown state": LISTING | {"tools": [TOOL | {"state": "MAYBE"}]},
    "a state that is true": LISTING | {"tools": [TOOL | {"state": True}]},
    "an allowed tool without a code": LISTING | {"tools": [_without(TOOL, "code")]},
    "an allowed tool with a code that denies": LISTING | {"tools": [TOOL | {"code": "NO_MATCHING_RULE"}]},
    "a denied tool with the code that allows": LISTING | {"tools": [TOOL | {"state": "DENIED"}]},
    "a denied tool without a code": LISTING | {"tools": [{"state": "DENIED"}]},
    "a conditional tool with a code": LISTING | {"tools": [TOOL | {"state": "CONDITIONAL"}]},
    "an obligation without a type": LISTING | {"tools": [TOOL | {"obligations": [{}]}]},
    "an extra field in a tool": LISTING | {"tools": [TOOL | {"allowed": True}]},
    "a tool that is a text": LISTING | {"tools": ["ALLOWED"]},
}


@pytest.mark.parametrize("result", _NO_LISTINGS.values(), ids=_NO_LISTINGS)
def test_a_result_is_no_list_of_tools_that_is_or_has(result: Any) -> None:
    with pytest.raises(MalformedAnswerError, match="not of the documented shape"):
        translate.tools_answer(200, json.dumps({"result": result}).encode(), 1)


@pytest.mark.parametrize("count", [0, 2])
def test_a_list_of_another_length_is_none(count: int) -> None:
    with pytest.raises(MalformedAnswerError, match=f"about 1 tools when asked about {count}"):
        translate.tools_answer(200, json.dumps({"result": LISTING}).encode(), count)


def test_every_error_of_an_answer_is_one_of_the_engine() -> None:
    assert all(issubclass(kind, EngineError) for kind in (NotReadyError, EvaluationError, MalformedAnswerError))


# ── decisions to messages ───────────────────────────────────────────────────────────────────────────────────────────────


def _decision(**fields: Any) -> Decision:
    return msgspec.convert(ALLOW | fields, Decision)


def _written(decision: Decision, now: int = ALLOW["as_of"]) -> dict[str, Any]:
    message = pb.Decision()
    translate.write_decision(message, decision, "id-1", now)
    written: dict[str, Any] = MessageToDict(message)
    return written


def test_a_decision_is_written_in_full() -> None:
    assert _written(_decision(), ALLOW["as_of"] + 1_500_000) == {
        "decisionId": "id-1",
        "effect": "EFFECT_ALLOW",
        "code": "DECISION_CODE_ALLOWED",
        "reason": "allowed",
        "policyId": "P",
        "ruleId": "r",
        "revision": ALLOW["revision"],
        "asOf": "2026-11-24T00:00:00Z",
        "age": "1.500s",
    }


def test_a_registry_from_the_future_has_no_age() -> None:
    assert _written(_decision(), ALLOW["as_of"] - 1)["age"] == "0s"


_OBLIGATIONS: dict[str, dict[str, Any]] = {
    "no parameters": {},
    "nested ones": {"by": ["lead", {"or": None}], "limit": 5.0, "strict": True, "note": ""},
    "empty ones": {"list": [], "object": {}, "nested": {"list": [], "lists": [[]]}},
}


@pytest.mark.parametrize("parameters", _OBLIGATIONS.values(), ids=_OBLIGATIONS)
def test_an_obligation_keeps_its_parameters(parameters: dict[str, Any]) -> None:
    (written,) = _written(_decision(obligations=[{"type": "LOG"} | parameters]))["obligations"]

    assert written == {"type": "LOG"} | ({"parameters": parameters} if parameters else {})


@pytest.mark.parametrize(
    "value", [None, True, False, 0, -1.5, "", "text", [], [1.0, None, []], {}, {"a": {"b": []}}], ids=repr
)
def test_a_condition_keeps_what_it_expected_and_found(value: Any) -> None:
    condition = {"path": "/arguments/a", "op": "eq", "outcome": "FAILS", "expected": value, "actual": value}
    explanation = _EXPLANATION | {"rules": [_RULE | {"conditions": [condition]}]}
    (rule,) = _written(_decision(explanation=explanation))["explanation"]["rules"]

    assert (rule["conditions"][0]["expected"], rule["conditions"][0]["actual"]) == (value, value)


def test_a_condition_that_found_nothing_says_so() -> None:
    explanation = _EXPLANATION | {"rules": [_RULE | {"conditions": [_CONDITION | {"outcome": "UNEVALUABLE"}]}]}
    (rule,) = _written(_decision(explanation=explanation))["explanation"]["rules"]

    assert rule["conditions"] == [{"path": "/arguments/a", "op": "eq", "result": "CONDITION_RESULT_UNEVALUABLE"}]


def test_the_moment_until_which_a_decision_holds_is_explained() -> None:
    decision = _decision(explanation=_EXPLANATION, valid_until=ALLOW["as_of"] + 60_000_000)

    assert _written(decision)["explanation"]["validUntil"] == "2026-11-24T00:01:00Z"


def test_an_explanation_says_who_asks_and_which_hop_is_the_weakest() -> None:
    written = _written(_decision(explanation=_EXPLANATION | {"weakest_hop": _WEAKEST | {"hop": 2}}))["explanation"]

    assert (written["principalId"], written["subjectId"]) == ("agent:bot", "alice")
    assert written["weakestHop"] == {"actorId": "agent:bot", "hop": 2, "lacks": ["tools:write"]}


def test_an_explanation_names_no_weakest_hop_where_nobody_lacks_a_scope() -> None:
    assert "weakestHop" not in _written(_decision(explanation=_EXPLANATION))["explanation"]


@pytest.mark.parametrize("state", ["ALLOWED", "DENIED", "CONDITIONAL"])
def test_each_state_of_a_tool_has_its_word(state: Any) -> None:
    code: Any = {"ALLOWED": "ALLOWED", "DENIED": "NO_MATCHING_RULE"}.get(state)
    message = service_pb.FilteredTool()
    translate.write_tool(message, "t", ToolAnswer(state=state, code=code, extensions=("night",)))

    assert (service_pb.ToolState.Name(message.state), message.id) == (f"TOOL_STATE_{state}", "t")
    assert [*message.extensions] == ["night"]


@pytest.mark.parametrize("code", pb.DecisionCode.keys())
def test_every_code_of_the_wire_is_one_of_the_model(code: str) -> None:
    assert code.removeprefix("DECISION_CODE_") in {*CODES, "UNSPECIFIED"}
