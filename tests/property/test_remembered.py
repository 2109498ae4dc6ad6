"""Remembered or not, whatever registries come and go underneath: the same decisions over the wire, and none for too long."""

from __future__ import annotations

import math
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from msgspec import UNSET
from msgspec.structs import replace

from sidecar import translate
from sidecar.engine.cache import boot_clock
from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import decision_pb2
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from tests.support.processes import running_opa, running_sidecar, sidecar_settings, wait_until
from tests.support.registries import AS_OF, compiled
from tests.support.strategies import questions, registries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sidecar.engine.decide import Decider
    from sidecar.model import Decision, Item, Question
    from tests.support.processes import PolicyOpa

pytestmark = pytest.mark.timeout(600)

INTERVAL = 0.05
DEADLINE = 20.0


def identity_message(question: Question) -> decision_pb2.Identity:
    """Write who asks."""
    identity, subject = question.identity, question.identity.subject
    message = decision_pb2.Identity(
        tenant_id=identity.tenant.id,
        principal=decision_pb2.Principal(id=identity.principal.id),
        subject=decision_pb2.Subject(id=subject.id, roles=subject.roles),
        scopes=identity.scopes,
    )
    message.subject.properties.update(subject.properties)
    for actor in identity.delegation:
        hop = message.delegation.add(id=actor.id)
        if actor.scopes is not UNSET:
            hop.scopes.values.extend(actor.scopes)
            hop.scopes.SetInParent()
    return message


def item_message(item: Item, into: Any) -> Any:
    """Write what is asked about."""
    into.resource.type, into.resource.id, into.action.name = item.resource.type, item.resource.id, item.action.name
    into.resource.properties.update(item.resource.properties)
    into.context.update(item.context)
    if item.arguments is not UNSET:
        into.arguments.update(item.arguments)
    return into


def told(message: decision_pb2.Decision) -> decision_pb2.Decision:
    """Leave out of a decision what is new every time."""
    message.ClearField("decision_id")
    message.ClearField("age")
    return message


