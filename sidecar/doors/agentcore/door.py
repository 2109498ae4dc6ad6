"""One event, one answer: read, ask, answer. Every failure on the way is a refusal, and nothing of an event is kept."""

from __future__ import annotations

import json
import traceback
from typing import TYPE_CHECKING, Any

import structlog

from sidecar.doors.agentcore import events, http, outputs
from sidecar.doors.agentcore.callers import Callers
from sidecar.doors.agentcore.events import HttpRequest, HttpResponse, McpRequest, McpResponse, NotUnderstood
from sidecar.doors.mcp import TOOLS, Listing, Mcp, is_refusal
from sidecar.doors.verdicts import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sidecar.doors.agentcore.authorizer import Authorizer
    from sidecar.doors.agentcore.events import Event
    from sidecar.doors.agentcore.outputs import Output
    from sidecar.doors.verdicts import Asked
    from sidecar.model import Json
    from sidecar.settings import AgentCoreSettings

log = structlog.get_logger("agentcore")

_ANSWER_UNKNOWN = Refusal("NO_DECISION", "ANSWER_UNKNOWN", "the target's answer is of a form that is not known")
_NOT_WRITTEN = Refusal(
    "MALFORMED", "REQUEST_INVALID", "the event holds a text or a number that JSON cannot carry, so it could not go on"
)
_UNEXPECTED = Refusal("NO_DECISION", "INTERNAL", "something went wrong in the interceptor; no decision was made")


class Door:
    """Answers the events of a gateway. ``tenant_headers`` are those that name a tenant, in lower case.

    Raises ``SettingsError`` if the settings let something pass that nobody else would ask about.
    """

    def __init__(self, settings: AgentCoreSettings, tenant_headers: Sequence[str], authorizer: Authorizer) -> None:
        self._mcp = Mcp(settings.tool_template, settings.methods)
        self._agent_template = settings.agent_template
        self._callers = Callers(tenant_headers, settings.tenant_header or next(iter(tenant_headers), None))
        self._authorizer = authorizer

    def answer(self, event: Json, context: Any = None) -> Output:
        """Answer one event, whatever it is. ``context`` is AWS Lambda's."""
        read = events.read(event)
        try:
            output = self._answer(read, context)
            if not isinstance(output, Refusal) and not _can_be_written(output):
                output = _NOT_WRITTEN
        except Exception as fault:  # noqa: BLE001 - whatever it is, the event must not pass
            # without its message, which may quote what the event holds
            at = "".join(traceback.format_tb(fault.__traceback__))
            log.error("unexpected", fault=type(fault).__name__, at=at)  # noqa: TRY400
            output = _UNEXPECTED
        if not isinstance(output, Refusal):
            return output
        log.info("refused", at=type(read).__name__, reason=output.reason, decision_id=output.decision_id)
        return outputs.refused(read, output)

    def _answer(self, event: Event, context: Any) -> Output | Refusal:
        match event:
            case McpRequest():
                return self._request(event, self._mcp.asked(event.body), context)
            case McpResponse():
                return self._mcp_response(event, context)
            case HttpRequest():
                return self._request(event, http.asked(event, self._agent_template), context)
            case HttpResponse():
                return outputs.response_passed(event)
            case NotUnderstood():
                return Refusal("MALFORMED", "EVENT_UNKNOWN", f"the event is none that is known: {event.fault}")

    def _request(
        self, event: McpRequest | HttpRequest, asked: Asked | Refusal | None, context: Any
    ) -> Output | Refusal:
        if isinstance(asked, Refusal):
            return asked
        if asked is None:
            return outputs.request_passed(event, self._callers.without_tenant(event.headers))
        caller = self._callers.caller(event.headers, context)
        verdict = caller if isinstance(caller, Refusal) else self._authorizer.call(caller, asked)
        if isinstance(verdict, Refusal):
            return verdict
        headers = self._callers.with_tenant(event.headers or {}, verdict)
        return headers if isinstance(headers, Refusal) else outputs.request_passed(event, headers)

    def _mcp_response(self, event: McpResponse, context: Any) -> Output | Refusal:
        body = event.body
        if isinstance(body, list):
            # a batch is refused at the request, and this is that refusal
            return outputs.response_passed(event, body) if all(map(is_refusal, body)) else _ANSWER_UNKNOWN
        if isinstance(body, dict) and "method" in body:
            refusal = _ANSWER_UNKNOWN if "result" in body else self._mcp.server_asks(body["method"])
            return refusal or outputs.response_passed(event, body)
        if isinstance(body, dict) and "result" in body:
            result = self._filtered(event, body["result"], context)
            return result if isinstance(result, Refusal) else outputs.response_passed(event, {**body, "result": result})
        return outputs.response_passed(event, body)

    def _filtered(self, event: McpResponse, result: Json, context: Any) -> Json | Refusal:
        """Leave out of a result what the caller may not use at all."""
        found: dict[Listing, list[Json]] = {}

        def collect(listing: Listing, entries: list[Json]) -> list[Json]:
            found.setdefault(listing, []).extend(entries)
            return entries

        whole = self._mcp.rewrite(event.request, result, collect)
        if isinstance(whole, Refusal):
            return whole
        if not any(found.values()):
            return result
        usable = self._usable(event, found, context)
        if isinstance(usable, Refusal):
            return usable

        def keep(listing: Listing, entries: list[Json]) -> list[Json]:
            return [
                entry
                for entry in entries
                if self._mcp.resource_id(listing, entry) in usable[listing] or self._mcp.passes(listing, entry)
            ]

        return self._mcp.rewrite(event.request, result, keep)

    def _usable(
        self, event: McpResponse, found: dict[Listing, list[Json]], context: Any
    ) -> dict[Listing, frozenset[str]] | Refusal:
        """Say which resources of the lists in a result the caller may use at all."""
        caller = self._callers.caller(event.headers, context)
        if isinstance(caller, Refusal):
            return caller
        usable: dict[Listing, frozenset[str]] = {}
        for listing, entries in found.items():
            names: dict[str, set[str]] = {}
            for entry in entries:
                resource_id = self._mcp.resource_id(listing, entry)
                if resource_id is not None:
                    names.setdefault(resource_id, set()).add(entry[listing.field])
            if listing is TOOLS:
                _warn_of_ambiguity(names)
            verdict = self._authorizer.filter(caller, listing.resource_type, listing.action, [*names])
            if isinstance(verdict, Refusal):
                return verdict
            usable[listing] = verdict
        return usable


def _can_be_written(output: Output) -> bool:
    """Tell whether AWS Lambda can hand an output on: it must be JSON, in UTF-8."""
    try:
        json.dumps(output, ensure_ascii=False, allow_nan=False).encode()
    except ValueError:
        return False
    return True


def _warn_of_ambiguity(names: dict[str, set[str]]) -> None:
    for resource_id, several in names.items():
        if len(several) > 1:
            log.warning(
                "ambiguous_tools",
                resource_id=resource_id,
                names=sorted(several),
                remedy="rules cannot tell them apart; put {target} into agentcore.tool_template",
            )
