"""What the gateway hands over, read: any JSON becomes one of five events, and none an exception.

The shapes are those of
https://docs.aws.amazon.com/bedrock-agentcore/latest/devguide/gateway-interceptors-types.html: a message of MCP comes parsed, the
body of a call over HTTP in base64, and a response is there once there is one.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from sidecar.model import Json

VERSION = "1.0"

Headers: TypeAlias = dict[str, str]

Protocol = Literal["mcp", "http"]
PROTOCOLS: tuple[Protocol, ...] = ("mcp", "http")


class McpRequest(Struct, frozen=True):
    """A client's message on its way to a target. ``headers`` is None where the gateway does not pass them."""

    headers: Headers | None
    body: Json


class McpResponse(Struct, frozen=True):
    """A message on its way back: the answer to ``request``, or one event of a stream.

    ``headers`` are those of the request; ``status`` is None in the events of a stream after the first.
    """

    headers: Headers | None
    request: Json
    status: int | None
    body: Json


class HttpRequest(Struct, frozen=True):
    """A call on its way to a target. ``body`` is in base64, and None where there is none."""

    headers: Headers | None
    path: str
    body: str | None


class HttpResponse(Struct, frozen=True):
    """What a target answered to a call. The gateway does not say who called."""


class NotUnderstood(Struct, frozen=True):
    """Anything else. ``protocols`` are those that it claims to be of."""

    protocols: tuple[Protocol, ...]
    fault: str


Event: TypeAlias = McpRequest | McpResponse | HttpRequest | HttpResponse | NotUnderstood


class _Shape(Struct, rename="camel"):
    """What AWS may add to a shape is left alone."""


class _McpGatewayRequest(_Shape):
    headers: Headers | None = None
    body: Any = None


class _McpGatewayResponse(_Shape):
    status_code: int | None = None
    is_streaming_response: bool | None = None
    body: Any = msgspec.field(default_factory=dict)


class _Mcp(_Shape):
    gateway_request: _McpGatewayRequest | None = None
    gateway_response: _McpGatewayResponse | None = None


class _HttpGatewayRequest(_Shape):
    path: str
    headers: Headers | None = None
    body: str | None = None


class _Http(_Shape):
    gateway_request: _HttpGatewayRequest | None = None
    gateway_response: dict[str, Any] | None = None


def read(event: Json) -> Event:
    """Read an event. What is not of a documented shape is ``NotUnderstood``, and must not pass."""
    fields = event if isinstance(event, dict) else {}
    there = tuple(protocol for protocol in PROTOCOLS if fields.get(protocol) is not None)
    protocols: tuple[Protocol, ...] = there or ("mcp",)
    if len(there) != 1:
        return NotUnderstood(protocols, f"it must have one of mcp and http, and has {' and '.join(there) or 'neither'}")
    if fields.get("interceptorInputVersion") != VERSION:
        return NotUnderstood(protocols, f"interceptorInputVersion: must be {VERSION}")
    try:
        found = _read_mcp(fields["mcp"]) if there == ("mcp",) else _read_http(fields["http"])
    except msgspec.ValidationError as fault:
        return NotUnderstood(protocols, f"{there[0]}: {fault}")
    return found or NotUnderstood(protocols, f"{there[0]}: has neither a request nor a response")


def _read_mcp(shape: Json) -> McpRequest | McpResponse | None:
    read = msgspec.convert(shape, _Mcp)
    request, response = read.gateway_request, read.gateway_response
    if response is not None:
        status = response.status_code
        if status is None and not response.is_streaming_response:
            status = 200
        headers, asked = (request.headers, request.body) if request is not None else (None, None)
        return McpResponse(headers, asked, status, response.body)
    return McpRequest(request.headers, request.body) if request is not None else None


def _read_http(shape: Json) -> HttpRequest | HttpResponse | None:
    read = msgspec.convert(shape, _Http)
    request = read.gateway_request
    if read.gateway_response is not None:
        return HttpResponse()
    return HttpRequest(request.headers, request.path, request.body) if request is not None else None


def header_values(headers: Headers, name: str) -> list[str]:
    """List the values of a header. Names are compared without regard to case; ``name`` is in lower case."""
    return [value for key, value in headers.items() if key.lower() == name]
