"""What a message of MCP asks for, by a table of methods: pure functions.

The methods are those of the versions 2025-03-26 to 2026-07-28 of https://modelcontextprotocol.io/specification; a method that the
table does not have is denied. Tools have the names that the gateway gives them, ``TARGET___TOOL``.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from sidecar.doors.jsonrpc import is_message_id
from sidecar.doors.verdicts import Asked, Refusal
from sidecar.errors import SettingsError
from sidecar.model import id_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sidecar.model import Json


class Call(NamedTuple):
    """A method that uses one resource, which ``parameter`` names: whether it may is asked before it goes on."""

    resource_type: str
    action: str
    parameter: str


class Listing(NamedTuple):
    """A method that lists resources: of the answer, what the caller may not use is left out.

    The list stands at ``key`` of the result; ``field`` of an entry names the resource.
    """

    resource_type: str
    action: str
    key: str
    field: str


Treatment: TypeAlias = Call | Listing | Literal["PASS", "DENY"]

METHODS: dict[str, Treatment] = {
    "initialize": "PASS",
    "server/discover": "PASS",
    "ping": "PASS",
    "logging/setLevel": "PASS",
    "notifications/initialized": "PASS",
    "notifications/cancelled": "PASS",
    "notifications/progress": "PASS",
    "notifications/roots/list_changed": "PASS",
    "tools/call": Call("TOOL", "invoke", "name"),
    "prompts/get": Call("PROMPT", "get", "name"),
    "resources/read": Call("MCP_RESOURCE", "read", "uri"),
    "resources/subscribe": Call("MCP_RESOURCE", "subscribe", "uri"),
    "resources/unsubscribe": Call("MCP_RESOURCE", "unsubscribe", "uri"),
    "tools/list": Listing("TOOL", "invoke", "tools", "name"),
    "prompts/list": Listing("PROMPT", "get", "prompts", "name"),
    "resources/list": Listing("MCP_RESOURCE", "read", "resources", "uri"),
    "resources/templates/list": Listing("MCP_RESOURCE", "read", "resourceTemplates", "uriTemplate"),
    # Which values they complete, whose tasks they are about and what they subscribe to, no single resource says.
    "completion/complete": "DENY",
    "tasks/get": "DENY",
    "tasks/result": "DENY",
    "tasks/list": "DENY",
    "tasks/cancel": "DENY",
    "subscriptions/listen": "DENY",
}
"""What becomes of the requests and notifications of clients."""

SERVER_METHODS: dict[str, Literal["PASS", "DENY"]] = {
    "ping": "PASS",
    "roots/list": "PASS",
    "elicitation/create": "PASS",
    "sampling/createMessage": "PASS",
    "notifications/cancelled": "PASS",
    "notifications/progress": "PASS",
    "notifications/message": "PASS",
    "notifications/elicitation/complete": "PASS",
    "notifications/resources/updated": "PASS",
    "notifications/resources/list_changed": "PASS",
    "notifications/tools/list_changed": "PASS",
    "notifications/prompts/list_changed": "PASS",
}
"""What becomes of the requests and notifications of servers, during a call that was allowed."""

SEARCH = "x_amz_bedrock_agentcore_search"
"""The gateway's own tool, which lists tools that fit a question."""

LISTINGS = tuple(treatment for treatment in METHODS.values() if isinstance(treatment, Listing))
TOOLS = LISTINGS[0]

_TARGET = re.compile(r"[0-9A-Za-z-]+")  # ([0-9a-zA-Z][-]?){1,100} in the model of bedrock-agentcore-control
_DELIMITER = "___"

Keep: TypeAlias = "Callable[[Listing, list[Json]], list[Json]]"
"""What gives the entries of a list that stay in it."""


