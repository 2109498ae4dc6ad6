"""What is asked, and what becomes of it: it is allowed for a tenant, or refused for a reason. There is no third."""

from __future__ import annotations

from typing import Literal, NamedTuple

from msgspec import Struct

from sidecar.model import Json


class Asked(Struct, frozen=True):
    """What must be decided before a message goes on."""

    resource_type: str
    resource_id: str
    action: str
    arguments: dict[str, Json]


class Allowed(Struct, frozen=True):
    """An ALLOW. ``tenant_id`` is the tenant that the caller's token proves."""

    tenant_id: str
    decision_id: str


Kind = Literal["DENIED", "UNAUTHENTICATED", "MALFORMED", "METHOD", "NO_DECISION"]
"""What kind of refusal it is: by decision, as nobody knows who asks, as the message is no good, as the table does not have the
method, or as there is no decision."""


class Refusal(Struct, frozen=True):
    """A message that must not go on. ``reason`` is a stable word, ``message`` a sentence that the agent's model may read."""

    kind: Kind
    reason: str
    message: str
    decision_id: str = ""

    @property
    def text(self) -> str:
        """All of it in one line."""
        decision = f", decision {self.decision_id}" if self.decision_id else ""
        return f"{self.message} ({self.reason}{decision})"


class Numbers(NamedTuple):
    """How a kind of refusal is told where there is a number for it."""

    error: int
    status: int


NUMBERS: dict[Kind, Numbers] = {
    # -32000 to -32019 are an implementation's own (https://modelcontextprotocol.io/specification/2026-07-28/schema)
    "DENIED": Numbers(error=-32001, status=403),
    "UNAUTHENTICATED": Numbers(error=-32004, status=401),
    "MALFORMED": Numbers(error=-32600, status=400),
    "METHOD": Numbers(error=-32601, status=403),
    "NO_DECISION": Numbers(error=-32003, status=503),
}
