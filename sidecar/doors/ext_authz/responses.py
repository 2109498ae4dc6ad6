"""What Envoy is told, in its own message: https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/auth/v3/external_auth.proto.

A denial is always a ``denied_response``. An ``error_response``, or an error of gRPC, would let the request go on where the filter
has ``failure_mode_allow``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.auth.v3.external_auth_pb2 import CheckResponse
from google.rpc import code_pb2
from msgspec import UNSET, UnsetType

from sidecar.doors.grpc_calls import DECISION_ID_KEY
from sidecar.doors.jsonrpc import details, error, refused_message
from sidecar.doors.verdicts import NUMBERS, Kind, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sidecar.model import Json

NAMESPACE = "tenantgate"
"""Where the dynamic metadata stand, within Envoy's own ``envoy.filters.http.ext_authz``."""

_CODES: dict[Kind, int] = {
    "DENIED": code_pb2.PERMISSION_DENIED,
    "UNAUTHENTICATED": code_pb2.UNAUTHENTICATED,
    "MALFORMED": code_pb2.INVALID_ARGUMENT,
    "METHOD": code_pb2.PERMISSION_DENIED,
    "NO_DECISION": code_pb2.UNAVAILABLE,
}
_READ_BY_MODELS: set[Kind] = {"DENIED", "MALFORMED", "METHOD"}
"""What may be told with status 200: the others are for who runs the client, to get a token or to try again."""

_OK = 200
_STATUSES = {"HTTP_METHOD_DENIED": 405}
"""Statuses that clients of MCP know for themselves, by reason."""


def allowed(headers: Mapping[str, str], remove: Iterable[str], about: Mapping[str, Json]) -> CheckResponse:
    """Let a request go on with some headers in place of its own, and without others."""
    response = CheckResponse()
    response.status.code = code_pb2.OK
    response.ok_response.headers.extend(_header(name, value) for name, value in headers.items())
    response.ok_response.headers_to_remove.extend(remove)
    response.dynamic_metadata.update({NAMESPACE: about})
    return response


def denied(
    refusal: Refusal, message: Json | UnsetType, mcp_status: int, challenge: str, about: Mapping[str, Json]
) -> CheckResponse:
    """Answer in the upstream's place. ``message`` is the message of MCP that is refused; unset where the request is another."""
    status = _STATUSES.get(refusal.reason, NUMBERS[refusal.kind].status)
    body: Json = {"message": refusal.text, **details(refusal)}
    if message is not UNSET:
        answer = refused_message(message, refusal)
        if mcp_status == _OK and refusal.kind in _READ_BY_MODELS:
            status, body = answer["statusCode"], answer["body"]
        else:
            body = _as_errors(answer["body"], refusal)
    response = CheckResponse()
    response.status.code = _CODES[refusal.kind]
    response.status.message = refusal.reason
    response.denied_response.status.code = status
    response.denied_response.body = msgspec.json.encode(body).decode()
    headers = {"content-type": "application/json", DECISION_ID_KEY: refusal.decision_id}
    if challenge:
        headers["www-authenticate"] = challenge
    response.denied_response.headers.extend(_header(name, value) for name, value in headers.items())
    response.dynamic_metadata.update({NAMESPACE: {**about, "refused": refusal.reason}})
    return response


def _as_errors(answer: Json, refusal: Refusal) -> Json:
    """Put errors in place of results: clients that look into the body of an error look for one."""
    if isinstance(answer, list):
        return [_as_errors(entry, refusal) for entry in answer]
    return {name: value for name, value in answer.items() if name != "result"} | {"error": error(refusal)}


def _header(name: str, value: str) -> HeaderValueOption:
    return HeaderValueOption(
        header=HeaderValue(key=name, value=value), append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    )
