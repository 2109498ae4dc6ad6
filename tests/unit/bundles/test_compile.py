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


def _read(texts: Any) -> Any:
    """Read the JSON of each text."""
    return {key: msgspec.json.decode(text) for key, text in texts.items()}


def _rules(*policies: items.Policy) -> list[Any]:
    """Compile rules, and give them in the order of their numbers."""
    return [rule for _, rule in sorted(_read(_compiled(*policies)["rules"]).items())]


def _rule(**changes: Json) -> dict[str, Json]:
    """Compile one rule, and give what it says beside effect, policy and id."""
    (rule,) = _rules(_policy("P", _RULE | changes))
    assert rule[:2] == [changes.get("effect", "ALLOW"), "P"]
    assert isinstance(rule[3], dict)
    return rule[3]


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
    document = _compiled(members=members)
    alice = {"policies": ["a", "b"], "roles": ["q", "r"], "attributes": {"team": 1}}
    assert _read(document["members"]) == {"alice": alice}
    assert _read(document["suspended"]["members"]) == {"bob": {}}


def test_agents_are_found_by_id_with_the_most_that_they_may_hold() -> None:
    agents = [items.Agent(agent_id="x", scopes=("w", "r", "w")), items.Agent(agent_id="y", status="SUSPENDED")]
    document = _compiled(agents=agents)
    assert (document["agents"], document["suspended"]["agents"]) == ({"x": '["r","w"]'}, {"y": "[]"})


def test_resources_are_found_by_type_and_id() -> None:
    resources = [
        items.Resource(resource_type="TOOL", resource_id="a", access="WRITE"),
        items.Resource(resource_type="MEMORY", resource_id="a", attributes={"owner": "alice"}),
        items.Resource(resource_type="TOOL", resource_id="b"),
        items.Resource(resource_type="TOOL", resource_id="c", access="READ", status="SUSPENDED"),
    ]
    expected = {
        "TOOL\ta": "WRITE",
        "MEMORY\ta": '\n\n{"owner":"alice"}',
        "TOOL\tb": "",
        "TOOL\tc": "READ\nSUSPENDED",
    }
    assert (_compiled(resources=resources)["resources"], compile_resources(resources)) == (expected, expected)


def test_a_rule_says_where_it_stands_and_what_it_does() -> None:
    mine = _RULE | {"ruleId": "mine", "effect": "DENY", "reason": "because"}
    assert _rules(_policy("P", mine, _RULE)) == [
        ["DENY", "P", "mine", {"reason": "because"}],
        ["ALLOW", "P", "rule-2", {"reason": 'allowed by rule "rule-2" of policy "P"'}],
    ]


def test_the_reason_of_a_rule_that_gives_none_is_the_rule_itself() -> None:
    bare = _RULE | {"ruleId": 'the "first"', "effect": "DENY"}
    ((_, _, _, rest),) = _rules(_policy("P\\Q", bare))
    assert rest == {"reason": r'denied by rule "the \"first\"" of policy "P\\Q"'}


def test_a_rule_without_an_id_is_named_by_its_position() -> None:
    rules = _rules(_policy("P", _RULE, _RULE | {"ruleId": "mine"}, _RULE))
    assert [name for _, _, name, _ in rules] == ["rule-1", "mine", "rule-3"]


def test_rules_are_numbered_in_order_of_policy_id_and_then_of_position() -> None:
    policies = [
        _policy("b", _RULE | {"ruleId": "z"}, _RULE | {"ruleId": "a"}),
        _policy("a", *([_RULE] * 9)),
        _policy("B", _RULE),
    ]
    rules = [(policy, name) for _, policy, name, _ in _rules(*policies)]
    in_a = [("a", f"rule-{position}") for position in range(1, 10)]
    assert rules == [("B", "rule-1"), *in_a, ("b", "z"), ("b", "a")]


_PLAIN = '0\tP\trule-1\tallowed by rule "rule-1" of policy "P"'
"""How a rule is listed that alone concerns something, and allows whatever is asked."""


def test_exact_ids_are_found_by_type_and_id() -> None:
    document = _compiled(
        _policy("P", _RULE | {"resources": ["a", "b", "a"]}, _RULE | {"resources": ["b"], "effect": "DENY"}),
        _policy("Q", _RULE | {"resourceType": "AGENT", "scopes": ["s"]}),
    )
    assert (document["exact"], "globs" in document) == ({"TOOL\ta": _PLAIN, "TOOL\tb": "0 1", "AGENT\ta": "2"}, False)


