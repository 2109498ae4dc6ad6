"""The fault suite in short (`make test-faults` is all of it), and that it would see a wrong ALLOW."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from sidecar.gen.tenantgate.v1 import decision_pb2
from tests.faults.__main__ import faulty, run
from tests.faults.faults import FAULTS
from tests.faults.truth import LIMIT, Asked, Truth
from tests.support.bundles import NOW, SECOND

if TYPE_CHECKING:
    from tests.faults.faults import Fault

SHORT = {"OPA killed", "OPA answers garbage", "clock jumps 2 h ahead", "sidecar killed"}


@pytest.mark.parametrize("fault", [f for f in FAULTS if f.name in SHORT], ids=lambda fault: fault.name)
def test_no_fault_makes_a_wrong_allow_and_calls_succeed_after_it(fault: Fault) -> None:
    row = run(fault, seconds=1.0)
    if "skipped" in row:
        pytest.skip(row["skipped"])

    assert row["wrong_allows"] == row["wrong_denies"] == 0, row
    assert row["recovery_s"] is not None
    assert row["calls"] > row["errors"]


@pytest.mark.parametrize(
    ("asked", "generation", "floor", "wrong"),
    [
        (Asked("one", "granted"), 0, 0, 0),
        (Asked("one", "granted"), 1, 0, 1),
        (Asked("one", "granted"), 0, 1, 1),
        (Asked("one", "payment", LIMIT + 1), 0, 0, 1),
        (Asked("one", "never"), 0, 0, 1),
        (Asked("other", "open"), 0, 0, 1),
    ],
    ids=["right", "revoked", "from a registry that is over", "over the limit", "no rule", "another tenant's"],
)
def test_an_allow_is_wrong_that_the_registry_does_not_give(
    asked: Asked, generation: int, floor: int, wrong: int
) -> None:
    truth = Truth()
    decision = decision_pb2.Decision(effect=decision_pb2.EFFECT_ALLOW)
    decision.as_of.FromMicroseconds(NOW + generation * SECOND)

    truth.judge(asked, decision, time.time(), NOW + floor * SECOND)

    assert truth.verdicts.wrong_allows == wrong


def test_what_is_allowed_for_a_time_is_judged_by_the_sidecars_clock() -> None:
    truth = Truth()
    decision = decision_pb2.Decision(effect=decision_pb2.EFFECT_ALLOW)
    decision.as_of.FromMicroseconds(NOW)

    truth.judge(Asked("one", "hours"), decision, time.time(), NOW)
    assert truth.verdicts.wrong_allows == 0

    truth.set_clock(7200)
    truth.judge(Asked("one", "hours"), decision, time.time() + 1, NOW)
    assert truth.verdicts.wrong_allows == 1


@pytest.mark.parametrize(
    ("about", "wrong"),
    [({}, False), ({"wrong_allows": 1}, True), ({"recovery_s": 2.1}, True), ({"recovery_s": None}, True)],
)
def test_a_row_says_whether_it_is_what_must_be(about: dict[str, float | None], wrong: bool) -> None:  # noqa: FBT001
    assert faulty({"wrong_allows": 0, "wrong_denies": 0, "recovery_s": 0.0} | about) is wrong
