"""What OPA decides at a glance, it decides as by the whole table; also of a request that no door lets pass."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from sidecar import translate
from sidecar.settings import Settings
from tests.support.processes import POLICIES, running_opa
from tests.support.registries import AS_OF, compiled, overlay
from tests.support.strategies import IDS, ROLES, mostly, questions, rules, some, tenants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.model import Question
    from tests.support.processes import PolicyOpa

pytestmark = pytest.mark.timeout(300)

_BOTH_WAYS = """
package both_ways

import data.tenantgate.decision as table

at_a_glance := [decision | decision := table.decide(input)]

judged := [decision | decision := table.judge(input)]
"""

Registry = list[dict[str, Any]]


@st.composite
def _tenants(draw: st.DrawFn) -> Registry:
    """Make a tenant that has, most of the time, what is decided at a glance."""
    items = draw(tenants("acme"))
    bare: dict[str, Any] = {
        "effect": "ALLOW",
        "resourceType": "TOOL",
        "resources": ["t:order:*", "t:orders", "t:refund**"],
    }
    reason = draw(st.sampled_from(["", "because", "on two\nlines", "with a\ttab", 'with a "quote"']))
    policy = {
        "pk": "TENANT#acme",
        "sk": 'POLICY#a "\\',
        "assignment": draw(mostly("TENANT", "MEMBERS", weight=4)),
        "rules": draw(st.lists(st.just(bare | {"reason": reason}) | rules(), min_size=1, max_size=3)),
    }
    usual: Registry = [
        {"pk": "TENANT#acme", "sk": "TENANT", "membership": "REQUIRED"},
        *(
            {"pk": "TENANT#acme", "sk": f"AGENT#agent:{name}", "scopes": ["tools:read", "tools:write"]}
            for name in "abc"
        ),
        *(
            {"pk": "TENANT#acme", "sk": f"USER#{name}", "roles": draw(some(ROLES)), "policyIds": ['a "\\'][:few]}
            for few, name in enumerate(("alice", "bob"))
        ),
    ]
    if draw(mostly(True, False, weight=3)):  # noqa: FBT003 - the values to choose from
        replaced = {item["sk"] for item in usual}
        kept = draw(mostly([], [item for item in items if item["sk"] not in replaced], weight=2))
        items = [*usual, *kept]
    return _changed([policy, *items], draw(mostly({}, *_CHANGES, weight=8)))


def _changed(items: Registry, changes: dict[str, dict[str, Any]]) -> Registry:
    """Change items, or add those that there are not."""
    known = {item["sk"]: item for item in items}
    changed = {sk: known.get(sk, {"pk": "TENANT#acme", "sk": sk}) | change for sk, change in changes.items()}
    return list((known | changed).values())


_CHANGES: list[dict[str, dict[str, Any]]] = [
    {"TENANT": {"maxStalenessSeconds": 5}},
    {"TENANT": {"status": "SUSPENDED"}},
    {f"USER#{name}": {"status": "SUSPENDED"} for name in ("alice", "bob")},
    {f"AGENT#agent:{name}": {"status": "SUSPENDED"} for name in "abc"},
    {f"AGENT#agent:{name}": {"scopes": ["tools:read"]} for name in "abc"},
    {f"AGENT#agent:{name}": {"scopes": []} for name in "abc"},
    {"AGENT#alice": {"scopes": ["tools:read", "tools:write"]}},
    {f"RESOURCE#TOOL#{name}": {"access": "READ", "status": "SUSPENDED"} for name in IDS},
    {f"RESOURCE#TOOL#{name}": {"access": "WRITE"} for name in IDS},
]
"""Each takes something from the usual tenant that a decision at a glance hangs on."""


@st.composite
def _catalogues(draw: st.DrawFn) -> Registry:
    """Make a shared catalogue."""
    more = {
        "status": mostly("ACTIVE", "SUSPENDED", weight=3),
        "attributes": mostly({}, {"x": 1}, weight=3),
        "access": st.sampled_from(["READ", "WRITE"]),
    }
    return [
        {"pk": "SHARED", "sk": f"RESOURCE#TOOL#{name}", **{key: draw(value) for key, value in more.items()}}
        for name in IDS
        if draw(mostly(True, False))  # noqa: FBT003 - the values to choose from
    ]


_OTHER_OVERLAYS: list[dict[str, Any]] = [{"base": "another"}, {"since": AS_OF + 1}, {"as_of": AS_OF - 1}]
"""What an overlay may say of itself that was not made beside the base: the answer then has another revision or moment."""

_PARTS = [
    *(
        ["tenant"],
        ["tenant", "id"],
        ["tenant", "named"],
        ["principal"],
        ["principal", "id"],
        ["subject"],
        ["subject", "id"],
    ),
    *(["subject", "roles"], ["delegation"], ["scopes"], ["accepts"], ["explain"], ["time"], ["may_act"], ["settings"]),
    *(
        ["settings", "scopes"],
        ["settings", "scopes", "READ"],
        ["settings", "delegation"],
        ["settings", "delegation", "check"],
    ),
    *(
        ["resource"],
        ["resource", "type"],
        ["resource", "id"],
        ["action"],
        ["action", "name"],
        ["arguments"],
        ["context"],
    ),
]
_JUNK: list[Any] = [
    None,
    False,
    True,
    0,
    1,
    "",
    "acme",
    "TOOL\tt:orders",
    "READ\nSUSPENDED",
    [],
    ["acme"],
    [[]],
    {},
    {"id": "alice"},
]


def _with(asked: Any, part: list[str], junk: list[Any]) -> None:
    """Put junk in the place of a part of a request, or take the part away."""
    *way, name = part
    for step in way:
        asked = asked.get(step) if isinstance(asked, dict) else None
    if isinstance(asked, dict):
        asked.pop(name, None)
        asked.update((name, value) for value in junk)


@pytest.fixture(scope="module")
def opa() -> Iterator[PolicyOpa]:
    """An OPA that decides both ways."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder:
        module = Path(folder) / "both_ways.rego"
        module.write_text(_BOTH_WAYS)
        with running_opa(Path(folder), POLICIES / "tenantgate", module) as opa:
            opa.put("custom", {"x": {"deny": [], "depends_on": ["context"]}})
            yield opa


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    _tenants(),
    _catalogues(),
    questions(4),
    mostly([], ["x"]),
    mostly((), ("acme",), ("acme", "globex"), ("globex",), weight=3),
    st.data(),
)
def test_what_is_decided_at_a_glance_is_decided_as_by_the_whole_table(  # noqa: PLR0917 - each is drawn
    opa: PolicyOpa,
    tenant: Registry,
    catalogue: Registry,
    question: Question,
    extensions: list[str],
    named: Any,
    data: st.DataObject,
) -> None:
    base = compiled([*tenant, *catalogue], extensions)
    layers = {"base": base}
    if data.draw(st.booleans()):
        changed = _changed(tenant, data.draw(mostly({}, *_CHANGES)))
        shared = data.draw(st.just(catalogue) | _catalogues())
        layers["overlay"] = overlay(base, compiled([*changed, *shared], extensions, AS_OF + 1, "later"))
        layers["overlay"]["meta"] |= data.draw(mostly({}, *_OTHER_OVERLAYS))
    opa.put("registry", layers)
    asking = msgspec.structs.replace(question, explain=data.draw(mostly(False, True)))  # noqa: FBT003 - values to choose from
    for item in question.items:
        one = msgspec.structs.replace(asking, items=(item,))
        asked = json.loads(translate.single_input(one, AS_OF, translate.encode_settings(Settings().policy)))
        asked["tenant"] = {"id": "acme"} | ({"named": named} if named else {})
        for part in data.draw(st.just([]) | st.lists(st.sampled_from(_PARTS), min_size=1, max_size=2)):
            _with(asked, part, data.draw(st.lists(st.sampled_from(_JUNK), max_size=1)))

        answers = opa.ask("both_ways", asked)

        event(" ".join(decision["code"] for decision in answers["judged"]) or "no decision")
        assert answers["at_a_glance"] == answers["judged"], asked
