"""Whatever the gateway hands over: no exception, an answer of AWS's shape, and nothing passes that was not allowed."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.doors.agentcore.door import Door
from sidecar.doors.verdicts import Allowed, Refusal
from sidecar.settings import Settings
from tests.support.agentcore import checked, http_request, mcp_request, mcp_response, tool_call

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.doors.agentcore.callers import Caller
    from sidecar.doors.verdicts import Asked

SEARCH = "x_amz_bedrock_agentcore_search"
PASSING = {
    "initialize",
    "server/discover",
    "ping",
    "logging/setLevel",
    "notifications/initialized",
    "notifications/cancelled",
    "notifications/progress",
    "notifications/roots/list_changed",
    "tools/list",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
}
ASKING = {
    "tools/call": ("TOOL", "invoke", "name"),
    "prompts/get": ("PROMPT", "get", "name"),
    "resources/read": ("MCP_RESOURCE", "read", "uri"),
    "resources/subscribe": ("MCP_RESOURCE", "subscribe", "uri"),
    "resources/unsubscribe": ("MCP_RESOURCE", "unsubscribe", "uri"),
}
LISTS = {"tools": "name", "prompts": "name", "resources": "uri", "resourceTemplates": "uriTemplate"}
GOOD = "orders___good"
NAMES = [
    GOOD,
    "orders___bad",
    "other___good",
    "orders__good",
    "good",
    "___good",
    SEARCH,
    "orders___",
    "file:///good",
    "file:///{bad}",
]


@dataclass
class Recording:
    """Allows what is good, by its id, and writes down what it allowed."""

    allowed: set[tuple[str, str, str, str]] = field(default_factory=set)

    def call(self, _caller: Caller, asked: Asked) -> Allowed | Refusal:
        """Decide by the id."""
        if "good" not in asked.resource_id:
            return Refusal("DENIED", "NO_MATCHING_RULE", "Access denied: no", "id")
        arguments = json.dumps(asked.arguments, sort_keys=True)
        self.allowed.add((asked.resource_type, asked.resource_id, asked.action, arguments))
        return Allowed("acme", "id")

    def filter(self, _caller: Caller, _type: str, _action: str, ids: Sequence[str]) -> frozenset[str]:
        """Decide by the id."""
        return frozenset(resource_id for resource_id in ids if "good" in resource_id)


# ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

texts = (
    st.sampled_from([*NAMES, *PASSING, *ASKING, "2.0", "1.0", "acme", "", "x"])
    | st.text(max_size=8)
    | st.just("\ud800")
)
scalars = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | texts
keys = st.sampled_from(
    [
        *("jsonrpc", "id", "method", "params", "name", "uri", "arguments", "result", "error", "isError", "content"),
        *("structuredContent", "text", "type", "tools", "prompts", "resources", "resourceTemplates", "uriTemplate"),
        *("mcp", "http", "gatewayRequest", "gatewayResponse", "body", "headers", "path", "statusCode"),
        *("isStreamingResponse", "interceptorInputVersion", "Authorization", "x-tenant-id"),
    ]
) | st.text(max_size=4)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=20,
)
objects = st.dictionaries(keys, anything, max_size=5)


@st.composite
def either(draw: st.DrawFn, likely: st.SearchStrategy[Any], other: st.SearchStrategy[Any]) -> Any:
    """Draw what is nearly right three times out of four, however many branches there are in the other."""
    return draw(likely if draw(st.integers(0, 3)) else other)


header_names = st.sampled_from(["Authorization", "authorization", "X-Tenant-Id", "x-tenant-id", "Other"])
headers = either(
    st.fixed_dictionaries(
        {"Authorization": st.just("Bearer a.b.c")},
        optional={"X-Tenant-Id": texts, "x-tenant-id": texts, "Other": texts},
    ),
    st.none() | st.dictionaries(header_names, texts, max_size=4),
)
names = either(st.sampled_from(NAMES), texts)
params = either(
    st.fixed_dictionaries({"name": names, "uri": names}, optional={"arguments": either(objects, anything)}), objects
)
methods = either(st.sampled_from([*PASSING, *ASKING, *ASKING]), texts)
messages = either(
    st.fixed_dictionaries({"jsonrpc": st.just("2.0"), "id": st.integers(), "method": methods, "params": params})
    | st.fixed_dictionaries({"jsonrpc": st.just("2.0"), "method": methods}),
    anything | objects,
)
entry = either(names.map(lambda name: {"name": name, "uri": name, "uriTemplate": name}), anything)
entries = st.lists(entry, max_size=4)
tools = either(entries.map(lambda found: {"tools": found}), anything)
block = either(tools.map(lambda found: {"type": "text", "text": json.dumps(found)}), anything)
results = either(
    st.dictionaries(st.sampled_from([*LISTS, "nextCursor"]), either(entries, anything), max_size=3)
    | st.fixed_dictionaries({}, optional={"structuredContent": tools, "content": st.lists(block, max_size=3)}),
    anything | objects,
)
answers = either(
    results.map(lambda result: {"jsonrpc": "2.0", "id": 1, "result": result}),
    either(messages, results.map(lambda result: [{"jsonrpc": "2.0", "id": 1, "result": result}]) | anything),
)
bodies = either(objects.map(json.dumps), st.text(max_size=8).filter(str.isascii))
paths = either(
    st.sampled_from(["/good/invocations", "/bad/invocations"]),
    st.sampled_from(["/good", "/good/invocations/", "/a/good/invocations", "/go%6Fd/invocations"]) | texts,
)
listings = st.sampled_from(["tools/list", "prompts/list", "resources/list", "resources/templates/list", "ping"])
asked = either(
    listings.map(lambda method: {"jsonrpc": "2.0", "id": 1, "method": method})
    | st.just(tool_call(SEARCH, {"query": "q"})),
    messages,
)

requests = st.builds(mcp_request, messages, headers)
responses = st.builds(
    mcp_response,
    st.builds(mcp_request, asked, headers),
    answers,
    st.sampled_from([None, 200, 202, 500]),
    streaming=st.booleans(),
)
calls = st.builds(http_request, paths, bodies, headers)


def broken(event: dict[str, Any], path: list[str], value: Any) -> Any:
    """Put a value somewhere into an event, as far as the path leads."""
    event = json.loads(json.dumps(event))
    part: Any = event
    for step in path[:-1]:
        if not isinstance(part, dict) or not isinstance(part.get(step), dict):
            break
        part = part[step]
    if isinstance(part, dict):
        part[path[-1]] = value
    return event


steps = st.lists(keys, min_size=1, max_size=4)
events = st.one_of(
    anything, requests, responses, calls, st.builds(broken, requests | responses | calls, steps, anything)
)


def answered(event: Any) -> tuple[Any, Recording]:
    """Hand an event to a door that allows what is good."""
    authorizer = Recording()
    door = Door(Settings().agentcore, Settings().identity.tenant_headers, authorizer)
    return door.answer(event), authorizer


# ── what is promised ────────────────────────────────────────────────────────────────────────────────────────────────────


@given(events)
@settings(max_examples=500)
@example(mcp_request({"jsonrpc": "2.0", "id": 10**400, "method": "tools/call"}, {"Authorization": "Bearer a"}))
@example(mcp_request(tool_call(GOOD, {"\ud800": 1}), {"Authorization": "Bearer a"}))
def test_every_event_has_an_answer_of_the_documented_shape(event: Any) -> None:
    before = repr(event)

    output, _ = answered(event)

    checked(output)
    assert repr(event) == before


@given(requests)
@settings(max_examples=500)
def test_a_message_goes_on_only_if_it_passes_by_the_table_or_was_allowed(event: Any) -> None:
    output, authorizer = answered(event)
    if not checked(output).goes_on:
        return

    message = event["mcp"]["gatewayRequest"]["body"]
    assert output["mcp"]["transformedGatewayRequest"]["body"] == message
    assert message["jsonrpc"] == "2.0"
    if "method" not in message:
        assert ("result" in message) != ("error" in message)
        return
    method = message["method"]
    assert ("id" in message) != method.startswith("notifications/")
    told = output["mcp"]["transformedGatewayRequest"].get("headers", {})
    tenants = {value for name, value in told.items() if name.lower() == "x-tenant-id"}
    if method in PASSING:
        assert tenants == set()
        assert authorizer.allowed == set()
        return
    resource_type, action, parameter = ASKING[method]
    name = message["params"][parameter]
    resource_id = f"agent:tool:{name.partition('___')[2] or name}" if method == "tools/call" else name
    arguments = json.dumps(message["params"].get("arguments") or {}, sort_keys=True)
    assert authorizer.allowed == {(resource_type, resource_id, action, arguments)}
    assert tenants == {"acme"}


@given(calls)
@settings(max_examples=300)
def test_a_call_over_http_goes_on_only_if_it_was_allowed(event: Any) -> None:
    output, authorizer = answered(event)
    if not checked(output).goes_on:
        return

    request = event["http"]["gatewayRequest"]
    assert request["path"] == "/good/invocations"
    [(resource_type, resource_id, action, arguments)] = authorizer.allowed
    assert (resource_type, resource_id, action) == ("AGENT", "agent:runtime:good", "invoke")
    try:
        sent = json.loads(base64.b64decode(request["body"]))
    except ValueError:
        sent = {}
    assert json.loads(arguments) == (sent if isinstance(sent, dict) else {})
    assert output["http"]["transformedGatewayRequest"]["body"] == request["body"]


@given(responses)
@settings(max_examples=500)
def test_of_a_list_goes_on_only_what_was_allowed(event: Any) -> None:
    output, _ = answered(event)
    checked(output)

    body = output["mcp"]["transformedGatewayResponse"]["body"]
    if isinstance(body, list):
        assert not any("tools" in (answer.get("result") or {}) for answer in body)
        return
    result = body.get("result") if isinstance(body, dict) else None
    if not isinstance(result, dict):
        return
    for key, name in LISTS.items():
        assert all("good" in listed[name] for listed in result.get(key, []))
    request = event["mcp"]["gatewayRequest"]["body"]
    if request == tool_call(SEARCH, {"query": "q"}):
        if result.get("isError") is True and "structuredContent" not in result:
            return
        found = [result.get("structuredContent") or []]
        found += [json.loads(block["text"]) for block in result.get("content") or []]
        for part in found:
            listed = part["tools"] if isinstance(part, dict) else part
            assert all("good" in tool["name"] for tool in listed)


@given(requests | responses | calls)
def test_an_event_that_comes_again_is_answered_again_in_the_same_way(event: Any) -> None:
    authorizer = Recording()
    door = Door(Settings().agentcore, Settings().identity.tenant_headers, authorizer)

    assert repr(door.answer(event)) == repr(door.answer(event))
