"""What is asked, and what must be answered: by the registry as of the moment that an answer names, and by the sidecar's clock."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import decision_pb2
from tests.support.bundles import NOW, SECOND

LIMIT = 100
"""The largest amount that a call may have."""

_STARTED = datetime.now(UTC)
OPEN_FROM, OPEN_UNTIL = _STARTED - timedelta(hours=1), _STARTED + timedelta(hours=1)
"""When what has hours is allowed."""


def registry(generation: int) -> list[dict[str, Any]]:
    """Give the items of a generation. In every second one, what is ``granted`` in the others is revoked."""

    def rule(tool: str, **more: Any) -> dict[str, Any]:
        return {"ruleId": tool, "effect": "ALLOW", "resourceType": "TOOL", "resources": [tool], **more}

    rules = [
        rule("open"),
        rule("hours", notBefore=_rfc3339(OPEN_FROM), notAfter=_rfc3339(OPEN_UNTIL)),
        rule("payment", conditions=[{"path": "/arguments/amount", "op": "lte", "value": LIMIT}]),
        *([] if generation % 2 else [rule("granted")]),
    ]
    items = [{"pk": f"TENANT#{tenant}", "sk": "TENANT", "membership": "OPTIONAL"} for tenant in ("one", "other")]
    return [*items, {"pk": "TENANT#one", "sk": "POLICY#p", "rules": rules}]


class Asked(NamedTuple):
    """A question; ``amount`` is that of a payment."""

    tenant: str
    tool: str
    amount: int = 0

    def request(self) -> pb.AuthorizeRequest:
        """Write it."""
        request = pb.AuthorizeRequest(
            identity={"tenant_id": self.tenant, "principal": {"id": "agent:x"}, "subject": {"id": "alice"}},
            resource={"type": "TOOL", "id": self.tool},
        )
        if self.amount:
            request.arguments.update({"amount": self.amount})
        return request


class Verdicts(NamedTuple):
    """How often what was answered. An ALLOW is wrong that the registry does not give, or that is from one that was over."""

    right: int = 0
    wrong_allows: int = 0
    wrong_denies: int = 0


class Truth:
    """Knows what is right, and counts. ``ahead`` is how far the sidecar's clock is ahead, in seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._generation = -1
        self._as_of = 0
        self._ahead = [(0.0, 0.0)]
        self.verdicts = Verdicts()
        self.examples: list[str] = []

    def next(self) -> int:
        """Count on to the next generation."""
        with self._lock:
            self._generation += 1
            return self._generation

    @property
    def served(self) -> int:
        """The newest generation that anybody was answered by."""
        return (self._as_of - NOW) // SECOND

    @property
    def as_of(self) -> int:
        """The moment of that: no call that begins now may be answered by an older one."""
        return self._as_of

    def set_clock(self, ahead: int) -> None:
        """Note that the sidecar's clock is so far ahead from now on, in seconds."""
        with self._lock:
            self._ahead.append((time.time(), ahead))

    def judge(self, asked: Asked, decision: decision_pb2.Decision, began: float, floor: int) -> None:
        """Judge the answer to a call that began at a moment of ``time.time()``, when ``floor`` was the newest as-of."""
        as_of = decision.as_of.ToMicroseconds()
        allowed = decision.effect == decision_pb2.EFFECT_ALLOW
        with self._lock:
            self._as_of = max(self._as_of, as_of)
            right = self._right(asked, (as_of - NOW) // SECOND, began)
            wrong = (allowed not in right) or (allowed and as_of < floor)
            if wrong and len(self.examples) < 10:
                self.examples.append(
                    f"{asked} {decision.effect} {decision.code} as of {as_of - NOW}, floor {floor - NOW}"
                )
            right_count, allows, denies = self.verdicts
            self.verdicts = Verdicts(
                right_count + (not wrong), allows + (wrong and allowed), denies + (wrong and not allowed)
            )

    def _right(self, asked: Asked, generation: int, began: float) -> set[bool]:
        if asked.tenant != "one":
            return {False}
        match asked.tool:
            case "open":
                return {True}
            case "granted":
                return {generation % 2 == 0}
            case "payment":
                return {asked.amount <= LIMIT}
            case "hours":
                return {OPEN_FROM.timestamp() <= moment < OPEN_UNTIL.timestamp() for moment in self._clocks(began)}
        return {False}

    def _clocks(self, began: float) -> list[float]:
        """Give the moments at which the sidecar may have decided a call: by all its clocks since the call began."""
        last = max(i for i, (since, _) in enumerate(self._ahead) if since <= began)
        return [began + ahead for _, ahead in self._ahead[last:]]


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
