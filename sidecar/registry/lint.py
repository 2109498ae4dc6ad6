"""What is odd in a registry though it is well-formed: rules that can never apply, and references that lead nowhere.

There is one function for each code, and one row for it in ``LINTS``. What is an error contradicts itself as it stands;
what is a warning has no effect, or not the one that it seems to have, but that may be meant, or may yet change.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import msgspec
from msgspec import UNSET, Struct

from sidecar.registry import globs, items

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

    from sidecar.model import Json

Severity = Literal["error", "warning"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Finding(Struct, frozen=True):
    """One oddity: where it is, and what to do about it. An id is empty where it is not about one tenant, policy or rule."""

    severity: Severity
    code: str
    tenant: str
    message: str
    policy_id: str = ""
    rule_id: str = ""


class Catalogue:
    """The ids of catalogued resources by type, in order, so that a glob looks at those alone that begin as it does."""

    def __init__(self, resources: Iterable[items.Resource]) -> None:
        """Take in the resources that belong to one tenant, or to all."""
        ids: defaultdict[str, set[str]] = defaultdict(set)
        for resource in resources:
            ids[resource.resource_type].add(resource.resource_id)
        self._ids = {resource_type: sorted(found) for resource_type, found in ids.items()}

    def lists(self, resource_type: str) -> bool:
        """Tell whether any resource of a type is catalogued."""
        return resource_type in self._ids

    def holds(self, resource_type: str, resource: str) -> bool:
        """Tell whether an exact id is catalogued, or any that a glob accepts."""
        ids: Sequence[str] = self._ids.get(resource_type, ())
        literal = resource.partition("*")[0]
        for found in islice(ids, bisect_left(ids, literal), None):
            if not found.startswith(literal):
                return False
            if globs.matches(resource, found):
                return True
        return False


def lint_tenant(tenant_id: str, records: items.TenantRecords, shared: Catalogue, as_of: int) -> Iterator[Finding]:
    """Find what is odd in all that belongs to one tenant.

    ``shared`` holds the resources of all tenants; ``as_of`` is the moment of the registry, in microseconds since 1970.
    """
    view = _View(records, shared, _EPOCH + timedelta(microseconds=as_of))
    for code, severity, lint in LINTS:
        for message, policy_id, rule_id in lint(view):
            yield Finding(severity, code, tenant_id, f"tenant {tenant_id!r}: {message}", policy_id, rule_id)


def lint_malformed(faults: Iterable[str], attributes: Mapping[str, int]) -> Iterator[Finding]:
    """Report what was odd about items while they were read, since it is gone once they are records.

    ``faults`` say what is wrong with malformed items; ``attributes`` counts those that are unknown, as ``KIND.name``.
    """
    for fault in faults:
        yield Finding("error", "MALFORMED_ITEM", "", fault)
    for attribute, number in sorted(attributes.items()):
        kind, _, name = attribute.partition(".")
        message = (
            f"{number} {kind} items have an attribute {name!r}, which is unknown and ignored; correct or remove it"
        )
        yield Finding("warning", "UNKNOWN_ATTRIBUTE", "", message)


class _Oddity(NamedTuple):
    """What a lint says: a finding without what is the same for all of its findings."""

    message: str
    policy_id: str = ""
    rule_id: str = ""


@dataclass(frozen=True, slots=True)
class _Narrowing:
    """The narrowing of a rule in a form that can be compared: sets, and ``None`` where there is no restriction."""

    actions: frozenset[str] | None
    subjects: frozenset[tuple[str, str]] | None
    principals: frozenset[str] | None
    scopes: frozenset[str]
    not_before: datetime | None
    not_after: datetime | None
    conditions: frozenset[Hashable]

    def takes_in(self, other: _Narrowing) -> bool:
        """Tell whether a rule with this narrowing is about every request that one with the other is about.

        Conditions are compared by what they say. For a DENY against an ALLOW that is enough, since what cannot be
        evaluated counts for the one and against the other.
        """
        return (
            _includes(self.actions, other.actions)
            and _includes(self.subjects, other.subjects)
            and _includes_principals(self.principals, other.principals)
            and self.scopes <= other.scopes
            and (self.not_before is None or (other.not_before is not None and self.not_before <= other.not_before))
            and (self.not_after is None or (other.not_after is not None and self.not_after >= other.not_after))
            and self.conditions <= other.conditions
        )


def _includes(wide: frozenset[Hashable] | None, narrow: frozenset[Hashable] | None) -> bool:
    return wide is None or (narrow is not None and narrow <= wide)


def _includes_principals(wide: frozenset[str] | None, narrow: frozenset[str] | None) -> bool:
    return _includes(wide, narrow) or (
        wide is not None and narrow is not None and all(any(globs.covers(w, n) for w in wide) for n in narrow)
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """A rule with the policy that it stands in. ``order`` is its place among the rules of the tenant."""

    order: int
    policy: items.Policy
    rule: items.Rule
    id: str
    resources: frozenset[str]
    narrowing: _Narrowing

    @property
    def name(self) -> str:
        return f"rule {self.id!r} of policy {self.policy.policy_id!r}"

    @property
    def request(self) -> Hashable:
        """What the rule is about, whatever its effect."""
        return self.rule.resource_type, self.resources, self.narrowing

    def oddity(self, message: str) -> _Oddity:
        return _Oddity(f"{self.name} {message}", self.policy.policy_id, self.id)

    def reaches_all_of(self, other: _Row) -> bool:
        """Tell whether the rule's policy is certain to apply to everyone to whom the other's policy applies."""
        return self.policy.assignment == "TENANT" or self.policy is other.policy


class _View:
    """A tenant's records with what more than one lint needs of them."""

    def __init__(self, records: items.TenantRecords, shared: Catalogue, as_of: datetime) -> None:
        self.records = records
        self.shared = shared
        self.as_of = as_of

    @cached_property
    def rows(self) -> list[_Row]:
        rows: list[_Row] = []
        for policy in sorted(self.records.policies, key=lambda p: p.policy_id):
            for position, rule in enumerate(policy.rules):
                name = items.rule_name(rule, position)
                rows.append(_Row(len(rows), policy, rule, name, frozenset(rule.resources), _narrowing(rule)))
        return rows

    @cached_property
    def contradicted(self) -> dict[_Row, _Row]:
        """The ALLOW rules that a DENY rule takes back word for word, with the first such rule."""
        denies: defaultdict[Hashable, list[_Row]] = defaultdict(list)
        for row in self.rows:
            if row.rule.effect == "DENY":
                denies[row.request].append(row)
        found = {}
        for row in self.rows:
            deny = next((d for d in denies.get(row.request, ()) if d.reaches_all_of(row)), None)
            if deny and row.rule.effect == "ALLOW":
                found[row] = deny
        return found

    @cached_property
    def active_members(self) -> list[items.Membership]:
        return [member for member in self.records.members if member.status == "ACTIVE"]


