"""One tenant's records to the document that the Rego reads (``policies/tenantgate/registry``).

What does not depend on the call is worked out here: which rules concern which id, which narrowing a rule has at all,
where a condition's path leads, what of a request a rule reads. The layout is described in ``docs/registry.md``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET

from sidecar.registry import globs, items

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.model import Json

FORMAT = 1
"""The version of the layout. The Rego and the data travel in one bundle, so only tools that look inside care."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def compile_tenant(records: items.TenantRecords) -> dict[str, Json] | None:
    """Compile a tenant; ``None`` if it has no tenant item, and so does not exist."""
    tenant = records.tenant
    if tenant is None:
        return None
    document = _compile_rules(records.policies)
    if records.members:
        document["members"] = _members(records.members)
    if records.agents:
        document["agents"] = _agents(records.agents)
    if records.resources:
        document["resources"] = compile_resources(records.resources)
    return document | {"terms": _terms(tenant, document)}


def suspend(document: dict[str, Json], records: items.TenantRecords) -> dict[str, Json]:
    """Shut off, in a tenant's document, what records say is SUSPENDED. Nothing else of them counts, so this adds nothing.

    The document of a tenant that does not exist stays as it is.
    """
    if "status" not in document["terms"]:
        return document
    off = records.suspended()
    shut = {**document, "terms": {**document["terms"]}}
    if off.tenant:
        shut["terms"]["status"] = off.tenant.status
    if off.members:
        shut["members"] = document.get("members", {}) | _members(off.members)
    if off.agents:
        # Where none is listed, all may act. Once one is, the others must be, to go on; that lets none do more than before.
        before = document["agents"] if "agents" in document else _agents(records.agents)
        shut["agents"] = before | _agents(off.agents)
        shut["terms"]["agents"] = True
    if off.resources:
        shut["resources"] = suspend_resources(document.get("resources", {}), off.resources)
    return shut


def suspend_resources(catalogue: dict[str, Json], resources: Iterable[items.Resource]) -> dict[str, Json]:
    """Shut off, in a compiled catalogue, these suspended resources, whether it has them or not."""
    off = compile_resources(resources)
    return catalogue | {kind: catalogue.get(kind, {}) | entries for kind, entries in off.items()}


def _terms(tenant: items.Tenant, document: dict[str, Json]) -> dict[str, Json]:
    """Give what a decision asks of every tenant, small enough to be read as a whole."""
    terms: dict[str, Json] = {"status": tenant.status, "membership": tenant.membership}
    if tenant.max_staleness_seconds is not UNSET:
        terms["max_staleness_seconds"] = tenant.max_staleness_seconds
    if "agents" in document:
        terms["agents"] = True
    if "globs" in document:
        terms["lengths"] = {
            kind: sorted({len(prefix) for prefix in under}) for kind, under in document["globs"].items()
        }
    return terms


def compile_resources(resources: Iterable[items.Resource]) -> dict[str, Json]:
    """Compile catalogued resources: by type, then by id."""
    by_type: dict[str, Json] = {}
    for resource in resources:
        entry: dict[str, Json] = {}
        if resource.access is not UNSET:
            entry["access"] = resource.access
        if resource.status != "ACTIVE":
            entry["status"] = resource.status
        if resource.attributes:
            entry["attributes"] = resource.attributes
        by_type.setdefault(resource.resource_type, {})[resource.resource_id] = entry
    return by_type


def _members(members: Iterable[items.Membership]) -> dict[str, Json]:
    return {member.user_id: _member(member) for member in members}


def _agents(agents: Iterable[items.Agent]) -> dict[str, Json]:
    return {agent.agent_id: {"scopes": sorted({*agent.scopes}), "status": agent.status} for agent in agents}


def _member(member: items.Membership) -> dict[str, Json]:
    document: dict[str, Json] = {"status": member.status}
    if member.policy_ids:
        document["policies"] = sorted({*member.policy_ids})
    if member.roles:
        document["roles"] = sorted({*member.roles})
    if member.attributes:
        document["attributes"] = member.attributes
    return document


