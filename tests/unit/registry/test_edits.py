"""Edits are worked out before anything is written: what is malformed, what has changed, what is in conflict."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import ConflictError, MalformedItemsError
from sidecar.registry import edits
from sidecar.registry.edits import Change

TENANT: dict[str, Any] = {"pk": "TENANT#T", "sk": "TENANT"}
KEY = ("TENANT#T", "TENANT")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        (True, True, True),
        ([1, {"a": None}], [1.0, {"a": None}], True),
        ([1, True], [1, 1], False),
        ([1, 2], [2, 1], False),
        ([1], [1, 1], False),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ("1", 1, False),
        (None, False, False),
        (22517997598961670, 2.251799759896167e16, True),
        (22517997598961670, 22517997598961671, False),
        ({}, [], False),
    ],
)
def test_same_is_what_is_the_same_to_a_rule(one: Any, other: Any, expected: bool) -> None:  # noqa: FBT001 - the expected value
    assert edits.same(one, other) is expected
    assert edits.same(other, one) is expected


# ── check ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_well_formed_items_are_given_back_as_they_are() -> None:
    assert edits.check([("f", TENANT)]) == ([TENANT], [])


_MALFORMED: dict[str, tuple[Any, str]] = {
    "a text": ("x", "f: an item is a map of attributes, not str"),
    "null": (None, "f: an item is a map of attributes, not NoneType"),
    "no key": ({"a": 1}, "f: item with the attributes a: has no pk and sk, and is not a policy document either"),
    "half a key": ({"pk": "TENANT#T"}, "f: TENANT#T / None: has no pk and sk"),
    "a policy document without an id": ({"tenantId": "T", "rules": []}, "has no pk and sk"),
    "an unknown kind": ({"pk": "TENANT#T", "sk": "X#1"}, "f: TENANT#T / X#1: is of an unknown kind"),
    "a key that is a number": ({"pk": 1, "sk": "TENANT"}, "is of an unknown kind"),
    "a bad value": (TENANT | {"status": "AWAY"}, "status: Invalid enum value"),
    "a version that is a text": (TENANT | {"version": "1"}, "version: Expected `int`, got `str`"),
    "a number that cannot be stored": (TENANT | {"n": float("inf")}, "n: inf is not a number"),
    "a long key": ({"pk": "TENANT#T", "sk": "USER#" + "é" * 512}, "sk: has 1029 bytes; a key can have 1024"),
    "a long tenant": ({"pk": "TENANT#" + "é" * 512, "sk": "TENANT"}, "pk: has 1031 bytes"),
    "too large": (TENANT | {"description": "x" * 409_600}, "DynamoDB keeps at most 409,600 in an item"),
}


@pytest.mark.parametrize(("value", "said"), _MALFORMED.values(), ids=_MALFORMED)
def test_a_malformed_item_is_named_with_its_place_and_reason(value: Any, said: str) -> None:
    with pytest.raises(MalformedItemsError) as refused:
        edits.check([("f", value)])

    (fault,) = refused.value.faults
    assert said in fault


def test_two_items_of_one_key_are_refused_though_one_is_a_bare_document() -> None:
    document = {"policyId": "P", "tenantId": "T", "rules": []}
    with pytest.raises(MalformedItemsError, match="b: TENANT#T / POLICY#P: stands here twice, also at a"):
        edits.check([("a", {"pk": "TENANT#T", "sk": "POLICY#P", "rules": []}), ("b", document)])


# ── plan ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _plan(item: dict[str, Any], stored: dict[str, Any] | None, *, replace: bool) -> edits.Edit:
    (edit,) = edits.plan([item], {KEY: stored} if stored else {}, replace=replace)
    return edit


@pytest.mark.parametrize("replace", [True, False])
def test_what_is_not_there_is_created(replace: bool) -> None:  # noqa: FBT001 - a case
    assert _plan(TENANT, None, replace=replace) == edits.Edit("created", TENANT)


def test_an_item_with_the_version_that_is_stored_is_changed() -> None:
    edit = _plan(
        TENANT | {"version": 3, "status": "SUSPENDED"}, TENANT | {"version": 3, "description": "x"}, replace=False
    )

    assert (edit.outcome, edit.attributes) == ("changed", ("description", "status"))


@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("version", [{}, {"version": 3}], ids=["without version", "with version"])
def test_what_is_the_same_is_unchanged(version: dict[str, int], replace: bool) -> None:  # noqa: FBT001 - a case
    assert _plan(TENANT | version, TENANT | {"version": 3}, replace=replace).outcome == "unchanged"


_CONFLICTS: dict[str, tuple[dict[str, Any], dict[str, Any] | None, str]] = {
    "an older version": ({"version": 2}, {"version": 3}, "changed since version 2 was read, to version 3"),
    "a version that never was": ({"version": 9}, {"version": 3}, "changed since version 9 was read, to version 3"),
    "none where one was": ({"version": 2}, None, "has been removed since version 2 was read"),
    "one where none was": ({"status": "SUSPENDED"}, {"version": 3}, "exists already, in version 3"),
}


@pytest.mark.parametrize(("wanted", "stored", "said"), _CONFLICTS.values(), ids=_CONFLICTS)
def test_a_conflict_says_what_happened(wanted: dict[str, Any], stored: dict[str, Any] | None, said: str) -> None:
    with pytest.raises(ConflictError) as refused:
        _plan(TENANT | wanted, TENANT | stored if stored else None, replace=False)

    assert refused.value.conflicts[0].startswith(f"TENANT#T / TENANT {said}")


@pytest.mark.parametrize("name", ["an older version", "a version that never was", "none where one was"])
def test_a_version_counts_where_items_are_replaced_too(name: str) -> None:
    wanted, stored, _ = _CONFLICTS[name]
    with pytest.raises(ConflictError):
        _plan(TENANT | wanted, TENANT | stored if stored else None, replace=True)


def test_replacing_writes_over_the_version_that_was_read() -> None:
    edit = _plan(TENANT | {"description": "new"}, TENANT | {"version": 3}, replace=True)

    assert edit == edits.Edit("changed", TENANT | {"description": "new", "version": 3}, ("description",))


@pytest.mark.parametrize("wanted", [{}, {"status": "ACTIVE"}], ids=["no status", "active"])
def test_replacing_does_not_end_a_suspension(wanted: dict[str, Any]) -> None:
    edit = _plan(TENANT | wanted, TENANT | {"version": 3, "status": "SUSPENDED"}, replace=True)

    assert edit.outcome == "unchanged"
    assert edit.item["status"] == "SUSPENDED"
    assert "stays suspended" in edit.note


def test_one_who_has_read_a_suspension_may_end_it_with_its_version() -> None:
    edit = _plan(
        TENANT | {"version": 3, "status": "ACTIVE"}, TENANT | {"version": 3, "status": "SUSPENDED"}, replace=True
    )

    assert (edit.outcome, edit.item["status"], edit.note) == ("changed", "ACTIVE", "")


# ── groups ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.integers(0, 300_000), max_size=250))
def test_groups_hold_everything_in_order_within_the_limits(lengths: list[int]) -> None:
    changes = [Change(TENANT | {"description": "x" * length}) for length in lengths]
    groups = [*edits.groups(changes)]

    assert [change for group in groups for change in group] == changes
    assert all(0 < len(group) <= 100 for group in groups)
    assert all(sum(len(str(change.item["description"])) for change in group) <= 4_000_000 for group in groups)


# ── assignments ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_assignments_are_added_once_and_in_order() -> None:
    before = {"pk": "p", "sk": "s", "roles": ["b"], "version": 4}
    after = edits.with_assignments(before, ("p", "s"), ["P"], ["a", "b", "a"], remove=False)

    assert after == {"pk": "p", "sk": "s", "policyIds": ["P"], "roles": ["b", "a"], "version": 4}
    assert before["roles"] == ["b"]


def test_assignments_that_are_taken_away_leave_no_empty_list() -> None:
    before = {"pk": "p", "sk": "s", "roles": ["a"], "policyIds": ["P", "Q"]}

    assert edits.with_assignments(before, ("p", "s"), ["P"], ["a"], remove=True) == {
        "pk": "p",
        "sk": "s",
        "policyIds": ["Q"],
    }
