"""The native front door: ``tenantgate.v1`` over gRPC."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sidecar import translate
from sidecar.audit.records import ToolState
from sidecar.doors.grpc_calls import (
    Call,
    answering_again,
    decision_facts,
    error_reason,
    identity_facts,
    question_facts,
    remembered,
)
from sidecar.doors.replies import Replies, Reply, all_decided, counted, decided, listed
from sidecar.engine.cache import together
from sidecar.errors import InvalidRequestError
from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import authorization_service_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sidecar.audit.decision_log import DecisionLog
    from sidecar.audit.records import Told
    from sidecar.doors.metrics import CallMetrics
    from sidecar.doors.replies import Key
    from sidecar.engine.decide import Decider
    from sidecar.identity import Caller, IdentitySource
    from sidecar.model import Decision, Json, Question
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
        audit: DecisionLog,
    ) -> None:
        self._decider = decider
        self._identities = identities
        self._limits = limits
        self.default_deadline = default_deadline
        self.access_log = access_log
        self.metrics = metrics
        self.audit = audit
        self.replies = Replies(decider, headers)

    @answering_again
    def Authorize(self, request: pb.AuthorizeRequest, call: Call) -> Reply:  # noqa: N802 - gRPC's name
        """Decide one question."""
        narrow, varying = self._narrow(request, call)
        found = None if narrow is None else self.replies.find(narrow)
        if found is not None:
            call.cached = (True,)
            return self._with_arguments(found[0], request.resource.id, varying[1] if varying else {})
        caller = self._identify(request, call)
        identity = caller.identity
        question = translate.authorize_question(request, identity, self._limits, varying)
        (call.item,) = question.items
        held = self._decider.decide_held(question, call.decision_id, call.deadline)
        decision = held.answer
        facts = {}
        if self.access_log:
            facts = identity_facts(identity) | question_facts(question) | decision_facts(decision)
        write, size = decided(held, identity.tenant.id)
        call.cached = (remembered(held, call),)
        told = self.audit.decided(identity, call.item, decision)
        size += _size(told)
        decisions = (decision,)
        counts, lasts = counted(decisions), caller.lasts
        reply = Reply(write, size, decision.as_of, held.lease, lasts, facts, decisions, counts, records=told)
        if narrow is not None and not {"arguments", "context"} & {*decision.depends_on}:
            self.replies.keep(narrow, reply)
        return self._with_arguments(reply, request.resource.id, call.item.arguments)

    @answering_again
    def BatchAuthorize(self, request: pb.BatchAuthorizeRequest, call: Call) -> Reply:  # noqa: N802
        """Decide many questions that share the identity."""
        # Clients write the members of arguments in any order, which makes many requests of one.
        ordered = self.replies.key_of(request, call.key, "in whatever order")
        found = None if ordered is None else self.replies.find(ordered)
        if found is not None:
            reply = found[0]
            call.cached = (True,) * len(reply.records)
            return reply
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
        told = self._told(question, decisions, faults)
        known = iter([remembered(one, call) for one in held])
        call.cached = [fault is None and next(known) for fault in faults]
        write, size = all_decided(outcomes, identity.tenant.id)
        size += _size(told)
        as_of = decisions[0].as_of if decisions else 0
        lease = together(one.lease for one in held)
        counts = counted(decisions)
        reply = Reply(write, size, as_of, lease, caller.lasts, facts, decisions, counts, failures, len(decisions), told)
        if ordered is not None:
            self.replies.keep(ordered, reply)
        return reply

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
        told: list[ToolState] = []
        failures = [error_reason(fault) for fault in faults if fault is not None]
        for tool, fault in zip(request.tools, faults, strict=True):
            entry = response.tools.add()
            if fault is not None:
                entry.id = tool.id
                entry.error.CopyFrom(_item_error(fault))
                states["error"] += 1
                told.append(ToolState(tool.id, error=error_reason(fault)))
            else:
                answer = next(answers)
                translate.write_tool(entry, tool.id, answer)
                states[answer.state] += 1
                told.append(ToolState(tool.id, answer.state, answer.code or "", answer.rule_id))
        facts = identity_facts(identity) | {"tools": len(faults), "states": dict(states)}
        as_of = 0
        if held:
            as_of = held.answer.as_of
            response.revision = facts["revision"] = held.answer.revision
            response.as_of.FromMicroseconds(as_of)
        call.cached = (held is not None and remembered(held, call),)
        records = self.audit.listed(identity, request.action.name or "invoke", told, held.answer if held else None)
        write, size = listed(response)
        size += _size(records)
        lease = held.lease if held else None
        return Reply(write, size, as_of, lease, caller.lasts, facts, failures=failures, records=records)

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
        return self.replies.key_of(request, call.key, "whatever the arguments"), varying

    def _with_arguments(self, reply: Reply, resource_id: str, arguments: Json) -> Reply:
        """Have the record of a reply, which may be one for others too, say what is said of the arguments of this call."""
        told = self.audit.with_arguments(reply.records, resource_id, arguments)
        if told is reply.records:
            return reply
        return replace(reply, records=told, size=reply.size + _size(told) - _size(reply.records))

    def _told(
        self, question: Question, decisions: Sequence[Decision], faults: Sequence[InvalidRequestError | None]
    ) -> tuple[Told, ...]:
        """Give the records of a batch, item by item."""
        audit, identity = self.audit, question.identity
        good = iter(zip(question.items, decisions, strict=True))
        told: list[Told] = []
        for number, fault in enumerate(faults):
            place = f".{number}"
            if fault is None:
                told += audit.decided_call(identity, *next(good), place=place)
            else:
                told += audit.failed(error_reason(fault), fault, identity, None, place=place)
        return tuple(told)

    def _identify(
        self, request: pb.AuthorizeRequest | pb.BatchAuthorizeRequest | pb.FilterToolsRequest, call: Call
    ) -> Caller:
        caller = self._identities.establish(request.identity, call.metadata)
        call.identity = caller.identity
        if self.access_log:
            call.facts |= identity_facts(caller.identity)
        return caller


def _size(told: Iterable[Told]) -> int:
    return sum(len(known) for _, known in told)


def _item_error(fault: InvalidRequestError) -> pb.ItemError:
    return pb.ItemError(reason=error_reason(fault), message=str(fault), field=fault.field)
