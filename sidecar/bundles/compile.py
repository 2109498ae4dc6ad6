"""One tenant's records to the document that the Rego reads (``policies/tenantgate/registry``).

What does not depend on the call is worked out here: which rules concern which id, which narrowing a rule has at all,
where a condition's path leads, what of a request a rule reads. The layout is described in ``docs/registry.md``.

The leaves are texts. OPA holds a text in a small part of the space of the objects and lists that it stands for, its garbage
collector has nothing to follow in one, and of all of a tenant's a decision takes apart the few that it is about.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from sidecar.registry import globs, items

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sidecar.model import Json

FORMAT = 2
"""The version of the layout. The Rego and the data travel in one bundle, so only tools that look inside care."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DONE = {"ALLOW": "allowed", "DENY": "denied"}
_ROOTS_OF_THE_ITEM = {"action", "arguments", "context"}
_encoder = msgspec.json.Encoder(order="sorted")


def compile_tenant(records: items.TenantRecords) -> dict[str, Json] | None:
    """Compile a tenant; ``None`` if it has no tenant item, and so does not exist."""
    tenant = records.tenant
    if tenant is None:
        return None
    document = _Rules(records.policies).document() | _people(records.members, records.agents)
    if records.resources:
        document["resources"] = compile_resources(records.resources)
    terms: dict[str, Json] = {"status": tenant.status, "membership": tenant.membership}
    if tenant.max_staleness_seconds is not UNSET:
        terms["max_staleness_seconds"] = tenant.max_staleness_seconds
    if records.agents:
        terms["agents"] = True
    return document | {"terms": terms}


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
    if off.agents and "agents" not in shut["terms"]:
        # Where none is listed, all may act. Once one is, the others must be, to go on; that lets none do more than before.
        shut["agents"] = _people((), records.agents).get("agents", {})
        shut["terms"]["agents"] = True
    for kind, entries in _people(off.members, off.agents).get("suspended", {}).items():
        shut[kind] = {key: text for key, text in shut.get(kind, {}).items() if key not in entries}
        shut["suspended"] = {**shut.get("suspended", {}), kind: shut.get("suspended", {}).get(kind, {}) | entries}
    if off.resources:
        shut["resources"] = suspend_resources(shut.get("resources", {}), off.resources)
    return {name: value for name, value in shut.items() if value}


def suspend_resources(catalogue: dict[str, Json], resources: Iterable[items.Resource]) -> dict[str, Json]:
    """Shut off, in a compiled catalogue, these suspended resources, whether it has them or not."""
    return catalogue | compile_resources(resources)


def compile_resources(resources: Iterable[items.Resource]) -> dict[str, Json]:
    """Compile catalogued resources: each to lines, access, status and attributes, but for those at the end that say nothing."""
    return {
        _key(resource.resource_type, resource.resource_id): "\n".join(
            (
                resource.access or "",
                "" if resource.status == "ACTIVE" else resource.status,
                _text(resource.attributes) if resource.attributes else "",
            )
        ).rstrip("\n")
        for resource in resources
    }


def _people(members: Iterable[items.Membership], agents: Iterable[items.Agent]) -> dict[str, Json]:
    """Compile members and agents, those who are suspended apart from the others."""
    document: dict[str, Json] = {}
    entries = [
        *(("members", member.user_id, member.status, _member(member)) for member in members),
        *(("agents", agent.agent_id, agent.status, sorted({*agent.scopes})) for agent in agents),
    ]
    for kind, key, status, content in entries:
        place = document if status == "ACTIVE" else document.setdefault("suspended", {})
        place.setdefault(kind, {})[key] = _text(content)
    return document


def _member(member: items.Membership) -> dict[str, Json]:
    content: dict[str, Json] = {}
    if member.policy_ids:
        content["policies"] = sorted({*member.policy_ids})
    if member.roles:
        content["roles"] = sorted({*member.roles})
    if member.attributes:
        content["attributes"] = member.attributes
    return content


