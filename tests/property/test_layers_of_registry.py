"""A base and an overlay decide like one registry that holds what both say, whichever of them is activated first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from tests.support.registries import AS_OF, compiled, overlay
from tests.support.strategies import IDS, TENANTS, mostly, questions, some, tenants

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.model import Decision, Question, ToolAnswer
    from tests.support.processes import PolicyOpa

pytestmark = pytest.mark.timeout(300)
thorough = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

Registry = list[dict[str, Any]]

LATER = AS_OF + 2_000_000
"""The moment of the second of two registries."""


class Answers(NamedTuple):
    """What OPA says to a question: to each item as it is, and with its arguments left open."""

    decisions: tuple[Decision, ...]
    tools: tuple[ToolAnswer, ...]

    def states(self) -> set[tuple[str, int]]:
        """Give the states of the registry that the decisions were made under: revision and moment."""
        return {(decision.revision, decision.as_of) for decision in self.decisions}

    def undated(self) -> Answers:
        """Leave out the state of the registry."""
        decisions = (msgspec.structs.replace(decision, revision="", as_of=0) for decision in self.decisions)
        return self._replace(decisions=tuple(decisions))


class LayeredOpa:
    """An OPA to which both layers are given anew for each question."""

    def __init__(self, opa: PolicyOpa) -> None:
        self._opa = opa

    def ask(self, question: Question, base: dict[str, Any], above: dict[str, Any] | None = None) -> Answers:
        """Ask with a base, and with an overlay if there is one."""
        self._opa.put("registry", {"base": base} if above is None else {"base": base, "overlay": above})
        decider, deadline = self._opa.decider(), time.monotonic() + 20
        open_items = tuple(msgspec.structs.replace(item, arguments=UNSET) for item in question.items)
        listed = msgspec.structs.replace(question, items=open_items, explain=False)
        return Answers(
            tuple(decider.decide_batch(question, "layers", deadline)),
            tuple(decider.filter_tools(listed, "layers", deadline).tools),
        )


@pytest.fixture(scope="module")
def opa(policy_opa: PolicyOpa) -> Iterator[LayeredOpa]:
    """The OPA of the session; no overlay is left behind in it."""
    yield LayeredOpa(policy_opa)
    policy_opa.put("registry", {})


@st.composite
def catalogues(draw: st.DrawFn) -> Registry:
    """Make the shared catalogue."""
    return [
        {
            "pk": "SHARED",
            "sk": f"RESOURCE#TOOL#{resource}",
            "access": draw(st.sampled_from(["READ", "WRITE"])),
            "status": draw(mostly("ACTIVE", "SUSPENDED")),
        }
        for resource in draw(some(IDS))
    ]


@st.composite
def histories(draw: st.DrawFn, length: int) -> list[Registry]:
    """Make a registry and what became of it: tenants and the shared catalogue stay, change, go and come, each by itself."""
    parts: list[list[Registry]] = []
    for each in (catalogues(), *(tenants(tenant) for tenant in TENANTS)):
        contents = st.one_of(each, each, each, st.just([]))
        states = [draw(contents)]
        for _ in range(length - 1):
            states.append(draw(st.one_of(st.just(states[-1]), contents)))
        parts.append(states)
    return [[item for state in states for item in state] for states in zip(*parts, strict=True)]


@thorough
@given(histories(2), questions(3), st.sampled_from([AS_OF, AS_OF + 1, LATER]))
def test_a_base_and_an_overlay_decide_like_the_later_registry(
    opa: LayeredOpa, history: list[Registry], question: Question, version: int
) -> None:
    before, after = compiled(history[0]), compiled(history[1], as_of=LATER, revision="later")
    expected = opa.ask(question, after)
    answers = opa.ask(question, before, overlay(before, after, version=version))
    # the overlay takes over the name of the state that it leads to, so the state is the same as well
    assert answers == expected
    assert answers.states() == {("later", LATER)}


@thorough
@given(histories(3), questions(3), st.sampled_from([AS_OF, AS_OF + 1, LATER - 1]))
def test_an_overlay_that_is_older_than_the_base_changes_no_decision(
    opa: LayeredOpa, history: list[Registry], question: Question, version: int
) -> None:
    first, second = compiled(history[0]), compiled(history[1], as_of=LATER - 1, revision="second")
    newest = compiled(history[2], as_of=LATER, revision="newest")
    both = opa.ask(question, newest, overlay(first, second, version=version))
    assert both.undated() == opa.ask(question, newest).undated()
    assert both.states() == {("newest+second", LATER)}


@thorough
@given(histories(3), questions(3), st.integers(AS_OF + 1, LATER))
def test_a_base_and_an_overlay_may_be_activated_in_any_order(
    opa: LayeredOpa, history: list[Registry], question: Question, moment: int
) -> None:
    # The second registry is published as an overlay and as a base, the third as an overlay that goes on beside the first base.
    old = compiled(history[0])
    new = compiled(history[1], as_of=moment, revision="new")
    last = compiled(history[2], as_of=LATER, revision="last")
    to_new, to_last = overlay(old, new), overlay(old, new, last)
    at_new, at_last = opa.ask(question, new), opa.ask(question, last).undated()
    assert opa.ask(question, old, to_new) == at_new
    assert opa.ask(question, new, to_new).undated() == at_new.undated()  # the base first
    assert opa.ask(question, old, to_last).undated() == at_last  # the overlay first
    both = opa.ask(question, new, to_last)
    assert both.undated() == at_last
    assert both.states() == {("last+new", LATER)}
    # It then goes on beside the new base, and still goes back to the old one: no answer is dated back with either.
    folded = to_last | {"meta": to_last["meta"] | {"base": "new"}}
    for base, revision in (old, "last+test"), (new, "last"):
        answers = opa.ask(question, base, folded)
        assert answers.undated() == at_last
        assert answers.states() == {(revision, LATER)}
