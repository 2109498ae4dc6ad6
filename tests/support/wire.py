"""Requests as callers write them, and errors as callers see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2_grpc
from grpc_status import rpc_status

from sidecar.gen.tenantgate.v1 import authorization_service_pb2 as pb
from sidecar.gen.tenantgate.v1 import decision_pb2, status_service_pb2
from sidecar.gen.tenantgate.v1.authorization_service_pb2_grpc import AuthorizationServiceStub
from sidecar.gen.tenantgate.v1.status_service_pb2_grpc import StatusServiceStub

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ORDER_LOOKUP = "agent:tool:order-lookup"
ADMIN_REFUND = "agent:tool:admin-refund"
REFUND_CREATE = "agent:tool:refund-create"
SCOPES = ("tools:read", "tools:write")
DEADLINE = 20.0
"""Seconds that a call may take in a test that is not about deadlines."""


def identity(
    tenant: str = "Tenant-A",
    *,
    principal: str = "agent:order-bot",
    subject: str = "alice",
    roles: Sequence[str] = (),
    scopes: Sequence[str] = SCOPES,
) -> decision_pb2.Identity:
    """Say who asks: by default alice of Tenant-A, through the order bot."""
    return decision_pb2.Identity(
        tenant_id=tenant,
        principal=decision_pb2.Principal(id=principal),
        subject=decision_pb2.Subject(id=subject, roles=roles),
        scopes=scopes,
    )


def resource(resource_id: str = ORDER_LOOKUP, resource_type: str = "TOOL") -> decision_pb2.Resource:
    """Say what is asked about: by default the tool that looks up orders."""
    return decision_pb2.Resource(type=resource_type, id=resource_id)


def question(resource_id: str = ORDER_LOOKUP, arguments: Any = None, **fields: Any) -> pb.AuthorizeRequest:
    """Ask about a tool. ``fields`` are further fields of the request, and override the others."""
    request = pb.AuthorizeRequest(**({"identity": identity(), "resource": resource(resource_id)} | fields))
    if isinstance(arguments, Struct):
        request.arguments.CopyFrom(arguments)
    elif arguments is not None:
        request.arguments.update(arguments)
    return request


def batch(*resource_ids: str, **fields: Any) -> pb.BatchAuthorizeRequest:
    """Ask about several tools at once."""
    items = [pb.BatchAuthorizeItem(resource=resource(resource_id)) for resource_id in resource_ids]
    given: dict[str, Any] = {"identity": identity(), "items": items} | fields
    return pb.BatchAuthorizeRequest(**given)


def tools(*resource_ids: str, **fields: Any) -> pb.FilterToolsRequest:
    """Ask which tools may be called at all."""
    listed = [decision_pb2.Resource(id=resource_id) for resource_id in resource_ids]
    given: dict[str, Any] = {"identity": identity(), "tools": listed} | fields
    return pb.FilterToolsRequest(**given)


def authorize(
    channel: grpc.Channel, request: pb.AuthorizeRequest | None = None, **options: Any
) -> decision_pb2.Decision:
    """Call Authorize, and give the decision."""
    stub = AuthorizationServiceStub(channel)
    response: pb.AuthorizeResponse = stub.Authorize(request or question(), **({"timeout": DEADLINE} | options))
    return response.decision


def get_status(channel: grpc.Channel) -> status_service_pb2.Status:
    """Call GetStatus."""
    request = status_service_pb2.GetStatusRequest()
    response: status_service_pb2.GetStatusResponse = StatusServiceStub(channel).GetStatus(request, timeout=DEADLINE)
    return response.status


def health(channel: grpc.Channel) -> Any:
    """Give the stub of ``grpc.health.v1``, whose types do not tell its methods."""
    return health_pb2_grpc.HealthStub(channel)


def failure(call: Callable[[], Any]) -> grpc.RpcError:
    """Give the error that a call ends with; fail if it does not."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return error
    msg = f"answered, where an error was expected: {answer}"
    raise AssertionError(msg)


def error_info(error: Any) -> error_details_pb2.ErrorInfo:
    """Give the ErrorInfo of an error; an empty one if it has none."""
    return _detail(error, error_details_pb2.ErrorInfo())


def wrong_fields(error: Any) -> list[str]:
    """Give the fields that the BadRequest of an error names."""
    return [violation.field for violation in _detail(error, error_details_pb2.BadRequest()).field_violations]


def outcome(error: Any) -> tuple[grpc.StatusCode, str, str]:
    """Give the status, the reason and the domain of an error."""
    info = error_info(error)
    return error.code(), info.reason, info.domain


def _detail(error: Any, into: Any) -> Any:
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        if detail.Unpack(into):
            break
    return into
