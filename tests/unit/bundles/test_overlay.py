"""The overlay beside one base after the other: with either of the last two, nothing is missing and nothing comes back."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from sidecar.bundles.compile import compile_tenant
from sidecar.bundles.overlay import Overlay
from sidecar.registry import items
from sidecar.registry.items import TenantRecords
from tests.support.registries import in_force

TENANTS = ["a", "b", "c"]
Base = dict[str, Any]


class World:
    """A table whose tenants each hold a number, the bases that were made of it, and the overlay that follows it.

    Time is counted in steps. A version is as late as two steps after the tenant was read, as the clock of a service is coarse.
    """

    def __init__(self) -> None:
        self.now = 10
        self.table: dict[str, int] = {}
        self.shared = 0
        self.bases: list[Base] = []
        self.make_base()
        self.overlay = Overlay.beside(self.bases[0]["meta"]["revision"], self.now)

    def make_base(self) -> None:
        """Make a base of the table as it is."""
        self.now += 1
        tenants = {tenant: compile_tenant(self.records(tenant)) for tenant in self.table}
        meta = {"revision": str(self.now), "as_of": self.now}
        self.bases.append({"meta": meta, "tenants": tenants, "shared": {"resources": self.resources()}})

    def follow_base(self) -> None:
        """Have the overlay go on beside the base that was made last."""
        meta = self.bases[-1]["meta"]
        for tenant in self.overlay.fold(meta["revision"], meta["as_of"]):
            self.read(tenant, 2)

    def read(self, tenant: str, coarse: int) -> None:
        """Take a tenant, or what is shared, into the overlay as it is in the table."""
        self.now += 1
        if tenant == items.SHARED:
            self.overlay.set_shared([_tool(self.shared)], self.now + coarse)
        else:
            self.overlay.set_tenant(tenant, self.records(tenant), self.now + coarse)

    def records(self, tenant: str) -> TenantRecords:
        """Give what the table has of a tenant."""
        records = TenantRecords.none()
        if tenant in self.table:
            records.add(items.Tenant())
            records.add(_tool(self.table[tenant]))
        return records

    def resources(self) -> dict[str, Any]:
        """Compile what is shared."""
        return {"TOOL\tt": f'\n\n{{"number":{self.shared}}}'}

    def states(self) -> list[dict[str, Any]]:
        """Give what is in force with each of the last two bases."""
        return [in_force({"base": base, "overlay": self.layer()}) for base in self.bases[-2:]]

    def truth(self) -> dict[str, Any]:
        """Give what the table says."""
        return {
            "tenants": {tenant: compile_tenant(self.records(tenant)) for tenant in self.table},
            "shared": {"resources": self.resources()},
        }

    def layer(self) -> dict[str, Any]:
        """Give the overlay as OPA has it."""
        layer: dict[str, Any] = msgspec.to_builtins(self.overlay)
        return layer


def _tool(number: int) -> items.Resource:
    return items.Resource(resource_type="TOOL", resource_id="t", attributes={"number": number})


changes = st.tuples(st.sampled_from([*TENANTS, items.SHARED]), st.integers(0, 3), st.integers(0, 2))


@given(st.lists(st.one_of(changes, st.just(None)), max_size=25))
def test_it_goes_with_the_base_that_it_is_beside_and_with_the_one_before(
    events: list[tuple[str, int, int] | None],
) -> None:
    world = World()
    for event in events:
        if event is None:
            world.make_base()
            world.follow_base()
        else:
            name, number, coarse = event
            if name == items.SHARED:
                world.shared = number
            elif number:
                world.table[name] = number
            else:
                world.table.pop(name, None)
            world.read(name, coarse)
        assert [*world.states()] == [world.truth()] * len(world.bases[-2:])
        assert world.overlay.meta.since <= world.bases[-2:][0]["meta"]["as_of"]


@given(st.lists(changes, max_size=10), st.lists(changes, max_size=10))
def test_it_holds_what_changed_in_the_last_two_periods_alone(
    before: list[tuple[str, int, int]], after: list[tuple[str, int, int]]
) -> None:
    world = World()
    for name, *_ in before:
        world.read(name, 0)
    world.now += 5
    world.make_base()
    world.follow_base()
    for name, *_ in after:
        world.read(name, 0)
    world.now += 5
    world.make_base()
    world.follow_base()
    assert {*world.overlay.tenants} == {name for name, *_ in after} - {items.SHARED}
    assert (world.overlay.shared is not None) == (items.SHARED in {name for name, *_ in after})
    assert world.overlay.meta.since == world.bases[-2]["meta"]["as_of"]
