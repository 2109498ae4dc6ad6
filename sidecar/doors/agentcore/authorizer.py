"""Who decides: the sidecar, asked over gRPC. Anything but a decision of its own is a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import grpc
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct as PbStruct
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sidecar.doors.grpc_calls import DECISION_ID_KEY, DOMAIN, REQUEST_ID_KEY
from sidecar.doors.verdicts import Allowed, Kind, Refusal
from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import authorization_service_pb2_grpc as pb_grpc
from sidecar.gen.tenantgate.v1 import decision_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sidecar.doors.agentcore.callers import Caller
    from sidecar.doors.verdicts import Asked
    from sidecar.model import Json


class Authorizer(Protocol):
    """What decides for the door."""

    def call(self, caller: Caller, asked: Asked) -> Allowed | Refusal:
        """Decide whether a resource may be used."""

    def filter(self, caller: Caller, resource_type: str, action: str, ids: Sequence[str]) -> frozenset[str] | Refusal:
        """Give those of some resources that may be used at all, whatever the arguments are or if they are right."""


_OPTIONS = (
    # A sidecar that restarts is back in a moment; gRPC would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # The sidecar is on this host, and tokens are nothing for a proxy.
    ("grpc.enable_http_proxy", 0),
)

_KINDS: dict[grpc.StatusCode, Kind] = {
    grpc.StatusCode.UNAUTHENTICATED: "UNAUTHENTICATED",
    grpc.StatusCode.INVALID_ARGUMENT: "MALFORMED",
}
"""Errors that the caller can mend. All others are that there is no decision."""

_USABLE = {pb.TOOL_STATE_ALLOWED, pb.TOOL_STATE_CONDITIONAL}

_ANSWER_MALFORMED = Refusal("NO_DECISION", "ANSWER_MALFORMED", "the sidecar's answer is no decision")


class SidecarAuthorizer:
    """Asks the sidecar at an address, ``unix:PATH`` or HOST:PORT.

    ``timeout`` is in seconds; ``items`` is the most that the sidecar takes in one list (``limits.batch_items``).
    """

    def __init__(self, address: str, timeout: float, items: int) -> None:
        self._timeout = timeout
        self._items = items
        self._channel = grpc.insecure_channel(address, _OPTIONS)
        self._stub = pb_grpc.AuthorizationServiceStub(self._channel)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def call(self, caller: Caller, asked: Asked) -> Allowed | Refusal:
        """Decide whether a resource may be used."""
        try:
            request = pb.AuthorizeRequest(
                resource={"type": asked.resource_type, "id": asked.resource_id},
                action={"name": asked.action},
                arguments=_struct(asked.arguments),
                context=_struct(caller.context),
            )
        except (json_format.ParseError, ValueError, TypeError, OverflowError, RecursionError):
            return Refusal(
                "MALFORMED",
                "REQUEST_INVALID",
                "the arguments hold a number, a text or a nesting that cannot be carried",
            )
        response = self._ask(self._stub.Authorize, request, caller)
        return response if isinstance(response, Refusal) else _read(response.decision)

    def filter(self, caller: Caller, resource_type: str, action: str, ids: Sequence[str]) -> frozenset[str] | Refusal:
        """Give those of some resources that may be used at all, whatever the arguments are or if they are right."""
        usable: set[str] = set()
        for some in _parts(ids, self._items):
            request = pb.FilterToolsRequest(
                tools=[decision_pb2.Resource(type=resource_type, id=resource_id) for resource_id in some],
                action={"name": action},
                context=_struct(caller.context),
            )
            response = self._ask(self._stub.FilterTools, request, caller)
            if isinstance(response, Refusal):
                return response
            if [tool.id for tool in response.tools] != some:
                return _ANSWER_MALFORMED
            usable |= {tool.id for tool in response.tools if tool.state in _USABLE and not tool.HasField("error")}
        return frozenset(usable)

    def _ask(self, method: Any, request: Any, caller: Caller) -> Any:
        metadata = [("authorization", f"Bearer {caller.token}"), *caller.tenants, *caller.trace]
        if caller.request_id:
            metadata.append((REQUEST_ID_KEY, caller.request_id))
        try:
            return method(request, timeout=self._timeout, metadata=metadata)
        except grpc.RpcError as fault:
            return _no_decision(fault)


def _struct(fields: dict[str, Json]) -> PbStruct:
    return json_format.ParseDict(fields, PbStruct())


def _parts(ids: Sequence[str], most: int) -> Iterator[list[str]]:
    for begin in range(0, len(ids), most):
        yield [*ids[begin : begin + most]]


def _read(decision: decision_pb2.Decision) -> Allowed | Refusal:
    code = decision_pb2.DecisionCode.Name(decision.code).removeprefix("DECISION_CODE_")
    if decision.effect == decision_pb2.EFFECT_DENY:
        return Refusal("DENIED", code, f"Access denied: {decision.reason}", decision.decision_id)
    # an obligation would be one that nobody said could be carried out here
    if decision.effect == decision_pb2.EFFECT_ALLOW and code == "ALLOWED" and not decision.obligations:
        return Allowed(decision.tenant_id, decision.decision_id)
    return _ANSWER_MALFORMED


def _no_decision(fault: Any) -> Refusal:
    decision_id = next((value for key, value in fault.trailing_metadata() or () if key == DECISION_ID_KEY), "")
    status = rpc_status.from_call(fault)
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            # the sidecar's own sentences are meant for its callers
            return Refusal(_KINDS.get(fault.code(), "NO_DECISION"), info.reason, fault.details() or "", decision_id)
    code = fault.code().name
    return Refusal("NO_DECISION", code, "the sidecar does not answer as it should; no decision was made", decision_id)
