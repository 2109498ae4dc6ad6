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
from tests.support.strategies import IDS, mostly, questions, rules, tenants

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
        "rules": [bare | {"reason": reason}, *draw(st.lists(rules(), max_size=1))],
    }
    usual: Registry = [
        {"pk": "TENANT#acme", "sk": "TENANT", "membership": "REQUIRED"},
        *(
            {"pk": "TENANT#acme", "sk": f"AGENT#agent:{name}", "scopes": ["tools:read", "tools:write"]}
            for name in "abc"
        ),
        *({"pk": "TENANT#acme", "sk": f"USER#{name}"} for name in ("alice", "bob")),
    ]
    if draw(mostly(True, False, weight=3)):  # noqa: FBT003 - the values to choose from
        replaced = {item["sk"] for item in usual}
        kept = draw(mostly([], [item for item in items if item["sk"] not in replaced], weight=2))
        items = [*usual, *kept]
    if draw(mostly(False, True)):  # noqa: FBT003 - the values to choose from
        items = [item | {"maxStalenessSeconds": 5} if item["sk"] == "TENANT" else item for item in items]
    return [policy, *items]


@st.composite
def _catalogues(draw: st.DrawFn) -> Registry:
    """Make a shared catalogue."""
    more = {
        "status": mostly("ACTIVE", "SUSPENDED"),
        "attributes": mostly({}, {"x": 1}),
        "access": st.sampled_from(["READ", "WRITE"]),
    }
    return [
        {"pk": "SHARED", "sk": f"RESOURCE#TOOL#{name}", **{key: draw(value) for key, value in more.items()}}
        for name in IDS
        if draw(mostly(True, False))  # noqa: FBT003 - the values to choose from
    ]


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
    mostly([], [("acme",), ("acme", "globex"), ()]),
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
    if data.draw(mostly(False, True)):  # noqa: FBT003 - the values to choose from
        later = compiled([*tenant, *data.draw(_catalogues())], extensions, AS_OF + 1, "later")
        layers["overlay"] = overlay(base, later)
    opa.put("registry", layers)
    asking = msgspec.structs.replace(question, explain=data.draw(mostly(False, True)))  # noqa: FBT003 - values to choose from
    for item in question.items:
        one = msgspec.structs.replace(asking, items=(item,))
        asked = json.loads(translate.single_input(one, AS_OF, translate.encode_settings(Settings().policy)))
        asked["tenant"] |= {"id": "acme"} | ({"named": data.draw(st.sampled_from(named))} if named else {})
        for part in data.draw(st.just([]) | st.lists(st.sampled_from(_PARTS), min_size=1, max_size=2)):
            _with(asked, part, data.draw(st.lists(st.sampled_from(_JUNK), max_size=1)))

        answers = opa.ask("both_ways", asked)

        event(" ".join(decision["code"] for decision in answers["judged"]) or "no decision")
        assert answers["at_a_glance"] == answers["judged"], asked
