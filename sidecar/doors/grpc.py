"""The native front door: ``tenantgate.v1`` over gRPC."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from sidecar import translate
from sidecar.doors.grpc_calls import Call, answering, decision_facts, error_reason, identity_facts, question_facts
from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import authorization_service_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from sidecar.doors.metrics import CallMetrics
    from sidecar.engine.decide import Decider
    from sidecar.errors import InvalidRequestError
    from sidecar.identity import IdentitySource
    from sidecar.model import Identity
    from sidecar.translate import Limits


class AuthorizationServicer(pb_grpc.AuthorizationServiceServicer):
    """Answers ``tenantgate.v1.AuthorizationService``. ``default_deadline`` is in seconds."""

    def __init__(
        self,
        decider: Decider,
        identities: IdentitySource,
        limits: Limits,
        *,
        default_deadline: float,
        access_log: bool,
        metrics: CallMetrics,
    ) -> None:
        self._decider = decider
        self._identities = identities
        self._limits = limits
        self.default_deadline = default_deadline
        self.access_log = access_log
        self.metrics = metrics

    @answering
    def Authorize(self, request: pb.AuthorizeRequest, call: Call) -> pb.AuthorizeResponse:  # noqa: N802 - gRPC's name
        """Decide one question."""
        identity = self._identify(request, call)
        question = translate.authorize_question(request, identity, self._limits)
        decision = self._decider.decide(question, call.decision_id, call.deadline)
        call.facts |= question_facts(question) | decision_facts(decision)
        call.decisions = (decision,)
        response = pb.AuthorizeResponse()
        translate.write_decision(response.decision, decision, call.decision_id, self._decider.clock())
        response.decision.tenant_id = identity.tenant.id
        return response

    @answering
    def BatchAuthorize(self, request: pb.BatchAuthorizeRequest, call: Call) -> pb.BatchAuthorizeResponse:  # noqa: N802
        """Decide many questions that share the identity."""
        identity = self._identify(request, call)
        question, faults = translate.batch_question(request, identity, self._limits)
        call.decisions = self._decider.decide_batch(question, call.decision_id, call.deadline) if question.items else ()
        call.failures = [error_reason(fault) for fault in faults if fault is not None]
        decisions = iter(call.decisions)
        now = self._decider.clock()
        response = pb.BatchAuthorizeResponse()
        effects: Counter[str] = Counter()
        for number, fault in enumerate(faults):
            result = response.results.add()
            if fault is not None:
                _write_error(result.error, fault)
                effects["error"] += 1
            else:
                decision = next(decisions)
                translate.write_decision(result.decision, decision, f"{call.decision_id}.{number}", now)
                result.decision.tenant_id = identity.tenant.id
                effects[decision.effect] += 1
        call.facts |= {"items": len(faults), "effects": dict(effects)}
        return response

    @answering
    def FilterTools(self, request: pb.FilterToolsRequest, call: Call) -> pb.FilterToolsResponse:  # noqa: N802
        """Say which tools of a list may be called at all."""
        identity = self._identify(request, call)
        question, faults = translate.tools_question(request, identity, self._limits)
        response = pb.FilterToolsResponse(decision_id=call.decision_id, tenant_id=identity.tenant.id)
        listing = self._decider.filter_tools(question, call.decision_id, call.deadline) if question.items else None
        answers = iter(listing.tools if listing else ())
        states: Counter[str] = Counter()
        call.failures = [error_reason(fault) for fault in faults if fault is not None]
        for tool, fault in zip(request.tools, faults, strict=True):
            entry = response.tools.add()
            if fault is not None:
                entry.id = tool.id
                _write_error(entry.error, fault)
                states["error"] += 1
            else:
                answer = next(answers)
                translate.write_tool(entry, tool.id, answer)
                states[answer.state] += 1
        if listing:
            translate.write_revision(response, listing.revision, listing.as_of, self._decider.clock())
            call.facts["revision"] = listing.revision
        call.facts |= {"tools": len(faults), "states": dict(states)}
        return response

    def _identify(
        self, request: pb.AuthorizeRequest | pb.BatchAuthorizeRequest | pb.FilterToolsRequest, call: Call
    ) -> Identity:
        identity = self._identities.establish(request.identity, call.metadata).identity
        call.facts |= identity_facts(identity)
        return identity


def _write_error(into: pb.ItemError, fault: InvalidRequestError) -> None:
    into.reason = error_reason(fault)
    into.message = str(fault)
    into.field = fault.field