def _narrowing(rule: items.Rule) -> _Narrowing:
    subjects = None
    if rule.subjects is not UNSET:
        users, roles = rule.subjects.users or (), rule.subjects.roles or ()
        subjects = frozenset([*(("user", user) for user in users), *(("role", role) for role in roles)])
    return _Narrowing(
        actions=None if rule.actions is UNSET else frozenset(rule.actions),
        subjects=subjects,
        principals=None if rule.principals is UNSET else frozenset(rule.principals),
        scopes=frozenset(rule.scopes or ()),
        not_before=None if rule.not_before is UNSET else rule.not_before,
        not_after=None if rule.not_after is UNSET else rule.not_after,
        conditions=frozenset((c.path, c.op, _identity(c.value), _identity(c.value_from)) for c in rule.conditions),
    )


def _identity(value: Json) -> Hashable:
    """Give equal identities to equal JSON values only: 1 is 1.0, but not ``true``, as it is for Python."""
    if isinstance(value, dict):
        return dict, frozenset((name, _identity(member)) for name, member in value.items())
    if isinstance(value, list):
        return list, tuple(map(_identity, value))
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float if number else type(value), value


class _Denials:
    """The DENY rules by resource type and by the literal text with which their resources begin."""

    def __init__(self, rows: Iterable[_Row]) -> None:
        self._rows: defaultdict[tuple[str, str], defaultdict[str, list[_Row]]] = defaultdict(lambda: defaultdict(list))
        lengths: defaultdict[str, set[int]] = defaultdict(set)
        for row in rows:
            if row.rule.effect == "DENY":
                for resource in row.resources:
                    literal = resource.partition("*")[0]
                    lengths[row.rule.resource_type].add(len(literal))
                    self._rows[row.rule.resource_type, literal][resource].append(row)
        self._lengths = {resource_type: sorted(found) for resource_type, found in lengths.items()}
        self._covering: dict[tuple[str, str], list[_Row]] = {}

    def covering(self, resource_type: str, resource: str) -> list[_Row]:
        """List the DENY rules that are about all that an id or glob accepts, in order."""
        known = self._covering.get((resource_type, resource))
        if known is None:
            begins = (resource[:n] for n in self._lengths.get(resource_type, ()))
            known = self._covering[resource_type, resource] = sorted(
                {
                    row
                    for literal in begins
                    for general, rows in self._rows.get((resource_type, literal), {}).items()
                    if globs.covers(general, resource)
                    for row in rows
                },
                key=lambda row: row.order,
            )
        return known

    def shadows(self, allow: _Row) -> list[_Row]:
        """List the DENY rules that together leave nothing of an ALLOW rule; empty if they leave anything."""
        wider: dict[_Row, bool] = {}
        found: dict[_Row, None] = {}
        for resource in sorted(allow.resources):
            for deny in self.covering(allow.rule.resource_type, resource):
                if deny not in wider:
                    wider[deny] = deny.reaches_all_of(allow) and deny.narrowing.takes_in(allow.narrowing)
                if wider[deny]:
                    found[deny] = None
                    break
            else:
                return []
        return sorted(found, key=lambda row: row.order)


