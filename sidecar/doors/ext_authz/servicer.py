"""Envoy's question, answered: read, decide, answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse
from msgspec import UNSET
from msgspec.structs import replace

from sidecar.doors.ext_authz import requests, responses
from sidecar.doors.grpc_calls import (
    DECISION_ID_KEY,
    REQUEST_ID_KEY,
    TRACE_KEY,
    Call,
    ErrorRow,
    answering_in_kind,
    decision_facts,
    identity_facts,
    question_facts,
    remembered,
    trace_id,
)
from sidecar.doors.verdicts import Kind, Refusal
from sidecar.errors import UnauthenticatedError
from sidecar.model import Action, Item, Question, Resource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.audit.decision_log import DecisionLog
    from sidecar.doors.metrics import CallMetrics
    from sidecar.doors.verdicts import Asked
    from sidecar.engine.decide import Decider
    from sidecar.identity import IdentitySource
    from sidecar.model import Decision, Identity, Json
    from sidecar.settings import ExtAuthzSettings
    from sidecar.translate import Limits

SERVICE = "envoy.service.auth.v3.Authorization"

_KINDS: dict[grpc.StatusCode, Kind] = {
    grpc.StatusCode.UNAUTHENTICATED: "UNAUTHENTICATED",
    grpc.StatusCode.INVALID_ARGUMENT: "MALFORMED",
}
"""Errors that the caller can mend. All others are that there is no decision."""


def _refuse(servicer: ExtAuthzServicer, request: object, call: Call, fault: Exception, row: ErrorRow) -> CheckResponse:
    refusal = Refusal(
        _KINDS.get(row.code, "NO_DECISION"), row.reason, row.sentence or str(fault), decision_id=call.decision_id
    )
    challenge = ""
    if isinstance(fault, UnauthenticatedError):
        call.facts["token"] = fault.reason
        # without a token there is no error of one (RFC 6750 section 3.1)
        challenge = "Bearer" if fault.reason == "TOKEN_MISSING" else 'Bearer error="invalid_token"'
    return servicer.deny(request, call, refusal, challenge)


class ExtAuthzServicer:
    """Answers ``envoy.service.auth.v3.Authorization``. ``default_deadline`` is in seconds.

    ``tenant_headers`` are those that name a tenant. Raises ``SettingsError`` if the settings let pass what must be asked about.
    """

    def __init__(
        self,
        decider: Decider,
        identities: IdentitySource,
        settings: ExtAuthzSettings,
        tenant_headers: Sequence[str],
        limits: Limits,
        *,
        default_deadline: float,
        access_log: bool,
        metrics: CallMetrics,
        audit: DecisionLog,
    ) -> None:
        self._decider = decider
        self._identities = identities
        self._settings = settings
        self._tenant_headers = tenant_headers
        self._tenant_header = settings.tenant_header or next(iter(tenant_headers), None)
        self._limits = limits
        self._reader = requests.Reader(settings, limits)
        self.default_deadline = default_deadline
        self.access_log = access_log
        self.metrics = metrics
        self.audit = audit

    @answering_in_kind(_refuse)
    def Check(self, request: CheckRequest, call: Call) -> CheckResponse:  # noqa: N802 - gRPC's name
        """Say whether a request may go on."""
        headers = requests.header_values(request)
        if REQUEST_ID_KEY in headers:
            call.facts["request_id"] = headers[REQUEST_ID_KEY][0]
        call.facts |= trace_id(next(iter(headers.get(TRACE_KEY, ())), ""))
        identity = call.identity = self._identities.establish(self._reader.stated(request, headers), headers).identity
        call.facts |= identity_facts(identity)
        asked = self._reader.asked(request, headers)
        if isinstance(asked, Refusal):
            return self._refused(request, call, asked)
        if asked is None:
            return self._passed(request, call, identity)
        question = self._question(request, identity, asked)
        (call.item,) = question.items
        call.facts |= question_facts(question)
        held = self._decider.decide_held(question, call.decision_id, call.deadline)
        decision = held.answer
        call.facts |= decision_facts(decision)
        call.decisions = (decision,)
        call.records = self.audit.decided_call(identity, call.item, decision)
        call.cached = (remembered(held, call),)
        if decision.effect == "ALLOW":
            return self._allow(request, call, identity, _about(call, identity, decision))
        refusal = Refusal("DENIED", decision.code, f"Access denied: {decision.reason}", call.decision_id)
        return self.deny(request, call, refusal, about=_about(call, identity, decision))

    def _question(self, request: CheckRequest, identity: Identity, asked: Asked) -> Question:
        item = Item(
            Resource(asked.resource_type, asked.resource_id),
            Action(asked.action),
            requests.context(request, self._limits),
            asked.arguments,
        )
        return Question(identity, (item,), self._settings.accepts)

    def _passed(self, request: CheckRequest, call: Call, identity: Identity) -> CheckResponse:
        """Let go on what no question is about: nobody else would notice then that the tenants differ."""
        if {*identity.tenant.named} - {identity.tenant.id}:
            return self._refused(
                request, call, Refusal("DENIED", "TENANT_MISMATCH", "Access denied: the request names another tenant")
            )
        call.facts["passed"] = True
        return self._allow(request, call, identity, _about(call, identity, None))

    def _allow(self, request: CheckRequest, call: Call, identity: Identity, about: dict[str, Json]) -> CheckResponse:
        tenant = identity.tenant.id
        if not tenant.isascii() or tenant != tenant.strip():
            # a header would carry another one
            return self._refused(
                request,
                call,
                Refusal("NO_DECISION", "TENANT_NOT_CARRIED", "the tenant's id cannot be written in a header as it is"),
            )
        told = {DECISION_ID_KEY: call.decision_id}
        if self._tenant_header is not None:
            told[self._tenant_header] = tenant
        return responses.allowed(told, (name for name in self._tenant_headers if name not in told), about)

    def _refused(self, request: CheckRequest, call: Call, refusal: Refusal) -> CheckResponse:
        """Deny what has come to no decision and to no error."""
        call.failures = (refusal.reason,)
        call.facts["refused"] = refusal.reason
        call.records, call.cached = self.audit.failed(refusal.reason, None, call.identity, call.item), ()
        return self.deny(request, call, replace(refusal, decision_id=call.decision_id))

    def deny(
        self, request: object, call: Call, refusal: Refusal, challenge: str = "", about: dict[str, Json] | None = None
    ) -> CheckResponse:
        """Deny a request, whatever it is."""
        message = self._reader.message(request) if isinstance(request, CheckRequest) else UNSET
        known = {"decision_id": call.decision_id} if about is None else about
        return responses.denied(refusal, message, self._settings.mcp_status, challenge, known)


def _about(call: Call, identity: Identity, decision: Decision | None) -> dict[str, Json]:
    """Give what filters and access logs of Envoy may want to know."""
    about: dict[str, Json] = {"decision_id": call.decision_id, **identity_facts(identity)}
    if decision is not None:
        about |= decision_facts(decision) | {"obligations": [*decision.obligations]}
    return about
