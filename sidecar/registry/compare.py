"""Two registries side by side: which items of which tenant were added, removed or changed between them.

What an item means is compared, not how it is written: a version, or a default that is spelled out, makes no difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Struct, UnsetType

from sidecar.registry import items
from sidecar.registry.edits import VERSION, same

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sidecar.model import Json
    from sidecar.registry.spool import Spool

_Records: TypeAlias = "dict[tuple[str, str], dict[str, Json]]"


class AttributeChange(Struct, frozen=True, omit_defaults=True):
    """An attribute before and after; left out where there was, or is, none."""

    before: Any | UnsetType = UNSET
    after: Any | UnsetType = UNSET


class Difference(Struct, frozen=True):
    """An item of a tenant (or ``SHARED``) that is not the same in both registries. Only changed ones have ``attributes``."""

    tenant: str
    kind: str
    id: str
    change: Literal["added", "removed", "changed"]
    attributes: dict[str, AttributeChange] = {}


def differences(before: Spool, after: Spool) -> Iterator[Difference]:
    """Yield what differs, tenant by tenant in the order of their ids; what is shared comes first."""
    yield from _compare(items.SHARED, _by_id(before.shared()), _by_id(after.shared()))
    for tenant, old, new in _side_by_side(_tenants(before), _tenants(after)):
        yield from _compare(tenant, old, new)


def changed_rules(change: AttributeChange) -> dict[str, list[str]]:
    """Name the rules that were added, removed or changed where the rules of a policy are not the same."""
    old, new = (
        {_rule_name(i, rule): rule for i, rule in enumerate(rules or [])} for rules in (change.before, change.after)
    )
    return {
        "added": [name for name in new if name not in old],
        "removed": [name for name in old if name not in new],
        "changed": [name for name, rule in new.items() if name in old and not same(old[name], rule)],
    }


def _rule_name(position: int, rule: dict[str, Any]) -> str:
    return str(rule.get("ruleId", f"rule-{position + 1}"))


def _tenants(spool: Spool) -> Iterator[tuple[str, _Records]]:
    for tenant, records in spool.tenants():
        own: list[items.Record] = [] if records.tenant is None else [records.tenant]
        own += records.policies
        own += records.members
        own += records.agents
        own += records.resources
        yield tenant, _by_id(own)


def _side_by_side(
    before: Iterator[tuple[str, _Records]], after: Iterator[tuple[str, _Records]]
) -> Iterator[tuple[str, _Records, _Records]]:
    """Walk through two sequences that are in the order of their tenants, as one."""
    old, new = next(before, None), next(after, None)
    while old or new:
        tenant = min(side[0] for side in (old, new) if side)
        old_records = old[1] if old and old[0] == tenant else {}
        new_records = new[1] if new and new[0] == tenant else {}
        yield tenant, old_records, new_records
        old = next(before, None) if old and old[0] == tenant else old
        new = next(after, None) if new and new[0] == tenant else new


def _compare(tenant: str, before: _Records, after: _Records) -> Iterator[Difference]:
    for kind, record_id in sorted(before.keys() | after.keys(), key=lambda at: (_ORDER[at[0]], at[1])):
        old, new = before.get((kind, record_id)), after.get((kind, record_id))
        if old is None or new is None:
            yield Difference(tenant, kind, record_id, "added" if old is None else "removed")
            continue
        attributes = {
            name: AttributeChange(old.get(name, UNSET), new.get(name, UNSET))
            for name in sorted(old.keys() | new.keys())
            if name not in old or name not in new or not same(old[name], new[name])
        }
        if attributes:
            yield Difference(tenant, kind, record_id, "changed", attributes)


_ORDER = {kind: place for place, kind in enumerate(items.KINDS)}
_KIND_OF = {record: kind for kind, record in items.KINDS.items()}
_NOT_COMPARED = {VERSION, "tenantId"}


def _by_id(records: Iterable[items.Record]) -> _Records:
    return {_identity(record): _content(record) for record in records}


def _identity(record: items.Record) -> tuple[str, str]:
    kind = _KIND_OF[type(record)]
    match record:
        case items.Tenant():
            return kind, ""
        case items.Policy():
            return kind, record.policy_id
        case items.Membership():
            return kind, record.user_id
        case items.Agent():
            return kind, record.agent_id
        case items.Resource():
            return kind, f"{record.resource_type}#{record.resource_id}"


def _content(record: items.Record) -> dict[str, Json]:
    content: dict[str, Json] = msgspec.to_builtins(record)
    return {name: value for name, value in content.items() if name not in _NOT_COMPARED}