class Remembering(RuleBasedStateMachine):
    """An OPA whose registry changes at any moment, a sidecar in front of it, and questions that often come again.

    ``asked`` are the questions; each has its decision under every registry that there was, by another OPA, unremembered.
    """

    opa: ClassVar[PolicyOpa]
    other_opa: ClassVar[PolicyOpa]
    cache_bytes: ClassVar[int]
    hits: ClassVar[int]

    def __init__(self) -> None:
        super().__init__()
        self.running = ExitStack()
        self.number = 0
        self.turned = 0.0
        self.decisions: dict[str, list[Decision]] = {}
        self.seen = 0

    @initialize(asked=st.lists(questions(), min_size=6, max_size=6), registry=registries)
    def begin(self, asked: list[Question], registry: list[dict[str, Any]]) -> None:
        """Start a sidecar."""
        # the wire cannot say who may act: that is for tokens
        self.asked = [replace(one, identity=replace(one.identity, may_act=UNSET)) for one in asked]
        self.turn(registry)
        folder = Path(self.running.enter_context(tempfile.TemporaryDirectory(prefix="tg-")))
        given = sidecar_settings(
            folder,
            None,
            opa__address=f"unix:{self.opa.socket}",
            cache__bytes=self.cache_bytes,
            cache__revision_check_seconds=INTERVAL,
            log__access=False,
        )
        self.sidecar, channel = self.running.enter_context(running_sidecar(given))
        self.stub: Any = AuthorizationServiceStub(channel)

    @property
    def revision(self) -> str:
        """The revision in force."""
        return f"r{self.number:06}"

    def uncached(self) -> Decider:
        """Give an engine that remembers nothing."""
        return self.other_opa.decider()

    def prepare(self, registry: list[dict[str, Any]]) -> dict[str, Any]:
        """Make the next registry, and decide everything under it."""
        self.number += 1
        document = compiled(registry, as_of=AS_OF + self.number, revision=self.revision)
        self.other_opa.put("registry/base", document)
        decider, deadline = self.uncached(), time.monotonic() + DEADLINE
        self.decisions[self.revision] = [decider.decide(one, "expected", deadline) for one in self.asked]
        return document

    def turn(self, registry: list[dict[str, Any]]) -> None:
        """Give OPA another registry."""
        self.opa.put("registry", {"base": self.prepare(registry)})  # without what other tests have put above it
        self.turned = boot_clock()

    turns = rule(registry=registries)(turn)

    @rule(
        some=st.lists(registries, min_size=2, max_size=3),
        places=st.lists(st.integers(0, 5), min_size=20, max_size=30),
    )
    def turn_while_asking(self, some: list[list[dict[str, Any]]], places: list[int]) -> None:
        """Give OPA one registry after the other while questions are asked."""
        documents = [self.prepare(registry) for registry in some]
        self.turned = math.inf  # which of them is in force nobody knows meanwhile

        def turn() -> None:
            for document in documents:
                self.opa.put("registry/base", document)

        turning = threading.Thread(target=turn)
        turning.start()
        self.authorize(places)
        turning.join()
        self.turned = boot_clock()

    @rule()
    def let_the_interval_pass(self) -> None:
        """Let pass for how long the registry before may be served."""
        wait_until(lambda: boot_clock() >= self.turned + INTERVAL)

    def authorize(self, places: list[int]) -> None:
        """Ask questions one by one."""
        for place in places:
            question = self.asked[place]
            request = pb.AuthorizeRequest(
                identity=identity_message(question), accepted_obligations=question.accepts, explain=question.explain
            )
            item_message(question.items[0], request)
            began = boot_clock()
            answer = self.stub.Authorize(request, timeout=DEADLINE).decision
            self.check(answer, place, began)

    authorizes = rule(places=st.lists(st.integers(0, 5), min_size=1, max_size=12))(authorize)

    @rule(place=st.integers(0, 5), places=st.lists(st.integers(0, 5), min_size=1, max_size=8))
    def batch(self, place: int, places: list[int]) -> None:
        """Ask, for one caller, about the items of several questions at once."""
        question = self.asked[place]
        request = pb.BatchAuthorizeRequest(
            identity=identity_message(question), accepted_obligations=question.accepts, explain=question.explain
        )
        some = [self.asked[other].items[0] for other in places]
        for item in some:
            item_message(item, request.items.add())
        began = boot_clock()
        answers = [entry.decision for entry in self.stub.BatchAuthorize(request, timeout=DEADLINE).results]
        assert len({answer.revision for answer in answers}) == 1
        if answers[0].revision == self.revision:
            expected = self.uncached().decide_batch(
                replace(question, items=tuple(some)), "expected", time.monotonic() + DEADLINE
            )
            assert [told(answer) for answer in answers] == [self.message(one, question) for one in expected]
        self.note(answers[0], began)

    @rule(place=st.integers(0, 5), places=st.lists(st.integers(0, 5), min_size=1, max_size=4))
    def filter_tools(self, place: int, places: list[int]) -> None:
        """Ask which tools may be called."""
        question = self.asked[place]
        first = question.items[0]
        request = pb.FilterToolsRequest(
            identity=identity_message(question),
            accepted_obligations=question.accepts,
            action={"name": first.action.name},
        )
        request.context.update(first.context)
        tools = [self.asked[other].items[0].resource for other in places]
        for tool in tools:
            request.tools.add(type=tool.type, id=tool.id).properties.update(tool.properties)
        began = boot_clock()
        answer = self.stub.FilterTools(request, timeout=DEADLINE)
        if answer.revision == self.revision:
            asked = replace(
                question,
                explain=False,
                items=tuple(replace(first, resource=tool, arguments=UNSET) for tool in tools),
            )
            listing = self.uncached().filter_tools(asked, "expected", time.monotonic() + DEADLINE)
            expected = pb.FilterToolsResponse()
            for tool, one in zip(tools, listing.tools, strict=True):
                translate.write_tool(expected.tools.add(), tool.id, one)
            assert [*answer.tools] == [*expected.tools]
        self.note(answer, began)

    def message(self, decision: Decision, question: Question) -> decision_pb2.Decision:
        """Write a decision as it must be answered."""
        message = decision_pb2.Decision(tenant_id=question.identity.tenant.id)
        translate.write_decision(message, decision, "", 0)
        return told(message)

    def check(self, answer: decision_pb2.Decision, place: int, began: float) -> None:
        """Hold an answer against the decision under its revision."""
        expected = self.decisions[answer.revision][place]
        self.note(answer, began)
        assert told(answer) == self.message(expected, self.asked[place])

    def note(self, answer: Any, began: float) -> None:
        """See that an answer is under no older registry than it may be."""
        as_of = answer.as_of.ToMicroseconds()
        assert as_of >= self.seen, "the registry went back"
        self.seen = as_of
        if began >= self.turned + (INTERVAL if self.cache_bytes else 0):
            assert answer.revision == self.revision, "an older registry is served for too long"

    def teardown(self) -> None:
        """Stop the sidecar."""
        cache = getattr(self, "sidecar", None) and self.sidecar._cache
        if cache:
            Remembering.hits += cache.hits
        self.running.close()


@pytest.fixture
def other_opa() -> Iterator[PolicyOpa]:
    """Another OPA with the policies."""
    with tempfile.TemporaryDirectory(prefix="tg-") as folder, running_opa(Path(folder)) as opa:
        yield opa


@pytest.mark.parametrize("cache_bytes", [1 << 26, 20_000, 0], ids=["remembered", "little room", "asked each time"])
def test_the_same_is_decided_whether_or_not_it_is_remembered_while_revisions_change(
    policy_opa: PolicyOpa, other_opa: PolicyOpa, cache_bytes: int
) -> None:
    Remembering.opa, Remembering.other_opa = policy_opa, other_opa
    Remembering.cache_bytes, Remembering.hits = cache_bytes, 0
    thorough = settings(max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=[*HealthCheck])
    run_state_machine_as_test(Remembering, settings=thorough)

    assert (Remembering.hits > 100) is bool(cache_bytes)
