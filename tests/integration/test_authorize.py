"""What callers get to see of decisions: over the wire, from a sidecar with a real OPA."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.timestamp_pb2 import Timestamp

from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import decision_pb2
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from tests.support import wire
from tests.support.exports import write_export
from tests.support.processes import build_bundle, running_sidecar, sidecar_settings
from tests.support.registries import AS_OF, DATA
from tests.support.wire import ADMIN_REFUND, DEADLINE, ORDER_LOOKUP, REFUND_CREATE

if TYPE_CHECKING:
    from collections.abc import Iterator

_REVISION = r"\A20261124T000000\.000000Z-[0-9a-f]{12}\Z"
_FAR_FUTURE = Timestamp(seconds=4_000_000_000)


def _verdict(decision: decision_pb2.Decision) -> tuple[str, str]:
    effect = decision_pb2.Effect.Name(decision.effect).removeprefix("EFFECT_")
    return effect, decision_pb2.DecisionCode.Name(decision.code).removeprefix("DECISION_CODE_")


def _tool_states(answer: pb.FilterToolsResponse) -> list[tuple[str, str]]:
    return [(tool.id, pb.ToolState.Name(tool.state).removeprefix("TOOL_STATE_")) for tool in answer.tools]


@pytest.fixture(scope="module")
def stub(sample: grpc.Channel) -> AuthorizationServiceStub:
    return AuthorizationServiceStub(sample)


# ── Authorize ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_EVERY_CODE: dict[str, tuple[str, pb.AuthorizeRequest]] = {
    "the rule of the tenant allows": ("ALLOW ALLOWED", wire.question()),
    "the rule of the tenant denies": ("DENY DENIED_BY_RULE", wire.question(ADMIN_REFUND)),
    "no rule": ("DENY NO_MATCHING_RULE", wire.question("agent:tool:report-export")),
    "an unknown tenant": ("DENY TENANT_UNKNOWN", wire.question(identity=wire.identity("Tenant-Z"))),
    "a suspended tenant": ("DENY TENANT_SUSPENDED", wire.question(identity=wire.identity("Tenant-C"))),
    "no principal": ("DENY IMPERSONATION", wire.question(identity=wire.identity(principal=""))),
    "a suspended agent": ("DENY DELEGATION_INVALID", wire.question(identity=wire.identity(principal="agent:old-bot"))),
    "not a member": ("DENY SUBJECT_NOT_MEMBER", wire.question(identity=wire.identity(subject="mallory"))),
    "no scope": ("DENY SCOPE_INSUFFICIENT", wire.question(identity=wire.identity(scopes=()))),
    "a condition that holds": ("ALLOW ALLOWED", wire.question(REFUND_CREATE, {"amount": 500})),
    "a condition that fails": ("DENY CONDITION_NOT_MET", wire.question(REFUND_CREATE, {"amount": 500.5})),
    "a condition on a missing argument": ("DENY CONDITION_NOT_MET", wire.question(REFUND_CREATE, {})),
}


@pytest.mark.parametrize(("expected", "request_"), _EVERY_CODE.values(), ids=_EVERY_CODE)
def test_a_question_is_answered_by_effect_and_code(
    sample: grpc.Channel, expected: str, request_: pb.AuthorizeRequest
) -> None:
    assert " ".join(_verdict(wire.authorize(sample, request_))) == expected


def test_a_decision_names_the_policy_and_the_rule_that_decided(sample: grpc.Channel) -> None:
    decision = wire.authorize(sample, wire.question(REFUND_CREATE, {"amount": 1}))

    assert (decision.policy_id, decision.rule_id) == ("POL-A-SUPPORT", "small-refunds")


def test_a_rule_without_an_id_is_named_by_its_position(sample: grpc.Channel) -> None:
    decision = wire.authorize(sample, wire.question(ADMIN_REFUND))

    assert (decision.policy_id, decision.rule_id) == ("POL-TENANT-A", "rule-2")


def test_a_denial_gives_the_reason_of_the_rule(sample: grpc.Channel) -> None:
    assert wire.authorize(sample, wire.question(ADMIN_REFUND)).reason == "Insufficient privileges"


def test_a_decision_that_no_rule_made_names_none(sample: grpc.Channel) -> None:
    decision = wire.authorize(sample, wire.question(identity=wire.identity("Tenant-Z")))

    assert (decision.policy_id, decision.rule_id) == ("", "")


def test_a_decision_says_which_registry_it_was_made_under(sample: grpc.Channel) -> None:
    decision = wire.authorize(sample)

    assert decision.as_of == Timestamp(seconds=AS_OF // 1_000_000)
    assert re.match(_REVISION, decision.revision)


def test_the_revision_is_the_one_that_the_status_tells(sample: grpc.Channel) -> None:
    assert wire.authorize(sample).revision == wire.get_status(sample).revision


def test_the_answer_carries_the_decision_id_in_its_trailing_metadata_too(stub: AuthorizationServiceStub) -> None:
    response, call = stub.Authorize.with_call(wire.question(), timeout=DEADLINE)

    assert dict(call.trailing_metadata())["x-decision-id"] == response.decision.decision_id


def test_every_decision_has_an_id_of_its_own(sample: grpc.Channel) -> None:
    first, second = wire.authorize(sample), wire.authorize(sample)

    assert first.decision_id
    assert first.decision_id < second.decision_id  # UUIDs of version 7 sort by time


def test_an_explanation_is_not_given_unasked(sample: grpc.Channel) -> None:
    assert not wire.authorize(sample).HasField("explanation")


def test_an_explanation_gives_all_findings_in_the_order_of_the_table(sample: grpc.Channel) -> None:
    asked = wire.question(ADMIN_REFUND, explain=True, identity=wire.identity(subject="mallory", scopes=()))
    explanation = wire.authorize(sample, asked).explanation
    codes = [decision_pb2.DecisionCode.Name(f.code).removeprefix("DECISION_CODE_") for f in explanation.findings]

    assert codes == ["SUBJECT_NOT_MEMBER", "DENIED_BY_RULE", "SCOPE_INSUFFICIENT", "NO_MATCHING_RULE"]


def test_an_explanation_gives_each_rule_with_its_conditions(sample: grpc.Channel) -> None:
    asked = wire.question(REFUND_CREATE, {"amount": 501}, explain=True)

    assert [MessageToDict(rule) for rule in wire.authorize(sample, asked).explanation.rules] == [
        {
            "policyId": "POL-A-SUPPORT",
            "ruleId": "small-refunds",
            "effect": "EFFECT_ALLOW",
            "verdict": "RULE_VERDICT_CONDITIONS_FAIL",
            "conditions": [
                {
                    "path": "/arguments/amount",
                    "op": "lte",
                    "expected": 500,
                    "actual": 501,
                    "result": "CONDITION_RESULT_FAILS",
                }
            ],
        }
    ]


def test_an_explanation_gives_roles_scopes_and_what_the_decision_depended_on(sample: grpc.Channel) -> None:
    asked = wire.question(REFUND_CREATE, {"amount": 1}, explain=True, identity=wire.identity(roles=["night-shift"]))
    explanation = wire.authorize(sample, asked).explanation

    assert [*explanation.roles] == ["night-shift", "support"]
    assert [*explanation.effective_scopes] == ["tools:read", "tools:write"]
    assert [*explanation.depends_on] == ["arguments"]


def test_the_default_action_is_invoke(sample: grpc.Channel) -> None:
    named = wire.authorize(sample, wire.question(action=decision_pb2.Action(name="invoke")))
    left_out = wire.authorize(sample, wire.question())

    assert _verdict(named) == _verdict(left_out) == ("ALLOW", "ALLOWED")


# ── BatchAuthorize ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_batch_is_answered_in_the_order_of_its_items(stub: AuthorizationServiceStub) -> None:
    request = wire.batch(ADMIN_REFUND, ORDER_LOOKUP, "agent:tool:report-export", ORDER_LOOKUP)
    results = stub.BatchAuthorize(request, timeout=DEADLINE).results

    assert [_verdict(result.decision)[1] for result in results] == [
        "DENIED_BY_RULE",
        "ALLOWED",
        "NO_MATCHING_RULE",
        "ALLOWED",
    ]


def test_one_bad_item_does_not_fail_the_rest_of_a_batch(stub: AuthorizationServiceStub) -> None:
    request = wire.batch(ORDER_LOOKUP, "", ORDER_LOOKUP)
    results = stub.BatchAuthorize(request, timeout=DEADLINE).results

    assert [result.WhichOneof("result") for result in results] == ["decision", "error", "decision"]


def test_the_error_of_an_item_names_the_field_and_the_reason(stub: AuthorizationServiceStub) -> None:
    (_, bad) = stub.BatchAuthorize(wire.batch(ORDER_LOOKUP, "a\nb"), timeout=DEADLINE).results

    assert (bad.error.reason, bad.error.field) == ("REQUEST_INVALID", "items[1].resource.id")
    assert "U+000A" in bad.error.message


def test_a_batch_of_bad_items_alone_is_answered_too(stub: AuthorizationServiceStub) -> None:
    results = stub.BatchAuthorize(wire.batch("", ""), timeout=DEADLINE).results

    assert [result.error.field for result in results] == ["items[0].resource.id", "items[1].resource.id"]


def test_decisions_of_a_batch_share_its_id_and_are_numbered_by_item(stub: AuthorizationServiceStub) -> None:
    response, call = stub.BatchAuthorize.with_call(wire.batch(ORDER_LOOKUP, "", ADMIN_REFUND), timeout=DEADLINE)
    batch_id = dict(call.trailing_metadata())["x-decision-id"]

    assert [result.decision.decision_id for result in response.results] == [f"{batch_id}.0", "", f"{batch_id}.2"]


def test_a_batch_explains_each_item_when_asked(stub: AuthorizationServiceStub) -> None:
    results = stub.BatchAuthorize(wire.batch(ORDER_LOOKUP, ADMIN_REFUND, explain=True), timeout=DEADLINE).results

    assert [len(result.decision.explanation.rules) for result in results] == [1, 1]


def test_items_of_a_batch_have_arguments_of_their_own(stub: AuthorizationServiceStub) -> None:
    request = wire.batch(REFUND_CREATE, REFUND_CREATE)
    request.items[0].arguments.update({"amount": 9000})
    request.items[1].arguments.update({"amount": 9})
    results = stub.BatchAuthorize(request, timeout=DEADLINE).results

    assert [_verdict(result.decision)[0] for result in results] == ["DENY", "ALLOW"]


# ── FilterTools ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tools_are_allowed_denied_or_conditional_in_the_order_of_the_list(stub: AuthorizationServiceStub) -> None:
    answer = stub.FilterTools(wire.tools(REFUND_CREATE, ADMIN_REFUND, ORDER_LOOKUP, "agent:tool:x"), timeout=DEADLINE)

    assert _tool_states(answer) == [
        (REFUND_CREATE, "CONDITIONAL"),
        (ADMIN_REFUND, "DENIED"),
        (ORDER_LOOKUP, "ALLOWED"),
        ("agent:tool:x", "DENIED"),
    ]


def test_a_conditional_tool_comes_with_the_conditions_that_decide(stub: AuthorizationServiceStub) -> None:
    (tool,) = stub.FilterTools(wire.tools("agent:tool:order-cancel"), timeout=DEADLINE).tools

    assert [MessageToDict(residual) for residual in tool.residual] == [
        {
            "policyId": "POL-A-SUPPORT",
            "ruleId": "own-orders",
            "effect": "EFFECT_ALLOW",
            "conditions": [
                {
                    "path": "/arguments/ownerId",
                    "op": "eq",
                    "expected": "alice",
                    "expectedFrom": "/subject/id",
                    "result": "CONDITION_RESULT_UNDECIDED",
                }
            ],
        }
    ]


def test_a_rule_that_may_deny_is_a_residual_of_the_tool_that_another_allows(stub: AuthorizationServiceStub) -> None:
    request = wire.tools(REFUND_CREATE, identity=wire.identity("Tenant-B"))
    (tool,) = stub.FilterTools(request, timeout=DEADLINE).tools

    assert [(r.rule_id, r.effect) for r in tool.residual] == [("no-refund-over-limit", decision_pb2.EFFECT_DENY)]


def test_a_decided_tool_says_by_which_rule(stub: AuthorizationServiceStub) -> None:
    (tool,) = stub.FilterTools(wire.tools(ADMIN_REFUND), timeout=DEADLINE).tools

    assert (tool.code, tool.reason, tool.policy_id, tool.rule_id) == (
        decision_pb2.DECISION_CODE_DENIED_BY_RULE,
        "Insufficient privileges",
        "POL-TENANT-A",
        "rule-2",
    )


def test_a_list_of_tools_says_which_registry_it_was_made_under(stub: AuthorizationServiceStub) -> None:
    response, call = stub.FilterTools.with_call(wire.tools(ORDER_LOOKUP), timeout=DEADLINE)

    assert response.as_of == Timestamp(seconds=AS_OF // 1_000_000)
    assert re.match(_REVISION, response.revision)
    assert response.decision_id == dict(call.trailing_metadata())["x-decision-id"]


def test_a_bad_tool_is_neither_allowed_nor_the_ruin_of_the_others(stub: AuthorizationServiceStub) -> None:
    answer = stub.FilterTools(wire.tools("a\tb", ORDER_LOOKUP), timeout=DEADLINE)

    assert _tool_states(answer) == [("a\tb", "UNSPECIFIED"), (ORDER_LOOKUP, "ALLOWED")]
    assert answer.tools[0].error.field == "tools[0].id"


def test_other_types_than_tools_can_be_listed(stub: AuthorizationServiceStub) -> None:
    request = pb.FilterToolsRequest(
        identity=wire.identity("Tenant-B", scopes=["tools:read"]),
        tools=[
            wire.resource("kb:tenant-b-orders", "KNOWLEDGE_BASE"),
            wire.resource("kb:tenant-a-orders", "KNOWLEDGE_BASE"),
        ],
    )

    assert [state for _, state in _tool_states(stub.FilterTools(request, timeout=DEADLINE))] == ["ALLOWED", "DENIED"]


# ── the tenant that the metadata names ──────────────────────────────────────────────────────────────────────────────────

_HEADERS: dict[str, tuple[str, list[str]]] = {
    "none": ("ALLOWED", []),
    "the same": ("ALLOWED", ["Tenant-A"]),
    "the same twice": ("ALLOWED", ["Tenant-A", "Tenant-A"]),
    "another": ("TENANT_MISMATCH", ["Tenant-B"]),
    "another spelling": ("TENANT_MISMATCH", ["tenant-a"]),
    "another before the same": ("TENANT_MISMATCH", ["Tenant-B", "Tenant-A"]),
    "another after the same": ("TENANT_MISMATCH", ["Tenant-A", "Tenant-B"]),
    "a list": ("TENANT_MISMATCH", ["Tenant-A, Tenant-B"]),
}


@pytest.mark.parametrize(("code", "tenants"), _HEADERS.values(), ids=_HEADERS)
def test_the_tenant_in_the_metadata_is_compared_and_never_believed(
    sample: grpc.Channel, code: str, tenants: list[str]
) -> None:
    metadata = [("x-tenant-id", tenant) for tenant in tenants]

    assert _verdict(wire.authorize(sample, metadata=metadata))[1] == code


@pytest.mark.parametrize("method", ["BatchAuthorize", "FilterTools"])
def test_a_mismatch_denies_every_item(stub: AuthorizationServiceStub, method: str) -> None:
    request: Any = {"BatchAuthorize": wire.batch, "FilterTools": wire.tools}[method](ORDER_LOOKUP, ADMIN_REFUND)
    answer = getattr(stub, method)(request, timeout=DEADLINE, metadata=[("x-tenant-id", "Tenant-B")])
    codes = [r.decision.code for r in answer.results] if method == "BatchAuthorize" else [t.code for t in answer.tools]

    assert codes == [decision_pb2.DECISION_CODE_TENANT_MISMATCH] * 2


def test_the_names_of_the_tenant_headers_are_a_setting(sample_bundle: Path, short_path: Path) -> None:
    settings = sidecar_settings(short_path, sample_bundle, identity__tenant_headers=["x-customer"])
    with running_sidecar(settings) as (_, channel):
        other = wire.authorize(channel, metadata=[("x-customer", "Tenant-B")])
        ignored = wire.authorize(channel, metadata=[("x-tenant-id", "Tenant-B")])

    assert [_verdict(other)[1], _verdict(ignored)[1]] == ["TENANT_MISMATCH", "ALLOWED"]


# ── freshness ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("Authorize", wire.question(min_as_of=_FAR_FUTURE)),
        ("BatchAuthorize", wire.batch(ORDER_LOOKUP, min_as_of=_FAR_FUTURE)),
        ("FilterTools", wire.tools(ORDER_LOOKUP, min_as_of=_FAR_FUTURE)),
    ],
    ids=["Authorize", "BatchAuthorize", "FilterTools"],
)
def test_an_answer_from_a_newer_registry_than_there_is_cannot_be_had(
    stub: AuthorizationServiceStub, method: str, request_: Any
) -> None:
    error = wire.failure(lambda: getattr(stub, method)(request_, timeout=DEADLINE))

    assert wire.outcome(error) == (grpc.StatusCode.FAILED_PRECONDITION, "REVISION_TOO_OLD", "tenantgate")


def test_a_registry_as_old_as_the_caller_accepts_answers(sample: grpc.Channel) -> None:
    just = Timestamp(seconds=AS_OF // 1_000_000)

    assert _verdict(wire.authorize(sample, wire.question(min_as_of=just)))[0] == "ALLOW"


def test_a_registry_one_microsecond_older_than_the_caller_accepts_does_not(sample: grpc.Channel) -> None:
    just_not = Timestamp(seconds=AS_OF // 1_000_000, nanos=1000)
    error = wire.failure(lambda: wire.authorize(sample, wire.question(min_as_of=just_not)))

    assert wire.error_info(error).reason == "REVISION_TOO_OLD"


_OLD: list[dict[str, Any]] = [
    {"pk": "TENANT#Old", "sk": "TENANT", "membership": "OPTIONAL"},
    {"pk": "TENANT#Strict", "sk": "TENANT", "membership": "OPTIONAL", "maxStalenessSeconds": 3600},
    {"pk": "TENANT#Patient", "sk": "TENANT", "membership": "OPTIONAL", "maxStalenessSeconds": 4_000_000_000},
    *(
        {
            "pk": f"TENANT#{tenant}",
            "sk": "POLICY#P",
            "rules": [
                {
                    "effect": "ALLOW",
                    "resourceType": "TOOL",
                    "resources": ["agent:tool:**"],
                    "obligations": [{"type": "REQUIRE_APPROVAL", "by": ["lead", "owner"], "within": {"hours": 4}}],
                }
            ],
        }
        for tenant in ("Old", "Strict", "Patient")
    ),
]


@pytest.fixture(scope="module")
def old_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    write_export(folder, _OLD, summary={"exportTime": "2020-01-01T00:00:00.000Z"})
    return build_bundle(folder, folder / "bundle.tar.gz")


@pytest.fixture(scope="module")
def old(old_bundle: Path) -> Iterator[grpc.Channel]:
    with (
        tempfile.TemporaryDirectory(prefix="tg-") as folder,
        running_sidecar(sidecar_settings(Path(folder), old_bundle)) as (_, channel),
    ):
        yield channel


def _ask_old(tenant: str, **fields: Any) -> pb.AuthorizeRequest:
    return wire.question(identity=wire.identity(tenant), **({"accepted_obligations": ["REQUIRE_APPROVAL"]} | fields))


def test_without_a_bound_an_old_registry_answers_and_says_its_age(old: grpc.Channel) -> None:
    decision = wire.authorize(old, _ask_old("Old"))

    assert _verdict(decision) == ("ALLOW", "ALLOWED")
    assert decision.age.ToTimedelta().days > 365


@pytest.mark.parametrize(("tenant", "code"), [("Strict", "POLICY_STALE"), ("Patient", "ALLOWED")])
def test_a_tenant_may_bound_the_age_for_itself(old: grpc.Channel, tenant: str, code: str) -> None:
    assert _verdict(wire.authorize(old, _ask_old(tenant)))[1] == code


@pytest.mark.parametrize("tenant", ["Old", "Strict", "Patient"])
def test_a_tenant_cannot_loosen_the_bound_of_the_sidecar(old_bundle: Path, short_path: Path, tenant: str) -> None:
    settings = sidecar_settings(short_path, old_bundle, freshness__max_staleness_seconds=7200)
    with running_sidecar(settings) as (_, channel):
        assert _verdict(wire.authorize(channel, _ask_old(tenant))) == ("DENY", "POLICY_STALE")


def test_the_bound_of_the_sidecar_stands_in_the_status(old_bundle: Path, short_path: Path) -> None:
    settings = sidecar_settings(short_path, old_bundle, freshness__max_staleness_seconds=7200)
    with running_sidecar(settings) as (_, channel):
        assert wire.get_status(channel).max_staleness == Duration(seconds=7200)


def test_a_stale_decision_carries_no_obligation_and_no_rule(old: grpc.Channel) -> None:
    decision = wire.authorize(old, _ask_old("Strict"))

    assert (decision.policy_id, decision.rule_id, [*decision.obligations]) == ("", "", [])


def test_a_stale_decision_explains_what_would_have_been_decided(old: grpc.Channel) -> None:
    explanation = wire.authorize(old, _ask_old("Strict", explain=True)).explanation

    assert [finding.code for finding in explanation.findings] == [
        decision_pb2.DECISION_CODE_POLICY_STALE,
        decision_pb2.DECISION_CODE_ALLOWED,
    ]


def test_a_batch_of_a_stale_registry_is_denied_item_by_item(old: grpc.Channel) -> None:
    request = wire.batch(ORDER_LOOKUP, ADMIN_REFUND, identity=wire.identity("Strict"))
    results = AuthorizationServiceStub(old).BatchAuthorize(request, timeout=DEADLINE).results

    assert [_verdict(result.decision)[1] for result in results] == ["POLICY_STALE"] * 2


def test_no_tool_of_a_stale_registry_may_be_called(old: grpc.Channel) -> None:
    request = wire.tools(ORDER_LOOKUP, ADMIN_REFUND, identity=wire.identity("Strict"))
    answer = AuthorizationServiceStub(old).FilterTools(request, timeout=DEADLINE)

    assert [(tool.state, tool.code) for tool in answer.tools] == [
        (pb.TOOL_STATE_DENIED, decision_pb2.DECISION_CODE_POLICY_STALE)
    ] * 2


# ── obligations ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_obligation_travels_with_the_allow(old: grpc.Channel) -> None:
    decision = wire.authorize(old, _ask_old("Old"))

    assert [MessageToDict(obligation) for obligation in decision.obligations] == [
        {"type": "REQUIRE_APPROVAL", "parameters": {"by": ["lead", "owner"], "within": {"hours": 4}}}
    ]


def test_an_obligation_that_the_caller_cannot_carry_out_denies(old: grpc.Channel) -> None:
    decision = wire.authorize(old, _ask_old("Old", accepted_obligations=["LOG_ONLY"]))

    assert _verdict(decision) == ("DENY", "OBLIGATION_UNSUPPORTED")
    assert not decision.obligations
    assert "REQUIRE_APPROVAL" in decision.reason


def test_a_tool_that_is_allowed_comes_with_its_obligations(old: grpc.Channel) -> None:
    request = wire.tools(ORDER_LOOKUP, identity=wire.identity("Old"), accepted_obligations=["REQUIRE_APPROVAL"])
    (tool,) = AuthorizationServiceStub(old).FilterTools(request, timeout=DEADLINE).tools

    assert [obligation.type for obligation in tool.obligations] == ["REQUIRE_APPROVAL"]


# ── a plain table of policy documents ───────────────────────────────────────────────────────────────────────────────────

_PLAIN = {
    "what the document allows": ("Tenant-A", ORDER_LOOKUP, ("ALLOW", "ALLOWED")),
    "what the document denies": ("Tenant-A", ADMIN_REFUND, ("DENY", "DENIED_BY_RULE")),
    "anything else": ("Tenant-A", "agent:tool:order-cancel", ("DENY", "NO_MATCHING_RULE")),
    "a longer id": ("Tenant-A", ORDER_LOOKUP + "-all", ("DENY", "NO_MATCHING_RULE")),
    "another tenant": ("Tenant-B", ORDER_LOOKUP, ("DENY", "TENANT_UNKNOWN")),
}


@pytest.fixture(scope="module")
def plain_table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    bundle = build_bundle(DATA / "export-plain", tmp_path_factory.mktemp("plain") / "bundle.tar.gz")
    with (
        tempfile.TemporaryDirectory(prefix="tg-") as folder,
        running_sidecar(sidecar_settings(Path(folder), bundle)) as (_, channel),
    ):
        yield channel


@pytest.mark.parametrize(("tenant", "resource_id", "expected"), _PLAIN.values(), ids=_PLAIN)
def test_a_plain_table_of_policy_documents_decides_as_it_is(
    plain_table: grpc.Channel, tenant: str, resource_id: str, expected: tuple[str, str]
) -> None:
    asked = wire.question(resource_id, identity=wire.identity(tenant))

    assert _verdict(wire.authorize(plain_table, asked)) == expected


def test_a_plain_table_gives_the_reason_of_its_denial(plain_table: grpc.Channel) -> None:
    assert wire.authorize(plain_table, wire.question(ADMIN_REFUND)).reason == "Insufficient privileges"
