"""Events of an AgentCore Gateway, written shortly, and AWS's contract for what is answered to them."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import UNSET, Meta, Struct, UnsetType

FOLDER = Path(__file__).parent.parent / "cases" / "agentcore"
REGISTRY = "registry"
HEADERS = {"Accept": "application/json", "Authorization": "Bearer $alice", "Mcp-Session-Id": "session-1"}
_DECISION_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")

# ── AWS's contract: https://docs.aws.amazon.com/bedrock-agentcore/latest/devguide/gateway-interceptors-types.html ───────────

_Status = Annotated[int, Meta(ge=100, le=599)]


class _Strict(Struct, forbid_unknown_fields=True, rename="camel"):
    pass


class McpRequest(_Strict):
    body: dict[str, Any]
    headers: dict[str, str] | UnsetType = UNSET


class McpResponse(_Strict):
    body: Any
    status_code: _Status | UnsetType = UNSET


class Mcp(_Strict):
    transformed_gateway_request: McpRequest | UnsetType = UNSET
    transformed_gateway_response: McpResponse | UnsetType = UNSET


class HttpRequest(_Strict):
    headers: dict[str, str] | UnsetType = UNSET
    body: str | UnsetType = UNSET


class HttpResponse(_Strict):
    content_type: str
    status_code: _Status
    body: str


class Http(_Strict):
    transformed_gateway_request: HttpRequest | UnsetType = UNSET
    transformed_gateway_response: HttpResponse | UnsetType = UNSET


class Output(_Strict):
    """What an interceptor may answer."""

    interceptor_output_version: Literal["1.0"]
    mcp: Mcp | UnsetType = UNSET
    http: Http | UnsetType = UNSET

    @property
    def goes_on(self) -> bool:
        """Tell whether a request goes on: with a response, it does not."""
        there = [part for part in (self.mcp, self.http) if part is not UNSET]
        return all(part.transformed_gateway_response is UNSET for part in there)


def checked(output: Any) -> Output:
    """Hold an output against the contract, as the gateway reads it: from JSON."""
    read = msgspec.json.decode(json.dumps(output), type=Output)
    parts = [part for part in (read.mcp, read.http) if part is not UNSET]
    assert parts, "an output is for a protocol"
    for part in parts:
        both = part.transformed_gateway_request is not UNSET and part.transformed_gateway_response is not UNSET
        assert not both, "a request goes on or is answered, not both"
    if read.mcp is not UNSET:
        assert read.mcp != Mcp(), "only HTTP has a pass-through without content"
    if read.http is not UNSET and read.http.transformed_gateway_response is not UNSET:
        json.loads(base64.b64decode(read.http.transformed_gateway_response.body, validate=True))
    return read


# ── events and cases ────────────────────────────────────────────────────────────────────────────────────────────────────


def mcp_request(body: Any, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """Make the event of a message on its way to a target."""
    request = {
        "path": "/mcp",
        "httpMethod": "POST",
        **({"headers": headers} if headers is not None else {}),
        "body": body,
    }
    raw = {"body": json.dumps(body)}
    return {"interceptorInputVersion": "1.0", "mcp": {"rawGatewayRequest": raw, "gatewayRequest": request}}


def mcp_response(
    event: dict[str, Any], body: Any, status: int | None = 200, *, streaming: bool = False
) -> dict[str, Any]:
    """Make the event of the answer to a message, from that of the message."""
    response: dict[str, Any] = {"body": body}
    if status is not None:
        response |= {"statusCode": status, "headers": {"Content-Type": "application/json"}}
    if streaming:
        response["isStreamingResponse"] = True
    return {**event, "mcp": {**event["mcp"], "gatewayResponse": response}}


def http_request(path: str, body: Any = UNSET, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """Make the event of a call over HTTP. A body that is no text is written as JSON."""
    request: dict[str, Any] = {"path": path, "httpMethod": "POST"}
    if headers is not None:
        request["headers"] = headers
    if body is not UNSET:
        text = body if isinstance(body, str) else json.dumps(body)
        request["body"] = base64.b64encode(text.encode()).decode()
    return {"interceptorInputVersion": "1.0", "http": {"gatewayRequest": request}}


def tool_call(name: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    """Make the message that calls a tool."""
    params = {"name": name, **({"arguments": arguments} if arguments is not None else {})}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


def lambda_context(custom: dict[str, str]) -> Any:
    """Make what AWS Lambda gives beside an event, with what the gateway says in it."""
    return SimpleNamespace(client_context=SimpleNamespace(custom=custom))


@dataclass(frozen=True)
class Case:
    """One event, and the output that is expected."""

    file: str
    name: str
    flags: tuple[str, ...]
    event: Any
    context: Any
    output: Any


def load_cases(tokens: dict[str, str]) -> list[Case]:
    """Read all cases; ``tokens`` are those that ``$name`` stands for."""
    return [_case(path.stem, content, case, tokens) for path, content in _files() for case in content["cases"]]


def case_names() -> list[tuple[str, str]]:
    """List the cases, without tokens."""
    return [(path.stem, case["name"]) for path, content in _files() for case in content["cases"]]


def registry() -> list[dict[str, Any]]:
    """Give the items that the cases are about."""
    items: list[dict[str, Any]] = yaml.safe_load((FOLDER / f"{REGISTRY}.yaml").read_text())
    return items


def masked(output: Any) -> Any:
    """Put ``<id>`` in place of the ids of decisions, and JSON in place of bodies in base64."""
    plain = json.loads(_DECISION_ID.sub("<id>", json.dumps(output)))
    answer = plain.get("http", {}).get("transformedGatewayResponse")
    if answer:
        answer["body"] = json.loads(_DECISION_ID.sub("<id>", base64.b64decode(answer["body"]).decode()))
    return plain


def _files() -> list[tuple[Path, Any]]:
    paths = [path for path in sorted(FOLDER.glob("*.yaml")) if path.stem != REGISTRY]
    return [(path, yaml.safe_load(path.read_text())) for path in paths]


def _case(file: str, content: dict[str, Any], case: dict[str, Any], tokens: dict[str, str]) -> Case:
    def filled(text: Any) -> Any:
        return json.loads(re.sub(r"\$(\w+)", lambda name: tokens[name[1]], json.dumps(text)))

    flags = tuple(f"{name}={json.dumps(value)}" for name, value in content.get("settings", {}).items())
    headers = filled(case.get("headers", HEADERS))
    event = _event(case, headers) if "event" not in case else filled(case["event"])
    output = _output(case, event, headers, filled)
    return Case(file, case["name"], flags, event, lambda_context(case.get("custom", {})), output)


def _event(case: dict[str, Any], headers: Any) -> dict[str, Any]:
    if "request" in case:
        return mcp_request(case["request"], headers)
    if "call" in case:
        call = case["call"]
        return http_request(call["path"], call.get("body", UNSET), headers)
    request = mcp_request(case["to"], headers)
    return mcp_response(request, case["response"], case.get("status", 200), streaming=case.get("streaming", False))


def _output(case: dict[str, Any], event: Any, headers: Any, filled: Any) -> Any:
    if "output" in case:
        return case["output"]
    protocol = "mcp" if "mcp" in event else "http"
    content: dict[str, Any]
    if "answers" in case:
        content = {"transformedGatewayResponse": case["answers"]}
    elif "passes" in case or "goes_with" in case:
        told = {"x-tenant-id": case["passes"]} if case.get("passes") else {}
        goes_with = filled(case["goes_with"]) if "goes_with" in case else None if headers is None else headers | told
        asked = event[protocol]["gatewayRequest"]
        content = {name: asked[name] for name in ("body",) if name in asked}
        content = {"transformedGatewayRequest": content | ({"headers": goes_with} if goes_with is not None else {})}
    else:
        given = event["mcp"]["gatewayResponse"]
        content = {name: given[name] for name in ("statusCode", "body") if name in given}
        content = {"transformedGatewayResponse": content | ({"body": case["becomes"]} if "becomes" in case else {})}
    return {"interceptorOutputVersion": "1.0", protocol: content}
