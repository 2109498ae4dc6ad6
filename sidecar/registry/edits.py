"""Edits of items, worked out before anything is written: what is malformed, what is new or changed, and what is in conflict.

Pure functions. Every item carries ``version``: 0 if it was stored without one, and one more after each writing. Whoever
writes an item says by its version what was read; an item without version is a new one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from msgspec import Struct

from sidecar.errors import ConflictError, MalformedItemsError
from sidecar.registry import items
from sidecar.registry.attribute_values import typed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sidecar.model import Json

Item: TypeAlias = "dict[str, Json]"
Key: TypeAlias = "tuple[str, str]"

VERSION = "version"
MAX_ITEM_BYTES = 400 * 1024
MAX_KEY_BYTES = 1024  # the sort key of the table, and of the inverted index: so of sk and of pk
MAX_GROUP_ITEMS = 100
MAX_GROUP_BYTES = 4_000_000


class Edit(Struct, frozen=True):
    """What becomes of one item: ``item`` is to be written, with the version that was read; ``attributes`` differ."""

    outcome: Literal["created", "changed", "unchanged"]
    item: Item
    attributes: tuple[str, ...] = ()
    note: str = ""


class Change(Struct, frozen=True):
    """An item to write, or to remove, if it is still as it was when it was read."""

    item: Item
    remove: bool = False


def key(item: Item) -> Key:
    """Give the key of a well-formed item."""
    return str(item["pk"]), str(item["sk"])


def same(one: Json, other: Json) -> bool:
    """Tell whether two values are the same to a rule: 1 equals 1.0, and true is not 1. Fractions are compared as doubles."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        # a large double is read back as an integer of the digits that it was written with
        return one == other if isinstance(one, int) and isinstance(other, int) else float(one) == float(other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def changed_attributes(before: Item, after: Item) -> tuple[str, ...]:
    """List the attributes in which two states of an item differ, versions aside."""
    names = sorted((before.keys() | after.keys()) - {VERSION})
    return tuple(n for n in names if n not in before or n not in after or not same(before[n], after[n]))


# ── what is malformed ───────────────────────────────────────────────────────────────────────────────────────────────────


def check(sources: Iterable[tuple[str, Json]]) -> tuple[list[Item], list[str]]:
    """Give the items as they are to be written, and warnings. Each source is a value and where it stands.

    Bare policy documents are given their keys. Raises ``MalformedItemsError`` unless every item is well-formed, of a known
    kind, of a size that DynamoDB takes, and alone in having its key.
    """
    checked: list[Item] = []
    faults: list[str] = []
    warnings: list[str] = []
    places: dict[Key, str] = {}
    for place, value in sources:
        if not isinstance(value, dict):
            faults.append(f"{place}: an item is a map of attributes, not {type(value).__name__}")
            continue
        item = _with_key(value)
        name = f"{place}: {items.item_name(item)}"
        if reason := fault(item):
            faults.append(f"{name}: {reason}")
            continue
        if key(item) in places:
            faults.append(f"{name}: stands here twice, also at {places[key(item)]}")
        places[key(item)] = place
        ignored = items.unknown_attributes(item, str(item["sk"]).partition("#")[0])
        warnings += [f"{name}: the attribute {attribute!r} is unknown and will be ignored" for attribute in ignored]
        checked.append(item)
    if faults:
        raise MalformedItemsError(faults)
    return checked, warnings


def fault(item: Item) -> str | None:
    """Say what is wrong with an item that is to be stored under its key, if anything."""
    if not {"pk", "sk"} <= item.keys():
        return "has no pk and sk, and is not a policy document either (policyId, tenantId, rules)"
    try:
        if items.parse(item) is None:
            return "is of an unknown kind; see the table of items in docs/registry.md"
        attributes = typed(item)
    except ValueError as reason:
        return str(reason)
    for name in ("pk", "sk"):
        if (length := len(str(item[name]).encode())) > MAX_KEY_BYTES:
            return f"{name}: has {length} bytes; a key can have {MAX_KEY_BYTES}"
    if (length := size({**attributes, VERSION: _ANY_VERSION})) > MAX_ITEM_BYTES:
        return f"has {length:,} bytes; DynamoDB keeps at most {MAX_ITEM_BYTES:,} in an item"
    return None


def _with_key(item: Item) -> Item:
    tenant, policy = item.get("tenantId"), item.get("policyId")
    if (
        "pk" in item
        or "sk" in item
        or "rules" not in item
        or not isinstance(tenant, str)
        or not isinstance(policy, str)
    ):
        return item
    return {"pk": f"TENANT#{tenant}", "sk": f"POLICY#{policy}", **item}


_ANY_VERSION = {"N": "1234567890"}
_VALUE_BYTES = 1  # what every value in a list or map takes besides its content
_CONTAINER_BYTES = 3


def size(attributes: Mapping[str, Any]) -> int:
    """Give the size of an item as DynamoDB counts it, or a little more.

    Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
    """
    return sum(len(name.encode()) + _size(value) for name, value in attributes.items())


def _size(value: Mapping[str, Any]) -> int:
    ((kind, content),) = value.items()
    match kind:
        case "M":
            return _CONTAINER_BYTES + size(content) + _VALUE_BYTES * len(content)
        case "L":
            return _CONTAINER_BYTES + sum(_VALUE_BYTES + _size(entry) for entry in content)
        case "S":
            return len(content.encode())
        case "N":
            return len(content) // 2 + 2
    return 1


# ── what is new, changed or in conflict ─────────────────────────────────────────────────────────────────────────────────


def plan(wanted: Iterable[Item], stored: Mapping[Key, Item], *, replace: bool) -> list[Edit]:
    """Work out what becomes of each item, given those that are stored under their keys.

    ``replace`` lets an item without version take the place of the stored one, as files do that are kept elsewhere; but a
    suspension that was made in the table stays, since it may have been made in an emergency. Raises ``ConflictError`` if any
    is not as it was when it was read.
    """
    edits: list[Edit] = []
    conflicts: list[str] = []
    for item in wanted:
        before = stored.get(key(item))
        edit, reason = _plan(item, before, replace=replace)
        if reason:
            conflicts.append(f"{items.item_name(item)} {reason}")
        edits.append(edit)
    if conflicts:
        raise ConflictError(conflicts, f"nothing was written, because {len(conflicts)} item(s) are in conflict:")
    return edits


def _plan(item: Item, before: Item | None, *, replace: bool) -> tuple[Edit, str | None]:
    if before is None:
        return Edit("created", item), conflict(item, None) if VERSION in item else None
    note = ""
    if replace and VERSION not in item:
        item = {**item, VERSION: before[VERSION]}
        if before.get("status") == "SUSPENDED" and item.get("status", "ACTIVE") != "SUSPENDED":
            item["status"] = "SUSPENDED"
            note = "stays suspended; `tenantgate registry resume` ends that"
    attributes = changed_attributes(before, item)
    if VERSION not in item:
        # what is stored already word for word need not be written again, nor be a conflict
        reason = conflict(item, before) if attributes else None
    else:
        reason = None if same(item[VERSION], before[VERSION]) else conflict(item, before)
    return Edit("changed" if attributes else "unchanged", item, attributes, note), reason


def conflict(item: Item, stored: Item | None) -> str:
    """Say why an item cannot be written, and what its author can do."""
    if VERSION not in item:
        return f"exists already, in version {(stored or {}).get(VERSION, 0)}: show it, and edit that"
    if stored is None:
        return f"has been removed since version {item[VERSION]} was read: leave `version` out to create it anew"
    found = stored.get(VERSION, 0)
    return f"changed since version {item[VERSION]} was read, to version {found}: show it again, and edit that"


def groups(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Split changes into groups that DynamoDB takes in one transaction each, in their order."""
    group: list[Change] = []
    total = 0
    for change in changes:
        length = size(typed(change.item))
        if group and (len(group) == MAX_GROUP_ITEMS or total + length > MAX_GROUP_BYTES):
            yield group
            group, total = [], 0
        group.append(change)
        total += length
    if group:
        yield group


# ── edits that commands make ────────────────────────────────────────────────────────────────────────────────────────────


def with_assignments(
    before: Item | None, at: Key, policies: Sequence[str], roles: Sequence[str], *, remove: bool
) -> Item:
    """Give a membership more policies and roles, or take them from it. One that is not there is made."""
    after = dict(before or {"pk": at[0], "sk": at[1]})
    for attribute, names in (("policyIds", policies), ("roles", roles)):
        held = after.get(attribute) or []
        if remove:
            after[attribute] = [name for name in held if name not in names]
        elif names:
            after[attribute] = [*held, *(name for name in dict.fromkeys(names) if name not in held)]
        if not after.get(attribute):
            after.pop(attribute, None)
    return after
