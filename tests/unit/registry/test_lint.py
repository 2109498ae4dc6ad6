"""What is odd in a registry, and what only looks as if it were."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from sidecar.registry import items
from sidecar.registry.lint import LINTS, Catalogue, Finding, lint_malformed, lint_tenant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.model import Json

AS_OF = datetime(2026, 7, 1, tzinfo=UTC)

_ALLOW = {"effect": "ALLOW", "resourceType": "TOOL", "resources": ["agent:tool:refund"]}
_DENY = _ALLOW | {"effect": "DENY"}


def _record(sk: str, **attributes: Json) -> Any:
    entry = items.parse({"pk": "TENANT#T", "sk": sk, **attributes})
    assert entry is not None
    return entry.record


def _policy(policy_id: str, *rules: dict[str, Json], assignment: str = "TENANT") -> items.Policy:
    policy: items.Policy = _record(f"POLICY#{policy_id}", rules=list(rules), assignment=assignment)
    return policy


def _user(user_id: str, *policy_ids: str, status: str = "ACTIVE") -> items.Membership:
    member: items.Membership = _record(f"USER#{user_id}", policyIds=list(policy_ids), status=status)
    return member


def _agent(agent_id: str, *scopes: str, status: str = "ACTIVE") -> items.Agent:
    agent: items.Agent = _record(f"AGENT#{agent_id}", scopes=list(scopes), status=status)
    return agent


def _resource(resource_type: str, resource_id: str) -> items.Resource:
    return items.Resource(resource_type=resource_type, resource_id=resource_id)


def _lint(*records: items.Record, shared: Sequence[items.Resource] = (), tenant: bool = True) -> list[Finding]:
    """Lint the records of tenant T, which exists unless it is said not to."""
    held = items.TenantRecords(items.Tenant() if tenant else None, [], [], [], [])
    for record in records:
        match record:
            case items.Policy():
                held.policies.append(record)
            case items.Membership():
                held.members.append(record)
            case items.Agent():
                held.agents.append(record)
            case items.Resource():
                held.resources.append(record)
    return list(lint_tenant("T", held, Catalogue(shared), int(AS_OF.timestamp()) * 1_000_000))


def _codes(*records: items.Record, shared: Sequence[items.Resource] = (), tenant: bool = True) -> list[str]:
    return [finding.code for finding in _lint(*records, shared=shared, tenant=tenant)]


def _codes_of(*rules: dict[str, Json]) -> list[str]:
    return _codes(_policy("P", *rules))


# everything that narrows a rule, each narrowing on its own; a wider form and an unrelated one beside it
_NARROWINGS: dict[str, tuple[dict[str, Json], dict[str, Json], dict[str, Json]]] = {
    "actions": ({"actions": ["read"]}, {"actions": ["read", "write"]}, {"actions": ["write"]}),
    "users": (
        {"subjects": {"users": ["alice"]}},
        {"subjects": {"users": ["alice", "bob"], "roles": ["admin"]}},
        {"subjects": {"users": ["bob"]}},
    ),
    "roles": (
        {"subjects": {"roles": ["support"]}},
        {"subjects": {"roles": ["support", "admin"]}},
        {"subjects": {"users": ["support"]}},
    ),
    "users or roles": (
        {"subjects": {"users": ["alice"], "roles": ["support"]}},
        {"subjects": {"users": ["alice", "bob"], "roles": ["support"]}},
        {"subjects": {"users": ["alice"]}},
    ),
    "principals": (
        {"principals": ["agent:support-*"]},
        {"principals": ["other", "agent:*"]},
        {"principals": ["agent:support-bot"]},
    ),
    "scopes": ({"scopes": ["a", "b"]}, {"scopes": ["a"]}, {"scopes": ["a", "c"]}),
    "start": (
        {"notBefore": "2026-08-01T00:00:00Z"},
        {"notBefore": "2026-07-31T23:00:00+01:00"},
        {"notBefore": "2026-08-01T00:00:00-01:00"},
    ),
    "end": (
        {"notAfter": "2026-08-01T00:00:00Z"},
        {"notAfter": "2026-08-02T00:00:00Z"},
        {"notAfter": "2026-07-31T00:00:00Z"},
    ),
    "conditions": (
        {
            "conditions": [
                {"path": "/arguments/n", "op": "gt", "value": 1},
                {"path": "/arguments/who", "op": "eq", "valueFrom": "/subject/id"},
            ]
        },
        {"conditions": [{"path": "/arguments/n", "op": "gt", "value": 1.0}]},
        {"conditions": [{"path": "/arguments/n", "op": "gt", "value": 2}]},
    ),
}


@pytest.mark.parametrize(
    ("allowed", "denied"),
    [
        pytest.param(["a"], ["*"], id="id under a glob"),
        pytest.param(["a:*"], ["a:**"], id="glob under a wider glob"),
        pytest.param(["a", "b:c"], ["**", "a"], id="several under one"),
        pytest.param(["a", "b"], ["a", "b", "c"], id="several under as many"),
    ],
)
def test_an_allow_that_a_deny_covers_is_shadowed(allowed: list[str], denied: list[str]) -> None:
    assert _codes_of(_ALLOW | {"resources": allowed}, _DENY | {"resources": denied}) == ["SHADOWED_RULE"]


@pytest.mark.parametrize(
    ("allowed", "denied"),
    [
        pytest.param(["a"], ["b"], id="another id"),
        pytest.param(["*"], ["a"], id="glob over an id"),
        pytest.param(["a:**"], ["a:*"], id="glob over a narrower glob"),
        pytest.param(["a", "b"], ["a"], id="one of several"),
    ],
)
def test_an_allow_of_which_a_deny_leaves_something_is_not_shadowed(allowed: list[str], denied: list[str]) -> None:
    assert _codes_of(_ALLOW | {"resources": allowed}, _DENY | {"resources": denied}) == []


def test_an_allow_that_several_denies_cover_together_is_shadowed_and_all_are_named() -> None:
    findings = _lint(
        _policy("A", _ALLOW | {"resources": ["a:1", "b:2"], "ruleId": "yes"}),
        _policy("B", _DENY | {"resources": ["b:*"], "ruleId": "no-b"}),
        _policy("C", _DENY | {"resources": ["a:*"], "ruleId": "no-a"}),
    )
    message = (
        "tenant 'T': rule 'yes' of policy 'A' never allows anything, because of DENY rule 'no-b' of policy 'B', "
        "DENY rule 'no-a' of policy 'C'; remove it, or narrow what denies it"
    )
    assert findings == [Finding("warning", "SHADOWED_RULE", "T", message, "A", "yes")]


def test_a_deny_of_another_resource_type_shadows_nothing() -> None:
    assert _codes_of(_ALLOW, _DENY | {"resourceType": "AGENT", "resources": ["**"]}) == []


def test_an_allow_shadows_nothing() -> None:
    assert _codes_of(_ALLOW, _ALLOW | {"resources": ["**"]}) == []


def test_nothing_shadows_a_deny() -> None:
    assert _codes_of(_DENY, _DENY | {"resources": ["**"]}) == []


@pytest.mark.parametrize("narrowing", _NARROWINGS)
def test_a_deny_without_narrowing_shadows_a_narrowed_allow(narrowing: str) -> None:
    narrow, _, _ = _NARROWINGS[narrowing]
    assert _codes_of(_ALLOW | narrow, _DENY | {"resources": ["**"]}) == ["SHADOWED_RULE"]


@pytest.mark.parametrize("narrowing", _NARROWINGS)
def test_a_deny_with_the_same_narrowing_shadows_an_allow(narrowing: str) -> None:
    narrow, _, _ = _NARROWINGS[narrowing]
    assert _codes_of(_ALLOW | narrow, _DENY | narrow | {"resources": ["**"]}) == ["SHADOWED_RULE"]


@pytest.mark.parametrize("narrowing", _NARROWINGS)
def test_a_deny_with_a_wider_narrowing_shadows_an_allow(narrowing: str) -> None:
    narrow, wide, _ = _NARROWINGS[narrowing]
    assert _codes_of(_ALLOW | narrow, _DENY | wide | {"resources": ["**"]}) == ["SHADOWED_RULE"]


@pytest.mark.parametrize("narrowing", _NARROWINGS)
def test_a_deny_with_another_narrowing_shadows_nothing(narrowing: str) -> None:
    narrow, _, other = _NARROWINGS[narrowing]
    assert _codes_of(_ALLOW | narrow, _DENY | other | {"resources": ["**"]}) == []


@pytest.mark.parametrize("narrowing", _NARROWINGS)
def test_a_narrowed_deny_does_not_shadow_an_allow_without_narrowing(narrowing: str) -> None:
    narrow, _, _ = _NARROWINGS[narrowing]
    assert _codes_of(_ALLOW, _DENY | narrow | {"resources": ["**"]}) == []


def test_conditions_that_only_python_takes_for_equal_are_not() -> None:
    one, true = ({"conditions": [{"path": "/arguments/x", "op": "eq", "value": value}]} for value in (1, True))
    assert _codes_of(_ALLOW | one, _DENY | true) == []


@pytest.mark.parametrize(
    ("allow_for", "deny_for", "codes"),
    [
        ("TENANT", "TENANT", ["SHADOWED_RULE"]),
        ("MEMBERS", "TENANT", ["SHADOWED_RULE"]),
        ("TENANT", "MEMBERS", []),
        ("MEMBERS", "MEMBERS", []),
    ],
)
def test_a_deny_shadows_only_where_it_reaches_everyone_that_the_allow_reaches(
    allow_for: str, deny_for: str, codes: list[str]
) -> None:
    allow = _policy("A", _ALLOW, assignment=allow_for)
    deny = _policy("D", _DENY | {"resources": ["**"]}, assignment=deny_for)
    assert _codes(allow, deny, _user("u", "A", "D")) == codes


def test_a_deny_shadows_within_its_own_policy_whoever_has_that() -> None:
    policy = _policy("P", _ALLOW, _DENY | {"resources": ["**"]}, assignment="MEMBERS")
    assert _codes(policy, _user("u", "P")) == ["SHADOWED_RULE"]


@pytest.mark.parametrize("narrowing", ["none", *_NARROWINGS])
def test_an_allow_and_a_deny_of_the_same_contradict_each_other(narrowing: str) -> None:
    narrow = _NARROWINGS[narrowing][0] if narrowing in _NARROWINGS else {}
    rules = _ALLOW | narrow | {"resources": ["a", "b*"]}, _DENY | narrow | {"resources": ["b*", "a"], "reason": "no"}
    assert _codes_of(*rules) == ["CONTRADICTING_RULES"]


def test_a_contradiction_names_both_rules() -> None:
    findings = _lint(_policy("A", _ALLOW), _policy("B", _DENY))
    message = (
        "tenant 'T': rule 'rule-1' of policy 'A' allows exactly what rule 'rule-1' of policy 'B' denies, and "
        "DENY wins; remove one of the two"
    )
    assert findings == [Finding("error", "CONTRADICTING_RULES", "T", message, "A", "rule-1")]


def test_a_deny_for_some_members_is_an_exception_and_no_contradiction() -> None:
    assert _codes(_policy("A", _ALLOW), _policy("D", _DENY, assignment="MEMBERS"), _user("u", "D")) == []


@pytest.mark.parametrize("narrowing", ["none", *_NARROWINGS])
def test_a_rule_that_says_the_same_as_another_is_a_duplicate(narrowing: str) -> None:
    narrow = _NARROWINGS[narrowing][0] if narrowing in _NARROWINGS else {}
    rule = _ALLOW | narrow | {"obligations": [{"type": "LOG", "level": 1}]}
    assert _codes_of(rule | {"resources": ["a", "b"]}, rule | {"resources": ["b", "a", "b"]}) == ["DUPLICATE_RULE"]


def test_a_duplicate_names_the_first_of_its_kind() -> None:
    findings = _lint(_policy("A", _ALLOW, _DENY | {"resources": ["x"]}), _policy("B", _ALLOW | {"ruleId": "again"}))
    message = "tenant 'T': rule 'again' of policy 'B' repeats rule 'rule-1' of policy 'A'; remove one of the two"
    assert findings == [Finding("warning", "DUPLICATE_RULE", "T", message, "B", "again")]


@pytest.mark.parametrize(
    "difference",
    [
        pytest.param({"resources": ["other"]}, id="resources"),
        pytest.param({"resourceType": "AGENT"}, id="type"),
        pytest.param({"obligations": [{"type": "LOG"}]}, id="obligations"),
        *(pytest.param(narrow, id=name) for name, (narrow, _, _) in _NARROWINGS.items()),
    ],
)
def test_rules_that_differ_are_no_duplicates(difference: dict[str, Json]) -> None:
    assert _codes_of(_ALLOW, _ALLOW | difference) == []


@pytest.mark.parametrize("assignments", [("TENANT", "MEMBERS"), ("MEMBERS", "TENANT"), ("MEMBERS", "MEMBERS")])
def test_the_same_rule_for_other_people_is_no_duplicate(assignments: tuple[str, str]) -> None:
    policies = [_policy(name, _ALLOW, assignment=who) for name, who in zip("AB", assignments, strict=True)]
    assert _codes(*policies, _user("u", "A", "B")) == []


def test_a_duplicate_is_found_behind_the_same_rule_for_other_people() -> None:
    policies = _policy("A", _ALLOW), _policy("B", _ALLOW, assignment="MEMBERS"), _policy("C", _ALLOW)
    assert [(finding.code, finding.policy_id) for finding in _lint(*policies, _user("u", "B"))] == [
        ("DUPLICATE_RULE", "C")
    ]


@pytest.mark.parametrize(
    ("resource", "matched"),
    [
        ("agent:tool:refund", True),
        ("agent:tool:re*", True),
        ("**", True),
        ("agent:tool:refnud", False),
        ("agent:*", False),
    ],
)
@pytest.mark.parametrize("shared", [True, False], ids=["shared catalogue", "catalogue of the tenant"])
def test_a_rule_must_match_something_that_is_catalogued(resource: str, *, matched: bool, shared: bool) -> None:
    catalogue = [_resource("TOOL", "agent:tool:refund"), _resource("TOOL", "agent:tool:order"), _resource("TOOL", "b")]
    policy = _policy("P", _ALLOW | {"resources": [resource]})
    codes = _codes(policy, shared=catalogue) if shared else _codes(policy, *catalogue)
    assert codes == ([] if matched else ["UNMATCHED_RESOURCE"])


def test_each_resource_that_matches_nothing_is_named() -> None:
    policy = _policy("P", _ALLOW | {"resources": ["b", "a", "c"]})
    assert [finding.message for finding in _lint(policy, shared=[_resource("TOOL", "a")])] == [
        f"tenant 'T': rule 'rule-1' of policy 'P' names {name!r}, which no catalogued TOOL is; "
        "correct it, or catalogue it"
        for name in ("b", "c")
    ]


def test_a_resource_of_a_type_without_a_catalogue_may_be_anything() -> None:
    assert _codes(_policy("P", _ALLOW), shared=[_resource("MEMORY", "m")]) == []


@pytest.mark.parametrize(
    ("members", "codes"),
    [
        pytest.param([], ["UNASSIGNED_POLICY"], id="no one"),
        pytest.param([_user("u", "other")], ["UNKNOWN_POLICY", "UNASSIGNED_POLICY"], id="no one who lists it"),
        pytest.param([_user("u", "P", status="SUSPENDED")], ["UNASSIGNED_POLICY"], id="a suspended member"),
        pytest.param([_user("u", "P", status="SUSPENDED"), _user("v", "P")], [], id="an active member"),
    ],
)
def test_a_policy_for_members_needs_an_active_one(members: list[items.Membership], codes: list[str]) -> None:
    assert _codes(_policy("P", assignment="MEMBERS"), *members) == codes


def test_a_policy_for_the_tenant_needs_no_member() -> None:
    assert _codes(_policy("P")) == []


def test_an_unassigned_policy_is_told_what_to_do() -> None:
    (finding,) = _lint(_policy("P", assignment="MEMBERS"))
    message = (
        "tenant 'T': policy 'P' applies to no one: its assignment is MEMBERS, and no active membership lists it; "
        "list it in one, make its assignment TENANT, or remove it"
    )
    assert finding == Finding("warning", "UNASSIGNED_POLICY", "T", message, "P")


def test_a_policy_that_does_not_exist_is_reported_once_with_those_who_list_it() -> None:
    (finding,) = _lint(*(_user(name, "gone", "gone") for name in ("dan", "ann", "cid", "bob", "eve")))
    message = (
        "tenant 'T': policy 'gone' does not exist, but is listed in the membership of user 'ann', user 'bob', "
        "user 'cid' and 2 more; add it or unlist it"
    )
    assert finding == Finding("error", "UNKNOWN_POLICY", "T", message, "gone")


@pytest.mark.parametrize(
    ("record", "held"),
    [
        (_policy("P", _ALLOW), "1 POLICY"),
        (_user("u"), "1 USER"),
        (_agent("a"), "1 AGENT"),
        (_resource("MEMORY", "m"), "1 RESOURCE"),
    ],
)
def test_items_of_a_tenant_that_does_not_exist_have_no_effect(record: items.Record, held: str) -> None:
    message = f"tenant 'T': there is no TENANT item, so its other items ({held}) have no effect; add it, or remove them"
    assert _lint(record, tenant=False) == [Finding("error", "TENANTLESS_ITEMS", "T", message)]


@pytest.mark.parametrize(
    ("end", "codes"),
    [
        ("2026-06-30T23:59:59.999999Z", ["EXPIRED_RULE"]),
        ("2026-07-01T00:00:00Z", ["EXPIRED_RULE"]),
        ("2026-07-01T00:00:00.000001Z", []),
    ],
)
def test_a_rule_that_ended_before_the_moment_of_the_registry_is_expired(end: str, codes: list[str]) -> None:
    assert _codes_of(_ALLOW | {"notAfter": end}) == codes


def test_an_expired_rule_is_told_when_it_ended() -> None:
    (finding,) = _lint(_policy("P", _ALLOW | {"notAfter": "2025-01-01T00:00:00Z"}))
    message = "rule 'rule-1' of policy 'P' ended at 2025-01-01T00:00:00+00:00; remove it, or give it a later notAfter"
    assert finding.message == f"tenant 'T': {message}"


def _conditions(*comparisons: tuple[str, Json]) -> dict[str, Json]:
    unary = {"exists", "absent"}
    conditions = [{"path": "/arguments/n", "op": op} | ({} if op in unary else {"value": v}) for op, v in comparisons]
    return {"conditions": conditions}


@pytest.mark.parametrize(
    ("comparisons", "clash"),
    [
        pytest.param([("eq", 1), ("eq", 2)], "eq 1 and eq 2", id="two numbers"),
        pytest.param([("eq", 1), ("eq", True)], "eq 1 and eq true", id="numbers and booleans"),
        pytest.param([("eq", "1"), ("exists", None), ("eq", 1)], 'eq "1" and eq 1', id="texts and numbers"),
        pytest.param([("eq", [1]), ("eq", {"a": 1})], 'eq [1] and eq {"a":1}', id="lists and objects"),
        pytest.param([("lte", 1), ("gte", 2)], "gte 2 and lte 1", id="bounds the wrong way round"),
        pytest.param([("lt", 1), ("gte", 1)], "gte 1 and lt 1", id="upper bound left out"),
        pytest.param([("lte", 1), ("gt", 1)], "gt 1 and lte 1", id="lower bound left out"),
        pytest.param([("gte", 1), ("gt", 1), ("lte", 1), ("lte", 7)], "gt 1 and lte 1", id="the tightest bounds"),
        pytest.param([("lte", 0.5), ("gte", 0.75)], "gte 0.75 and lte 0.5", id="fractions"),
    ],
)
@pytest.mark.parametrize(
    ("effect", "never"), [("ALLOW", "never applies"), ("DENY", "applies only where nothing can be compared")]
)
def test_values_that_contradict_each_other_are_never_met(
    effect: str, never: str, comparisons: list[tuple[str, Json]], clash: str
) -> None:
    (finding,) = _lint(_policy("P", _ALLOW | {"effect": effect} | _conditions(*comparisons)))
    expected = f"rule 'rule-1' of policy 'P' {never}: /arguments/n cannot be {clash}; correct one of its conditions"
    assert (finding.code, finding.message) == ("UNSATISFIABLE_CONDITIONS", f"tenant 'T': {expected}")


@pytest.mark.parametrize("effect", ["ALLOW", "DENY"])
def test_a_value_cannot_be_both_absent_and_there(effect: str) -> None:
    rule = _ALLOW | {"effect": effect} | _conditions(("exists", None), ("absent", None))
    (finding,) = _lint(_policy("P", rule))
    expected = "rule 'rule-1' of policy 'P' never applies: /arguments/n cannot be both absent and there (exists)"
    assert finding.message == f"tenant 'T': {expected}; correct one of its conditions"


def test_an_allow_cannot_compare_a_value_that_is_absent() -> None:
    assert _codes_of(_ALLOW | _conditions(("absent", None), ("ne", 1))) == ["UNSATISFIABLE_CONDITIONS"]


def test_a_deny_applies_to_an_absent_value_that_it_would_compare() -> None:
    assert _codes_of(_DENY | _conditions(("absent", None), ("ne", 1))) == []


@pytest.mark.parametrize(
    "comparisons",
    [
        pytest.param([("eq", 1), ("eq", 1.0)], id="one number in two spellings"),
        pytest.param([("eq", {"a": 1, "b": 2}), ("eq", {"b": 2, "a": 1})], id="one object in two orders"),
        pytest.param([("gte", 1), ("lte", 1)], id="bounds that meet"),
        pytest.param([("gt", 1), ("lt", 2)], id="bounds with room between"),
        pytest.param([("gt", 5), ("gt", 1)], id="lower bounds alone"),
        pytest.param([("gte", "b"), ("lte", 1)], id="bounds of different types, which are left to the reader"),
        pytest.param([("exists", None), ("eq", 1)], id="exists and more"),
        pytest.param([("absent", None)], id="absent alone"),
    ],
)
def test_conditions_that_can_all_hold_are_fine(comparisons: list[tuple[str, Json]]) -> None:
    assert _codes_of(_ALLOW | _conditions(*comparisons)) == []


def test_conditions_on_different_paths_do_not_contradict_each_other() -> None:
    paths = ["/arguments/a", "/arguments/b"]
    conditions = [{"path": path, "op": "eq", "value": path} for path in paths]
    assert _codes_of(_ALLOW | {"conditions": conditions}) == []


def test_a_value_that_only_the_request_has_contradicts_nothing() -> None:
    conditions = [{"path": "/arguments/a", "op": "eq", "valueFrom": f"/context/{name}"} for name in "bc"]
    assert _codes_of(_ALLOW | {"conditions": conditions}) == []


@pytest.mark.parametrize(
    ("rule", "agents", "codes"),
    [
        pytest.param({"scopes": ["a"]}, [], [], id="no agents are kept"),
        pytest.param({"scopes": ["a", "b"]}, [_agent("x", "a", "b", "c")], [], id="an agent holds them all"),
        pytest.param(
            {"scopes": ["a", "b"]},
            [_agent("x", "a"), _agent("y", "b")],
            ["UNREACHABLE_AGENT_SCOPE"],
            id="no one holds all",
        ),
        pytest.param(
            {"scopes": ["a"]}, [_agent("x", "a", status="SUSPENDED")], ["UNREACHABLE_AGENT_SCOPE"], id="suspended"
        ),
        pytest.param({"scopes": ["a"], "principals": ["x*"]}, [_agent("xy", "a")], [], id="the principal holds it"),
        pytest.param(
            {"scopes": ["a"], "principals": ["x"]},
            [_agent("x"), _agent("y", "a")],
            ["UNREACHABLE_AGENT_SCOPE"],
            id="only another principal holds it",
        ),
        pytest.param({"principals": ["x"]}, [_agent("y")], [], id="a rule that needs no scope"),
    ],
)
def test_the_scopes_of_a_rule_must_be_within_reach_of_an_agent(
    rule: dict[str, Json], agents: list[items.Agent], codes: list[str]
) -> None:
    assert _codes(_policy("P", _ALLOW | rule), *agents) == codes


@pytest.mark.parametrize(
    ("narrowing", "attribute"),
    [
        ({"actions": ["*"]}, "actions"),
        ({"scopes": ["tools:*"]}, "scopes"),
        ({"subjects": {"users": ["*"]}}, "subjects.users"),
        ({"subjects": {"roles": ["admin-*"]}}, "subjects.roles"),
    ],
)
def test_a_star_where_it_is_no_wildcard_is_pointed_out(narrowing: dict[str, Json], attribute: str) -> None:
    (finding,) = _lint(_policy("P", _DENY | narrowing))
    assert (finding.code, f"in {attribute}, where `*` is no wildcard" in finding.message) == ("LITERAL_STAR", True)


def test_a_star_where_it_is_a_wildcard_is_fine() -> None:
    assert _codes_of(_DENY | {"resources": ["*"], "principals": ["agent:*"]}) == []


def test_a_malformed_item_is_an_error_in_its_own_words() -> None:
    fault = "TENANT#T / TENANT: status: Invalid enum value 'PAUSED'"
    assert list(lint_malformed([fault], {})) == [Finding("error", "MALFORMED_ITEM", "", fault)]


def test_attributes_that_the_kind_does_not_have_are_reported_with_their_number() -> None:
    assert list(lint_malformed([], {"USER.team.lead": 2, "POLICY.owner": 7})) == [
        Finding(
            "warning",
            "UNKNOWN_ATTRIBUTE",
            "",
            f"{number} {kind} items have an attribute {name!r}, which is unknown and ignored; correct or remove it",
        )
        for number, kind, name in ((7, "POLICY", "owner"), (2, "USER", "team.lead"))
    ]


def test_a_sound_tenant_has_no_findings() -> None:
    assert (
        _lint(
            _policy("base", _ALLOW | {"resources": ["agent:tool:*"]}, _DENY),
            _policy("support", _ALLOW | {"actions": ["read"], "resources": ["agent:tool:order"]}, assignment="MEMBERS"),
            _user("alice", "support"),
            _agent("agent:bot", "tools:read"),
            shared=[_resource("TOOL", "agent:tool:refund"), _resource("TOOL", "agent:tool:order")],
        )
        == []
    )


def test_every_code_is_listed_once() -> None:
    codes = [code for code, _, _ in LINTS]
    assert len(codes) == len(set(codes))


def test_findings_do_not_depend_on_the_order_in_which_items_are_exported() -> None:
    records: list[items.Record] = [
        _policy("A", _ALLOW, _ALLOW),
        _policy("B", _DENY),
        _user("u", "x"),
        _user("v", "y", "x"),
    ]
    assert _lint(*reversed(records)) == _lint(*records)


@pytest.mark.parametrize(
    "resource", ["agent:tool:group-{}:*", "**:tool-{}-*", "agent:tool:{}"], ids=["prefix", "suffix", "id"]
)
def test_a_thousand_rules_are_linted_in_a_moment(resource: str) -> None:
    names = [resource.format(n) for n in range(500)]
    denies = [_DENY | {"resources": [name], "scopes": ["never"]} for name in names]
    allows = [_ALLOW | {"resources": [name, name + "x"]} for name in names]
    policies = _policy("A", *allows), _policy("D", *denies)
    shared = [_resource("TOOL", f"agent:tool:{n}") for n in range(500)]
    began = time.process_time()
    _lint(*policies, shared=shared)
    assert time.process_time() - began < 2
