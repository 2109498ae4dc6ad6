"""Random registries and questions, from a universe so small that they often meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from msgspec import UNSET

from sidecar.model import Action, Actor, Identity, Item, Principal, Question, Resource, Subject, Tenant

TENANTS = ["acme", "globex", "initech"]
USERS = ["alice", "bob", ""]
ROLES = ["support", "admin"]
AGENTS = ["agent:a", "agent:b", "agent:c"]
SCOPES = ["tools:read", "tools:write", "x"]
IDS = ["t:order:read", "t:order:write", "t:refund", "t:refund/deep", "t:orders"]
GLOBS = ["t:*", "t:**", "**", "t:order:*", "t:*:read", "t:refund*", "t:refund**", "*:refund", "t:ord*r:*"]
TYPES = ["TOOL", "MEMORY"]
OBLIGATIONS = ["LOG", "APPROVE"]
VALUES = [0, 1, 2.5, "", "a", "ab", True, None, ["a"], ["a", 1], {"k": 1}]

arguments = st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(VALUES), max_size=2)
values = st.sampled_from(VALUES)


def mostly(usual: Any, *rare: Any, weight: int = 8) -> st.SearchStrategy[Any]:
    """Choose the usual value, or now and then a rare one: what is asked must often get past the first rows of the table."""
    return st.sampled_from([usual] * weight + list(rare))


def some(pool: list[Any], least: int = 0) -> st.SearchStrategy[list[Any]]:
    """Choose some of a pool, each once."""
    return st.lists(st.sampled_from(pool), min_size=least, max_size=3, unique_by=repr)


_lists = st.lists(values, max_size=3)
_texts = st.sampled_from(["", "a", "b"])
_ordered = st.sampled_from([0, 1, 2, "a", "aa"])
OPERATORS: dict[str, st.SearchStrategy[Any] | None] = {
    **dict.fromkeys(("eq", "ne", "contains"), values),
    **dict.fromkeys(("lt", "lte", "gt", "gte"), _ordered),
    **dict.fromkeys(("in", "not_in", "subset_of"), _lists),
    **dict.fromkeys(("prefix", "suffix"), _texts),
    "glob": st.sampled_from(["*", "a*", "a**", "b"]),
    **dict.fromkeys(("exists", "absent"), None),
}
"""The operators, each with the values that it may be given; ``None`` for those that take none."""

PATHS = [
    "/arguments/x",
    "/arguments/y",
    "/arguments",
    "/arguments/x/0",
    "/context/x",
    "/subject/id",
    "/subject/roles",
    "/subject/attributes/x",
    "/resource/properties/x",
    "/action/name",
]


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    """Make a condition that the compiler accepts."""
    op = draw(st.sampled_from(sorted(OPERATORS)))
    condition: dict[str, Any] = {"path": draw(st.sampled_from(PATHS)), "op": op}
    given = OPERATORS[op]
    if given is None:
        return condition
    if draw(mostly(False, True, weight=3)):  # noqa: FBT003 - the values to choose from
        return condition | {"valueFrom": draw(st.sampled_from(PATHS))}
    return condition | {"value": draw(given)}


@st.composite
def rules(draw: st.DrawFn, effects: tuple[str, ...] = ("ALLOW", "ALLOW", "DENY")) -> dict[str, Any]:
    """Make a rule that the compiler accepts. It has no id, so that its place gives it one."""
    rule: dict[str, Any] = {
        "effect": draw(st.sampled_from(effects)),
        "resourceType": draw(mostly(*TYPES)),
        "resources": draw(some(IDS + GLOBS, 1)),
    }
    narrowing: dict[str, st.SearchStrategy[Any]] = {
        "actions": some(["invoke", "read"], 1),
        "subjects": st.one_of(
            st.builds(lambda users: {"users": users}, some(USERS[:2], 1)),
            st.builds(lambda roles: {"roles": roles}, some(ROLES, 1)),
        ),
        "principals": some([*AGENTS, "agent:*"], 1),
        "scopes": some(SCOPES, 1),
        "notBefore": st.sampled_from(["2020-01-01T00:00:00Z", "2090-01-01T00:00:00Z"]),
        "conditions": st.lists(conditions(), min_size=1, max_size=2),
    }
    for name in draw(st.lists(mostly("conditions", *narrowing, weight=6), max_size=2, unique=True)):
        rule[name] = draw(narrowing[name])
    if rule["effect"] == "ALLOW" and draw(st.integers(0, 3)) == 0:
        rule["obligations"] = [{"type": kind} for kind in draw(some(OBLIGATIONS, 1))]
    return rule


@st.composite
def tenants(draw: st.DrawFn, tenant: str) -> list[dict[str, Any]]:
    """Make all items of a tenant."""
    pk = f"TENANT#{tenant}"
    items: list[dict[str, Any]] = [
        {
            "pk": pk,
            "sk": "TENANT",
            "status": draw(mostly("ACTIVE", "SUSPENDED", weight=15)),
            "membership": draw(mostly("OPTIONAL", "REQUIRED", weight=4)),
        }
    ]
    items += [
        {
            "pk": pk,
            "sk": f"POLICY#{policy}",
            "assignment": draw(mostly("TENANT", "MEMBERS", weight=4)),
            "rules": draw(st.lists(rules(), min_size=1, max_size=4)),
        }
        for policy in draw(some(["p1", "p2"], 1))
    ]
    items += [
        {
            "pk": pk,
            "sk": f"USER#{user}",
            "roles": draw(some(ROLES)),
            "policyIds": draw(some(["p1", "p2"])),
            "status": draw(mostly("ACTIVE", "SUSPENDED")),
            "attributes": draw(arguments),
        }
        for user in draw(mostly(USERS[:2], USERS[:1], []))
    ]
    items += [
        {
            "pk": pk,
            "sk": f"AGENT#{agent}",
            "scopes": draw(mostly(SCOPES, SCOPES[:1], [], weight=6)),
            "status": draw(mostly("ACTIVE", "SUSPENDED")),
        }
        for agent in draw(mostly([], AGENTS, AGENTS[:2], weight=2))
    ]
    items += [
        {
            "pk": pk,
            "sk": f"RESOURCE#TOOL#{resource}",
            "access": draw(st.sampled_from(["READ", "WRITE"])),
            "status": draw(mostly("ACTIVE", "SUSPENDED")),
        }
        for resource in draw(some(IDS))
    ]
    return items


registries = st.tuples(*(tenants(tenant) for tenant in TENANTS[:2])).map(
    lambda parts: [i for part in parts for i in part]
)

identities = st.builds(
    Identity,
    tenant=st.builds(Tenant, mostly(*TENANTS, weight=15)),
    principal=st.builds(Principal, st.sampled_from([*AGENTS * 5, "", "alice"])),
    subject=st.builds(
        Subject,
        st.sampled_from(USERS[:2] * 5 + USERS),
        some(ROLES).map(tuple),
        st.dictionaries(st.just("x"), values, max_size=1),
    ),
    delegation=st.one_of(
        st.just(()),
        st.just(()),
        st.lists(
            st.builds(Actor, mostly(*AGENTS, *AGENTS, "alice"), mostly(UNSET, tuple(SCOPES), ("x",), weight=2)),
            max_size=2,
        ).map(tuple),
    ),
    scopes=mostly(tuple(SCOPES), (), ("tools:read",), weight=6),
    may_act=mostly(UNSET, tuple(AGENTS), tuple(AGENTS[:1]), (), weight=12),
)

items = st.builds(
    Item,
    resource=st.builds(
        Resource, mostly(*TYPES), st.sampled_from(IDS), st.dictionaries(st.just("x"), values, max_size=1)
    ),
    action=st.builds(Action, mostly("invoke", "read", weight=4)),
    context=st.dictionaries(st.just("x"), values, max_size=1),
    arguments=arguments,
)

accepts = mostly(tuple(OBLIGATIONS), ("LOG",), (), weight=2)


def questions(how_many: int = 1) -> st.SearchStrategy[Question]:
    """Make questions about so many items."""
    return st.builds(
        Question,
        identity=identities,
        items=st.lists(items, min_size=how_many, max_size=how_many).map(tuple),
        accepts=accepts,
        explain=st.booleans(),
    )
