"""Whom the subject lets act for it, which tokens alone say: in every kind of question, and from the token on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from msgspec import UNSET, UnsetType

from sidecar.gen.tenantgate.v1 import decision_pb2
from sidecar.identity.development import DevelopmentIssuer
from sidecar.model import Actor, Identity, Item, Principal, Question, Resource, Subject, Tenant
from sidecar.settings import load
from tests.support import wire
from tests.support.processes import running_sidecar, sidecar_settings
from tests.support.registries import compiled, sample_items
from tests.support.wire import ORDER_LOOKUP

if TYPE_CHECKING:
    from pathlib import Path

    from sidecar.engine.decide import Decider
    from tests.support.processes import PolicyOpa

BOT, OTHER = "agent:order-bot", "agent:report-bot"


@pytest.fixture(params=["chain", "current"])
def decider(policy_opa: PolicyOpa, request: pytest.FixtureRequest) -> Decider:
    """An engine under the sample registry, which checks the delegation in either way."""
    policy_opa.put("registry/base", compiled(sample_items()))
    return policy_opa.decider(load(None, {}, [f"delegation.check={request.param}"]))


def asked(may_act: tuple[str, ...] | UnsetType, *, delegation: tuple[Actor, ...] = (), known: bool = True) -> Question:
    """Make alice's question through the order bot, with the arguments known or not."""
    identity = Identity(Tenant("Tenant-A"), Principal(BOT), Subject("alice"), delegation, ("tools:read",), may_act)
    return Question(identity, (Item(Resource("TOOL", ORDER_LOOKUP), arguments={} if known else UNSET),))


def soon() -> float:
    """Give a deadline."""
    return time.monotonic() + 10


@pytest.mark.parametrize("may_act", [UNSET, (BOT,), (OTHER, BOT)], ids=["nothing said", "it alone", "one of two"])
def test_the_subject_lets_the_principal_act(decider: Decider, may_act: tuple[str, ...] | UnsetType) -> None:
    assert decider.decide(asked(may_act), "single", soon()).code == "ALLOWED"
    assert [decision.code for decision in decider.decide_batch(asked(may_act), "batch", soon())] == ["ALLOWED"]
    assert [tool.state for tool in decider.filter_tools(asked(may_act, known=False), "tools", soon()).tools] == [
        "ALLOWED"
    ]


@pytest.mark.parametrize(
    ("may_act", "those"),
    [((OTHER,), f'"{OTHER}"'), ((OTHER, "agent:x"), f'"{OTHER}", "agent:x"'), ((), "nobody")],
    ids=["another", "others", "nobody"],
)
def test_the_subject_does_not_let_the_principal_act(decider: Decider, may_act: tuple[str, ...], those: str) -> None:
    decision = decider.decide(asked(may_act), "single", soon())
    (of_batch,) = decider.decide_batch(asked(may_act), "batch", soon())
    (tool,) = decider.filter_tools(asked(may_act, known=False), "tools", soon()).tools

    assert (decision.effect, decision.code) == ("DENY", "DELEGATION_INVALID")
    assert decision.reason == f'the subject lets {those} act for it, not principal "{BOT}"'
    assert of_batch == decision
    assert (tool.state, tool.code, tool.reason) == ("DENIED", decision.code, decision.reason)


def test_an_earlier_actor_whom_the_subject_lets_act_does_not_let_the_principal(decider: Decider) -> None:
    question = asked((OTHER,), delegation=(Actor(OTHER),))

    assert decider.decide(question, "single", soon()).code == "DELEGATION_INVALID"


def test_the_claim_of_a_token_decides_who_may_act(sample_bundle: Path, short_path: Path) -> None:
    issuer = DevelopmentIssuer(short_path / "issuer")
    trusted = [issuer.settings()]
    settings = sidecar_settings(short_path, sample_bundle, identity__mode="verified", identity__issuers=trusted)
    with running_sidecar(settings) as (_, channel):
        reasons = {}
        for agent in (BOT, OTHER):
            token = issuer.mint("Tenant-A", "alice", BOT, scopes=("tools:read",), may_act={"sub": agent})
            decision = wire.authorize(
                channel,
                wire.question(identity=decision_pb2.Identity(), explain=True),
                metadata=[("authorization", f"Bearer {token}")],
            )
            reasons[agent] = [
                (decision_pb2.DecisionCode.Name(finding.code), finding.reason)
                for finding in decision.explanation.findings
            ]

    assert [code for code, _ in reasons[BOT]] == ["DECISION_CODE_ALLOWED"]
    assert reasons[OTHER][0] == (
        "DECISION_CODE_DELEGATION_INVALID",
        f'the subject lets "{OTHER}" act for it, not principal "{BOT}"',
    )