def test_with_an_exact_id_stand_the_rules_that_concern_it_by_a_glob() -> None:
    document = _compiled(
        _policy("P", _RULE | {"resources": ["a:*"], "effect": "DENY"}, _RULE | {"resources": ["a:b"]}),
        _policy(
            "Q",
            _RULE | {"resources": ["**", "a*", "x*", "a:b:*"]},
            _RULE | {"resourceType": "AGENT", "resources": ["a:*"]},
        ),
    )
    assert document["exact"] == {"TOOL\ta:b": "0 1 2"}


@pytest.mark.parametrize(
    ("glob", "key", "rest"),
    [
        pytest.param("agent:tool:*", "TOOL\tagent:tool:", "^(?s:[^:/]*)$", id="star at the end"),
        pytest.param("a:*-b.c/**", "TOOL\ta:", r"^(?s:[^:/]*-b\.c/.*)$", id="wildcards within"),
        pytest.param("a:**", "TOOL\ta:", "^(?s:.*)$", id="nothing left to match"),
        pytest.param("**", "TOOL\t", "^(?s:.*)$", id="anything"),
        pytest.param("\U0001f512é*", "TOOL\t\U0001f512é", "^(?s:[^:/]*)$", id="characters, not bytes"),
    ],
)
def test_a_glob_is_filed_under_the_text_before_its_first_wildcard(glob: str, key: str, rest: str) -> None:
    document = _compiled(_policy("P", _RULE | {"resources": [glob]}))
    assert (document["globs"], document["cuts"], "exact" in document) == (
        {key: f"{rest}\t{_PLAIN}"},
        {"TOOL": f"%.{len(key)}[1]s"},
        False,
    )


def test_globs_that_begin_alike_share_an_entry() -> None:
    actions = {"actions": ["read"]}
    rules = (
        _RULE | {"resources": ["abc**", "a**"]} | actions,
        _RULE | {"resources": ["a**", "b**"]} | actions,
        _RULE | {"resources": ["a*"]} | actions,
    )
    assert _compiled(_policy("P", *rules))["globs"] == {
        "TOOL\tabc": "^(?s:.*)$\t0",
        "TOOL\ta": "^(?s:.*)$\t0 1\n^(?s:[^:/]*)$\t2",
        "TOOL\tb": "^(?s:.*)$\t1",
    }


