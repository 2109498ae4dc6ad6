"""Items of the registry table: what is read, what is refused in which words, and what is not ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import pytest

from sidecar.model import MAX_ID_LENGTH
from sidecar.registry import items

if TYPE_CHECKING:
    from sidecar.model import Json

_RULE = {"effect": "ALLOW", "resourceType": "TOOL", "resources": ["agent:tool:a"]}


def _keyed(sk: str, pk: str = "TENANT#T", **attributes: Json) -> dict[str, Json]:
    return {"pk": pk, "sk": sk, **attributes}


def _with_rules(*rules: dict[str, Json]) -> dict[str, Json]:
    return _keyed("POLICY#P", rules=list(rules))


def _with_rule(**changes: Json) -> dict[str, Json]:
    return _with_rules(_RULE | changes)


def _with_condition(**condition: Json) -> dict[str, Json]:
    return _with_rule(conditions=[{"path": "/arguments/amount", **condition}])


def _record(item: dict[str, Json]) -> Any:
    entry = items.parse(item)
    assert entry is not None
    return entry.record


def _refusal(item: dict[str, Json]) -> str:
    with pytest.raises(items.MalformedItemError) as caught:
        items.parse(item)
    return str(caught.value)


@pytest.mark.parametrize(
    ("item", "entry"),
    [
        pytest.param(
            _keyed("TENANT", status="SUSPENDED", membership="OPTIONAL", maxStalenessSeconds=60),
            items.Entry(
                "T",
                "TENANT",
                "",
                items.Tenant(tenant_id="T", status="SUSPENDED", membership="OPTIONAL", max_staleness_seconds=60),
            ),
            id="tenant",
        ),
        pytest.param(
            _keyed("POLICY#P", rules=[], assignment="MEMBERS"),
            items.Entry("T", "POLICY", "P", items.Policy(tenant_id="T", policy_id="P", rules=(), assignment="MEMBERS")),
            id="policy",
        ),
        pytest.param(
            _keyed("USER#alice", policyIds=["P"], roles=["support"], attributes={"team": 7}),
            items.Entry(
                "T",
                "USER",
                "alice",
                items.Membership(
                    tenant_id="T", user_id="alice", policy_ids=("P",), roles=("support",), attributes={"team": 7}
                ),
            ),
            id="membership",
        ),
        pytest.param(
            _keyed("AGENT#agent:bot", scopes=["tools:read"]),
            items.Entry(
                "T", "AGENT", "agent:bot", items.Agent(tenant_id="T", agent_id="agent:bot", scopes=("tools:read",))
            ),
            id="agent",
        ),
        pytest.param(
            _keyed("RESOURCE#MEMORY#m#1", access="READ"),
            items.Entry(
                "T",
                "RESOURCE",
                "MEMORY#m#1",
                items.Resource(tenant_id="T", resource_type="MEMORY", resource_id="m#1", access="READ"),
            ),
            id="resource of a tenant, with a hash in its id",
        ),
        pytest.param(
            _keyed("RESOURCE#TOOL#a", pk="SHARED"),
            items.Entry("SHARED", "RESOURCE", "TOOL#a", items.Resource(resource_type="TOOL", resource_id="a")),
            id="shared resource",
        ),
    ],
)
def test_an_item_is_known_by_its_keys(item: dict[str, Json], entry: items.Entry) -> None:
    assert items.parse(item) == entry


def test_a_tenant_is_active_and_requires_membership_unless_it_says_otherwise() -> None:
    assert _record(_keyed("TENANT")) == items.Tenant(tenant_id="T", status="ACTIVE", membership="REQUIRED")


def test_a_policy_applies_to_the_whole_tenant_unless_it_says_otherwise() -> None:
    assert _record(_with_rules()).assignment == "TENANT"


def test_a_bare_policy_document_is_a_policy_of_the_tenant_that_it_names() -> None:
    entry = items.parse({"policyId": "P", "tenantId": "T", "rules": [_RULE]})
    rule = items.Rule(effect="ALLOW", resource_type="TOOL", resources=("agent:tool:a",))
    policy = items.Policy(tenant_id="T", policy_id="P", rules=(rule,))
    assert entry == items.Entry("T", "POLICY", "P", policy, plain=True)


@pytest.mark.parametrize(
    "item",
    [
        pytest.param({}, id="empty"),
        pytest.param({"orderId": "5", "tenantId": "T"}, id="no keys, not a policy"),
        pytest.param({"pk": "TENANT#T"}, id="no sort key"),
        pytest.param({"sk": "TENANT"}, id="no partition key"),
        pytest.param({"pk": 5, "sk": "TENANT"}, id="partition key that is no text"),
        pytest.param({"pk": "TENANT#T", "sk": 5}, id="sort key that is no text"),
        pytest.param(_keyed("ORDER#5"), id="sort key of another kind"),
        pytest.param(_keyed("TENANT#T"), id="sort key of a tenant with more behind it"),
        pytest.param(_keyed("policy#P", rules=[]), id="kind in small letters"),
        pytest.param(_keyed("POLICY#P", pk="CUSTOMER#T", rules=[]), id="partition of another kind"),
        pytest.param(_keyed("POLICY#P", pk="SHARED", rules=[]), id="shared, but no resource"),
    ],
)
def test_an_item_of_an_unknown_kind_is_none_of_ours(item: dict[str, Json]) -> None:
    assert items.parse(item) is None


@pytest.mark.parametrize(
    ("item", "message"),
    [
        pytest.param(_keyed("TENANT", status="PAUSED"), "status: Invalid enum value 'PAUSED'", id="tenant status"),
        pytest.param(_keyed("TENANT", membership="NONE"), "membership: Invalid enum value 'NONE'", id="membership"),
        pytest.param(
            _keyed("TENANT", maxStalenessSeconds=0), "maxStalenessSeconds: Expected `float` > 0", id="no staleness"
        ),
        pytest.param(_keyed("TENANT", version="2"), "version: Expected `int`, got `str`", id="version"),
        pytest.param(_keyed("POLICY#P"), "item: Object missing required field `rules`", id="policy without rules"),
        pytest.param(_keyed("POLICY#P", rules={}), "rules: Expected `array`, got `object`", id="rules that are a map"),
        pytest.param(
            _keyed("POLICY#P", rules=["x"]), "rules[0]: Expected `object`, got `str`", id="rule that is a text"
        ),
        pytest.param(
            _keyed("POLICY#P", rules=[], assignment="ALL"), "assignment: Invalid enum value 'ALL'", id="assignment"
        ),
        pytest.param(
            _keyed("USER#u", policyIds="P"), "policyIds: Expected `array`, got `str`", id="policies of a user"
        ),
        pytest.param(_keyed("USER#u", roles=[5]), "roles[0]: Expected `str`, got `int`", id="roles of a user"),
        pytest.param(_keyed("USER#u", status="GONE"), "status: Invalid enum value 'GONE'", id="status of a user"),
        pytest.param(_keyed("USER#u", attributes=[]), "attributes: Expected `object`", id="attributes of a user"),
        pytest.param(_keyed("AGENT#a", scopes="s"), "scopes: Expected `array`, got `str`", id="scopes of an agent"),
        pytest.param(_keyed("AGENT#a", status=None), "status: Expected `str`, got `null`", id="status of an agent"),
        pytest.param(
            _keyed("RESOURCE#TOOL#a", access="ADMIN"), "access: Invalid enum value 'ADMIN'", id="access of a resource"
        ),
        pytest.param(
            _with_rules({**_RULE, "effect": "PERMIT"}), "rules[0].effect: Invalid enum value 'PERMIT'", id="effect"
        ),
        pytest.param(
            _with_rules({"resourceType": "TOOL", "resources": ["a"]}),
            "rules[0]: Object missing required field `effect`",
            id="no effect",
        ),
        pytest.param(
            _with_rules(_RULE, {"effect": "DENY", "resourceType": "TOOL"}),
            "rules[1]: Object missing required field `resources`",
            id="no resources, in the second rule",
        ),
        pytest.param(_with_rule(resources=[]), "rules[0].resources: Expected `array` of length >= 1", id="resources"),
        pytest.param(_with_rule(resources=[""]), "rules[0].resources[0]: must not be empty", id="empty resource"),
        pytest.param(_with_rule(resources=["a", "b***"]), "rules[0].resources[1]: bad glob 'b***'", id="bad glob"),
        pytest.param(
            _with_rule(resources=["a\u200b*"]),
            "rules[0].resources[0]: must not contain the unprintable character U+200B",
            id="glob that no id can match",
        ),
        pytest.param(_with_rule(resourceType=""), "rules[0].resourceType: Expected `str` of length >= 1", id="no type"),
        pytest.param(
            _with_rule(resourceType="TOOL\u00ad"),
            "rules[0].resourceType: must not contain the unprintable character U+00AD",
            id="type with a soft hyphen",
        ),
        pytest.param(_with_rule(actions=[]), "rules[0].actions: Expected `array` of length >= 1", id="no actions"),
        pytest.param(_with_rule(actions=["a", ""]), "rules[0].actions[1]: must not be empty", id="empty action"),
        pytest.param(_with_rule(scopes=[]), "rules[0].scopes: Expected `array` of length >= 1", id="no scopes"),
        pytest.param(_with_rule(scopes=[""]), "rules[0].scopes[0]: must not be empty", id="empty scope"),
        pytest.param(_with_rule(principals=[]), "rules[0].principals: Expected `array` of length", id="no principals"),
        pytest.param(_with_rule(principals=["***"]), "rules[0].principals[0]: bad glob '***'", id="bad principal"),
        pytest.param(_with_rule(subjects={}), "rules[0].subjects: must name users or roles", id="no subjects"),
        pytest.param(
            _with_rule(subjects={"users": []}), "rules[0].subjects.users: Expected `array` of length", id="no users"
        ),
        pytest.param(
            _with_rule(subjects={"users": [""]}),
            "rules[0].subjects.users[0]: must not be empty",
            id="the empty user, which is no user",
        ),
        pytest.param(
            _with_rule(subjects={"roles": ["r", "s\u2028"]}),
            "rules[0].subjects.roles[1]: must not contain the unprintable character U+2028",
            id="unprintable role",
        ),
        pytest.param(
            _with_rule(subjects={"groups": ["g"]}),
            "rules[0].subjects: Object contains unknown field `groups`",
            id="groups",
        ),
        pytest.param(
            _with_rule(notBefore="soon"), "rules[0].notBefore: Invalid RFC3339 encoded datetime", id="no time"
        ),
        pytest.param(
            _with_rule(notAfter=5), "rules[0].notAfter: Expected `datetime`, got `int`", id="time as a number"
        ),
        pytest.param(
            _with_rule(notAfter="2026-01-01T00:00:00"),
            "rules[0].notAfter: Expected `datetime` with a timezone component",
            id="time without a zone",
        ),
        pytest.param(
            _with_rule(notBefore="2026-01-01T00:00:00Z", notAfter="2026-01-01T00:00:00Z"),
            "rules[0].notAfter: must be later than notBefore",
            id="window that is empty",
        ),
        pytest.param(_with_rule(ruleId=""), "rules[0].ruleId: must not be empty", id="empty rule id"),
        pytest.param(_with_rule(reason=None), "rules[0].reason: Expected `str`, got `null`", id="reason"),
        pytest.param(
            _with_rule(obligations=[{}]),
            "rules[0].obligations[0].type: every obligation must have a type",
            id="no type of it",
        ),
        pytest.param(
            _with_rule(obligations=[{"type": ""}]),
            "rules[0].obligations[0].type: every obligation must",
            id="empty type",
        ),
        pytest.param(
            _with_rule(obligations=[{"type": 5}]),
            "rules[0].obligations[0].type: every obligation must",
            id="type, a number",
        ),
        pytest.param(
            _with_rule(effect="DENY", obligations=[{"type": "REQUIRE_APPROVAL"}]),
            "rules[0].obligations[0]: obligations go with ALLOW",
            id="obligation of a DENY rule",
        ),
        pytest.param(
            _with_rule(resource=["a"]),
            "rules[0]: Object contains unknown field `resource`",
            id="unknown field of a rule",
        ),
        pytest.param(
            _with_condition(op="eq", value=1, values=[1]),
            "rules[0].conditions[0]: Object contains unknown field `values`",
            id="unknown field of a condition",
        ),
        pytest.param(
            _with_condition(op="matches", value="x"),
            "rules[0].conditions[0].op: Invalid enum value 'matches'",
            id="unknown operator",
        ),
        pytest.param(
            _with_rule(conditions=[{"op": "exists"}]),
            "rules[0].conditions[0]: Object missing required field `path`",
            id="no path",
        ),
    ],
)
def test_a_malformed_item_is_refused_by_the_name_of_its_attribute(item: dict[str, Json], message: str) -> None:
    assert _refusal(item).startswith(message)


@pytest.mark.parametrize(
    ("item", "name", "meant"),
    [
        pytest.param(_keyed("TENANT", statuss="ACTIVE"), "statuss", "status", id="letter too many"),
        pytest.param(_keyed("TENANT", STATUS="SUSPENDED"), "STATUS", "status", id="capitals"),
        pytest.param(_keyed("TENANT", memberships="OPTIONAL"), "memberships", "membership", id="plural"),
        pytest.param(_keyed("POLICY#P", rules=[], asignment="MEMBERS"), "asignment", "assignment", id="letter missing"),
        pytest.param(_keyed("POLICY#P", rule=[]), "rule", "rules", id="singular of a required one"),
        pytest.param(_keyed("USER#u", policy_ids=["P"]), "policy_ids", "policyIds", id="snake case"),
        pytest.param(_keyed("USER#u", role=["r"]), "role", "roles", id="singular"),
        pytest.param(_keyed("AGENT#a", scope=["s"]), "scope", "scopes", id="scope"),
        pytest.param(_keyed("RESOURCE#TOOL#a", acess="WRITE"), "acess", "access", id="access"),
        pytest.param({"policyId": "P", "tenantId": "T", "ruels": []}, "ruels", "rules", id="plain policy document"),
    ],
)
def test_a_misspelt_attribute_is_refused_with_what_was_meant(item: dict[str, Json], name: str, meant: str) -> None:
    assert _refusal(item) == f"{name}: unknown attribute; did you mean {meant}?"


def test_an_attribute_of_the_customers_own_is_left_alone() -> None:
    assert _record(_keyed("TENANT", plan="gold")) == items.Tenant(tenant_id="T")


def test_an_attribute_that_is_near_one_that_is_there_is_left_alone() -> None:
    assert _record(_keyed("USER#u", roles=["r"], role="admin")).roles == ("r",)


def test_unknown_attributes_are_listed_in_order() -> None:
    item = _keyed("TENANT", status="ACTIVE", zone="eu", plan="gold")
    assert items.unknown_attributes(item, "TENANT") == ["plan", "zone"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        pytest.param(_keyed("TENANT", tenantId="U"), "tenantId: 'U' contradicts the key, which says 'T'", id="tenant"),
        pytest.param(
            _keyed("POLICY#P", tenantId="U", rules=[]), "tenantId: 'U' contradicts the key", id="tenant of a policy"
        ),
        pytest.param(_keyed("POLICY#P", policyId="Q", rules=[]), "policyId: 'Q' contradicts the key", id="policy"),
        pytest.param(_keyed("USER#u", userId="v"), "userId: 'v' contradicts the key, which says 'u'", id="user"),
        pytest.param(_keyed("AGENT#a", agentId=None), "agentId: None contradicts the key, which says 'a'", id="agent"),
        pytest.param(_keyed("RESOURCE#TOOL#a", resourceType="tool"), "resourceType: 'tool' contradicts", id="type"),
        pytest.param(_keyed("RESOURCE#TOOL#a", resourceId="b"), "resourceId: 'b' contradicts the key", id="resource"),
    ],
)
def test_an_attribute_that_contradicts_the_key_is_refused(item: dict[str, Json], message: str) -> None:
    assert _refusal(item).startswith(message)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        pytest.param(_keyed("TENANT", pk="TENANT#"), "pk: the id '' must not be empty", id="tenant, empty"),
        pytest.param(_keyed("TENANT", pk="TENANT"), "pk: the id '' must not be empty", id="tenant, left out"),
        pytest.param(
            _keyed("TENANT", pk="TENANT#T\u200d"),
            "pk: the id 'T\\u200d' must not contain the unprintable character U+200D",
            id="tenant, joined by nothing that shows",
        ),
        pytest.param(_keyed("POLICY#", rules=[]), "sk: the id '' must not be empty", id="policy, empty"),
        pytest.param(_keyed("POLICY", rules=[]), "sk: the id '' must not be empty", id="policy, left out"),
        pytest.param(
            _keyed("USER#a\tb"),
            "sk: the id 'a\\tb' must not contain the unprintable character U+0009",
            id="user, a tab",
        ),
        pytest.param(
            _keyed("AGENT#" + "a" * (MAX_ID_LENGTH + 1)),
            f"sk: the id '{'a' * 513}' must have at most 512",
            id="agent, long",
        ),
        pytest.param(_keyed("RESOURCE#TOOL"), "sk: the id '' must not be empty", id="resource without an id"),
        pytest.param(_keyed("RESOURCE##a"), "sk: the id '' must not be empty", id="resource without a type"),
        pytest.param(
            {"policyId": "", "tenantId": "T", "rules": []}, "policyId: the id '' must not be empty", id="plain, policy"
        ),
        pytest.param(
            {"policyId": "P", "tenantId": "", "rules": []}, "tenantId: the id '' must not be empty", id="plain, tenant"
        ),
        pytest.param(
            {"policyId": "P\u00a0", "tenantId": "T", "rules": []},
            "policyId: the id 'P\\xa0' must not contain the unprintable character U+00A0",
            id="plain, a space that is none",
        ),
    ],
)
def test_an_id_that_is_empty_too_long_or_unprintable_is_refused(item: dict[str, Json], message: str) -> None:
    assert _refusal(item).startswith(message)


@pytest.mark.parametrize(
    "item",
    [
        pytest.param(_keyed("RESOURCE#TOOL#a", pk="TENANT#SHARED"), id="resource"),
        pytest.param(_keyed("TENANT", pk="TENANT#SHARED"), id="tenant"),
        pytest.param({"policyId": "P", "tenantId": "SHARED", "rules": []}, id="plain policy document"),
    ],
)
def test_a_tenant_cannot_pass_for_what_belongs_to_all_tenants(item: dict[str, Json]) -> None:
    assert "the id 'SHARED' stands for what belongs to all tenants" in _refusal(item)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        pytest.param(
            {"policyId": "P", "rules": []}, "tenantId: a policy document without pk and sk must name", id="tenant"
        ),
        pytest.param(
            {"policyId": "P", "tenantId": 5, "rules": []}, "tenantId: a policy document", id="tenant, a number"
        ),
        pytest.param({"tenantId": "T", "rules": []}, "item: Object missing required field `policyId`", id="policy id"),
        pytest.param({"policyId": "P", "tenantId": "T"}, "item: Object missing required field `rules`", id="rules"),
    ],
)
def test_a_bare_policy_document_that_lacks_a_part_is_malformed_rather_than_overlooked(
    item: dict[str, Json], message: str
) -> None:
    assert _refusal(item).startswith(message)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        pytest.param(
            [_RULE | {"ruleId": "r"}, _RULE | {"ruleId": "r"}],
            "rules[1].ruleId: 'r' is the id of an earlier rule of the policy",
            id="written twice",
        ),
        pytest.param(
            [_RULE | {"ruleId": "rule-2"}, _RULE],
            "rules[1].ruleId: 'rule-2' is the id of an earlier rule",
            id="generated",
        ),
    ],
)
def test_two_rules_of_a_policy_cannot_have_one_id(rules: list[dict[str, Json]], message: str) -> None:
    assert _refusal(_with_rules(*rules)).startswith(message)


def test_a_rule_without_an_id_is_named_by_its_position() -> None:
    rules = _record(_with_rules(_RULE, _RULE | {"ruleId": "mine"}, _RULE)).rules
    assert [items.rule_name(rule, position) for position, rule in enumerate(rules)] == ["rule-1", "mine", "rule-3"]


# operators with values that they take, values that they refuse, and the words in which they do
_VALUES: dict[tuple[str, ...], tuple[list[Json], list[Json], str]] = {
    ("eq", "ne", "contains"): ([None, True, 0, 1.5, "", [], {}], [], ""),
    ("lt", "lte", "gt", "gte"): ([5, 0.5, "2026-01-01"], [None, True, [], {}], "compares two numbers or two texts"),
    ("in", "not_in", "subset_of"): ([[], [1, "a"]], [None, "ab", {}, 5], "needs a list"),
    ("prefix", "suffix", "glob"): (["x"], [None, True, 5, ["a"]], "compares texts"),
}


@pytest.mark.parametrize(
    ("op", "value"),
    [(op, value) for ops, (taken, _, _) in _VALUES.items() for op in ops for value in taken],
)
def test_an_operator_takes_a_value_that_it_can_compare_with(op: str, value: Json) -> None:
    assert _record(_with_condition(op=op, value=value)).rules[0].conditions[0].value == value


@pytest.mark.parametrize(
    ("op", "value", "message"),
    [
        *((op, value, words) for ops, (_, refused, words) in _VALUES.items() for op in ops for value in refused),
        ("glob", "a***", "bad glob 'a***'"),
        ("glob", "", "must not be empty"),
        ("exists", True, "is about the path alone and takes no value"),
        ("absent", None, "is about the path alone and takes no value"),
    ],
)
def test_an_operator_refuses_a_value_that_it_cannot_compare_with(op: str, value: Json, message: str) -> None:
    refusal = _refusal(_with_condition(op=op, value=value))
    assert (refusal.startswith("rules[0].conditions[0].value: "), message in refusal) == (True, True)


@pytest.mark.parametrize("op", sorted({*get_args(items.Operator)} - {"exists", "absent"}))
def test_an_operator_takes_the_value_at_another_path(op: str) -> None:
    assert _record(_with_condition(op=op, valueFrom="/subject/id")).rules[0].conditions[0].value_from == "/subject/id"


@pytest.mark.parametrize("op", sorted({*get_args(items.Operator)} - {"exists", "absent"}))
@pytest.mark.parametrize("given", [{}, {"value": "x", "valueFrom": "/subject/id"}], ids=["neither", "both"])
def test_an_operator_needs_exactly_one_of_value_and_value_from(op: str, given: dict[str, Json]) -> None:
    expected = f"rules[0].conditions[0].value: {op} needs exactly one of value and valueFrom"
    assert _refusal(_with_condition(op=op, **given)) == expected


@pytest.mark.parametrize("op", ["exists", "absent"])
def test_an_operator_about_the_path_alone_takes_nothing(op: str) -> None:
    assert _record(_with_condition(op=op)).rules[0].conditions[0].op == op


@pytest.mark.parametrize("op", ["exists", "absent"])
def test_an_operator_about_the_path_alone_refuses_a_second_path(op: str) -> None:
    assert "takes no value" in _refusal(_with_condition(op=op, valueFrom="/subject/id"))


@pytest.mark.parametrize(
    "pointer",
    [
        "/arguments",
        "/arguments/a/b",
        "/arguments/a~1b/c~0d",
        "/arguments/",
        "/arguments/items/0/lines/1/2",
        "/context/time of day",
        "/subject",
        "/subject/roles/0",
        "/subject/attributes/team",
        "/resource/properties/owner",
        "/resource/type",
        "/action/name",
    ],
)
def test_a_path_into_what_conditions_can_see_is_fine(pointer: str) -> None:
    assert items.pointer_fault(pointer) is None


@pytest.mark.parametrize(
    ("pointer", "fault"),
    [
        pytest.param("", "is not a JSON Pointer", id="empty"),
        pytest.param("arguments/a", "is not a JSON Pointer", id="no slash"),
        pytest.param("$.arguments.a", "is not a JSON Pointer", id="JSONPath"),
        pytest.param("/arguments/a~2", "is not a JSON Pointer", id="unknown escape"),
        pytest.param("/arguments/a~", "is not a JSON Pointer", id="escape cut short"),
        pytest.param("/", "must begin with one of /arguments, /context", id="empty root"),
        pytest.param("/principal/id", "must begin with one of /arguments, /context", id="unknown root"),
        pytest.param("/subject/role", "/subject has only attributes, id, properties, roles", id="misspelt field"),
        pytest.param(
            "/resource/owner", "/resource has only attributes, id, properties, type", id="owner of a resource"
        ),
        pytest.param("/action/attributes/a", "/action has only name, properties", id="attributes of an action"),
        pytest.param("/arguments/0/1/2/3", "has more than 3 numeric tokens", id="four numbers"),
    ],
)
def test_a_path_to_what_conditions_cannot_see_is_told_why(pointer: str, fault: str) -> None:
    assert fault in (items.pointer_fault(pointer) or "")


@pytest.mark.parametrize("attribute", ["path", "valueFrom"])
def test_both_paths_of_a_condition_are_checked(attribute: str) -> None:
    condition = {"path": "/arguments/a", "op": "eq", "valueFrom": "/arguments/b"} | {attribute: "/nowhere"}
    refusal = _refusal(_with_rule(conditions=[condition]))
    assert refusal.startswith(f"rules[0].conditions[0].{attribute}: '/nowhere' must begin with")


def test_a_pointer_is_split_and_unescaped() -> None:
    assert items.pointer_tokens("/a/b~1c/~01//0") == ["a", "b/c", "~1", "", "0"]


@pytest.mark.parametrize(
    ("token", "expected"),
    [("0", True), ("7", True), ("10", True), ("07", False), ("-1", False), ("", False), ("²", False)],
)
def test_an_index_is_a_number_without_leading_zeros(token: str, *, expected: bool) -> None:
    assert items.is_index(token) is expected


@pytest.mark.parametrize(
    ("item", "name"),
    [
        (_keyed("POLICY#P"), "TENANT#T / POLICY#P"),
        ({"pk": "TENANT#T"}, "TENANT#T / None"),
        ({"policyId": "P", "tenantId": "T"}, "policy 'P' of tenant 'T'"),
        ({"b": 1, "a": 2}, "item with the attributes a, b"),
    ],
)
def test_an_item_is_named_as_its_author_knows_it(item: dict[str, Json], name: str) -> None:
    assert items.item_name(item) == name


def test_reading_leaves_the_item_as_it_was() -> None:
    item = _with_rules(_RULE)
    items.parse(item)
    assert item == _with_rules(_RULE)
