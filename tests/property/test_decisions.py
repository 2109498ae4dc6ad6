"""The promises that hold for every registry and every question, tried against the real OPA."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from sidecar.engine.cache import DecisionCache
from sidecar.model import Actor, WeakestHop
from tests.support.registries import compiled
from tests.support.strategies import (
    AGENTS,
    OBLIGATIONS,
    arguments,
    items,
    questions,
    registries,
    rules,
    tenants,
    values,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.model import Decision, Question, ToolAnswer
    from tests.support.processes import PolicyOpa

pytestmark = pytest.mark.timeout(300)
thorough = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

Registry = list[dict[str, Any]]


@pytest.fixture
def policy_opa(policy_opa: PolicyOpa, request: pytest.FixtureRequest) -> Iterator[PolicyOpa]:
    """The OPA, whose engines remember what it decided where a test says so."""
    policy_opa.cache = DecisionCache(1 << 24, 60.0) if getattr(request, "param", "") == "remembered" else None
    yield policy_opa
    policy_opa.cache = None


remembered_or_not = pytest.mark.parametrize("policy_opa", ["remembered", "asked each time"], indirect=True)


def decide(opa: PolicyOpa, registry: Registry, question: Question) -> Decision:
    """Decide a question under a registry."""
    opa.put("registry/base", compiled(registry))
    return opa.decider().decide(question, "property", time.monotonic() + 20)


def policies(registry: Registry, tenant: str) -> list[dict[str, Any]]:
    """Give the policies of a tenant."""
    return [item for item in registry if item["pk"] == f"TENANT#{tenant}" and item["sk"].startswith("POLICY#")]


def with_rules(registry: Registry, policy: dict[str, Any], new_rules: list[Any]) -> Registry:
    """Give a registry in which a policy has other rules."""
    return [{**item, "rules": new_rules} if item is policy else item for item in registry]


def codes(decision: Decision) -> list[str]:
    """Give the codes of all rows that apply, of a decision that was explained."""
    assert decision.explanation is not None
    return [finding.code for finding in decision.explanation.codes]


def verdict(decision: Decision) -> tuple[Any, ...]:
    """What of a decision does not hang on how rules are ordered."""
    return (
        decision.effect,
        decision.code,
        sorted(map(repr, decision.obligations)),
        decision.depends_on,
        decision.valid_until,
    )


@thorough
@given(registries, questions(), st.data(), rules(effects=("DENY",)))
def test_adding_a_deny_rule_never_turns_a_deny_into_an_allow(
    policy_opa: PolicyOpa, registry: Registry, question: Question, data: st.DataObject, rule: dict[str, Any]
) -> None:
    before = decide(policy_opa, registry, question)
    assume(before.effect == "DENY")
    policy = data.draw(st.sampled_from(policies(registry, "acme")))
    place = data.draw(st.integers(0, len(policy["rules"])))
    extended = [*policy["rules"][:place], rule, *policy["rules"][place:]]
    assert decide(policy_opa, with_rules(registry, policy, extended), question).effect == "DENY"


@thorough
@given(registries, questions(), st.data())
def test_removing_an_allow_rule_never_turns_a_deny_into_an_allow(
    policy_opa: PolicyOpa, registry: Registry, question: Question, data: st.DataObject
) -> None:
    # A rule with an obligation that the caller does not carry out is the exception, and meant to be: it holds back the ALLOW
    # of broader rules. So the caller carries out all.
    question = msgspec.structs.replace(question, accepts=tuple(OBLIGATIONS))
    before = decide(policy_opa, registry, question)
    candidates = [p for p in policies(registry, "acme") if any(r["effect"] == "ALLOW" for r in p["rules"])]
    assume(before.effect == "DENY" and candidates)
    policy = data.draw(st.sampled_from(candidates))
    place = data.draw(st.sampled_from([i for i, r in enumerate(policy["rules"]) if r["effect"] == "ALLOW"]))
    shortened = [*policy["rules"][:place], *policy["rules"][place + 1 :]]
    assert decide(policy_opa, with_rules(registry, policy, shortened), question).effect == "DENY"


@thorough
@given(registries, questions(), st.randoms(use_true_random=False))
def test_the_order_of_rules_policies_and_items_changes_nothing(
    policy_opa: PolicyOpa, registry: Registry, question: Question, random: Any
) -> None:
    before = decide(policy_opa, registry, question)
    shuffled = [
        {**item, "rules": random.sample(item["rules"], len(item["rules"]))} if "rules" in item else item
        for item in registry
    ]
    random.shuffle(shuffled)
    assert verdict(decide(policy_opa, shuffled, question)) == verdict(before)


@thorough
@given(registries, questions(), st.data())
def test_the_data_of_other_tenants_changes_nothing(
    policy_opa: PolicyOpa, registry: Registry, question: Question, data: st.DataObject
) -> None:
    tenant = question.identity.tenant.id
    before = decide(policy_opa, registry, question)
    own = [item for item in registry if item["pk"] == f"TENANT#{tenant}"]
    others = [t for t in ("acme", "globex", "umbrella") if t != tenant]
    changed = own + [item for other in others for item in data.draw(tenants(other))]
    assert decide(policy_opa, changed, question) == before


@remembered_or_not
@thorough
@given(registries, questions(3))
def test_a_batch_is_a_map_of_singles(policy_opa: PolicyOpa, registry: Registry, question: Question) -> None:
    policy_opa.put("registry/base", compiled(registry))
    decider, deadline = policy_opa.decider(), time.monotonic() + 20
    batch = decider.decide_batch(question, "batch", deadline)
    singles = [
        decider.decide(msgspec.structs.replace(question, items=(item,)), "single", deadline) for item in question.items
    ]
    assert list(batch) == singles


@remembered_or_not
@thorough
@given(registries, questions(), st.lists(arguments, min_size=3, max_size=6))
def test_a_tool_list_agrees_with_every_call(
    policy_opa: PolicyOpa, registry: Registry, question: Question, tried: list[dict[str, Any]]
) -> None:
    policy_opa.put("registry/base", compiled(registry))
    decider, deadline = policy_opa.decider(), time.monotonic() + 20
    (item,) = question.items
    question = msgspec.structs.replace(question, explain=False)
    unknown = msgspec.structs.replace(question, items=(msgspec.structs.replace(item, arguments=UNSET),))
    answer: ToolAnswer = decider.filter_tools(unknown, "tools", deadline).tools[0]
    calls = msgspec.structs.replace(
        question, items=tuple(msgspec.structs.replace(item, arguments=value) for value in tried)
    )
    effects = {decision.effect for decision in decider.decide_batch(calls, "calls", deadline)}
    if answer.state == "ALLOWED":
        assert effects == {"ALLOW"}
    elif answer.state == "DENIED":
        assert effects == {"DENY"}
    else:
        assert answer.residual


@thorough
@given(registries, questions(), st.lists(st.sampled_from([*AGENTS, "*", "agent:*", ""]), max_size=3))
def test_an_agent_that_the_subject_does_not_let_act_gets_nothing(
    policy_opa: PolicyOpa, registry: Registry, question: Question, may_act: list[str]
) -> None:
    identity = msgspec.structs.replace(question.identity, may_act=tuple(may_act))
    asked = msgspec.structs.replace(question, identity=identity, explain=True)
    decision = decide(policy_opa, registry, asked)
    if identity.principal.id in may_act:
        unsaid = msgspec.structs.replace(asked, identity=msgspec.structs.replace(identity, may_act=UNSET))
        assert decision == decide(policy_opa, registry, unsaid)
    else:
        assert decision.effect == "DENY"
        assert "DELEGATION_INVALID" in codes(decision)


@thorough
@given(registries, questions(), st.data())
def test_an_agent_that_posed_as_the_subject_anywhere_along_the_chain_gets_nothing(
    policy_opa: PolicyOpa, registry: Registry, question: Question, data: st.DataObject
) -> None:
    identity = question.identity
    place = data.draw(st.integers(0, len(identity.delegation)))
    posing = (*identity.delegation[:place], Actor(identity.subject.id), *identity.delegation[place:])
    identity = msgspec.structs.replace(identity, delegation=posing)
    decision = decide(policy_opa, registry, msgspec.structs.replace(question, identity=identity, explain=True))
    assert decision.effect == "DENY"
    assert "IMPERSONATION" in codes(decision)


@thorough
@given(registries, questions())
def test_an_explanation_says_who_asks_and_who_narrows_the_scopes_most(
    policy_opa: PolicyOpa, registry: Registry, question: Question
) -> None:
    identity = question.identity
    explanation = decide(policy_opa, registry, msgspec.structs.replace(question, explain=True)).explanation
    assert explanation is not None
    assert (explanation.principal, explanation.subject) == (identity.principal.id, identity.subject.id)
    agents = {
        item["sk"].removeprefix("AGENT#"): {*item["scopes"]}
        for item in registry
        if item["pk"] == f"TENANT#{identity.tenant.id}" and item["sk"].startswith("AGENT#")
    }
    chain = (Actor(identity.principal.id), *identity.delegation)
    lacks = []
    for actor in chain:
        held = agents.get(actor.id, set()) if agents else {*identity.scopes}
        if actor.scopes is not UNSET:
            held &= {*actor.scopes}
        lacks.append(sorted({*identity.scopes} - held))
    most = max(map(len, lacks))
    if most == 0:
        assert explanation.weakest_hop is None
    else:
        hop = [len(scopes) for scopes in lacks].index(most)
        assert explanation.weakest_hop == WeakestHop(chain[hop].id, hop, tuple(lacks[hop]))


@remembered_or_not
@thorough
@given(registries, questions(), items, values)
def test_a_decision_holds_for_every_request_that_differs_in_parts_it_did_not_depend_on(
    policy_opa: PolicyOpa, registry: Registry, question: Question, other: Any, value: Any
) -> None:
    policy_opa.put("registry/base", compiled(registry))
    decider, deadline = policy_opa.decider(), time.monotonic() + 20
    question = msgspec.structs.replace(question, explain=False)
    before = decider.decide(question, "before", deadline)
    (item,) = question.items
    resource, action, subject = item.resource, item.action, question.identity.subject
    properties = {"x": value}
    changes = {
        "arguments": {} if "arguments" in before.depends_on else {"arguments": other.arguments},
        "context": {} if "context" in before.depends_on else {"context": other.context},
    }
    item = msgspec.structs.replace(item, **changes["arguments"], **changes["context"])
    if "resource.properties" not in before.depends_on:
        item = msgspec.structs.replace(item, resource=msgspec.structs.replace(resource, properties=properties))
    if "action.properties" not in before.depends_on:
        item = msgspec.structs.replace(item, action=msgspec.structs.replace(action, properties=properties))
    identity = question.identity
    if "subject.properties" not in before.depends_on:
        identity = msgspec.structs.replace(identity, subject=msgspec.structs.replace(subject, properties=properties))
    after = decider.decide(msgspec.structs.replace(question, items=(item,), identity=identity), "after", deadline)
    assert after == before
