"""What clients send and what they make of answers: only what says ALLOW in every way is one."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st

from sidecar import translate
from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import credential_service_pb2 as credential_pb
from sidecar.gen.tenantgate.v1 import decision_pb2
from sidecar.model import Action, Actor, Item, Resource
from sidecar.tenancy import NoDecisionError, NoTenantError, TenantContext, calls, use
from sidecar.tenancy.calls import Credentials, Decision, ListedTool

TOKEN = TenantContext("Tenant-A", subject_id="alice", principal_id="agent:order-bot", roles=("r",), token="t")
ASSERTED = TenantContext(
    "Tenant-A",
    subject_id="alice",
    principal_id="agent:order-bot",
    roles=("support",),
    scopes=("tools:read",),
    delegation=(Actor("agent:planner"), Actor("agent:front", ())),
)

# ── who asks ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_proves_who_asks_and_the_request_names_the_tenant_alone() -> None:
    with use(TOKEN):
        call = calls.authorize("agent:tool:x")

    assert call.metadata == [("authorization", "Bearer t")]
    assert "Bearer" not in repr(call)
    assert MessageToDict(call.request.identity) == {"tenantId": "Tenant-A"}


def test_without_a_token_the_request_asserts_who_asks() -> None:
    with use(ASSERTED):
        call = calls.authorize("agent:tool:x")

    assert call.metadata == []
    assert MessageToDict(call.request.identity) == {
        "tenantId": "Tenant-A",
        "principal": {"id": "agent:order-bot"},
        "subject": {"id": "alice", "roles": ["support"]},
        "delegation": [{"id": "agent:planner"}, {"id": "agent:front", "scopes": {}}],
        "scopes": ["tools:read"],
    }


_ASKING: dict[str, Any] = {
    "authorize": lambda: calls.authorize("x"),
    "batch": lambda: calls.batch([Item(Resource("TOOL", "x"))]),
    "filter_tools": lambda: calls.filter_tools(["x"]),
    "exchange": lambda: calls.exchange("x", type="MEMORY", action="read"),
}


@pytest.mark.parametrize("ask", _ASKING.values(), ids=_ASKING)
def test_nothing_is_asked_outside_of_a_context(ask: Any) -> None:
    with pytest.raises(NoTenantError):
        ask()


# ── what is asked ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_question_carries_everything_that_it_is_given() -> None:
    with use(TOKEN):
        call = calls.authorize(
            "mem:1",
            {"n": 1, "f": 1.5, "t": True, "z": None, "l": [1, ("a",)], "o": {"a": {}}},
            type="MEMORY",
            action="read",
            context={"ip": "10.0.0.1"},
            accepts=["REQUIRE_APPROVAL"],
            explain=True,
        )

    assert MessageToDict(call.request) == {
        "identity": {"tenantId": "Tenant-A"},
        "resource": {"type": "MEMORY", "id": "mem:1"},
        "action": {"name": "read"},
        "arguments": {"n": 1, "f": 1.5, "t": True, "z": None, "l": [1, ["a"]], "o": {"a": {}}},
        "context": {"ip": "10.0.0.1"},
        "acceptedObligations": ["REQUIRE_APPROVAL"],
        "explain": True,
    }


def test_items_of_a_batch_carry_everything_that_they_have() -> None:
    item = Item(Resource("DOC", "d", {"owner": "a"}), Action("read", {"bulk": True}), {"c": 1}, {"a": 2})
    with use(TOKEN):
        call = calls.batch([item], accepts=["LOG"])

    assert MessageToDict(call.request.items[0]) == {
        "resource": {"type": "DOC", "id": "d", "properties": {"owner": "a"}},
        "action": {"name": "read", "properties": {"bulk": True}},
        "context": {"c": 1},
        "arguments": {"a": 2},
    }


class _Colour(StrEnum):
    RED = "red"


def _arguments(value: Any) -> dict[str, Any]:
    with use(TOKEN):
        return MessageToDict(calls.authorize("x", {"v": value}).request.arguments)


@pytest.mark.parametrize(
    ("value", "sent"),
    [(_Colour.RED, "red"), (OrderedDict(a=1), {"a": 1}), (2**53, 2**53), (-0.1, -0.1), ([], []), ({}, {}), (0, 0)],
)
def test_values_that_json_has_are_sent_as_they_are(value: object, sent: object) -> None:
    assert _arguments(value) == {"v": sent}


_UNREADABLE: dict[str, tuple[str, Any]] = {
    "a date": ("arguments.v: is of the type date", date(2025, 1, 1)),
    "bytes": ("arguments.v: is of the type bytes", b"x"),
    "a set": ("arguments.v: is of the type set", {1}),
    "a decimal": ("arguments.v: is of the type Decimal", Decimal(1)),
    "an object": ("arguments.v: is of the type object", object()),
    "something within": ("arguments.v.list[1]: is of the type date", {"list": [1, date(2025, 1, 1)]}),
    "a name that is no text": ("arguments.v: has a name that is not a text", {1: 2}),
    "not a number": ("arguments.v: is a number that a double does not hold", float("nan")),
    "infinity": ("arguments.v: is a number that a double does not hold", float("inf")),
    "a number that would be rounded": ("send it as a text", 2**53 + 1),
    "a number beyond all doubles": ("send it as a text", 10**400),
    "half a pair of surrogates": ("surrogates", "\ud800"),
    "half a pair of surrogates in a name": ("surrogates", {"\ud800": 1}),
}


@pytest.mark.parametrize(("fault", "value"), _UNREADABLE.values(), ids=_UNREADABLE)
def test_an_argument_that_json_cannot_carry_is_named_and_not_asked_about(fault: str, value: object) -> None:
    with pytest.raises(NoDecisionError, match=r"no decision was made") as refused:
        _arguments(value)

    assert refused.value.reason == "REQUEST_INVALID"
    assert fault in str(refused.value)


def test_arguments_that_hold_themselves_are_not_asked_about() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(NoDecisionError, match="nested too deeply"):
        _arguments(endless)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.text()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
)


@given(st.dictionaries(st.text(), _json))
def test_the_sidecar_reads_the_arguments_that_were_given(arguments: dict[str, Any]) -> None:
    with use(TOKEN):
        request = calls.authorize("x", arguments).request
    item = translate.item_from("", request, translate.Limits(json_bytes=1 << 30))

    assert item.arguments == arguments


# ── what is answered ────────────────────────────────────────────────────────────────────────────────────────────────────


def _read(decision: decision_pb2.Decision) -> Decision:
    with use(TOKEN):
        return calls.authorize("x").read(pb.AuthorizeResponse(decision=decision))


def test_a_decision_is_read_whole() -> None:
    message = decision_pb2.Decision(
        decision_id="d",
        effect=decision_pb2.EFFECT_ALLOW,
        code=decision_pb2.DECISION_CODE_ALLOWED,
        reason="a rule allows it",
        policy_id="p",
        rule_id="r",
        revision="rev",
    )
    message.obligations.add(type="REQUIRE_APPROVAL").parameters.update(
        {"level": 2, "among": ["team-lead", 0.5], "type": "x"}
    )

    assert _read(message) == Decision(
        allowed=True,
        code="ALLOWED",
        reason="a rule allows it",
        decision_id="d",
        revision="rev",
        policy_id="p",
        rule_id="r",
        obligations=({"type": "REQUIRE_APPROVAL", "level": 2, "among": ["team-lead", 0.5]},),
    )
    assert isinstance(_read(message).obligations[0]["level"], int)


def test_a_denial_is_a_value_and_is_false() -> None:
    message = decision_pb2.Decision(effect=decision_pb2.EFFECT_DENY, code=decision_pb2.DECISION_CODE_DENIED_BY_RULE)

    assert (_read(message).allowed, bool(_read(message)), _read(message).code) == (False, False, "DENIED_BY_RULE")


def test_a_denial_for_a_reason_that_is_not_known_yet_is_a_denial() -> None:
    message = decision_pb2.Decision(effect=decision_pb2.EFFECT_DENY)
    message.code = 99  # type: ignore[assignment]

    assert (_read(message).allowed, _read(message).code) == (False, "CODE_99")


@given(st.integers(0, 20), st.integers(0, 20))
def test_only_what_says_allow_in_every_way_is_an_allow(effect: int, code: int) -> None:
    message = decision_pb2.Decision(decision_id="d", effect=effect, code=code)  # type: ignore[arg-type]
    try:
        allowed = _read(message).allowed
    except NoDecisionError as fault:
        allowed = fault.reason != "ANSWER_MALFORMED" or fault.decision_id != "d"

    assert allowed == ((effect, code) == (decision_pb2.EFFECT_ALLOW, decision_pb2.DECISION_CODE_ALLOWED))


_ALLOW = decision_pb2.Decision(effect=decision_pb2.EFFECT_ALLOW, code=decision_pb2.DECISION_CODE_ALLOWED)
_DENY = decision_pb2.Decision(effect=decision_pb2.EFFECT_DENY, code=decision_pb2.DECISION_CODE_NO_MATCHING_RULE)


def _batch(*results: pb.BatchAuthorizeResult) -> Any:
    with use(TOKEN):
        call = calls.batch([Item(Resource("TOOL", name)) for name in "abc"])
    return call.read(pb.BatchAuthorizeResponse(results=results))


def test_an_item_without_a_decision_is_not_allowed_and_says_why() -> None:
    allowed, failed, denied = _batch(
        pb.BatchAuthorizeResult(decision=_ALLOW),
        pb.BatchAuthorizeResult(error=pb.ItemError(reason="REQUEST_INVALID", message="items[1].resource.id: bad")),
        pb.BatchAuthorizeResult(decision=_DENY),
    )

    assert [bool(result) for result in (allowed, failed, denied)] == [True, False, False]
    assert (failed.code, failed.reason, failed.decision_id) == ("REQUEST_INVALID", "items[1].resource.id: bad", "")


def test_an_item_that_is_not_answered_leaves_all_without_a_decision() -> None:
    with pytest.raises(NoDecisionError, match="ANSWER_MALFORMED"):
        _batch(pb.BatchAuthorizeResult(decision=_ALLOW), pb.BatchAuthorizeResult(), pb.BatchAuthorizeResult())


def test_answers_that_are_too_few_are_none() -> None:
    with pytest.raises(NoDecisionError, match="1 answers came to 3 items"):
        _batch(pb.BatchAuthorizeResult(decision=_ALLOW))


def test_tools_are_listed_with_what_is_known_of_each() -> None:
    with use(TOKEN):
        call = calls.filter_tools("abcde")
    response = pb.FilterToolsResponse(
        tools=[
            pb.FilteredTool(id="a", state=pb.TOOL_STATE_ALLOWED, code=decision_pb2.DECISION_CODE_ALLOWED),
            pb.FilteredTool(id="b", state=pb.TOOL_STATE_CONDITIONAL),
            pb.FilteredTool(
                id="c", state=pb.TOOL_STATE_DENIED, code=decision_pb2.DECISION_CODE_DENIED_BY_RULE, reason="no"
            ),
            pb.FilteredTool(id="d"),
            pb.FilteredTool(id="e", state=pb.TOOL_STATE_ALLOWED, error=pb.ItemError(reason="REQUEST_INVALID")),
        ]
    )

    assert call.read(response) == (
        ListedTool("a", "ALLOWED", "ALLOWED"),
        ListedTool("b", "CONDITIONAL"),
        ListedTool("c", "DENIED", "DENIED_BY_RULE", "no"),
        ListedTool("d", "DENIED", "UNSPECIFIED"),
        ListedTool("e", "DENIED", "REQUEST_INVALID"),
    )


def test_an_answer_about_other_tools_is_none() -> None:
    with use(TOKEN):
        call = calls.filter_tools(["a", "b"])
    response = pb.FilterToolsResponse(tools=[pb.FilteredTool(id="b"), pb.FilteredTool(id="a")])
    with pytest.raises(NoDecisionError, match="about other tools"):
        call.read(response)


def _exchange(response: credential_pb.ExchangeTokenResponse) -> Any:
    with use(TOKEN):
        return calls.exchange("mem:1", type="MEMORY", action="read", duration_seconds=900).read(response)


_GIVEN = credential_pb.Credentials(access_key_id="AKIA", secret_access_key="very", session_token="secret")
_GIVEN.expiration.FromDatetime(datetime(2030, 1, 1, tzinfo=UTC))


def test_credentials_come_with_an_allow_and_are_of_the_tenant_that_was_proved() -> None:
    decision = decision_pb2.Decision(tenant_id="Tenant-A")
    decision.MergeFrom(_ALLOW)
    exchanged = _exchange(credential_pb.ExchangeTokenResponse(decision=decision, credentials=_GIVEN))

    assert exchanged.decision.allowed
    assert exchanged.credentials == Credentials("Tenant-A", "AKIA", "very", "secret", datetime(2030, 1, 1, tzinfo=UTC))
    assert "very" not in repr(exchanged)
    assert "secret'" not in repr(exchanged)


def test_no_credentials_come_with_a_denial() -> None:
    assert _exchange(credential_pb.ExchangeTokenResponse(decision=_DENY)).credentials is None


@pytest.mark.parametrize(
    "response",
    [
        credential_pb.ExchangeTokenResponse(decision=_DENY, credentials=_GIVEN),
        credential_pb.ExchangeTokenResponse(decision=_ALLOW),
        credential_pb.ExchangeTokenResponse(credentials=_GIVEN),
    ],
    ids=["a denial with credentials", "an allow without", "credentials alone"],
)
def test_credentials_and_decision_that_contradict_each_other_are_none(
    response: credential_pb.ExchangeTokenResponse,
) -> None:
    with pytest.raises(NoDecisionError):
        _exchange(response)