class Mcp:
    """Reads messages of MCP. ``overrides`` are those of the setting ``section.methods``.

    ``targets`` is whether tools have names of the form ``TARGET___TOOL``. Raises ``SettingsError`` if the overrides let something
    pass that nobody else would ask about.
    """

    def __init__(
        self,
        tool_template: str,
        overrides: Mapping[str, Literal["pass", "deny"]],
        *,
        section: str = "agentcore",
        targets: bool = True,
    ) -> None:
        self._tool_template = tool_template
        self._overrides = overrides
        self._targets = targets
        for name, word in overrides.items():
            if word == "pass" and isinstance(METHODS.get(name), Call | Listing):
                msg = f"{section}.methods: {name} cannot pass: what it uses or lists is what this door decides on"
                raise SettingsError(msg)

    def asked(self, body: Json) -> Asked | Refusal | None:
        """Say what a client's message asks for. None is for what passes without a question."""
        fault = _message_fault(body)
        if fault is not None:
            return _malformed(fault)
        if "method" not in body:
            return None  # the client's answer to a request of the server
        method, params = body["method"], body.get("params")
        treatment = self._treatment(method, params)
        if treatment == "DENY":
            return Refusal("METHOD", "METHOD_DENIED", "this method of MCP is not let through")
        if method.startswith("notifications/") == ("id" in body):
            return _malformed("id: must be there, and in notifications it must not")
        return self._asked(treatment, params) if isinstance(treatment, Call) else None

    def server_asks(self, method: Json) -> Refusal | None:
        """Say why a request or notification of a server does not go on to the client, if it does not."""
        treatment = self._overridden(method) or (SERVER_METHODS.get(method) if isinstance(method, str) else None)
        if treatment == "PASS":
            return None
        return Refusal("METHOD", "METHOD_DENIED", "the server asked something of its client that is not let through")

    def resource_id(self, listing: Listing, entry: Json) -> str | None:
        """Give the id of the resource that an entry of a list is about; None if it names none."""
        name = entry.get(listing.field) if isinstance(entry, dict) else None
        found = self._resource_id(listing.resource_type, name)
        return found if isinstance(found, str) else None

    def passes(self, listing: Listing, entry: Json) -> bool:
        """Tell whether an entry of a list is the search tool, where that passes without a question."""
        named = isinstance(entry, dict) and entry.get("name") == SEARCH
        return named and listing is TOOLS and self._overrides.get(SEARCH) == "pass"

    def rewrite(self, request: Json, result: Json, keep: Keep) -> Json | Refusal:
        """Give a result with what ``keep`` leaves of each list in it. ``request`` is the client's, None if it is not known."""
        asked = request if isinstance(request, dict) else {}
        method, params = asked.get("method"), asked.get("params")
        own = METHODS.get(method) if isinstance(method, str) else None
        lists = [listing for listing in LISTINGS if isinstance(result, dict) and listing.key in result]
        if isinstance(own, Listing) and own not in lists:
            return _LIST_NOT_UNDERSTOOD
        for listing in lists:
            if not isinstance(result[listing.key], list):
                return _LIST_NOT_UNDERSTOOD
            result = {**result, listing.key: keep(listing, result[listing.key])}
        searched = method == "tools/call" and isinstance(params, dict) and params.get("name") == SEARCH
        if searched or not isinstance(method, str):
            return _rewrite_search(result, keep, certain=searched)
        return result

    def _overridden(self, name: Json) -> Literal["PASS", "DENY"] | None:
        word = self._overrides.get(name) if isinstance(name, str) else None
        return None if word is None else "PASS" if word == "pass" else "DENY"

    def _treatment(self, method: Json, params: Json) -> Treatment:
        if not isinstance(method, str) or method == SEARCH:
            return "DENY"
        if method == "tools/call" and isinstance(params, dict) and params.get("name") == SEARCH:
            overridden = self._overridden(SEARCH)
            if overridden is not None:
                return overridden
        return self._overridden(method) or METHODS.get(method, "DENY")

    def _asked(self, call: Call, params: Json) -> Asked | Refusal:
        if not isinstance(params, dict):
            return _malformed("params: must be an object")
        read = {call.parameter, "arguments"}
        if any(name.casefold() in read for name in params.keys() - read):
            return _malformed("params: has a name that differs from one that is looked at in its case alone")
        found = self._resource_id(call.resource_type, params.get(call.parameter))
        if isinstance(found, Refusal):
            return _malformed(f"params.{call.parameter}: {found.message}")
        arguments = params.get("arguments")
        if arguments is not None and not isinstance(arguments, dict):
            return _malformed("params.arguments: must be an object")
        return Asked(call.resource_type, found, call.action, arguments or {})

    def _resource_id(self, resource_type: str, name: Json) -> str | Refusal:
        if not isinstance(name, str):
            return _malformed("must be a text")
        resource_id = name
        if resource_type == "TOOL":
            # names of targets have no underscores: the first ones end it
            before, delimiter, after = name.partition(_DELIMITER) if self._targets else (name, "", "")
            if delimiter and not (_TARGET.fullmatch(before) and after):
                return _malformed("is not of the form TARGET___TOOL")
            target, tool = (before, after) if delimiter else ("", name)
            resource_id = fill(self._tool_template, target=target, tool=tool)
        fault = id_fault(name) or id_fault(resource_id)
        return _malformed(fault) if fault else resource_id


