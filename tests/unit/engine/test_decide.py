"""What the sidecar adds to OPA's decisions: how old the registry may be, and whether OPA answers as it must."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from sidecar.engine.answers import BATCH, TOOLS
from sidecar.engine.coalesce import AUTHORIZE
from sidecar.engine.decide import Decider, new_decision_id
from sidecar.errors import (
    EngineUnavailableError,
    EvaluationError,
    MalformedAnswerError,
    NotReadyError,
    RevisionTooOldError,
)
from sidecar.model import Explanation, Identity, Item, Principal, Question, Resource, Tenant, WeakestHop
from sidecar.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

AS_OF = 1_795_478_400_000_000
SECOND = 1_000_000
ALLOW: dict[str, Any] = {
    "effect": "ALLOW",
    "code": "ALLOWED",
    "reason": "allowed",
    "policy_id": "P",
    "rule_id": "r",
    "obligations": [{"type": "LOG"}],
    "revision": "r1",
    "as_of": AS_OF,
    "depends_on": ["arguments"],
    "valid_until": AS_OF + 60 * SECOND,
}
DENY: dict[str, Any] = {
    "effect": "DENY",
    "code": "TENANT_UNKNOWN",
    "reason": "the registry has no tenant",
    "revision": "r1",
    "as_of": AS_OF,
    "depends_on": [],
}
EXPLAINED = {
    "explanation": {
        "codes": [{"code": "ALLOWED", "reason": "x"}],
        "rules": [],
        "principal": "p",
        "subject": "s",
        "roles": ["r"],
        "effective_scopes": [],
        "weakest_hop": {"id": "a", "hop": 1, "lacks": ["x"]},
    }
}
TOOLS_ANSWER: dict[str, Any] = {
    "revision": "r1",
    "as_of": AS_OF,
    "tools": [{"state": "ALLOWED", "code": "ALLOWED"}, {"state": "CONDITIONAL", "extensions": ["night"]}],
}


class FakeEngine:
    """A policy engine whose answers a function gives; ``asked`` are the entrypoints and inputs that it was asked about."""

    def __init__(self, answer: Callable[[str], Any], status: int = 200) -> None:
        self._answer = answer
        self._status = status
        self.asked: list[tuple[str, dict[str, Any], float]] = []

    def query(self, entrypoint: str, body: bytes, deadline: float) -> tuple[int, bytes]:
        self.asked.append((entrypoint, json.loads(body), deadline))
        return self._status, json.dumps({"result": self._answer(entrypoint)}).encode()


def _decider(answer: Any, *, age: float = 0, max_staleness: float | None = None) -> Decider:
    now = AS_OF + int(age * SECOND)
    return Decider(FakeEngine(lambda _: answer), Settings().policy, max_staleness, lambda: now)


def _question(items: int = 1, **fields: Any) -> Question:
    identity = Identity(Tenant("T"), Principal("agent:bot"))
    return Question(identity, tuple(Item(Resource("TOOL", f"t{i}")) for i in range(items)), **fields)


# ── how old the registry may be ─────────────────────────────────────────────────────────────────────────────────────────

_AGES: dict[str, tuple[float, float | None, float | None, str]] = {
    "no bound": (1e6, None, None, "ALLOWED"),
    "within the bound of the sidecar": (59.9, 60, None, "ALLOWED"),
    "at the bound of the sidecar": (60, 60, None, "ALLOWED"),
    "beyond the bound of the sidecar": (60.000001, 60, None, "POLICY_STALE"),
    "within the bound of the tenant": (60, None, 60, "ALLOWED"),
    "beyond the bound of the tenant": (60.000001, None, 60, "POLICY_STALE"),
    "the tenant is stricter": (50, 60, 40, "POLICY_STALE"),
    "the tenant is laxer": (50, 40, 60, "POLICY_STALE"),
    "within both": (39, 40, 60, "ALLOWED"),
    "a bound of a fraction": (0.6, 0.5, None, "POLICY_STALE"),
    "a registry from the future": (-10, 1, None, "ALLOWED"),
}


@pytest.mark.parametrize(("age", "sidecar", "tenant", "code"), _AGES.values(), ids=_AGES)
def test_the_stricter_bound_on_the_age_decides(
    age: float, sidecar: float | None, tenant: float | None, code: str
) -> None:
    answer = ALLOW | ({"max_staleness_seconds": tenant} if tenant is not None else {})
    decider = _decider(answer, age=age, max_staleness=sidecar)

    assert decider.decide(_question(), "id", 0).code == code


def test_a_stale_decision_says_how_old_and_how_old_it_may_be() -> None:
    decision = _decider(ALLOW, age=90, max_staleness=60).decide(_question(), "id", 0)

    assert decision.reason == "the registry in force is 90 s old, 60 s are accepted"


def test_a_stale_decision_keeps_nothing_of_the_allow_but_where_it_comes_from() -> None:
    decision = _decider(ALLOW, age=90, max_staleness=60).decide(_question(), "id", 0)

    assert (decision.effect, decision.policy_id, decision.rule_id, decision.obligations) == ("DENY", "", "", ())
    assert (decision.revision, decision.as_of) == ("r1", AS_OF)


def test_a_stale_denial_is_stale_too() -> None:
    assert _decider(DENY, age=90, max_staleness=60).decide(_question(), "id", 0).code == "POLICY_STALE"


def test_a_stale_decision_explains_first_that_it_is_stale() -> None:
    decision = _decider(ALLOW | EXPLAINED, age=90, max_staleness=60).decide(_question(explain=True), "id", 0)

    assert isinstance(decision.explanation, Explanation)
    assert [finding.code for finding in decision.explanation.codes] == ["POLICY_STALE", "ALLOWED"]
    assert decision.explanation.roles == ("r",)
    assert decision.explanation.weakest_hop == WeakestHop("a", 1, ("x",))


def test_every_decision_of_a_batch_is_looked_at() -> None:
    answer = [ALLOW, ALLOW | {"max_staleness_seconds": 10}, DENY]
    decisions = _decider(answer, age=30, max_staleness=60).decide_batch(_question(3), "id", 0)

    assert [decision.code for decision in decisions] == ["ALLOWED", "POLICY_STALE", "TENANT_UNKNOWN"]


@pytest.mark.parametrize(("age", "bound"), [(90, None), (30, 20)], ids=["sidecar", "tenant"])
def test_no_tool_of_a_stale_registry_may_be_called(age: float, bound: float | None) -> None:
    answer = TOOLS_ANSWER | ({"max_staleness_seconds": bound} if bound else {})
    listing = _decider(answer, age=age, max_staleness=60).filter_tools(_question(2), "id", 0)

    assert [(tool.state, tool.code, tool.extensions) for tool in listing.tools] == [("DENIED", "POLICY_STALE", ())] * 2


def test_tools_of_a_fresh_registry_are_as_opa_says() -> None:
    listing = _decider(TOOLS_ANSWER, age=30, max_staleness=60).filter_tools(_question(2), "id", 0)

    assert [tool.state for tool in listing.tools] == ["ALLOWED", "CONDITIONAL"]


# ── how new the caller wants it ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("min_as_of", [0, 1, AS_OF - 1, AS_OF])
def test_a_registry_that_is_new_enough_answers(min_as_of: int) -> None:
    assert _decider(ALLOW).decide(_question(min_as_of=min_as_of), "id", 0).effect == "ALLOW"


_METHODS: dict[str, tuple[Any, Callable[[Decider, Question], Any]]] = {
    "decide": (ALLOW, lambda decider, question: decider.decide(question, "id", 0)),
    "decide_batch": ([ALLOW], lambda decider, question: decider.decide_batch(question, "id", 0)),
    "filter_tools": (
        TOOLS_ANSWER | {"tools": TOOLS_ANSWER["tools"][:1]},
        lambda decider, question: decider.filter_tools(question, "id", 0),
    ),
}


@pytest.mark.parametrize(("answer", "ask"), _METHODS.values(), ids=_METHODS)
def test_a_registry_that_is_too_old_for_the_caller_does_not_answer(
    answer: Any, ask: Callable[[Decider, Question], Any]
) -> None:
    with pytest.raises(RevisionTooOldError, match=r"revision r1 is 1\.500 s older than min_as_of asks for"):
        ask(_decider(answer), _question(min_as_of=AS_OF + 1_500_000))


def test_a_registry_that_is_both_too_old_and_stale_is_too_old() -> None:
    decider = _decider(ALLOW, age=90, max_staleness=60)
    with pytest.raises(RevisionTooOldError):
        decider.decide(_question(min_as_of=AS_OF + 1), "id", 0)


# ── what OPA is asked ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("method", "entrypoint", "answer"),
    [
        ("decide", AUTHORIZE, ALLOW),
        ("decide_batch", BATCH, [ALLOW]),
        ("filter_tools", TOOLS, TOOLS_ANSWER | {"tools": TOOLS_ANSWER["tools"][:1]}),
    ],
)
def test_each_question_goes_to_its_entrypoint_with_id_and_deadline(method: str, entrypoint: str, answer: Any) -> None:
    engine = FakeEngine(lambda _: answer)
    getattr(Decider(engine, Settings().policy, clock=lambda: 7), method)(_question(), "id-1", 42.0)
    ((asked, body, deadline),) = engine.asked

    assert (asked, body["decision_id"], body["input"]["time"], deadline) == (entrypoint, "id-1", 7, 42.0)


def test_decision_ids_are_uuids_that_sort_by_time() -> None:
    ids = [new_decision_id() for _ in range(100)]

    assert {uuid.UUID(text).version for text in ids} == {7}
    assert ids == sorted(ids)


# ── the probe ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_probe_gives_the_decision_that_must_come() -> None:
    assert _decider(DENY).probe(0).revision == "r1"


def test_the_probe_asks_about_a_tenant_that_cannot_exist() -> None:
    engine = FakeEngine(lambda _: DENY)
    Decider(engine, Settings().policy).probe(0)

    assert engine.asked[0][1]["input"]["tenant"] == {"id": ""}


@pytest.mark.parametrize(
    "answer", [ALLOW, DENY | {"code": "TENANT_SUSPENDED"}, DENY | {"code": "NO_MATCHING_RULE"}], ids=lambda a: a["code"]
)
def test_a_probe_with_another_answer_is_malformed(answer: dict[str, Any]) -> None:
    with pytest.raises(MalformedAnswerError, match="about a tenant that does not exist"):
        _decider(answer).probe(0)


def test_the_age_of_the_registry_does_not_matter_to_the_probe() -> None:
    assert _decider(DENY, age=1e6, max_staleness=1).probe(0).code == "TENANT_UNKNOWN"


def test_a_probe_of_an_opa_that_reports_errors_fails() -> None:
    with pytest.raises(EvaluationError):
        Decider(FakeEngine(lambda _: DENY, 500), Settings().policy).probe(0)


class _Undefined:
    def query(self, _entrypoint: str, _body: bytes, _deadline: float) -> tuple[int, bytes]:
        return 200, b"{}"


def test_a_probe_of_an_opa_without_policies_is_not_ready() -> None:
    with pytest.raises(NotReadyError):
        Decider(_Undefined(), Settings().policy).probe(0)


class _Gone:
    def query(self, _entrypoint: str, _body: bytes, _deadline: float) -> tuple[int, bytes]:
        msg = "gone"
        raise EngineUnavailableError(msg)


@pytest.mark.parametrize(("_answer", "ask"), _METHODS.values(), ids=_METHODS)
def test_an_engine_that_is_gone_is_told_as_it_is(_answer: Any, ask: Callable[[Decider, Question], Any]) -> None:
    with pytest.raises(EngineUnavailableError, match="gone"):
        ask(Decider(_Gone(), Settings().policy), _question())
