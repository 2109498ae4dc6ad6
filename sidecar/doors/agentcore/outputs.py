"""What the interceptor answers, in the shapes that the gateway takes.

With a ``transformedGatewayRequest`` alone the request goes on; with a ``transformedGatewayResponse`` the gateway answers at once
(https://docs.aws.amazon.com/bedrock-agentcore/latest/devguide/gateway-interceptors-types.html). A refusal of a message of MCP has
the status 200, so that the agent's model can read it and its turn does not end in an error of transport.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from sidecar.doors.agentcore.events import (
    VERSION,
    Headers,
    HttpRequest,
    HttpResponse,
    McpRequest,
    McpResponse,
    NotUnderstood,
)
from sidecar.doors.jsonrpc import details, is_message_id, refused_message
from sidecar.doors.verdicts import NUMBERS, Refusal

if TYPE_CHECKING:
    from sidecar.doors.agentcore.events import Event
    from sidecar.model import Json

Output: TypeAlias = dict[str, Any]


def request_passed(event: McpRequest | HttpRequest, headers: Headers | None) -> Output:
    """Let a request go on as it was read, with other headers. ``headers`` is None where the gateway passed none."""
    protocol = "mcp" if isinstance(event, McpRequest) else "http"
    request: dict[str, Json] = {} if event.body is None else {"body": event.body}
    if headers is not None:
        request["headers"] = headers
    return _output(protocol, {"transformedGatewayRequest": request})


def response_passed(event: McpResponse | HttpResponse, body: Json = None) -> Output:
    """Let a response go on: one over HTTP as it is, one of MCP with a body."""
    if isinstance(event, HttpResponse):
        return _output("http", {})
    return _output("mcp", {"transformedGatewayResponse": _mcp_response(event.status, body)})


def refused(event: Event, refusal: Refusal) -> Output:
    """Answer in the target's place, whatever the event is."""
    match event:
        case McpRequest():
            return _output("mcp", {"transformedGatewayResponse": refused_message(event.body, refusal)})
        case McpResponse():
            response = refused_message(_answered(event), refusal)
            if event.status is None:  # events of a stream after the first have a body alone
                del response["statusCode"]
            return _output("mcp", {"transformedGatewayResponse": response})
        case NotUnderstood():
            outputs = {"mcp": refused_message(None, refusal), "http": _refused_call(refusal)}
            return {
                "interceptorOutputVersion": VERSION,
                **{protocol: {"transformedGatewayResponse": outputs[protocol]} for protocol in event.protocols},
            }
        case _:
            return _output("http", {"transformedGatewayResponse": _refused_call(refusal)})


def _output(protocol: str, content: dict[str, Json]) -> Output:
    return {"interceptorOutputVersion": VERSION, protocol: content}


def _mcp_response(status: int | None, body: Json) -> dict[str, Json]:
    return {"body": body} if status is None else {"statusCode": status, "body": body}


def _answered(event: McpResponse) -> Json:
    """Give the message that a refusal of a response answers: the client's, if that can be told."""
    if isinstance(event.request, list) or (isinstance(event.request, dict) and is_message_id(event.request.get("id"))):
        return event.request
    return {"id": event.body.get("id")} if isinstance(event.body, dict) else None


def _refused_call(refusal: Refusal) -> dict[str, Json]:
    body = msgspec.json.encode({"message": refusal.text, **details(refusal)})
    return {
        "contentType": "application/json",
        "statusCode": NUMBERS[refusal.kind].status,
        "body": base64.b64encode(body).decode(),
    }
