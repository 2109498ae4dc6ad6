"""Two registries side by side."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.registry.compare import Difference, differences
from sidecar.registry.spool import Spool
from tests.support.registries import sample_items


def _differences(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[Difference]:
    with Spool() as old, Spool() as new:
        for spool, items in ((old, before), (new, after)):
            spool.add(items)
            spool.check()
        return [*differences(old, new)]


def test_a_registry_is_the_same_as_itself_in_any_order() -> None:
    assert _differences(sample_items(), sample_items()[::-1]) == []


_SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a version": ({"version": 1}, {"version": 2}),
    "a default that is spelled out": ({}, {"status": "ACTIVE", "membership": "REQUIRED"}),
    "an id that the key has": ({}, {"tenantId": "T"}),
    "an attribute that is ignored": ({}, {"colour": "blue"}),
    "a number in another form": ({"maxStalenessSeconds": 60}, {"maxStalenessSeconds": 60.0}),
}


@pytest.mark.parametrize(("before", "after"), _SAME.values(), ids=_SAME)
def test_what_means_the_same_makes_no_difference(before: dict[str, Any], after: dict[str, Any]) -> None:
    tenant = {"pk": "TENANT#T", "sk": "TENANT"}

    assert _differences([tenant | before], [tenant | after]) == []


def test_a_value_of_another_type_is_another_value() -> None:
    user = {"pk": "TENANT#T", "sk": "USER#alice"}
    (found,) = _differences([user | {"attributes": {"a": 1}}], [user | {"attributes": {"a": True}}])

    assert (found.kind, found.id, found.change, [*found.attributes]) == ("USER", "alice", "changed", ["attributes"])


@given(st.data())
def test_what_is_found_is_what_was_done(data: st.DataObject) -> None:
    """Of any subset of the items of any two tenants, exactly the added and the removed ones are found."""
    everything = [
        {"pk": f"TENANT#{tenant}", "sk": sk}
        for tenant in ("A", "B", "é", "😀")
        for sk in ("TENANT", "USER#a", "AGENT#a")
    ]
    before = data.draw(st.lists(st.sampled_from(everything), unique_by=repr))
    after = data.draw(st.lists(st.sampled_from(everything), unique_by=repr))

    def named(items: list[dict[str, Any]], change: str) -> set[tuple[str, str, str]]:
        return {(item["pk"].partition("#")[2], item["sk"].partition("#")[0], change) for item in items}

    gone, new = ([i for i in one if i not in other] for one, other in ((before, after), (after, before)))
    found = _differences(before, after)

    assert {(f.tenant, f.kind, f.change) for f in found} == named(gone, "removed") | named(new, "added")
    assert [f.tenant for f in found] == sorted(f.tenant for f in found)
