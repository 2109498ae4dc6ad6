"""A tenant's records become the document that the Rego reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.bundles.compile import compile_resources, compile_tenant, microseconds, suspend, suspend_resources
from sidecar.registry import items

if TYPE_CHECKING:
    from sidecar.model import Json

_TENANT = items.Tenant()
_RULE = {"effect": "ALLOW", "resourceType": "TOOL", "resources": ["a"]}


def _policy(policy_id: str, *rules: dict[str, Json], assignment: str = "TENANT") -> items.Policy:
    entry = items.parse({"pk": "TENANT#T", "sk": f"POLICY#{policy_id}", "rules": list(rules), "assignment": assignment})
    assert entry is not None
    assert isinstance(entry.record, items.Policy)
    return entry.record


def _records(*policies: items.Policy, tenant: items.Tenant | None = _TENANT, **others: Any) -> items.TenantRecords:
    lists = {"members": [], "agents": [], "resources": []} | others
    return items.TenantRecords(tenant, list(policies), **lists)


def _compiled(*policies: items.Policy, **others: Any) -> dict[str, Json]:
    document = compile_tenant(_records(*policies, **others))
    assert document is not None
    return document


def _rule(**changes: Json) -> dict[str, Json]:
    """Compile one rule."""
    (rule,) = _compiled(_policy("P", _RULE | changes))["rules"]
    assert isinstance(rule, dict)
    return rule


def _condition(**condition: Json) -> dict[str, Json]:
    """Compile one condition."""
    (compiled,) = _rule(conditions=[{"path": "/arguments/n", "op": "eq", **condition}])["conditions"]
    assert isinstance(compiled, dict)
    return compiled


def test_a_tenant_without_a_tenant_item_does_not_exist() -> None:
    assert compile_tenant(_records(_policy("P", _RULE), tenant=None)) is None


def test_a_tenant_that_holds_nothing_has_terms_alone() -> None:
    assert _compiled() == {"terms": {"status": "ACTIVE", "membership": "REQUIRED"}}


def test_the_terms_are_what_the_tenant_says_of_itself() -> None:
    tenant = items.Tenant(status="SUSPENDED", membership="OPTIONAL", max_staleness_seconds=0.5)
    expected = {"status": "SUSPENDED", "membership": "OPTIONAL", "max_staleness_seconds": 0.5}
    assert _compiled(tenant=tenant)["terms"] == expected


def test_the_terms_tell_that_the_tenant_keeps_agents() -> None:
    assert _compiled(agents=[items.Agent(agent_id="x", status="SUSPENDED")])["terms"]["agents"] is True


def test_members_are_found_by_user_and_hold_only_what_they_have() -> None:
    members = [
        items.Membership(user_id="alice", policy_ids=("b", "a", "b"), roles=("r", "q"), attributes={"team": 1}),
        items.Membership(user_id="bob", status="SUSPENDED"),
    ]
    assert _compiled(members=members)["members"] == {
        "alice": {"status": "ACTIVE", "policies": ["a", "b"], "roles": ["q", "r"], "attributes": {"team": 1}},
        "bob": {"status": "SUSPENDED"},
    }


def test_agents_are_found_by_id_with_the_most_that_they_may_hold() -> None:
    agents = [items.Agent(agent_id="x", scopes=("w", "r", "w")), items.Agent(agent_id="y", status="SUSPENDED")]
    assert _compiled(agents=agents)["agents"] == {
        "x": {"scopes": ["r", "w"], "status": "ACTIVE"},
        "y": {"scopes": [], "status": "SUSPENDED"},
    }


def test_resources_are_found_by_type_and_id() -> None:
    resources = [
        items.Resource(resource_type="TOOL", resource_id="a", access="WRITE"),
        items.Resource(resource_type="MEMORY", resource_id="a", attributes={"owner": "alice"}),
        items.Resource(resource_type="TOOL", resource_id="b"),
    ]
    expected = {"TOOL": {"a": {"access": "WRITE"}, "b": {}}, "MEMORY": {"a": {"attributes": {"owner": "alice"}}}}
    assert (_compiled(resources=resources)["resources"], compile_resources(resources)) == (expected, expected)


def test_a_rule_says_where_it_stands_and_what_it_does() -> None:
    assert _rule(ruleId="mine", effect="DENY", reason="because") == {
        "policy": "P",
        "id": "mine",
        "effect": "DENY",
        "reason": "because",
    }


@pytest.mark.parametrize(("effect", "done"), [("ALLOW", "allowed"), ("DENY", "denied")])
def test_a_rule_without_a_reason_is_its_own_reason(effect: str, done: str) -> None:
    (rule,) = _compiled(_policy('the "P"', _RULE | {"effect": effect}))["rules"]
    assert rule["reason"] == f'{done} by rule "rule-1" of policy "the \\"P\\""'


def test_a_rule_without_an_id_is_named_by_its_position() -> None:
    rules = _compiled(_policy("P", _RULE, _RULE | {"ruleId": "mine"}, _RULE))["rules"]
    assert [rule["id"] for rule in rules] == ["rule-1", "mine", "rule-3"]


def test_rules_stand_in_order_of_policy_id_and_then_of_position() -> None:
    policies = [
        _policy("b", _RULE | {"ruleId": "z"}, _RULE | {"ruleId": "a"}),
        _policy("a", _RULE),
        _policy("B", _RULE),
    ]
    rules = _compiled(*policies)["rules"]
    assert [(rule["policy"], rule["id"]) for rule in rules] == [
        ("B", "rule-1"),
        ("a", "rule-1"),
        ("b", "z"),
        ("b", "a"),
    ]


def test_exact_ids_are_found_by_type_and_id() -> None:
    document = _compiled(
        _policy("P", _RULE | {"resources": ["a", "b", "a"]}, _RULE | {"resources": ["b"]}),
        _policy("Q", _RULE | {"resourceType": "AGENT"}),
    )
    assert (document["exact"], "globs" in document) == ({"TOOL": {"a": [0], "b": [0, 1]}, "AGENT": {"a": [2]}}, False)


@pytest.mark.parametrize(
    ("glob", "prefix", "entry"),
    [
        pytest.param("agent:tool:*", "agent:tool:", {"rule": 0, "rest": "^(?s:[^:/]*)$"}, id="star at the end"),
        pytest.param("a:*-b.c/**", "a:", {"rule": 0, "rest": r"^(?s:[^:/]*-b\.c/.*)$"}, id="wildcards within"),
        pytest.param("a:**", "a:", {"rule": 0}, id="nothing left to match"),
        pytest.param("**", "", {"rule": 0}, id="anything"),
        pytest.param("\U0001f512é*", "\U0001f512é", {"rule": 0, "rest": "^(?s:[^:/]*)$"}, id="characters, not bytes"),
    ],
)
def test_a_glob_is_filed_under_the_text_before_its_first_wildcard(glob: str, prefix: str, entry: Json) -> None:
    document = _compiled(_policy("P", _RULE | {"resources": [glob]}))
    assert (document["globs"], document["terms"]["lengths"], "exact" in document) == (
        {"TOOL": {prefix: [entry]}},
        {"TOOL": [len(prefix)]},
        False,
    )


def test_globs_that_begin_alike_share_an_entry() -> None:
    rules = _RULE | {"resources": ["abc**", "a**"]}, _RULE | {"resources": ["a**", "b**"]}
    assert _compiled(_policy("P", *rules))["globs"]["TOOL"] == {
        "abc": [{"rule": 0}],
        "a": [{"rule": 0}, {"rule": 1}],
        "b": [{"rule": 1}],
    }


def test_the_terms_tell_for_each_type_how_long_the_texts_are_under_which_globs_are_filed() -> None:
    policy = _policy(
        "P", _RULE | {"resources": ["abc*", "a**", "b*"]}, _RULE | {"resourceType": "AGENT", "resources": ["*"]}
    )
    assert _compiled(policy)["terms"]["lengths"] == {"TOOL": [1, 3], "AGENT": [0]}


@pytest.mark.parametrize(
    ("changes", "compiled"),
    [
        pytest.param({"actions": ["invoke"]}, {"actions": ["invoke"]}, id="actions"),
        pytest.param({"subjects": {"users": ["u"]}}, {"subjects": {"users": ("u",)}}, id="users"),
        pytest.param({"subjects": {"roles": ["r"]}}, {"subjects": {"roles": ("r",)}}, id="roles"),
        pytest.param(
            {"principals": ["x", "agent:*"]},
            {"principals": {"ids": ["x"], "patterns": ["^(?s:agent:[^:/]*)$"]}},
            id="principals",
        ),
        pytest.param({"scopes": ["s", "t"]}, {"scopes": ["s", "t"]}, id="scopes"),
        pytest.param({"notBefore": "1970-01-01T00:00:01.000002Z"}, {"not_before": 1_000_002}, id="start"),
        pytest.param({"notAfter": "1970-01-01T02:00:00+01:00"}, {"not_after": 3_600_000_000}, id="end"),
    ],
)
def test_a_rule_lists_the_narrowing_that_it_has(changes: dict[str, Json], compiled: dict[str, Json]) -> None:
    expected = {"policy": "P", "id": "rule-1", "effect": "ALLOW", "reason": "why", **compiled, "narrowing": [*compiled]}
    assert _rule(reason="why", **changes) == expected


def test_a_rule_of_a_policy_for_members_is_narrowed_by_assignment() -> None:
    (rule,) = _compiled(_policy("P", _RULE | {"actions": ["x"]}, assignment="MEMBERS"))["rules"]
    assert rule["narrowing"] == ["actions", "assignment"]


def test_obligations_are_kept_as_they_are_written() -> None:
    obligations = [{"type": "LOG", "level": 1}, {"type": "REQUIRE_APPROVAL"}]
    assert _rule(obligations=obligations)["obligations"] == obligations


@pytest.mark.parametrize(
    ("path", "root", "tokens"),
    [
        ("/arguments", "arguments", [[]]),
        ("/arguments/a/b", "arguments", [["a", "b"]]),
        ("/arguments/a~1b/~0", "arguments", [["a/b", "~"]]),
        ("/arguments/items/0", "arguments", [["items", "0"], ["items", 0]]),
        ("/context/0/x/12", "context", [["0", "x", "12"], ["0", "x", 12], [0, "x", "12"], [0, "x", 12]]),
        ("/subject/roles/01", "subject", [["roles", "01"]]),
    ],
)
def test_a_path_is_read_with_each_number_as_a_key_and_as_an_index(path: str, root: str, tokens: list[Json]) -> None:
    assert _condition(path=path, value=1) == {"op": "eq", "path": path, "root": root, "tokens": tokens, "value": 1}


def test_a_condition_that_compares_two_paths_reads_both() -> None:
    assert _condition(valueFrom="/context/0")["from"] == {
        "path": "/context/0",
        "root": "context",
        "tokens": [["0"], [0]],
    }


def test_a_null_to_compare_with_is_not_lost() -> None:
    assert _condition(value=None)["value"] is None


def test_a_condition_about_the_path_alone_has_no_value() -> None:
    assert _condition(op="exists") == {"op": "exists", "path": "/arguments/n", "root": "arguments", "tokens": [["n"]]}


def test_a_glob_to_compare_with_is_translated() -> None:
    assert _condition(op="glob", value="a*")["regex"] == "^(?s:a[^:/]*)$"


def test_a_text_that_looks_like_a_glob_is_not_translated_for_other_operators() -> None:
    assert "regex" not in _condition(op="prefix", value="a*")


@pytest.mark.parametrize(
    ("paths", "reads"),
    [
        pytest.param(["/arguments/a"], ["arguments"], id="arguments"),
        pytest.param(["/context"], ["context"], id="context"),
        pytest.param(["/subject/properties/a"], ["subject.properties"], id="properties of the subject"),
        pytest.param(["/resource/properties"], ["resource.properties"], id="properties of the resource"),
        pytest.param(["/action"], ["action.properties"], id="the whole action"),
        pytest.param(["/subject/id"], None, id="identity, which always counts"),
        pytest.param(["/subject/attributes/a"], None, id="what the registry has"),
        pytest.param(
            ["/subject/properties/a", "/context/a", "/arguments/a", "/context/b"],
            ["arguments", "context", "subject.properties"],
            id="several, in order",
        ),
    ],
)
@pytest.mark.parametrize("side", ["path", "valueFrom"])
def test_a_rule_says_which_parts_of_a_request_it_reads(side: str, paths: list[str], reads: list[str] | None) -> None:
    other = "valueFrom" if side == "path" else "path"
    conditions = [{"op": "eq", side: path, other: "/subject/id"} for path in paths]
    assert _rule(conditions=conditions).get("reads") == reads


_MOMENTS = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)


@given(_MOMENTS)
def test_a_moment_is_given_to_the_microsecond(moment: int) -> None:
    assert microseconds(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment)) == moment


def test_a_moment_is_the_same_in_every_time_zone() -> None:
    assert microseconds(datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == 0


_POLICIES = [
    _policy("a", _RULE | {"resources": ["x", "y*"]}, _RULE | {"resources": ["**"], "effect": "DENY"}),
    _policy("b", _RULE | {"resources": ["y*", "z:**"], "scopes": ["s"]}, assignment="MEMBERS"),
    _policy("c", _RULE | {"resourceType": "AGENT", "resources": ["x", "y*"]}),
    _policy("d"),
]


@given(st.permutations(_POLICIES))
def test_the_same_policies_in_any_order_give_the_same_bytes(policies: list[items.Policy]) -> None:
    encode = msgspec.json.Encoder(order="sorted").encode
    assert encode(_compiled(*policies)) == encode(_compiled(*_POLICIES))


# ── suspended, in a tenant that cannot be compiled ──────────────────────────────────────────────────────────────────────


def _agent(agent_id: str, status: Any = "ACTIVE") -> items.Agent:
    return items.Agent(agent_id=agent_id, scopes=("s",), status=status)


_OFF: Any = "SUSPENDED"


def test_what_is_suspended_is_shut_off_and_nothing_else_of_the_records_counts() -> None:
    document = _compiled(_policy("P", _RULE), members=[items.Membership(user_id="u"), items.Membership(user_id="v")])
    said = _records(
        _policy("Q", _RULE),
        tenant=items.Tenant(membership="OPTIONAL"),
        members=[items.Membership(user_id="u", status=_OFF), items.Membership(user_id="w")],
        resources=[items.Resource(resource_type="TOOL", resource_id="a", status=_OFF)],
    )
    assert suspend(document, said) == document | {
        "members": {"u": {"status": "SUSPENDED"}, "v": {"status": "ACTIVE"}},
        "resources": {"TOOL": {"a": {"status": "SUSPENDED"}}},
    }


def test_a_suspended_tenant_keeps_the_rest_of_its_terms() -> None:
    document = _compiled(tenant=items.Tenant(membership="OPTIONAL", max_staleness_seconds=5))
    assert suspend(document, _records(tenant=items.Tenant(status=_OFF)))["terms"] == {
        "status": "SUSPENDED",
        "membership": "OPTIONAL",
        "max_staleness_seconds": 5,
    }


def test_an_agent_is_shut_off_among_those_that_were_listed() -> None:
    document = _compiled(agents=[_agent("a"), _agent("b")])
    shut = suspend(document, _records(agents=[_agent("a", _OFF), _agent("c")]))
    assert {agent: entry["status"] for agent, entry in shut["agents"].items()} == {"a": "SUSPENDED", "b": "ACTIVE"}


def test_where_no_agent_was_listed_the_others_are_listed_too_so_that_they_still_may_act() -> None:
    shut = suspend(_compiled(), _records(agents=[_agent("a", _OFF), _agent("b")]))
    assert {agent: entry["status"] for agent, entry in shut["agents"].items()} == {"a": "SUSPENDED", "b": "ACTIVE"}
    assert shut["terms"]["agents"] is True


def test_a_tenant_that_does_not_exist_does_not_come_to_exist_by_what_is_suspended() -> None:
    gone: dict[str, Json] = {"terms": {"removed": True, "version": 7}}
    assert suspend(gone, _records(tenant=items.Tenant(status=_OFF), agents=[_agent("a", _OFF)])) == gone


def test_a_shared_resource_is_shut_off_beside_the_others() -> None:
    catalogue = compile_resources([items.Resource(resource_type="TOOL", resource_id=name) for name in "ab"])
    off = [items.Resource(resource_type=kind, resource_id="a", status=_OFF) for kind in ("TOOL", "MODEL")]
    assert suspend_resources(catalogue, off) == {
        "TOOL": {"a": {"status": "SUSPENDED"}, "b": {}},
        "MODEL": {"a": {"status": "SUSPENDED"}},
    }
