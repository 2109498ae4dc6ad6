"""The native front door: ``tenantgate.v1`` over gRPC."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sidecar import translate
from sidecar.doors.grpc_calls import Call, answering_again, decision_facts, error_reason, identity_facts, question_facts
from sidecar.doors.replies import Replies, Reply, all_decided, decided, listed
from sidecar.engine.cache import together
from sidecar.errors import InvalidRequestError
from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import authorization_service_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sidecar.doors.metrics import CallMetrics
    from sidecar.doors.replies import Key
    from sidecar.engine.decide import Decider
    from sidecar.identity import Caller, IdentitySource
    from sidecar.translate import Limits, Varying


class AuthorizationServicer(pb_grpc.AuthorizationServiceServicer):
    """Answers ``tenantgate.v1.AuthorizationService``.

    ``default_deadline`` is in seconds; ``headers`` are the metadata keys that answers may depend on.
    """

    def __init__(
        self,
        decider: Decider,
        identities: IdentitySource,
        limits: Limits,
        *,
        default_deadline: float,
        access_log: bool,
        metrics: CallMetrics,
        headers: Iterable[str],
    ) -> None:
        self._decider = decider
        self._identities = identities
        self._limits = limits
        self.default_deadline = default_deadline
        self.access_log = access_log
        self.metrics = metrics
        self.replies = Replies(decider, headers)

    @answering_again
    def Authorize(self, request: pb.AuthorizeRequest, call: Call) -> Reply:  # noqa: N802 - gRPC's name
        """Decide one question."""
        narrow, varying = self._narrow(request, call)
        found = None if narrow is None else self.replies.find(narrow)
        if found is not None:
            return found[0]
        caller = self._identify(request, call)
        identity = caller.identity
        question = translate.authorize_question(request, identity, self._limits, varying)
        held = self._decider.decide_held(question, call.decision_id, call.deadline)
        decision = held.answer
        facts = {}
        if self.access_log:
            facts = identity_facts(identity) | question_facts(question) | decision_facts(decision)
        write, size = decided(held, identity.tenant.id)
        reply = Reply(write, size, decision.as_of, held.lease, caller.lasts, facts, (decision,))
        if narrow is not None and not {"arguments", "context"} & {*decision.depends_on}:
            self.replies.keep(narrow, reply)
        return reply

    @answering_again
    def BatchAuthorize(self, request: pb.BatchAuthorizeRequest, call: Call) -> Reply:  # noqa: N802
        """Decide many questions that share the identity."""
        caller = self._identify(request, call)
        identity = caller.identity
        question, faults = translate.batch_question(request, identity, self._limits)
        held = self._decider.decide_batch_held(question, call.decision_id, call.deadline) if question.items else ()
        decisions = [one.answer for one in held]
        failures = [error_reason(fault) for fault in faults if fault is not None]
        effects: Counter[str] = Counter([decision.effect for decision in decisions] + ["error"] * len(failures))
        facts = identity_facts(identity) | {"items": len(faults), "effects": dict(effects)}
        good = iter(held)
        outcomes = [next(good) if fault is None else _item_error(fault) for fault in faults]
        write, size = all_decided(outcomes, identity.tenant.id)
        as_of = decisions[0].as_of if decisions else 0
        lease = together(one.lease for one in held)
        return Reply(write, size, as_of, lease, caller.lasts, facts, decisions, failures, len(decisions))

    @answering_again
    def FilterTools(self, request: pb.FilterToolsRequest, call: Call) -> Reply:  # noqa: N802
        """Say which tools of a list may be called at all."""
        caller = self._identify(request, call)
        identity = caller.identity
        question, faults = translate.tools_question(request, identity, self._limits)
        response = pb.FilterToolsResponse(tenant_id=identity.tenant.id)
        held = self._decider.filter_tools_held(question, call.decision_id, call.deadline) if question.items else None
        answers = iter(held.answer.tools if held else ())
        states: Counter[str] = Counter()
        failures = [error_reason(fault) for fault in faults if fault is not None]
        for tool, fault in zip(request.tools, faults, strict=True):
            entry = response.tools.add()
            if fault is not None:
                entry.id = tool.id
                entry.error.CopyFrom(_item_error(fault))
                states["error"] += 1
            else:
                answer = next(answers)
                translate.write_tool(entry, tool.id, answer)
                states[answer.state] += 1
        facts = identity_facts(identity) | {"tools": len(faults), "states": dict(states)}
        as_of = 0
        if held:
            as_of = held.answer.as_of
            response.revision = facts["revision"] = held.answer.revision
            response.as_of.FromMicroseconds(as_of)
        write, size = listed(response)
        return Reply(write, size, as_of, held.lease if held else None, caller.lasts, facts, failures=failures)

    def _narrow(self, request: pb.AuthorizeRequest, call: Call) -> tuple[Key | None, Varying | None]:
        """Take out of a request what varies from call to call and seldom counts; give the key of the rest, and what it was.

        If anything is wrong with it, which is to be told in its turn, it stays.
        """
        if not self.replies.remembered:
            return None, None
        try:
            varying = translate.read_varying(request, self._limits)
        except InvalidRequestError:
            return None, None
        request.ClearField("arguments")
        request.ClearField("context")
        method, _, *headers = call.key
        return (f"{method}, whatever the arguments", request.SerializeToString(deterministic=True), *headers), varying

    def _identify(
        self, request: pb.AuthorizeRequest | pb.BatchAuthorizeRequest | pb.FilterToolsRequest, call: Call
    ) -> Caller:
        caller = self._identities.establish(request.identity, call.metadata)
        if self.access_log:
            call.facts |= identity_facts(caller.identity)
        return caller


def _item_error(fault: InvalidRequestError) -> pb.ItemError:
    return pb.ItemError(reason=error_reason(fault), message=str(fault), field=fault.field)
