"""An MCP server over stdio whose tools ask before they run, in plain Python.

It works for the one user whose token it is started with: what it lists are that user's tools, and each call is decided with its
arguments. A denial is a result that the model can read, not an error that ends its turn. With `make run` in another terminal::

    .venv/bin/python examples/agents/mcp_server.py <<< '{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}'

Messages are lines of JSON-RPC: https://modelcontextprotocol.io/specification/2025-06-18/basic/transports#stdio
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from sidecar.identity.development import AUDIENCE, ISSUER
from sidecar.identity.tokens import TokenVerifier
from sidecar.settings import IdentitySettings, Issuer
from sidecar.telemetry import configure_logs
from sidecar.tenancy import (
    AuthorizationClient,
    NoDecisionError,
    TenantContext,
    ToolDeniedError,
    authorized_tool,
    current,
    use,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--address", default="unix:.tenantgate/tenantgate.sock", help="the sidecar")
parser.add_argument("--token-file", default=".tenantgate/alice.jwt", type=Path, help="the token of the user")
parser.add_argument("--keys", default=".tenantgate/issuer/jwks.json", help="the public keys of the issuer of the token")
options = parser.parse_args()

client = AuthorizationClient(options.address)

# ── the tools ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@authorized_tool("agent:tool:order-lookup", client=client)
def order_lookup(order_id: str) -> str:
    """Look up an order."""
    return f"order {order_id} of {current().tenant_id}: shipped"


@authorized_tool("agent:tool:refund-create", client=client)
def refund_create(order_id: str, amount: float) -> str:
    """Refund an order."""
    return f"refunded {amount} for order {order_id} of {current().tenant_id}"


@authorized_tool("agent:tool:admin-refund", client=client)
def admin_refund(order_id: str) -> str:
    """Refund an order without approval."""
    return f"refunded all of order {order_id} of {current().tenant_id}"


TOOLS: dict[str, Callable[..., str]] = {
    "agent:tool:order-lookup": order_lookup,
    "agent:tool:refund-create": refund_create,
    "agent:tool:admin-refund": admin_refund,
}

# ── the protocol ────────────────────────────────────────────────────────────────────────────────────────────────────────

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND, INVALID_PARAMS = -32700, -32600, -32601, -32602


class ProtocolError(Exception):
    """Raised when a request is none that this server can answer."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def initialize(_: dict[str, Any]) -> dict[str, Any]:
    """Say what this server is."""
    server = {"name": "orders", "version": "1"}
    return {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": server}


def list_tools(_: dict[str, Any]) -> dict[str, Any]:
    """List what the user may call at all, at least with some arguments."""
    listed = [TOOLS[tool.id] for tool in client.filter_tools(TOOLS) if tool.state != "DENIED"]
    return {
        "tools": [{"name": tool.__name__, "description": tool.__doc__, "inputSchema": schema(tool)} for tool in listed]
    }


def call_tool(params: dict[str, Any]) -> dict[str, Any]:
    """Call a tool, or say in words for the model why not."""
    by_name = {tool.__name__: tool for tool in TOOLS.values()}
    tool, arguments = by_name.get(params.get("name", "")), params.get("arguments", {})
    if tool is None:
        raise ProtocolError(INVALID_PARAMS, f"there is no tool {params.get('name')!r}")
    try:
        inspect.signature(tool).bind(**arguments)
    except TypeError as fault:
        raise ProtocolError(INVALID_PARAMS, str(fault)) from fault
    try:
        return {"content": [{"type": "text", "text": tool(**arguments)}], "isError": False}
    except ToolDeniedError as denied:
        return {"content": [{"type": "text", "text": str(denied)}], "isError": True}
    except NoDecisionError as fault:
        print(fault, file=sys.stderr)
        return {"content": [{"type": "text", "text": "The tool was not called: ask again later"}], "isError": True}


METHODS = {"initialize": initialize, "ping": lambda _: {}, "tools/list": list_tools, "tools/call": call_tool}


def schema(tool: Callable[..., Any]) -> dict[str, Any]:
    """Give the JSON Schema of a tool's arguments: the decorator leaves its parameters and types as they were written."""
    words = {str: "string", float: "number", int: "integer", bool: "boolean"}
    types = get_type_hints(tool)
    parameters = inspect.signature(tool).parameters.values()
    return {
        "type": "object",
        "properties": {parameter.name: {"type": words[types[parameter.name]]} for parameter in parameters},
        "required": [parameter.name for parameter in parameters if parameter.default is parameter.empty],
    }


def answer(line: str) -> dict[str, Any] | None:
    """Answer one message; a notification has no answer."""
    try:
        message = json.loads(line)
    except ValueError as fault:
        return failure(None, ProtocolError(PARSE_ERROR, str(fault)))
    if not isinstance(message, dict):
        return failure(None, ProtocolError(INVALID_REQUEST, "a message is an object"))
    if "id" not in message:
        return None
    try:
        return {"jsonrpc": "2.0", "id": message["id"], "result": respond(message)}
    except ProtocolError as fault:
        return failure(message["id"], fault)


def respond(message: dict[str, Any]) -> dict[str, Any]:
    """Give the result of a request."""
    method = METHODS.get(message.get("method", ""))
    if method is None:
        raise ProtocolError(METHOD_NOT_FOUND, f"there is no method {message.get('method')!r}")
    return method(message.get("params", {}))


def failure(request_id: Any, fault: ProtocolError) -> dict[str, Any]:
    """Say what is wrong with a request."""
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": fault.code, "message": str(fault)}}


def answers() -> Iterator[dict[str, Any]]:
    """Answer what comes, in the name of the user."""
    configure_logs("warning", "text")  # on standard error: standard output is the protocol's
    issuer = Issuer(issuer=ISSUER, audiences=(AUDIENCE,), jwks=options.keys)
    verifier = TokenVerifier(IdentitySettings(issuers=(issuer,)))
    context = TenantContext.of(verifier.verify(options.token_file.read_text().strip()))
    for line in sys.stdin:
        with use(context):
            told = answer(line)
        if told is not None:
            yield told


if __name__ == "__main__":
    for told in answers():
        print(json.dumps(told), flush=True)
