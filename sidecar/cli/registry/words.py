"""Items in words, for people at a terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET
from rich import box
from rich.table import Table
from rich.text import Text

from sidecar.registry.compare import changed_rules
from sidecar.registry.items import Rule

if TYPE_CHECKING:
    from sidecar.registry.compare import AttributeChange, Difference

KINDS = {"TENANT": "tenant", "POLICY": "policy", "USER": "user", "AGENT": "agent", "RESOURCE": "resource"}


def plain_table() -> Table:
    """Make a table of names and what they are."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", overflow="fold")
    table.add_column(overflow="fold")
    return table


def headed_table(title: str, *columns: str) -> Table:
    """Make a table with a title and headed columns."""
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def cells(*values: str) -> list[Text]:
    """Make cells of texts that may hold what the terminal's markup would take for its own."""
    return [Text(value, style=_COLOURS.get(value, "")) for value in values]


_COLOURS = {
    "ALLOW": "green",
    "DENY": "red",
    "SUSPENDED": "red",
    "created": "green",
    "changed": "yellow",
    "unchanged": "dim",
}


def ordered(item: dict[str, Any]) -> dict[str, Any]:
    """Put the attributes of an item, and the fields of its rules, into the order in which people read them."""
    after = {name: item[name] for name in sorted(item, key=lambda name: (_place(name, _FIRST), name))}
    if isinstance(after.get("rules"), list):
        after["rules"] = [
            {name: rule[name] for name in sorted(rule, key=lambda name: _place(name, _OF_RULES))}
            if isinstance(rule, dict)
            else rule
            for rule in after["rules"]
        ]
    return after


def _place(name: str, order: list[str]) -> int:
    return order.index(name) if name in order else len(order)


_FIRST = ["pk", "sk", "version"]
_OF_RULES = ["ruleId", *(field.encode_name for field in msgspec.structs.fields(Rule) if field.name != "rule_id")]


def narrowing(rule: Rule) -> str:
    """Say in short what narrows a rule, and what it obliges to."""
    parts = []
    subjects = rule.subjects or None
    for name, values in (
        ("actions", rule.actions),
        ("users", subjects and subjects.users),
        ("roles", subjects and subjects.roles),
        ("principals", rule.principals),
        ("scopes", rule.scopes),
    ):
        if values:
            parts.append(f"{name} {', '.join(values)}")
    if rule.not_before:
        parts.append(f"from {rule.not_before.isoformat()}")
    if rule.not_after:
        parts.append(f"until {rule.not_after.isoformat()}")
    for condition in rule.conditions:
        against = condition.value_from or ("" if condition.op in {"exists", "absent"} else value(condition.value))
        parts.append(f"{condition.path} {condition.op} {against}".rstrip())
    if rule.obligations:
        parts.append(f"obliges to {', '.join(str(obligation['type']) for obligation in rule.obligations)}")
    return "; ".join(parts)


def value(content: Any) -> str:
    """Give a value as JSON."""
    return json.dumps(content, ensure_ascii=False)


def difference(found: Difference) -> str:
    """Say what has become of an item, in one line."""
    sign = {"added": "+", "removed": "-", "changed": "~"}[found.change]
    name = f"{KINDS[found.kind]} {found.id.replace('#', ' ', 1) if found.kind == 'RESOURCE' else found.id}".rstrip()
    changes = "; ".join(attribute_change(attribute, change) for attribute, change in found.attributes.items())
    return f"{sign} {name}" + (f": {changes}" if changes else "")


def attribute_change(attribute: str, change: AttributeChange) -> str:
    """Say how an attribute changed: before and after, and of rules only which."""
    if attribute == "rules":
        named = [f"{what} {', '.join(names)}" for what, names in changed_rules(change).items() if names]
        return f"rules: {', '.join(named) or 'in another order'}"
    before, after = (value(side) if side is not UNSET else "none" for side in (change.before, change.after))
    return f"{attribute}: {before} → {after}"