def _shadowed_rule(view: _View) -> Iterator[_Oddity]:
    denials = _Denials(view.rows)
    for row in view.rows:
        if row.rule.effect == "ALLOW" and row not in view.contradicted and (shadows := denials.shadows(row)):
            names = _listed([f"DENY {deny.name}" for deny in shadows])
            yield row.oddity(f"never allows anything, because of {names}; remove it, or narrow what denies it")


def _contradicting_rules(view: _View) -> Iterator[_Oddity]:
    for row, deny in view.contradicted.items():
        yield row.oddity(f"allows exactly what {deny.name} denies, and DENY wins; remove one of the two")


def _duplicate_rule(view: _View) -> Iterator[_Oddity]:
    seen: defaultdict[Hashable, list[_Row]] = defaultdict(list)
    for row in view.rows:
        obligations = frozenset(_identity(obligation) for obligation in row.rule.obligations)
        alike = seen[row.rule.effect, row.request, obligations]
        first = next((other for other in alike if other.reaches_all_of(row) and row.reaches_all_of(other)), None)
        if first:
            yield row.oddity(f"repeats {first.name}; remove one of the two")
        alike.append(row)


def _unmatched_resource(view: _View) -> Iterator[_Oddity]:
    catalogues = view.shared, Catalogue(view.records.resources)
    for row in view.rows:
        kind = row.rule.resource_type
        if any(catalogue.lists(kind) for catalogue in catalogues):
            for resource in dict.fromkeys(row.rule.resources):
                if not any(catalogue.holds(kind, resource) for catalogue in catalogues):
                    yield row.oddity(f"names {resource!r}, which no catalogued {kind} is; correct it, or catalogue it")


def _unassigned_policy(view: _View) -> Iterator[_Oddity]:
    assigned = {policy_id for member in view.active_members for policy_id in member.policy_ids}
    for policy in sorted(view.records.policies, key=lambda p: p.policy_id):
        if policy.assignment == "MEMBERS" and policy.policy_id not in assigned:
            message = (
                f"policy {policy.policy_id!r} applies to no one: its assignment is MEMBERS, and no active membership "
                "lists it; list it in one, make its assignment TENANT, or remove it"
            )
            yield _Oddity(message, policy.policy_id)


def _unknown_policy(view: _View) -> Iterator[_Oddity]:
    known = {policy.policy_id for policy in view.records.policies}
    users: defaultdict[str, list[str]] = defaultdict(list)
    for member in view.records.members:
        for policy_id in set(member.policy_ids) - known:
            users[policy_id].append(member.user_id)
    for policy_id, listing in sorted(users.items()):
        names = _listed([f"user {user!r}" for user in sorted(listing)])
        message = (
            f"policy {policy_id!r} does not exist, but is listed in the membership of {names}; add it or unlist it"
        )
        yield _Oddity(message, policy_id)


def _tenantless_items(view: _View) -> Iterator[_Oddity]:
    records = view.records
    if records.tenant is not None:
        return
    counts = {
        "POLICY": len(records.policies),
        "USER": len(records.members),
        "AGENT": len(records.agents),
        "RESOURCE": len(records.resources),
    }
    held = ", ".join(f"{number} {kind}" for kind, number in counts.items() if number)
    if held:
        yield _Oddity(f"there is no TENANT item, so its other items ({held}) have no effect; add it, or remove them")


def _expired_rule(view: _View) -> Iterator[_Oddity]:
    for row in view.rows:
        end = row.narrowing.not_after
        if end is not None and end <= view.as_of:
            yield row.oddity(f"ended at {end.isoformat()}; remove it, or give it a later notAfter")


