"""The door for credentials: ``tenantgate.v1.CredentialService`` over gRPC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sidecar import translate
from sidecar.doors.grpc_calls import Call, answering, decision_facts, identity_facts, question_facts, remembered
from sidecar.engine.decide import MICROSECONDS, now_microseconds
from sidecar.gen.tenantgate.v1 import credential_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import credential_service_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from sidecar.audit.decision_log import DecisionLog
    from sidecar.credentials.exchange import Exchange
    from sidecar.credentials.sts import Credentials
    from sidecar.doors.metrics import CallMetrics
    from sidecar.identity import IdentitySource
    from sidecar.translate import Limits


class CredentialServicer(pb_grpc.CredentialServiceServicer):
    """Answers ``tenantgate.v1.CredentialService``. ``default_deadline`` is in seconds."""

    def __init__(
        self,
        exchange: Exchange,
        identities: IdentitySource,
        limits: Limits,
        *,
        default_deadline: float,
        access_log: bool,
        metrics: CallMetrics,
        audit: DecisionLog,
    ) -> None:
        self._exchange = exchange
        self._identities = identities
        self._limits = limits
        self.default_deadline = default_deadline
        self.access_log = access_log
        self.metrics = metrics
        self.audit = audit

    @answering
    def ExchangeToken(self, request: pb.ExchangeTokenRequest, call: Call) -> pb.ExchangeTokenResponse:  # noqa: N802 - gRPC's name
        """Decide whether a resource may be used, and give credentials for it if so."""
        caller = self._identities.establish(request.identity, call.metadata)
        call.identity = caller.identity
        call.facts |= identity_facts(caller.identity)
        question = translate.exchange_question(request, caller.identity, self._limits)
        (call.item,) = question.items
        call.facts |= question_facts(question)
        wanted = request.duration.ToMicroseconds() / MICROSECONDS if request.HasField("duration") else None
        held, credentials = self._exchange.exchange(caller, question, wanted, call.decision_id, call.deadline)
        decision = held.answer
        call.facts |= decision_facts(decision)
        call.decisions = (decision,)
        call.records = self.audit.decided(caller.identity, call.item, decision)
        call.cached = (remembered(held, call),)
        response = pb.ExchangeTokenResponse()
        translate.write_decision(response.decision, decision, call.decision_id, now_microseconds())
        response.decision.tenant_id = caller.identity.tenant.id
        if credentials is not None:
            _write(response.credentials, credentials)
            call.facts |= {
                "session_name": credentials.session_name,
                "expiration": datetime.fromtimestamp(credentials.expiration, UTC).isoformat(),
            }
        return response


def _write(into: pb.Credentials, credentials: Credentials) -> None:
    into.access_key_id = credentials.access_key_id
    into.secret_access_key = credentials.secret_access_key
    into.session_token = credentials.session_token
    into.expiration.FromMicroseconds(int(credentials.expiration * MICROSECONDS))
    into.assumed_role_arn = credentials.assumed_role_arn
    into.session_name = credentials.session_name