def _compile_rules(policies: Iterable[items.Policy]) -> dict[str, Json]:
    rules: list[Json] = []
    exact: dict[str, dict[str, list[int]]] = {}
    under: dict[str, dict[str, list[Json]]] = {}
    for policy in sorted(policies, key=lambda p: p.policy_id):
        for position, rule in enumerate(policy.rules):
            number = len(rules)
            rules.append(_rule(policy, rule, position))
            for resource in dict.fromkeys(rule.resources):
                if globs.is_glob(resource):
                    prefix, rest = globs.split(resource)
                    entry: dict[str, Json] = {"rule": number}
                    if rest != "**":
                        entry["rest"] = globs.to_regex(rest)
                    under.setdefault(rule.resource_type, {}).setdefault(prefix, []).append(entry)
                else:
                    exact.setdefault(rule.resource_type, {}).setdefault(resource, []).append(number)
    document: dict[str, Json] = {}
    if rules:
        document["rules"] = rules
    if exact:
        document["exact"] = exact
    if under:
        document["globs"] = under
    return document


def _rule(policy: items.Policy, rule: items.Rule, position: int) -> dict[str, Json]:
    document: dict[str, Json] = {
        "policy": policy.policy_id,
        "id": items.rule_name(rule, position),
        "effect": rule.effect,
    }
    narrowing = _narrowing(rule)
    document |= narrowing
    names = [*narrowing, *(["assignment"] if policy.assignment == "MEMBERS" else [])]
    if names:
        document["narrowing"] = names
    if rule.conditions:
        document["conditions"] = [_condition(condition) for condition in rule.conditions]
        paths = [path for c in rule.conditions for path in (c.path, c.value_from) if path is not UNSET]
        reads = {part for path in paths for part in _parts_read(path)}
        if reads:
            document["reads"] = sorted(reads)
    if rule.obligations:
        document["obligations"] = list(rule.obligations)
    document["reason"] = rule.reason or _default_reason(rule.effect, document["id"], policy.policy_id)
    return document


def _narrowing(rule: items.Rule) -> dict[str, Json]:
    narrowing: dict[str, Json] = {}
    if rule.actions is not UNSET:
        narrowing["actions"] = list(rule.actions)
    if rule.subjects is not UNSET:
        users, roles = rule.subjects.users, rule.subjects.roles
        narrowing["subjects"] = ({} if users is UNSET else {"users": users}) | (
            {} if roles is UNSET else {"roles": roles}
        )
    if rule.principals is not UNSET:
        narrowing["principals"] = {
            "ids": [p for p in rule.principals if not globs.is_glob(p)],
            "patterns": [globs.to_regex(p) for p in rule.principals if globs.is_glob(p)],
        }
    if rule.scopes is not UNSET:
        narrowing["scopes"] = list(rule.scopes)
    if rule.not_before is not UNSET:
        narrowing["not_before"] = microseconds(rule.not_before)
    if rule.not_after is not UNSET:
        narrowing["not_after"] = microseconds(rule.not_after)
    return narrowing


def _default_reason(effect: str, rule_id: str, policy_id: str) -> str:
    rule, policy = (msgspec.json.encode(name).decode() for name in (rule_id, policy_id))
    return f"{'allowed' if effect == 'ALLOW' else 'denied'} by rule {rule} of policy {policy}"


def _condition(condition: items.Condition) -> dict[str, Json]:
    document: dict[str, Json] = {"op": condition.op, **_side(condition.path)}
    if condition.value is not UNSET:
        document["value"] = condition.value
        if condition.op == "glob":
            document["regex"] = globs.to_regex(condition.value)
    if condition.value_from is not UNSET:
        document["from"] = _side(condition.value_from)
    return document


@lru_cache(maxsize=65536)
def _side(pointer: str) -> dict[str, Any]:
    root, *tokens = items.pointer_tokens(pointer)
    readings = product(*([token, int(token)] if items.is_index(token) else [token] for token in tokens))
    return {"path": pointer, "root": root, "tokens": [list(reading) for reading in readings]}


@lru_cache(maxsize=65536)
def _parts_read(pointer: str) -> tuple[str, ...]:
    """Tell which optional parts of a request a path reads; identity, resource and action name always count."""
    root, *tokens = items.pointer_tokens(pointer)
    if root in {"arguments", "context"}:
        return (root,)
    return (f"{root}.properties",) if tokens[:1] in ([], ["properties"]) else ()


def microseconds(moment: datetime) -> int:
    """Give a moment in microseconds since 1970, without the detour over a float that would round it."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
