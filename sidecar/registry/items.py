"""The items of the registry table: five kinds, and the bare policy documents of a plain table.

``parse`` is the one way in. It knows an item by its keys, reads it strictly, and says what is wrong with it in the
words of whoever wrote it. Rules and conditions are strict to the last field, because a misspelt narrowing would widen a
rule; other attributes that we do not know are kept out of the way unless they look like a misspelling of one that we
do.
"""

from __future__ import annotations

import difflib
import re
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from sidecar.model import Effect, Json, id_fault
from sidecar.registry.globs import glob_fault, is_glob

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARED = "SHARED"
"""The partition key of what belongs to all tenants."""

Status = Literal["ACTIVE", "SUSPENDED"]

Operator = Literal[
    "eq",
    "ne",
    "lt",
    "lte",
    "gt",
    "gte",
    "in",
    "not_in",
    "prefix",
    "suffix",
    "glob",
    "contains",
    "exists",
    "absent",
    "subset_of",
]

_Names = Annotated[tuple[str, ...], Meta(min_length=1)]


class MalformedItemError(ValueError):
    """Raised when an item is recognised but malformed. The message names the attribute."""


class Condition(Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """A comparison of the value at ``path`` with ``value``, or with the value at ``value_from``."""

    path: str
    op: Operator
    value: Json | UnsetType = UNSET
    value_from: str | UnsetType = UNSET


class Subjects(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Users or roles; one match is enough."""

    users: _Names | UnsetType = UNSET
    roles: _Names | UnsetType = UNSET


class Rule(Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """One row of a policy: an effect on resources, and whatever narrows it."""

    effect: Effect
    resource_type: Annotated[str, Meta(min_length=1)]
    resources: _Names
    rule_id: str | UnsetType = UNSET
    actions: _Names | UnsetType = UNSET
    subjects: Subjects | UnsetType = UNSET
    principals: _Names | UnsetType = UNSET
    scopes: _Names | UnsetType = UNSET
    not_before: Annotated[datetime, Meta(tz=True)] | UnsetType = UNSET
    not_after: Annotated[datetime, Meta(tz=True)] | UnsetType = UNSET
    conditions: tuple[Condition, ...] = ()
    obligations: tuple[dict[str, Json], ...] = ()
    reason: str = ""


class _Item(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What every kind may have: a version for optimistic locking, and a description for people."""

    version: int | UnsetType = UNSET
    description: str | UnsetType = UNSET
    tenant_id: str | UnsetType = UNSET


class Tenant(_Item, frozen=True):
    """A customer whose data is isolated."""

    status: Status = "ACTIVE"
    membership: Literal["REQUIRED", "OPTIONAL"] = "REQUIRED"
    max_staleness_seconds: Annotated[float, Meta(gt=0)] | UnsetType = UNSET


class Policy(_Item, frozen=True, kw_only=True):
    """A named list of rules that belongs to one tenant."""

    policy_id: str
    rules: tuple[Rule, ...]
    assignment: Literal["TENANT", "MEMBERS"] = "TENANT"


class Membership(_Item, frozen=True, kw_only=True):
    """A user of a tenant."""

    user_id: str
    policy_ids: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    status: Status = "ACTIVE"
    attributes: dict[str, Json] = field(default_factory=dict)


class Agent(_Item, frozen=True, kw_only=True):
    """An agent that may act for the users of a tenant, and the most scopes that it may hold."""

    agent_id: str
    scopes: tuple[str, ...] = ()
    status: Status = "ACTIVE"


class Resource(_Item, frozen=True, kw_only=True):
    """A catalogued resource, of one tenant or shared."""

    resource_type: str
    resource_id: str
    access: Literal["READ", "WRITE"] | UnsetType = UNSET
    status: Status = "ACTIVE"
    attributes: dict[str, Json] = field(default_factory=dict)


Record: TypeAlias = Tenant | Policy | Membership | Agent | Resource


class TenantRecords(Struct):
    """All that belongs to one tenant."""

    tenant: Tenant | None
    policies: list[Policy]
    members: list[Membership]
    agents: list[Agent]
    resources: list[Resource]

    @classmethod
    def none(cls) -> TenantRecords:
        """Begin with nothing."""
        return cls(None, [], [], [], [])

    def add(self, record: Record) -> None:
        """Put a record where it belongs."""
        match record:
            case Tenant():
                self.tenant = record
            case Policy():
                self.policies.append(record)
            case Membership():
                self.members.append(record)
            case Agent():
                self.agents.append(record)
            case Resource():
                self.resources.append(record)

    def suspended(self) -> TenantRecords:
        """Give those that are shut off; a policy cannot be."""
        off = TenantRecords.none()
        for record in (self.tenant, *self.members, *self.agents, *self.resources):
            if record is not None and record.status == "SUSPENDED":
                off.add(record)
        return off


class Entry(Struct, frozen=True):
    """A record and where it belongs: the tenant (or ``SHARED``), the kind and the id within both."""

    tenant: str
    kind: str
    id: str
    record: Record
    plain: bool = False


KINDS: dict[str, type[Record]] = {
    "TENANT": Tenant,
    "POLICY": Policy,
    "USER": Membership,
    "AGENT": Agent,
    "RESOURCE": Resource,
}
"""The kinds by the word that begins their sort key."""

_ID_ATTRIBUTES = {"POLICY": "policyId", "USER": "userId", "AGENT": "agentId"}
_KEYS = {"pk", "sk"}
_POLICY_DOCUMENT = {"policyId", "tenantId", "rules"}
_KNOWN = {kind: {*(f.encode_name for f in msgspec.structs.fields(record))} | _KEYS for kind, record in KINDS.items()}


def item_name(item: dict[str, Json]) -> str:
    """Name an item as its author knows it, for messages."""
    if "pk" in item or "sk" in item:
        return f"{item.get('pk')} / {item.get('sk')}"
    if "policyId" in item:
        return f"policy {item['policyId']!r} of tenant {item.get('tenantId')!r}"
    return "item with the attributes " + ", ".join(sorted(item)[:5])


def parse(item: dict[str, Json]) -> Entry | None:
    """Read one item; ``None`` if it is of an unknown kind.

    Raises ``MalformedItemError`` if the kind is known and the item is malformed.
    """
    pk, sk = item.get("pk"), item.get("sk")
    if "pk" not in item and "sk" not in item:
        # two of the three are enough, so that a document that lacks one is malformed rather than overlooked
        return _plain_policy(item) if len(item.keys() & _POLICY_DOCUMENT) > 1 else None
    if not isinstance(pk, str) or not isinstance(sk, str):
        return None
    kind, _, rest = sk.partition("#")
    owner, _, tenant = pk.partition("#")
    if kind not in KINDS or (kind == "TENANT" and sk != "TENANT"):
        return None
    if pk == SHARED and kind == "RESOURCE":
        tenant = SHARED
    elif owner != "TENANT":
        return None
    else:
        _check_tenant("pk", tenant)
    named = dict(item)
    if kind == "RESOURCE":
        resource_type, _, resource_id = rest.partition("#")
        _take_from_key(named, "resourceType", resource_type)
        _take_from_key(named, "resourceId", resource_id)
    elif kind != "TENANT":
        _take_from_key(named, _ID_ATTRIBUTES[kind], rest)
    if tenant != SHARED:
        _take_from_key(named, "tenantId", tenant)
    return Entry(tenant, kind, rest, _convert(named, kind))


def unknown_attributes(item: dict[str, Json], kind: str) -> list[str]:
    """List the attributes of an item that its kind does not have: ignored, and worth a mention."""
    return sorted(item.keys() - _KNOWN[kind])


def _plain_policy(item: dict[str, Json]) -> Entry:
    if not isinstance(item.get("tenantId"), str):
        msg = "tenantId: a policy document without pk and sk must name its tenant"
        raise MalformedItemError(msg)
    _check_tenant("tenantId", item["tenantId"])
    record = _convert(item, "POLICY")
    assert isinstance(record, Policy)  # noqa: S101 - narrows the type
    _check_id("policyId", record.policy_id)
    return Entry(item["tenantId"], "POLICY", record.policy_id, record, plain=True)


def _take_from_key(item: dict[str, Json], attribute: str, value: str) -> None:
    _check_id("sk", value)
    if item.setdefault(attribute, value) != value:
        msg = f"{attribute}: {item[attribute]!r} contradicts the key, which says {value!r}"
        raise MalformedItemError(msg)


def _check_tenant(attribute: str, value: str) -> None:
    _check_id(attribute, value)
    if value == SHARED:
        msg = f"{attribute}: the id {SHARED!r} stands for what belongs to all tenants; a tenant cannot have it"
        raise MalformedItemError(msg)


def _check_id(attribute: str, value: str) -> None:
    fault = id_fault(value)
    if fault:
        msg = f"{attribute}: the id {value!r} {fault}"
        raise MalformedItemError(msg)


def _convert(item: dict[str, Json], kind: str) -> Record:
    for name in unknown_attributes(item, kind):
        known = {attribute.lower(): attribute for attribute in sorted(_KNOWN[kind] - _KEYS - item.keys())}
        meant = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.8)
        if meant:
            msg = f"{name}: unknown attribute; did you mean {known[meant[0]]}?"
            raise MalformedItemError(msg)
    try:
        record = msgspec.convert(item, KINDS[kind])
    except msgspec.ValidationError as fault:
        raise MalformedItemError(_in_words(fault)) from fault
    if isinstance(record, Policy):
        for attribute, reason in _policy_faults(record):
            msg = f"{attribute}: {reason}"
            raise MalformedItemError(msg)
    return record


def _in_words(fault: msgspec.ValidationError) -> str:
    message, _, path = str(fault).partition(" - at `")
    return f"{path.removesuffix('`').removeprefix('$').removeprefix('.') or 'item'}: {message}"


def _policy_faults(policy: Policy) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for position, rule in enumerate(policy.rules):
        at = f"rules[{position}]"
        name = rule_name(rule, position)
        if name in seen:
            yield f"{at}.ruleId", f"{name!r} is the id of an earlier rule of the policy"
        seen.add(name)
        for attribute, fault in _rule_faults(rule):
            yield f"{at}.{attribute}", fault


_ANY_SUBJECTS = Subjects()


def _rule_faults(rule: Rule) -> Iterator[tuple[str, str]]:
    if rule.rule_id is not UNSET and (fault := id_fault(rule.rule_id)):
        yield "ruleId", fault
    if rule.subjects is not UNSET and rule.subjects.users is UNSET and rule.subjects.roles is UNSET:
        yield "subjects", "must name users or roles"
    if rule.not_before is not UNSET and rule.not_after is not UNSET and rule.not_before >= rule.not_after:
        yield "notAfter", "must be later than notBefore"
    yield from _name_faults(rule)
    yield from _obligation_faults(rule)
    for i, condition in enumerate(rule.conditions):
        for attribute, fault in _condition_faults(condition):
            yield f"conditions[{i}].{attribute}", fault


def _name_faults(rule: Rule) -> Iterator[tuple[str, str]]:
    if fault := id_fault(rule.resource_type):
        yield "resourceType", fault
    subjects = rule.subjects or _ANY_SUBJECTS
    for attribute, names, may_be_globs in (
        ("resources", rule.resources, True),
        ("actions", rule.actions, False),
        ("subjects.users", subjects.users, False),
        ("subjects.roles", subjects.roles, False),
        ("principals", rule.principals, True),
        ("scopes", rule.scopes, False),
    ):
        for i, name in enumerate(names or ()):
            # a name that no request can carry would make a DENY rule that never applies
            if fault := (may_be_globs and is_glob(name) and glob_fault(name)) or id_fault(name):
                yield f"{attribute}[{i}]", fault


def _obligation_faults(rule: Rule) -> Iterator[tuple[str, str]]:
    for i, obligation in enumerate(rule.obligations):
        if not isinstance(obligation.get("type"), str) or not obligation["type"]:
            yield f"obligations[{i}].type", "every obligation must have a type, a text"
        elif rule.effect == "DENY":
            yield f"obligations[{i}]", "obligations go with ALLOW; a DENY rule cannot have any"


def rule_name(rule: Rule, position: int) -> str:
    """Name a rule: by its id, else by its position in the policy, counted from 1."""
    return f"rule-{position + 1}" if rule.rule_id is UNSET else rule.rule_id


_UNARY = {"exists", "absent"}
_TEXTS = {"prefix", "suffix", "glob"}
_LISTS = {"in", "not_in", "subset_of"}
_ORDERED = {"lt", "lte", "gt", "gte"}


def _condition_faults(condition: Condition) -> Iterator[tuple[str, str]]:
    if fault := pointer_fault(condition.path):
        yield "path", fault
    if condition.value_from is not UNSET and (fault := pointer_fault(condition.value_from)):
        yield "valueFrom", fault
    given = (condition.value is not UNSET) + (condition.value_from is not UNSET)
    if condition.op in _UNARY:
        if given:
            yield "value", f"{condition.op} is about the path alone and takes no value"
        return
    if given != 1:
        yield "value", f"{condition.op} needs exactly one of value and valueFrom"
        return
    if condition.value is not UNSET and (fault := _value_fault(condition.op, condition.value)):
        yield "value", fault


def _value_fault(op: Operator, value: Json) -> str | None:
    if op in _TEXTS and not isinstance(value, str):
        return f"{op} compares texts; {value!r} is none"
    if op in _LISTS and not isinstance(value, list):
        return f"{op} needs a list; {value!r} is none"
    if op in _ORDERED and (isinstance(value, bool) or not isinstance(value, int | float | str)):
        return f"{op} compares two numbers or two texts; {value!r} is neither"
    return glob_fault(value) if op == "glob" else None


_FIELDS = {
    "arguments": None,
    "context": None,
    "subject": {"id", "roles", "properties", "attributes"},
    "resource": {"type", "id", "properties", "attributes"},
    "action": {"name", "properties"},
}
"""The roots of a condition's path, and the fields below those whose shape is ours."""

_BAD_ESCAPE = re.compile(r"~(?![01])")
_MAX_NUMERIC = 3


@lru_cache(maxsize=65536)
def pointer_fault(pointer: str) -> str | None:
    """Say what is wrong with the path of a condition, if anything. Source: RFC 6901."""
    if not pointer.startswith("/") or _BAD_ESCAPE.search(pointer):
        return f"{pointer!r} is not a JSON Pointer such as /arguments/amount"
    root, *rest = pointer_tokens(pointer)
    if root not in _FIELDS:
        return f"{pointer!r} must begin with one of /" + ", /".join(_FIELDS)
    fields = _FIELDS[root]
    if fields and rest and rest[0] not in fields:
        return f"{pointer!r}: /{root} has only " + ", ".join(sorted(fields))
    if sum(map(is_index, rest)) > _MAX_NUMERIC:
        return f"{pointer!r} has more than {_MAX_NUMERIC} numeric tokens"
    return None


def pointer_tokens(pointer: str) -> list[str]:
    """Split a JSON Pointer into its unescaped tokens. Source: RFC 6901 section 4."""
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def is_index(token: str) -> bool:
    """Tell whether a token may be an index of an array. Source: RFC 6901 section 4."""
    return token.isascii() and token.isdigit() and (len(token) == 1 or not token.startswith("0"))
