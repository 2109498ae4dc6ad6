"""Rules and changes in the words of a table."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sidecar.cli.registry.words import attribute_change, narrowing, ordered
from sidecar.registry.compare import AttributeChange
from sidecar.registry.items import Rule

_RULE: dict[str, Any] = {"effect": "ALLOW", "resourceType": "TOOL", "resources": ["t"]}

_NARROWINGS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, ""),
    "actions": ({"actions": ["invoke", "read"]}, "actions invoke, read"),
    "subjects": ({"subjects": {"users": ["alice"], "roles": ["a", "b"]}}, "users alice; roles a, b"),
    "principals": ({"principals": ["agent:*"]}, "principals agent:*"),
    "scopes": ({"scopes": ["s"]}, "scopes s"),
    "times": (
        {"notBefore": "2026-01-01T00:00:00Z", "notAfter": "2027-01-01T00:00:00Z"},
        "from 2026-01-01T00:00:00+00:00; until 2027-01-01T00:00:00+00:00",
    ),
    "a value": ({"conditions": [{"path": "/arguments/a", "op": "in", "value": ["x", 1]}]}, '/arguments/a in ["x", 1]'),
    "no value": ({"conditions": [{"path": "/arguments/a", "op": "exists"}]}, "/arguments/a exists"),
    "null": ({"conditions": [{"path": "/arguments/a", "op": "eq", "value": None}]}, "/arguments/a eq null"),
    "another path": (
        {"conditions": [{"path": "/arguments/a", "op": "eq", "valueFrom": "/subject/id"}]},
        "/arguments/a eq /subject/id",
    ),
    "obligations": ({"obligations": [{"type": "LOG"}, {"type": "NOTE"}]}, "obliges to LOG, NOTE"),
}


@pytest.mark.parametrize(("narrowed", "expected"), _NARROWINGS.values(), ids=_NARROWINGS)
def test_what_narrows_a_rule_is_said_in_short(narrowed: dict[str, Any], expected: str) -> None:
    assert narrowing(msgspec.convert(_RULE | narrowed, Rule)) == expected


def test_everything_that_a_rule_can_have_is_in_a_case_above() -> None:
    covered = {*_RULE, "ruleId", "reason"}.union(*(narrowed for narrowed, _ in _NARROWINGS.values()))

    assert {field.encode_name for field in msgspec.structs.fields(Rule)} == covered


def test_rules_that_changed_places_are_told_as_that() -> None:
    one, two = _RULE | {"ruleId": "1"}, _RULE | {"ruleId": "2"}

    assert attribute_change("rules", AttributeChange([one, two], [two, one])) == "rules: in another order"


def test_an_item_is_shown_with_its_key_first_and_rules_by_effect_and_resources() -> None:
    item = {
        "zeta": 1,
        "rules": [{"resources": ["t"], "conditions": [], "effect": "DENY", "ruleId": "r"}],
        "sk": "s",
        "pk": "p",
    }
    shown = ordered(item)

    assert shown == item
    assert list(shown) == ["pk", "sk", "rules", "zeta"]
    assert list(shown["rules"][0]) == ["ruleId", "effect", "resources", "conditions"]
