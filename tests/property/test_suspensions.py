"""What is suspended in a tenant that has malformed items is shut off as in one that has none, and lets nothing else through."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.bundles.compile import compile_tenant, suspend
from sidecar.registry.items import TenantRecords, parse
from tests.support.registries import compiled
from tests.support.strategies import questions, tenants

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sidecar.model import Question
    from tests.support.processes import PolicyOpa

pytestmark = pytest.mark.timeout(300)
thorough = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)

Items = list[dict[str, Any]]


@pytest.fixture(scope="module")
def opa(policy_opa: PolicyOpa) -> Iterator[PolicyOpa]:
    """The OPA of the session; no registry is left behind in it."""
    yield policy_opa
    policy_opa.put("registry", {})


def records_of(items: Iterable[dict[str, Any]]) -> TenantRecords:
    """Read the items of a tenant."""
    records = TenantRecords.none()
    for item in items:
        entry = parse(item)
        assert entry is not None
        records.add(entry.record)
    return records


def document_of(items: Items) -> dict[str, Any]:
    """Compile a tenant."""
    document = compile_tenant(records_of(items))
    assert document is not None
    return document


@thorough
@given(tenants("acme"), st.data())
def test_to_suspend_over_a_document_is_to_compile_what_is_suspended(items: Items, data: st.DataObject) -> None:
    can_be = [n for n, item in enumerate(items) if not item["sk"].startswith("POLICY")]
    chosen = data.draw(st.sets(st.sampled_from(can_be)))
    after = [item | {"status": "SUSPENDED"} if n in chosen else item for n, item in enumerate(items)]
    # what is no longer suspended, and policies that were written since, do not count
    said = [item if n in chosen else item | {"status": "ACTIVE"} for n, item in enumerate(after) if n in can_be]
    assert suspend(document_of(items), records_of(said)) == document_of(after)


@thorough
@given(tenants("acme"), tenants("acme"), questions(3))
def test_to_suspend_lets_nothing_through(opa: PolicyOpa, items: Items, said: Items, question: Question) -> None:
    # Where a membership is optional, a suspended one counts as none, and a DENY for its roles or policies is without it.
    items[0]["membership"] = "REQUIRED"
    before = compiled(items)
    after = before | {"tenants": {"acme": suspend(before["tenants"]["acme"], records_of(said))}}
    allowed = []
    for registry in (before, after):
        opa.put("registry", {"base": registry})
        decisions = opa.decider().decide_batch(question, "suspensions", time.monotonic() + 20)
        allowed.append({number for number, decision in enumerate(decisions) if decision.effect == "ALLOW"})
    assert allowed[1] <= allowed[0]
