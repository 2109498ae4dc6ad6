"""Decisions and results as the Authorization API writes them (sections "Decision" and "The Search API Response")."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.errors import InvalidRequestError
    from sidecar.model import Decision, Found, Json

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def decided(decision: Decision, decision_id: str) -> dict[str, Json]:
    """Write a decision. What its reason gives away of the policy is for administrators; a rule's own is written to be read."""
    allowed = decision.effect == "ALLOW"
    status = "200" if allowed else "403"
    context: dict[str, Json] = {"id": decision_id, "code": decision.code, "reason_admin": {status: decision.reason}}
    if decision.code == "DENIED_BY_RULE":
        context["reason_user"] = {status: decision.reason}
    if decision.policy_id:
        context["policy_id"] = decision.policy_id
    if decision.rule_id:
        context["rule_id"] = decision.rule_id
    if decision.obligations:
        context["obligations"] = decision.obligations
    return {"decision": allowed, "context": context | _state(decision)}


def not_decided(fault: InvalidRequestError, decision_id: str) -> dict[str, Json]:
    """Write what becomes of an evaluation among many that is malformed (section "Errors")."""
    return {"decision": False, "context": {"id": decision_id, "error": {"status": 400, "message": str(fault)}}}


def results(found: Found, entities: Sequence[Json], next_token: str, decision_id: str) -> dict[str, Json]:
    """Write a page of a search, last looked for in ``found``."""
    return {
        "page": {"next_token": next_token, "count": len(entities)},
        "context": {"id": decision_id} | _state(found),
        "results": entities,
    }


def _state(answer: Decision | Found) -> dict[str, Json]:
    moment = _EPOCH + timedelta(microseconds=answer.as_of)
    return {"revision": answer.revision, "as_of": moment.isoformat().replace("+00:00", "Z")}