def _unsatisfiable_conditions(view: _View) -> Iterator[_Oddity]:
    for row in view.rows:
        by_path: defaultdict[str, list[items.Condition]] = defaultdict(list)
        for condition in row.rule.conditions:
            by_path[condition.path].append(condition)
        for path, conditions in by_path.items():
            clash = _presence_clash(conditions, row.rule.effect)
            if clash:
                yield row.oddity(f"never applies: {path} cannot be {clash}; correct one of its conditions")
            elif clash := _value_clash(conditions):
                # deny-safe: a DENY rule applies where its conditions cannot be evaluated, if nowhere else
                never = "never applies" if row.rule.effect == "ALLOW" else "applies only where nothing can be compared"
                yield row.oddity(f"{never}: {path} cannot be {clash}; correct one of its conditions")


def _presence_clash(conditions: list[items.Condition], effect: str) -> str:
    ops = dict.fromkeys(condition.op for condition in conditions)
    if "absent" not in ops:
        return ""
    # any other comparison needs a value too, but for want of one it counts as met in a DENY rule
    present = next((op for op in ops if op == "exists" or (op != "absent" and effect == "ALLOW")), None)
    return f"both absent and there ({present})" if present else ""


def _value_clash(conditions: list[items.Condition]) -> str:
    fixed = [c for c in conditions if c.value is not UNSET]
    equal = {_identity(c.value): c for c in fixed if c.op == "eq"}
    if len(equal) > 1:
        return " and ".join(map(_in_words, islice(equal.values(), 2)))
    numbers: list[tuple[float, items.Condition]] = [(c.value, c) for c in fixed if isinstance(c.value, int | float)]
    floors = [(number, c.op == "gt", c) for number, c in numbers if c.op in {"gt", "gte"}]
    ceilings = [(number, c.op == "lte", c) for number, c in numbers if c.op in {"lt", "lte"}]
    if not floors or not ceilings:
        return ""
    floor, above, lowest = max(floors, key=itemgetter(0, 1))
    ceiling, included, highest = min(ceilings, key=itemgetter(0, 1))
    meet = floor == ceiling and included and not above
    return "" if floor < ceiling or meet else f"{_in_words(lowest)} and {_in_words(highest)}"


def _in_words(condition: items.Condition) -> str:
    return f"{condition.op} {msgspec.json.encode(condition.value).decode()}"


def _unreachable_agent_scope(view: _View) -> Iterator[_Oddity]:
    if not view.records.agents:
        return
    agents = [(agent.agent_id, frozenset(agent.scopes)) for agent in view.records.agents if agent.status == "ACTIVE"]
    for row in view.rows:
        needed, principals = row.narrowing.scopes, row.narrowing.principals or {"**"}
        holders = (agent for agent, held in agents if needed <= held)
        if needed and not any(globs.matches(p, agent) for agent in holders for p in principals):
            scopes = ", ".join(sorted(needed))
            yield row.oddity(f"never applies: no active agent that it is about holds {scopes}; correct either")


def _literal_star(view: _View) -> Iterator[_Oddity]:
    for row in view.rows:
        subjects = row.rule.subjects or items.Subjects()
        lists = {
            "actions": row.rule.actions,
            "subjects.users": subjects.users,
            "subjects.roles": subjects.roles,
            "scopes": row.rule.scopes,
        }
        for attribute, texts in lists.items():
            for text in filter(globs.is_glob, texts or ()):
                yield row.oddity(f"has {text!r} in {attribute}, where `*` is no wildcard; leave it out to mean any")


_SHOWN = 3


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


_Lint: TypeAlias = "Callable[[_View], Iterator[_Oddity]]"

LINTS: tuple[tuple[str, Severity, _Lint], ...] = (
    ("TENANTLESS_ITEMS", "error", _tenantless_items),
    ("CONTRADICTING_RULES", "error", _contradicting_rules),
    ("UNSATISFIABLE_CONDITIONS", "error", _unsatisfiable_conditions),
    ("UNKNOWN_POLICY", "error", _unknown_policy),
    ("SHADOWED_RULE", "warning", _shadowed_rule),
    ("DUPLICATE_RULE", "warning", _duplicate_rule),
    ("EXPIRED_RULE", "warning", _expired_rule),
    ("LITERAL_STAR", "warning", _literal_star),
    ("UNASSIGNED_POLICY", "warning", _unassigned_policy),
    ("UNMATCHED_RESOURCE", "warning", _unmatched_resource),
    ("UNREACHABLE_AGENT_SCOPE", "warning", _unreachable_agent_scope),
)
"""The lints: code, severity, and the function that looks."""