class _Rules:
    """The rules of a tenant, numbered in the order in which they are named, and which of them concern what."""

    def __init__(self, policies: Iterable[items.Policy]) -> None:
        self._rules: list[list[Json]] = []
        self._exact: dict[str, list[int]] = defaultdict(list)
        self._globs: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        self._lengths: dict[str, set[int]] = defaultdict(set)
        for policy in sorted(policies, key=lambda p: p.policy_id):
            for position, rule in enumerate(policy.rules):
                for resource in dict.fromkeys(rule.resources):
                    self._file(rule.resource_type, resource)
                self._rules.append(_rule(policy, rule, position))
        self._width = len(str(len(self._rules)))

    def document(self) -> dict[str, Json]:
        """Give what a tenant's document says of rules."""
        parts: dict[str, dict[str, Json]] = {
            "rules": {self._number(number): _text(rule) for number, rule in enumerate(self._rules)},
            "exact": {key: self._listed({*numbers, *self._by_globs(key)}) for key, numbers in self._exact.items()},
            "globs": {key: self._by_pattern(rests) for key, rests in self._globs.items()},
            "cuts": {kind: _cuts(lengths) for kind, lengths in self._lengths.items()},
        }
        return {name: part for name, part in parts.items() if part}

    def _file(self, kind: str, resource: str) -> None:
        number = len(self._rules)
        if globs.is_glob(resource):
            prefix, rest = globs.split(resource)
            key = _key(kind, prefix)
            self._globs[key][rest].append(number)
            self._lengths[kind].add(len(key))
        else:
            self._exact[_key(kind, resource)].append(number)

    def _by_globs(self, key: str) -> Iterator[int]:
        for length in self._lengths.get(key.partition("\t")[0], ()):
            for rest, numbers in self._globs.get(key[:length], {}).items():
                if len(key) >= length and globs.matches(rest, key[length:]):
                    yield from numbers

    def _by_pattern(self, rests: dict[str, list[int]]) -> str:
        """List, for globs that begin alike, what the rest of a key must match, and the rules that concern it then."""
        return "\n".join(f"{globs.to_regex(rest)}\t{self._listed(numbers)}" for rest, numbers in rests.items())

    def _listed(self, numbers: Iterable[int]) -> str:
        """List rules by number; where all of them allow whatever is asked, with policy, id and reason of the first."""
        ordered = sorted(numbers)
        listed = " ".join(self._number(number) for number in ordered)
        rules = [self._rules[number] for number in ordered]
        if any(effect == "DENY" or rest.keys() - {"reason"} for effect, _, _, rest in rules):
            return listed
        _, policy, name, rest = rules[0]
        reason = rest["reason"]
        return listed if "\t" in reason or "\n" in reason else f"{listed}\t{policy}\t{name}\t{reason}"

    def _number(self, number: int) -> str:
        """Write a number so that numbers sort as texts."""
        return f"{number:0{self._width}}"


def _cuts(lengths: Iterable[int]) -> str:
    """Give the format by which the Rego cuts a resource's key into those that its globs may be filed under, one to a line."""
    return "\n".join(f"%.{length}[1]s" for length in sorted(lengths))


def _key(kind: str, resource: str) -> str:
    """Name a resource by type and id, which have no tab in them."""
    return f"{kind}\t{resource}"


def _text(value: Json) -> str:
    return _encoder.encode(value).decode()


def _rule(policy: items.Policy, rule: items.Rule, position: int) -> list[Json]:
    """Compile a rule to effect, policy, id and the rest: of a rule that applies whatever is asked, the reason alone."""
    rest: dict[str, Json] = {}
    if narrowing := _narrowing(policy, rule):
        rest["narrowing"] = narrowing
    if rule.conditions:
        rest["conditions"] = [_condition(condition) for condition in rule.conditions]
        paths = [path for c in rule.conditions for path in (c.path, c.value_from) if path is not UNSET]
        if reads := {part for path in paths for part in _parts_read(path)}:
            rest["reads"] = sorted(reads)
    if rule.obligations:
        rest["obligations"] = list(rule.obligations)
    name = items.rule_name(rule, position)
    rest["reason"] = rule.reason or f"{_DONE[rule.effect]} by rule {_text(name)} of policy {_text(policy.policy_id)}"
    return [rule.effect, policy.policy_id, name, rest]


def _narrowing(policy: items.Policy, rule: items.Rule) -> list[Json]:
    """List the narrowing that a rule has, each with what it asks for."""
    narrowing: dict[str, Json] = {}
    if rule.actions is not UNSET:
        narrowing["actions"] = rule.actions
    if rule.subjects is not UNSET:
        narrowing["subjects"] = rule.subjects
    if rule.principals is not UNSET:
        narrowing["principals"] = {
            "ids": [p for p in rule.principals if not globs.is_glob(p)],
            "patterns": [globs.to_regex(p) for p in rule.principals if globs.is_glob(p)],
        }
    if rule.scopes is not UNSET:
        narrowing["scopes"] = rule.scopes
    if rule.not_before is not UNSET:
        narrowing["not_before"] = microseconds(rule.not_before)
    if rule.not_after is not UNSET:
        narrowing["not_after"] = microseconds(rule.not_after)
    if policy.assignment == "MEMBERS":
        narrowing["assignment"] = policy.policy_id
    return [[name, wanted] for name, wanted in narrowing.items()]


def _condition(condition: items.Condition) -> dict[str, Json]:
    compiled: dict[str, Json] = {"op": condition.op, **_side(condition.path)}
    if condition.value is not UNSET:
        compiled["value"] = condition.value
        if condition.op == "glob":
            compiled["regex"] = globs.to_regex(condition.value)
    if condition.value_from is not UNSET:
        compiled["from"] = _side(condition.value_from)
    return compiled


@lru_cache(maxsize=65536)
def _side(pointer: str) -> dict[str, Json]:
    """Say where a path leads: the way ``at`` which the item has the value, or else all readings of it.

    A numeric token is an object's key, which comes first, or an array's index.
    """
    root, *tokens = items.pointer_tokens(pointer)
    readings = product(*([token, int(token)] if items.is_index(token) else [token] for token in tokens))
    ways = [[root, *reading] for reading in readings]
    return {"at": ways[0]} if len(ways) == 1 and root in _ROOTS_OF_THE_ITEM else {"readings": ways}


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
