"""How the compiler files a tenant's rules and resources, and how OPA finds them, agree with what the registry says.

What is asked for may be anything: tabs and line breaks, which separate what is filed, and what means something to a format.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sidecar.registry import globs
from tests.support.processes import POLICIES, running_opa
from tests.support.registries import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.processes import PolicyOpa

pytestmark = pytest.mark.timeout(300)

_FOUND = """
package found

import data.tenantgate.registry

rules[i] := [rule[2] | some rule in registry.rules(type, id)] if some i, [type, id] in input.asked

resources[i] := [entry | entry := registry.resource(type, id)] if some i, [type, id] in input.asked

suspended[i] := [true | registry.resource_suspended(type, id)] if some i, [type, id] in input.asked
"""

Registry = list[dict[str, Any]]

TYPES = ["TOOL", "TOO", "100%s", "T\U0001f512", "TOOL a"]
PIECES = [
    "a",
    "b",
    "a:b",
    ":",
    "/",
    "%",
    "%s",
    "%.6[1]s",
    "\U0001f512",
    "é",
    " ",
    "0",
    "TOOL",
    "ALLOW",
    '"',
    "\\",
    "^(?s:.*)$",
]
HOSTILE = ["\t", "\n", "\n\n", "TOOL\t", "\nTOOL\ta", "READ\nSUSPENDED", "\0", "\x7f", "\u2028", "long" * 300]

_texts = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join)
_globs = (
    st.lists(st.sampled_from([*PIECES, "*", "**", "*", "**"]), min_size=1, max_size=4)
    .map("".join)
    .filter(lambda glob: globs.glob_fault(glob) is None)
)
_reasons = st.sampled_from(["", "because", "tab\tin it", "two\nlines", "two\n\nlines", "0\tp\tr\twhy", "%s"])
_rules = st.fixed_dictionaries(
    {
        "effect": st.sampled_from(["ALLOW", "ALLOW", "DENY"]),
        "resourceType": st.sampled_from(TYPES),
        "resources": st.lists(_texts | _globs, min_size=1, max_size=3),
        "reason": _reasons,
    }
)
_resources = st.fixed_dictionaries(
    {"access": st.sampled_from(["READ", "WRITE"]), "status": st.sampled_from(["ACTIVE", "SUSPENDED"])},
    optional={"attributes": st.sampled_from([{"owner": "a\tb\nc"}, {"n": 1.5}, {}])},
)


@st.composite
def _registries(draw: st.DrawFn) -> Registry:
    pk = "TENANT#acme"
    items: Registry = [{"pk": pk, "sk": "TENANT", "membership": "OPTIONAL"}]
    for policy in ("p", "q%s"):
        rules = draw(st.lists(_rules, min_size=1, max_size=6))
        named = [rule | {"ruleId": f"{policy}{position}"} for position, rule in enumerate(rules)]
        items.append({"pk": pk, "sk": f"POLICY#{policy}", "rules": named})
    for owner in (pk, "SHARED"):
        catalogue = draw(st.dictionaries(st.tuples(st.sampled_from(TYPES), _texts), _resources, max_size=3))
        items += [{"pk": owner, "sk": f"RESOURCE#{kind}#{name}", **entry} for (kind, name), entry in catalogue.items()]
    return items


_asked = st.tuples(
    st.sampled_from([*TYPES, "", "TOOL\t", "TOOL\ta", "\tTOOL", "TOOL\n", "tool"]),
    st.lists(st.sampled_from([*PIECES, *PIECES, *HOSTILE]), max_size=4).map("".join),
)


def _of_rules(registry: Registry, kind: str, name: str) -> list[str]:
    """Give the rules that concern a resource, in order."""
    return [
        rule["ruleId"]
        for item in registry
        for rule in item.get("rules", [])
        if rule["resourceType"] == kind
        and any(globs.matches(r, name) if globs.is_glob(r) else r == name for r in rule["resources"])
    ]


def _of_resources(registry: Registry, kind: str, name: str) -> list[dict[str, Any]]:
    """Give the entries of a resource, the tenant's own before the shared one."""
    return [item for item in registry if item["sk"] == f"RESOURCE#{kind}#{name}"]


@pytest.fixture(scope="module")
def opa() -> Iterator[PolicyOpa]:
    """An OPA that tells what the policies find."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder:
        module = Path(folder) / "found.rego"
        module.write_text(_FOUND)
        with running_opa(Path(folder), POLICIES / "tenantgate", module) as opa:
            yield opa


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(_registries(), st.lists(_asked, min_size=5, max_size=20))
@example(
    [
        {"pk": "TENANT#acme", "sk": "TENANT"},
        {
            "pk": "TENANT#acme",
            "sk": "POLICY#p",
            "rules": [
                {"effect": "ALLOW", "resourceType": "TOOL", "resources": ["a:**"], "ruleId": "r", "reason": "%s"},
            ],
        },
    ],
    [
        ("TOOL\ta:", "x"),
        ("TOOL", "\nTOOL\ta:"),
        ("TOOL", "a:\nTOOL\ta:"),
        ("TOOL\ta:", "\nTOOL\ta:"),
        ("", "TOOL\ta:x"),
    ],
)
def test_opa_finds_of_a_resource_what_the_registry_says_of_it_and_nothing_else(
    opa: PolicyOpa, registry: Registry, asked: list[tuple[str, str]]
) -> None:
    opa.put("registry/base", compiled(registry))

    found = opa.ask("found", {"tenant": {"id": "acme"}, "asked": asked})

    numbered = [(str(i), kind, name) for i, (kind, name) in enumerate(asked)]
    assert found["rules"] == {i: _of_rules(registry, kind, name) for i, kind, name in numbered}
    for i, kind, name in numbered:
        entries = _of_resources(registry, kind, name)
        assert bool(found["suspended"][i]) == any(entry["status"] == "SUSPENDED" for entry in entries)
        shown = [
            {"access": entry["access"]}
            | ({"status": "SUSPENDED"} if entry["status"] == "SUSPENDED" else {})
            | ({"attributes": entry["attributes"]} if entry.get("attributes") else {})
            for entry in entries[:1]
        ]
        assert found["resources"][i] == shown