def test_for_each_type_there_is_one_cut_for_each_length_of_the_texts_under_which_globs_are_filed() -> None:
    policy = _policy(
        "P", _RULE | {"resources": ["abc*", "a**", "b*"]}, _RULE | {"resourceType": "100%s", "resources": ["*"]}
    )
    assert _compiled(policy)["cuts"] == {"TOOL": "%.6[1]s\n%.8[1]s", "100%s": "%.6[1]s"}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"effect": "DENY"}, id="a denial"),
        pytest.param({"actions": ["invoke"]}, id="narrowing"),
        pytest.param({"conditions": [{"path": "/arguments/n", "op": "exists"}]}, id="conditions"),
        pytest.param({"obligations": [{"type": "LOG"}]}, id="obligations"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_among_rules_of_which_one_does_not_allow_whatever_is_asked_none_is_named(
    changes: dict[str, Json], *, first: bool
) -> None:
    rules = [_RULE | changes, _RULE] if first else [_RULE, _RULE | changes]
    assert _compiled(_policy("P", *rules))["exact"] == {"TOOL\ta": "0 1"}


def test_among_rules_that_all_allow_whatever_is_asked_the_first_is_named() -> None:
    rules = [_RULE | {"ruleId": name, "reason": reason} for name, reason in (("x", "because"), ("a", "so"))]
    assert _compiled(_policy("P", *rules))["exact"] == {"TOOL\ta": "0 1\tP\tx\tbecause"}


def test_among_rules_for_members_none_is_named() -> None:
    assert _compiled(_policy("P", _RULE, assignment="MEMBERS"))["exact"] == {"TOOL\ta": "0"}


@pytest.mark.parametrize(
    ("reason", "listed"),
    [
        ("", '0\tthe "P"\ta\\b\tallowed by rule "a\\\\b" of policy "the \\"P\\""'),
        ("because é", '0\tthe "P"\ta\\b\tbecause é'),
        ("one\ttwo", "0"),
        ("one\ntwo", "0"),
    ],
)
def test_a_rule_that_is_named_is_named_with_its_reason_if_that_is_one_line(reason: str, listed: str) -> None:
    policy = _policy('the "P"', _RULE | {"ruleId": "a\\b", "reason": reason})
    assert _compiled(policy)["exact"] == {"TOOL\ta": listed}


@pytest.mark.parametrize(
    ("changes", "compiled"),
    [
        pytest.param({"actions": ["invoke"]}, {"actions": ["invoke"]}, id="actions"),
        pytest.param({"subjects": {"users": ["u"]}}, {"subjects": {"users": ["u"]}}, id="users"),
        pytest.param({"subjects": {"roles": ["r"]}}, {"subjects": {"roles": ["r"]}}, id="roles"),
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
    assert _rule(**changes)["narrowing"] == [[name, wanted] for name, wanted in compiled.items()]


def test_a_rule_of_a_policy_for_members_is_narrowed_by_assignment() -> None:
    (rule,) = _rules(_policy("P", _RULE | {"actions": ["x"]}, assignment="MEMBERS"))
    assert rule[3]["narrowing"] == [["actions", ["x"]], ["assignment", "P"]]


def test_obligations_are_kept_as_they_are_written() -> None:
    obligations = [{"type": "LOG", "level": 1}, {"type": "REQUIRE_APPROVAL"}]
    assert _rule(obligations=obligations)["obligations"] == obligations


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ("/arguments", {"at": ["arguments"]}),
        ("/arguments/a/b", {"at": ["arguments", "a", "b"]}),
        ("/arguments/a~1b/~0", {"at": ["arguments", "a/b", "~"]}),
        ("/context/01", {"at": ["context", "01"]}),
        ("/action/name", {"at": ["action", "name"]}),
        ("/subject/roles/01", {"readings": [["subject", "roles", "01"]]}),
        ("/resource/id", {"readings": [["resource", "id"]]}),
        ("/arguments/items/0", {"readings": [["arguments", "items", "0"], ["arguments", "items", 0]]}),
        (
            "/context/0/x/12",
            {
                "readings": [
                    ["context", "0", "x", "12"],
                    ["context", "0", "x", 12],
                    ["context", 0, "x", "12"],
                    ["context", 0, "x", 12],
                ]
            },
        ),
    ],
)
def test_a_path_is_read_with_each_number_as_a_key_and_as_an_index(path: str, leads: dict[str, Json]) -> None:
    assert _condition(path=path, value=1) == {"op": "eq", "value": 1, **leads}


def test_a_condition_that_compares_two_paths_reads_both() -> None:
    assert _condition(valueFrom="/context/0")["from"] == {"readings": [["context", "0"], ["context", 0]]}


def test_a_null_to_compare_with_is_not_lost() -> None:
    assert _condition(value=None)["value"] is None


def test_a_condition_about_the_path_alone_has_no_value() -> None:
    assert _condition(op="exists") == {"op": "exists", "at": ["arguments", "n"]}


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
        "members": {"v": "{}"},
        "suspended": {"members": {"u": "{}"}},
        "resources": {"TOOL\ta": "\nSUSPENDED"},
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
    assert (shut["agents"], shut["suspended"]["agents"]) == ({"b": '["s"]'}, {"a": '["s"]'})


def test_who_was_suspended_stays_so_when_others_are() -> None:
    document = _compiled(members=[items.Membership(user_id="u", status=_OFF), items.Membership(user_id="v")])
    off = _records(members=[items.Membership(user_id="v", status=_OFF)], agents=[_agent("a", _OFF)])
    shut = suspend(document, off)
    assert ("members" in shut, "agents" in shut) == (False, False)
    assert shut["suspended"] == {"members": {"u": "{}", "v": "{}"}, "agents": {"a": '["s"]'}}


def test_where_no_agent_was_listed_the_others_are_listed_too_so_that_they_still_may_act() -> None:
    shut = suspend(_compiled(), _records(agents=[_agent("a", _OFF), _agent("b")]))
    assert (shut["agents"], shut["suspended"]["agents"]) == ({"b": '["s"]'}, {"a": '["s"]'})
    assert shut["terms"]["agents"] is True


def test_a_tenant_that_does_not_exist_does_not_come_to_exist_by_what_is_suspended() -> None:
    gone: dict[str, Json] = {"terms": {"removed": True, "version": 7}}
    assert suspend(gone, _records(tenant=items.Tenant(status=_OFF), agents=[_agent("a", _OFF)])) == gone


def test_a_shared_resource_is_shut_off_beside_the_others() -> None:
    catalogue = compile_resources([items.Resource(resource_type="TOOL", resource_id=name) for name in "ab"])
    off = [items.Resource(resource_type=kind, resource_id="a", status=_OFF) for kind in ("TOOL", "MODEL")]
    assert suspend_resources(catalogue, off) == {
        "TOOL\ta": "\nSUSPENDED",
        "TOOL\tb": "",
        "MODEL\ta": "\nSUSPENDED",
    }