def fill(template: str, **parts: str) -> str:
    """Put parts in the places that a template has for them, and nothing in the places that parts have."""
    return re.sub(r"\{(\w+)\}", lambda place: parts.get(place[1], place[0]), template)


def is_target(name: str) -> bool:
    """Tell whether a target can have such a name."""
    return _TARGET.fullmatch(name) is not None


def is_refusal(message: Json) -> bool:
    """Tell whether a message is an error, or the result of a tool that says it is one, and nothing else."""
    if not isinstance(message, dict):
        return False
    result = message.get("result")
    if "result" not in message:
        return "error" in message
    return (
        isinstance(result, dict) and result.get("isError") is True and {*result} <= {"content", "isError", "resultType"}
    )


_LIST_NOT_UNDERSTOOD = Refusal(
    "NO_DECISION", "LIST_NOT_UNDERSTOOD", "the list has a form that is not known, so it could not be filtered"
)


# What else there is might be one of these to a reader that does not mind case.
_MEMBERS = {"jsonrpc", "id", "method", "params", "result", "error"}


def _message_fault(body: Json) -> str | None:
    """Say what keeps a body from being one message of a client, if anything."""
    if isinstance(body, list):
        return "a batch is refused whole; send its messages one by one"
    if not isinstance(body, dict) or body.get("jsonrpc") != "2.0":
        return "the body is not a message of JSON-RPC 2.0"
    if not {*body} <= _MEMBERS:
        return "the body has members that messages of JSON-RPC do not have"
    if "id" in body and not is_message_id(body["id"]):
        return "id: must be a text or a whole number"
    if "method" not in body and ("id" not in body or ("result" in body) == ("error" in body)):
        return "method: is missing"
    return None


def _malformed(message: str) -> Refusal:
    return Refusal("MALFORMED", "REQUEST_INVALID", message)


def _rewrite_search(result: Json, keep: Keep, *, certain: bool) -> Json | Refusal:
    """Filter what a search for tools found, as data and as text. ``certain`` is whether it is one for sure."""
    if not isinstance(result, dict):
        return _LIST_NOT_UNDERSTOOD if certain else result
    if is_refusal({"result": result}):
        return result
    structured, content = result.get("structuredContent"), result.get("content")
    if isinstance(structured, dict) and isinstance(structured.get("tools"), list):
        result = {**result, "structuredContent": {**structured, "tools": keep(TOOLS, structured["tools"])}}
    elif certain and (structured is not None or not content):
        return _LIST_NOT_UNDERSTOOD
    if not isinstance(content, list):
        return _LIST_NOT_UNDERSTOOD if certain and content is not None else result
    blocks = [_rewrite_block(block, keep, certain=certain) for block in content]
    if certain and None in blocks:
        return _LIST_NOT_UNDERSTOOD
    return {**result, "content": [old if new is None else new for old, new in zip(content, blocks, strict=True)]}


def _rewrite_block(block: Json, keep: Keep, *, certain: bool) -> dict[str, Json] | None:
    """Filter the tools in a text that is JSON; None for anything else. A list may be one of anything unless it is ``certain``."""
    if not isinstance(block, dict) or block.get("type") != "text" or not isinstance(block.get("text"), str):
        return None
    try:
        found: Any = json.loads(block["text"])
    except (ValueError, RecursionError):
        return None
    if isinstance(found, list) and certain:
        return {**block, "text": json.dumps(keep(TOOLS, found))}
    if isinstance(found, dict) and isinstance(found.get("tools"), list):
        return {**block, "text": json.dumps({**found, "tools": keep(TOOLS, found["tools"])})}
    return None
