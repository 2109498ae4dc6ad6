"""Whatever bytes come from OPA, a decision comes of them or a named error, and an ALLOW only of one that says so."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import EngineError
from sidecar.model import CODES, Decision
from sidecar.translate import batch_answer, decision_answer, tools_answer

GOOD: dict[str, Any] = {
    "effect": "ALLOW",
    "code": "ALLOWED",
    "reason": "because",
    "revision": "r",
    "as_of": 1,
    "depends_on": ["arguments"],
    "policy_id": "p",
    "rule_id": "r",
    "obligations": [{"type": "LOG"}],
}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(CODES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
statuses = st.sampled_from([200, 200, 200, 204, 302, 400, 404, 500, 503])


@given(statuses, st.binary(max_size=200) | json_values.map(lambda v: json.dumps(v).encode()))
def test_any_bytes_give_a_decision_or_a_named_error(status: int, body: bytes) -> None:
    for read in (
        lambda: decision_answer(status, body),
        lambda: batch_answer(status, body, 1),
        lambda: tools_answer(status, body, 1),
    ):
        with suppress(EngineError):
            read()


@settings(max_examples=500)
@given(st.sampled_from(sorted(GOOD)), json_values)
def test_an_allow_comes_only_of_an_answer_that_says_so_in_every_field(name: str, value: Any) -> None:
    answer = {**GOOD, name: value}
    try:
        decision = decision_answer(200, json.dumps({"result": answer}).encode())
    except EngineError:
        return
    assert isinstance(decision, Decision)
    assert (decision.effect == "ALLOW") == (answer["effect"] == "ALLOW" and answer["code"] == "ALLOWED")


@given(st.text(max_size=10).filter(lambda name: name not in Decision.__struct_fields__), json_values)
def test_an_answer_with_an_unknown_field_is_no_decision(name: str, value: Any) -> None:
    body = json.dumps({"result": {**GOOD, name: value}}).encode()
    try:
        decision_answer(200, body)
    except EngineError:
        return
    raise AssertionError(name)
