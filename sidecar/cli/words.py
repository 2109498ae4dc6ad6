"""Messages in words, for people at a terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict
from rich.text import Text

from sidecar.gen.tenantgate.v1 import decision_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message

_PREFIXES = {
    "DecisionCode": "DECISION_CODE_",
    "Effect": "EFFECT_",
    "RuleVerdict": "RULE_VERDICT_",
    "ConditionResult": "CONDITION_RESULT_",
}


def words(enum: Any, value: int) -> str:
    """Give the word of an enum value, without its prefix."""
    name: str = enum.Name(value)
    return name.removeprefix(_PREFIXES[enum.DESCRIPTOR.name])


def effect_text(decision: pb.Decision) -> Text:
    """Give the effect in its colour."""
    allowed = decision.effect == pb.EFFECT_ALLOW
    return Text("ALLOW" if allowed else "DENY", style="bold green" if allowed else "bold red")


def show_value(value: Message) -> str:
    """Give a value as JSON, and whole numbers as whoever wrote them meant them."""
    return json.dumps(_plain(MessageToDict(value)), ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_plain(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def age(duration: Duration) -> str:
    """Give a duration in the unit that suits it."""
    seconds = duration.seconds + duration.nanos / 1e9
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"
