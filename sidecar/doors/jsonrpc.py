"""Refusals as messages of JSON-RPC, which MCP is made of: what answers a request, and what tells of a refused notification."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sidecar.doors.verdicts import NUMBERS, Refusal

if TYPE_CHECKING:
    from sidecar.model import Json

_OK = 200
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")
"""What an escape in JSON can name, and no text in UTF-8 holds."""


def is_message_id(value: Json) -> bool:
    """Tell whether JSON-RPC answers to such an id: a text or a whole number."""
    if isinstance(value, str):
        return not _HALF_A_PAIR.search(value)
    return isinstance(value, int) and not isinstance(value, bool)


def refused_message(body: Json, refusal: Refusal) -> dict[str, Json]:
    """Refuse a message, or a batch whole."""
    if isinstance(body, list) and body:
        answers = [_answer(message, refusal) for message in body if not _is_notification(message)]
        if answers:
            return {"statusCode": _OK, "body": answers}
    elif not _is_notification(body):
        return {"statusCode": _OK, "body": _answer(body, refusal)}
    # Nothing answers a notification; one that is not accepted is told by the status, and an error without an id
    # (https://modelcontextprotocol.io/specification/2025-11-25/basic/transports).
    return {"statusCode": NUMBERS[refusal.kind].status, "body": {"jsonrpc": "2.0", "error": error(refusal)}}


def _is_notification(message: Json) -> bool:
    return isinstance(message, dict) and "method" in message and "id" not in message


def _answer(message: Json, refusal: Refusal) -> dict[str, Json]:
    fields = message if isinstance(message, dict) else {}
    message_id = fields.get("id")
    answer = {"jsonrpc": "2.0", "id": message_id if is_message_id(message_id) else None}
    if fields.get("method") == "tools/call" and answer["id"] is not None:
        return {**answer, "result": {"content": [{"type": "text", "text": refusal.text}], "isError": True}}
    return {**answer, "error": error(refusal)}


def error(refusal: Refusal) -> dict[str, Json]:
    """Write a refusal as an error of JSON-RPC."""
    return {"code": NUMBERS[refusal.kind].error, "message": refusal.text, "data": details(refusal)}


def details(refusal: Refusal) -> dict[str, str]:
    """Give what programs may want to know of a refusal."""
    return {"reason": refusal.reason, **({"decisionId": refusal.decision_id} if refusal.decision_id else {})}
