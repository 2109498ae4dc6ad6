"""What is asked: requests in files, as ghz and ``load`` read them, and the tokens of those who ask."""

from __future__ import annotations

import json
import random
from io import BytesIO
from itertools import accumulate
from typing import TYPE_CHECKING

from google.protobuf.proto import serialize_length_prefixed

from sidecar import translate
from sidecar.engine.decide import new_decision_id, now_microseconds
from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.model import Identity, Principal, Subject, Tenant
from tests.bench.scale import ACCEPTS, DOMAINS, POLICY, SHAPES, Shape, tenant_name

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from google.protobuf.message import Message

    from sidecar.identity.development import DevelopmentIssuer
    from sidecar.model import Json

TOOLS = 200
POPULAR = ("lookup", "search", "update", "report-weekly", "create", "export", "delete", "admin-purge")
"""The tools of a domain, the one that is called most first. Of two, ``update`` and ``create``, rules look at the arguments."""

SKEW = 1.1
"""The exponent of the Zipf distributions: what is at place N is asked for N**-SKEW times as often as what is at the first."""

_USER, _AGENT, _ROLES, _SCOPES = "alice", "agent:desk-bot", ("clerk",), ("tools:write",)
_ARGUMENTS = {"orderId": "A-1001", "amount": 60, "note": "by phone"}


def tools_of(shape: Shape) -> list[str]:
    """Give the tools that tenants of a shape are asked about: those of their domain first, on which they have rules."""
    start = DOMAINS.index(shape.domain)
    domains = (DOMAINS[(start + i) % len(DOMAINS)] for i in range(TOOLS // len(POPULAR)))
    return [f"agent:tool:{department}:{area}-{tool}" for department, area in domains for tool in POPULAR]


def mint(issuer: DevelopmentIssuer, tenant: int) -> str:
    """Make the token of the user of a tenant."""
    return issuer.mint(tenant_name(tenant), _USER, _AGENT, scopes=_SCOPES, roles=_ROLES)


def authorize(tool: str, **arguments: Json) -> pb.AuthorizeRequest:
    """Ask for one call of a tool; ``arguments`` override those that calls have."""
    return pb.AuthorizeRequest(
        resource={"type": "TOOL", "id": tool}, arguments=_ARGUMENTS | arguments, accepted_obligations=ACCEPTS
    )


def batch(tools: Sequence[str]) -> pb.BatchAuthorizeRequest:
    """Ask for a call of each tool."""
    items = [{"resource": {"type": "TOOL", "id": tool}, "arguments": _ARGUMENTS} for tool in tools]
    return pb.BatchAuthorizeRequest(items=items, accepted_obligations=ACCEPTS)


def listing(tools: Sequence[str]) -> pb.FilterToolsRequest:
    """Ask which tools may be called at all."""
    return pb.FilterToolsRequest(tools=[{"id": tool} for tool in tools], accepted_obligations=ACCEPTS)


def write_requests(path: Path, requests: Sequence[Message]) -> None:
    """Write requests, each after its length."""
    written = BytesIO()
    for request in requests:
        serialize_length_prefixed(request, written)
    path.write_bytes(written.getvalue())


def write_queries(path: Path, requests: Sequence[pb.AuthorizeRequest]) -> None:
    """Write what the sidecar asks OPA when it is asked this by the user of the first tenant, one query a line."""
    asker = Identity(Tenant(tenant_name(0)), Principal(_AGENT), Subject(_USER, _ROLES), scopes=_SCOPES)
    with path.open("wb") as file:
        for request in requests:
            question = translate.authorize_question(request, asker, translate.Limits())
            file.write(translate.single_query(question, new_decision_id(), now_microseconds(), POLICY) + b"\n")


def write_metadata(path: Path, token: str) -> None:
    """Write the metadata of calls that have one token."""
    path.write_text(json.dumps({"authorization": f"Bearer {token}"}))


class Stream:
    """Calls of many tenants, without end: tenant and tool by Zipf distributions, and arguments that each call has for itself."""

    def __init__(self, shapes: Sequence[Shape], tokens: Sequence[str]) -> None:
        self._random = random.Random(1)
        self._tokens = tokens
        self._tools = [tools_of(shape) for shape in shapes]
        self._tenant_weights = _zipf(len(tokens))
        self._tool_weights = _zipf(TOOLS)

    def write(self, requests: Path, tokens: Path, count: int) -> None:
        """Write the next calls."""
        draw = self._random
        tenants = draw.choices(range(len(self._tokens)), cum_weights=self._tenant_weights, k=count)
        tools = draw.choices(range(TOOLS), cum_weights=self._tool_weights, k=count)
        calls = [
            authorize(
                self._tools[tenant % SHAPES][tool], orderId=f"A-{draw.getrandbits(32)}", amount=draw.randrange(1000)
            )
            for tenant, tool in zip(tenants, tools, strict=True)
        ]
        write_requests(requests, calls)
        tokens.write_text("".join(f"{self._tokens[tenant]}\n" for tenant in tenants))


def _zipf(places: int) -> list[float]:
    return [*accumulate((place + 1) ** -SKEW for place in range(places))]
